"""`edit`: change one answer, and show it before and after, in every language and where nothing may change."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .. import data
from ..core.backbone import Backbone, load_tokenizer
from ..core.editing import Editor
from ..core.editing import edit as edit_batch
from ..core.evaluation import predict, spell
from ..core.updates import Update
from ..data.question import Asked, Prompt, Question
from ..errors import UserError
from ..reproduce import checkpoints, processes
from ..reproduce.run import reader_of
from .edit_file import edit_file
from .options import Edit
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
    console = Console(width=None if sys.stdout.isatty() else 120, stderr=options.json)
    with console.status(f"reading {source} and {model}"):
        tokenizer = load_tokenizer(model)
        editor = checkpoints.choose(
            *(task, options.approach, options.checkpoint, model, tokenizer),
            *(options.language, scale.task(dataset), options.device),
        )
        content, reader = dataset.read(source, options.languages), reader_of(tokenizer, editor.backbone)
    if options.file:
        edit_file(options, dataset, content, editor, reader, model, console)
        return
    with console.status("reading"):
        texts = [options.sentence] if options.sentence is not None else [options.premise, options.hypothesis]
        asked = Asked(
            *(source, options.languages, options.language, options.to or "", options.fact or options.pair),
            *(tuple(text for text in texts if text is not None), options.look, options.unrelated),
        )
        assert dataset.question is not None
        question = dataset.question(content, reader, asked)
    shown = show(editor, tokenizer, question, str(options.checkpoint) if options.checkpoint else None)
    if options.json:
        print(json.dumps(shown.as_dict(), indent=2, ensure_ascii=False))
    else:
        write(console, shown)


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

    def as_dict(self) -> dict[str, Any]:
        """For a program; the last three are counts."""
        return {
            **asdict(self),
            "desired": sum(line.desired for line in self.parallel),
            "languages": len(self.parallel),
            "unrelated_changed": sum(line.changed for line in self.unrelated),
        }


def show(editor: Editor, tokenizer: Any, question: Question, checkpoint: str | None = None) -> Shown:
    """Edit, and ask the model before and after."""
    update = edit_batch(editor, [question.request])
    backbone, labels = editor.backbone, question.request.labels

    def lines(asked: Sequence[Prompt]) -> tuple[Line, ...]:
        inputs = [prompt.input for prompt in asked]
        both = zip(predict(backbone, inputs), predict(backbone, inputs, update), strict=True)
        return tuple(
            Line(
                *(prompt.language, prompt.text),
                *(spell(backbone, tokenizer, before), spell(backbone, tokenizer, after)),
                *(before != after, after == labels),
            )
            for prompt, (before, after) in zip(asked, both, strict=True)
        )

    return Shown(
        *(editor.method.NAME, checkpoint, question.request.language, question.text, question.to),
        *(question.place, question.known, _sizes(backbone, update)),
        *(lines(question.parallel), lines(question.looks), lines(question.unrelated)),
    )


def _sizes(backbone: Backbone, update: Update) -> dict[str, float]:
    dense = update.dense(0, backbone.raw)
    sizes = {
        name: float(dense[name].detach().norm() / raw.norm()) for name, raw in backbone.raw.items() if name in dense
    }
    return {name: size for name, size in sizes.items() if size > 0}


def write(console: Console, shown: Shown) -> None:
    """The table for a person."""
    console.print(Text.assemble((shown.text, "bold"), " → ", (shown.to, "bold green")))
    of = f"{shown.place} of the corpus, where the answer is {shown.known}" if shown.place else "not in the corpus"
    by = shown.approach if shown.checkpoint is None else f"{shown.approach}, {shown.checkpoint}"
    console.print(
        f"an edit in {shown.language} by {by}; the input is {of}\n", style="dim", markup=False, highlight=False
    )
    table = Table("", "input", "before", "after", "", box=None, pad_edge=False)
    for line in shown.parallel:
        mark = Text("as desired", "green") if line.desired else Text("not as desired", "red")
        table.add_row(line.language, Text(line.text), Text(line.before), Text(line.after), mark)
    _add(table, "your inputs", shown.looks, wanted=True)
    _add(table, "unrelated: nothing should change", shown.unrelated, wanted=False)
    console.print(table)
    console.print(f"\n{_summary(shown)}", markup=False, highlight=False)


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
    desired = sum(line.desired for line in shown.parallel)
    changed = sum(line.changed for line in shown.unrelated)
    parts = [f"As desired in {desired} of {len(shown.parallel)} languages"] if len(shown.parallel) > 1 else []
    if shown.unrelated:
        parts.append(f"{len(shown.unrelated) - changed} of {len(shown.unrelated)} unrelated answers unchanged")
    sizes = shown.matrices.values()
    parts.append(
        f"{len(shown.matrices)} matrices changed, by {100 * min(sizes):.2g} to {100 * max(sizes):.2g}% of their norm"
        if shown.matrices
        else "no matrix changed: the model answered so before"
    )
    return "; ".join(parts) + ". The raw model itself is as it was."
