"""`edit`: change one answer, and show it before and after, in every language and where nothing may change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .. import data
from ..core.backbone import load_tokenizer
from ..core.editing import Editor, edit as edit_batch
from ..data.question import Asked, Prompt, Question
from ..errors import UserError
from ..reproduce import checkpoints, processes
from ..reproduce.run import reader_of
from ..reproduce.scales import FIXTURES
from .edit_file import answered, edit_file
from .options import Edit
from .output import console, doing, print_json
from .sources import given, refuse_unused, scale_of


def edit(options: Edit) -> None:
    """The command. UserError: as its parts."""
    if bool(options.file) != bool(options.save):
        raise UserError("--file has the edits and --save says where they are kept; give both")
    task = (options.task or "facts") if options.file else _task(options)
    refuse_unused(options, (task,))
    dataset = data.find(task)
    if options.edited_layers and options.checkpoint:
        raise UserError("--edited-layers: the checkpoint says which layers its editor edits; leave it out")
    scale = scale_of(options.scale, (), options.edited_layers)
    source, model, finished = given(options, scale, dataset)
    if not finished:
        raise UserError(
            f"{model} is to be a classifier first: give --raw-model, such as the folder runs/…/classifier-… that "
            f"`make-classifier --model {model}` makes"
        )
    processes.quiet()
    with doing(console(stderr=True), f"reading {source} and {model}", at_once=False):
        tokenizer = load_tokenizer(model)
        cell, places = options.checkpoint, (options.results, FIXTURES / "editor")
        if cell is None and not options.edited_layers:
            cell = checkpoints.best(places, task, options.approach, model, tokenizer, options.language)
        asked_for = (options.language, scale.task(dataset), options.device)
        editor = checkpoints.choose(task, options.approach, cell, model, tokenizer, *asked_for)
        content, reader = dataset.read(source, options.languages), reader_of(tokenizer, editor.backbone)
    if options.file:
        edit_file(options, dataset, content, editor, reader, model)
        return
    with doing(console(stderr=True), "reading", at_once=False):
        texts = [options.sentence] if options.sentence is not None else [options.premise, options.hypothesis]
        asked = Asked(
            *(source, options.languages, options.language, options.to or "", options.fact or options.pair),
            *(tuple(text for text in texts if text is not None), options.look, options.unrelated),
        )
        assert dataset.question is not None
        question = dataset.question(content, reader, asked)
        shown = show(editor, tokenizer, question, str(cell) if cell else None)
        if editor.parameters and options.approach is None:
            plain = checkpoints.choose(task, "finetuning", None, model, tokenizer, *asked_for)
            shown = replace(shown, contrast=show(plain, tokenizer, question).counts())
    print_json(shown.as_dict()) if options.json else write(console(), shown)


def _task(options: Edit) -> str:
    """The task of the one input that is named. UserError: none, or several."""
    ways = [options.sentence, options.fact, options.pair, options.premise or options.hypothesis]
    half = (options.premise is None) != (options.hypothesis is None)
    if half or sum(way is not None for way in ways) != 1:
        raise UserError(
            "say what to edit: a sentence with [MASK], --fact, --pair, --premise and --hypothesis, or --file"
        )
    if options.to is None:
        raise UserError("say the desired answer: --to")
    return "facts" if options.sentence is not None or options.fact is not None else "nli"


@dataclass(frozen=True, slots=True)
class Line:
    """What the model says to one input; `desired`: whether it says y_e after the edit."""

    language: str
    text: str
    before: str
    after: str
    changed: bool
    desired: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """All that is shown of one edit; `matrices` has the norm of each ΔW as a share of its matrix's."""

    approach: str
    checkpoint: str | None
    language: str
    text: str
    to: str
    place: str | None
    known: str | None
    matrices: Mapping[str, float]
    parallel: tuple[Line, ...]
    looks: tuple[Line, ...]
    unrelated: tuple[Line, ...]
    contrast: Mapping[str, Any] | None = None  # the counts of finetuning, beside a trained editor's

    def counts(self) -> dict[str, Any]:
        told = {"approach": self.approach, "desired": sum(line.desired for line in self.parallel)}
        changed = sum(line.changed for line in self.unrelated)
        return {**told, "languages": len(self.parallel), "unrelated_changed": changed}

    def as_dict(self) -> dict[str, Any]:
        """For a program."""
        return {**asdict(self), **self.counts()}


def show(editor: Editor, tokenizer: Any, question: Question, checkpoint: str | None = None) -> Shown:
    """Edit, and ask the model before and after."""
    update = edit_batch(editor, [question.request])
    backbone, labels = editor.backbone, question.request.labels

    def lines(prompts: Sequence[Prompt]) -> tuple[Line, ...]:
        said = answered(backbone, tokenizer, [prompt.input for prompt in prompts], update)
        both = zip(prompts, said, strict=True)
        return tuple(Line(p.language, p.text, **told, changed=a != b, desired=b == labels) for p, (a, b, told) in both)

    dense = update.dense(0, backbone.raw)
    sizes = {name: float(d.detach().norm() / backbone.raw[name].norm()) for name, d in dense.items()}
    return Shown(
        *(editor.method.NAME, checkpoint, question.request.language, question.text, question.to),
        *(question.place, question.known, {name: size for name, size in sizes.items() if size > 0}),
        *(lines(question.parallel), lines(question.looks), lines(question.unrelated)),
    )


def write(console: Console, shown: Shown) -> None:
    """The table for a person."""
    console.print(Text.assemble((shown.text, "bold"), " → ", (shown.to, "bold green")))
    of = f"{shown.place} of the corpus, where the answer is {shown.known}" if shown.place else "not in the corpus"
    by = shown.approach if shown.checkpoint is None else f"{shown.approach}, {shown.checkpoint}"
    console.print(f"an edit in {shown.language} by {by}; the input is {of}\n", style="dim")
    table = Table("", "input", "before", "after", "", box=None, pad_edge=False)
    for line in shown.parallel:
        mark = Text("as desired", "green") if line.desired else Text("not as desired", "red")
        table.add_row(line.language, Text(line.text), Text(line.before), Text(line.after), mark)
    _add(table, "your inputs", shown.looks, wanted=True)
    _add(table, "unrelated: nothing should change", shown.unrelated, wanted=False)
    console.print(table)
    console.print(f"\n{_summary(shown)}")


def _add(table: Table, title: str, lines: Sequence[Line], wanted: bool) -> None:
    """Quiet where nothing changed; a change that was not `wanted` stands out."""
    if lines:
        table.add_row()
        table.add_row("", Text(title, "italic"))
    for line in lines:
        mark = "unchanged" if not line.changed else "changed, to the desired answer" if line.desired else "changed"
        quiet = "" if line.changed else "dim"
        cells = [Text(cell, quiet) for cell in (line.language, line.text, line.before, line.after)]
        table.add_row(*cells, Text(mark, quiet or ("" if wanted else "red")))


def _summary(shown: Shown) -> str:
    sizes, parts = shown.matrices.values(), _counted(shown.counts(), len(shown.unrelated))
    parts.append(
        f"{len(shown.matrices)} matrices changed, by {100 * min(sizes):.2g} to {100 * max(sizes):.2g}% of their norm"
        if shown.matrices
        else "no matrix changed: the model answered so before"
    )
    other = ""
    if shown.contrast is not None and len(shown.parallel) > 1:
        told = "; ".join(_counted(shown.contrast, len(shown.unrelated)))
        other = f"\nBy contrast, finetuning (--approach finetuning): {told[0].lower()}{told[1:]}."
    return "; ".join(parts) + f". The raw model itself is as it was.{other}"


def _counted(counts: Mapping[str, Any], unrelated: int) -> list[str]:
    languages = counts["languages"]
    parts = [f"As desired in {counts['desired']} of {languages} languages"] if languages > 1 else []
    kept = unrelated - counts["unrelated_changed"]
    return parts + ([f"{kept} of {unrelated} unrelated answers unchanged"] if unrelated else [])
