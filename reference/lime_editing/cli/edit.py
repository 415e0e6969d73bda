"""`edit`: show one edit before and after, or make and save the edits of a file. `edits`: list a file of edits."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from io import BufferedReader, BytesIO
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .. import checks, data, saving
from ..backbone import Backbone, fingerprint, load_tokenizer
from ..borders import explain
from ..core.editing import Editor, edit as edit_batch
from ..core.evaluation import predict, spell
from ..core.sampling import derived_rng
from ..core.sets import CHUNK, edit_all
from ..core.task import MASK, pair, request
from ..data import Dataset, Reader, files
from ..data.pairs.read import spelled
from ..data.pairs.task import class_numbers
from ..data.question import Asked, Prompt, Question
from ..editors import Merging
from ..errors import DataError, LanguageError, UserError
from ..names import TASKS, Rulings
from ..records import EditRequest, Input
from ..reproduce import processes, store
from ..reproduce.run import reader_of
from ..reproduce.scales import FIXTURES
from ..results import read_json, write_json
from ..updates import Update, compose
from .options import Edit, Edits, flag
from .output import console, doing, print_json
from .sources import given, refuse_unused, scale_of

UNRELATED, SHOWN = 200, 10  # unrelated inputs to predict; failures to print
REPORT = "edits.json"

Row = tuple[dict[str, Any], EditRequest]  # a row of a file, and its request
Facts = Mapping[tuple[str, str, str], Any]  # by relation, subject and language
Said = tuple[tuple[int, ...], tuple[int, ...], dict[str, str]]  # before, after, and both as text


def edit(options: Edit) -> None:
    if bool(options.file) != bool(options.save):
        raise UserError("--file has the edits, and --save is the folder for them; give both")
    _refuse_mixed(options)
    task = (options.task or "facts") if options.file else _task(options)
    if task not in TASKS:
        raise UserError(f"--task {task}: a file of edits is of {' or '.join(TASKS)}; edit data of your own from Python")
    refuse_unused(options, (task,))
    dataset = data.find(task)
    if options.edited_layers and options.checkpoint:
        raise UserError("--edited-layers: the checkpoint says which layers its editor edits; leave it out")
    scale = scale_of(options.scale, (), options.edited_layers)
    source, model, finished = given(options, scale, dataset)
    if not finished:
        raise UserError(f"{model} is not a classifier yet: give --raw-model, such as one that `make-classifier` makes")
    processes.quiet()
    with doing(console(stderr=True), f"reading {source} and {model}", at_once=False):
        tokenizer = load_tokenizer(model)
        cell, places = options.checkpoint, (options.results, FIXTURES / "editor")
        if cell is None and not options.edited_layers:
            cell = store.best(places, task, options.approach, model, tokenizer, options.language)
        asked_for = (options.language, scale.task(dataset), options.device)
        editor = store.choose(task, options.approach, cell, model, tokenizer, *asked_for)
        content, reader = dataset.read(source, options.languages), reader_of(tokenizer, editor.backbone)
    if options.file:
        _edit_file(options, dataset, content, editor, reader, model, str(cell or ""))
        return
    with doing(console(stderr=True), "reading", at_once=False):
        texts = (options.sentence,) if options.sentence is not None else (options.premise, options.hypothesis)
        to = named(content.classes, options.to or "") if dataset.classifies else options.to or ""
        asked = Asked(
            *(source, options.languages, options.language, to, options.fact or options.pair),
            *(tuple(text for text in texts if text is not None), options.look, options.unrelated),
        )
        assert dataset.question is not None
        question = dataset.question(content, reader, asked)
        for note in filter(None, (checks.unread(tokenizer, text) for text in (*asked.texts, *asked.looks))):
            print(f"note: {note}", file=sys.stderr)
        shown = show(editor, tokenizer, question, str(cell) if cell else None)
        if editor.parameters and options.approach is None:
            plain = store.choose(task, "finetuning", None, model, tokenizer, *asked_for)
            shown = replace(shown, contrast=show(plain, tokenizer, question).counts())
    print_json(shown.as_dict()) if options.json else write(console(), shown)


def _refuse_mixed(options: Edit) -> None:
    single = ("sentence", "fact", "pair", "premise", "hypothesis", "to", "look", "unrelated")
    unused = single if options.file else ("as_", "rank", "series", "skip_bad", "task")
    plain = {one.name: one.default for one in fields(options)}
    wrong = [name for name in unused if getattr(options, name) != plain[name]]
    if wrong:
        what = "the sentence" if wrong[0] == "sentence" else flag(wrong[0])
        raise UserError(f"{what} has no effect {'beside' if options.file else 'without'} --file; leave it out")
    if options.languages and options.language not in options.languages:
        raise UserError(f"--language {options.language} is not among --languages {','.join(options.languages)}; add it")
    if options.rank is not None and options.as_ != "lora":
        raise UserError("--rank is that of a LoRA adapter; give --as lora, or leave it out")


def _task(options: Edit) -> str:
    ways = [options.sentence, options.fact, options.pair, options.premise or options.hypothesis]
    half = (options.premise is None) != (options.hypothesis is None)
    if half or sum(way is not None for way in ways) != 1:
        raise UserError("say what to edit: a sentence, --fact, --pair, --premise and --hypothesis, or --file")
    if options.to is None:
        raise UserError("say the desired answer: --to")
    return "facts" if options.sentence is not None or options.fact is not None else "nli"


@dataclass(frozen=True, slots=True)
class Line:
    """The model's answers to one input. `desired`: whether the answer after the edit is y_e."""

    language: str
    text: str
    before: str
    after: str
    changed: bool
    desired: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """All output on one edit. `matrices` holds the norm of each ΔW relative to its matrix's."""

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
    contrast: Mapping[str, Any] | None = None  # the counts of finetuning, to compare with a trained editor's

    def counts(self) -> dict[str, Any]:
        told = {"approach": self.approach, "desired": sum(line.desired for line in self.parallel)}
        changed = sum(line.changed for line in self.unrelated)
        return {**told, "languages": len(self.parallel), "unrelated_changed": changed}

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), **self.counts()}


def show(editor: Editor, tokenizer: Any, question: Question, checkpoint: str | None = None) -> Shown:
    update = edit_batch(editor, [question.request])
    saving.check_one(update)
    backbone, labels = editor.backbone, question.request.labels

    def lines(prompts: Sequence[Prompt]) -> tuple[Line, ...]:
        said = answered(backbone, tokenizer, [prompt.input for prompt in prompts], update)
        both = zip(prompts, said, strict=True)
        return tuple(Line(p.language, p.text, **told, changed=a != b, desired=b == labels) for p, (a, b, told) in both)

    dense = update.dense(0, backbone.raw)
    sizes = {n: float(dense[n].detach().norm() / raw.norm()) for n, raw in backbone.raw.items() if n in dense}
    return Shown(
        *(editor.method.NAME, checkpoint, question.request.language, question.text, question.to),
        *(question.place, question.known, {name: size for name, size in sizes.items() if size > 0}),
        *(lines(question.parallel), lines(question.looks), lines(question.unrelated)),
    )


def write(console: Console, shown: Shown) -> None:
    console.print(Text.assemble((shown.text, "bold"), " → ", (shown.to, "bold green")))
    of = f"{shown.place} of the corpus, where the answer is {shown.known}" if shown.place else "not in the corpus"
    by = shown.approach if shown.checkpoint is None else f"{shown.approach}, {shown.checkpoint}"
    console.print(f"an edit in {shown.language} by {by}; the input is {of}\n", style="dim")
    table = Table("", "input", "before", "after", "", box=None, pad_edge=False)
    for line in shown.parallel:
        mark = Text("as desired", "green") if line.desired else Text("not as desired", "red")
        table.add_row(line.language, Text(line.text), Text(line.before), Text(line.after), mark)
    # Only unwanted changes are coloured.
    others = (("your inputs", shown.looks, ""), ("unrelated: nothing should change", shown.unrelated, "red"))
    for title, lines, style in others:
        for i, line in enumerate(lines):
            if i == 0:
                table.add_row()
                table.add_row("", Text(title, "italic"))
            said = "unchanged" if not line.changed else "changed, to the desired answer" if line.desired else "changed"
            quiet = "" if line.changed else "dim"
            cells = [Text(cell, quiet) for cell in (line.language, line.text, line.before, line.after)]
            table.add_row(*cells, Text(said, quiet or style))
    console.print(table)
    console.print(f"\n{_summary(shown)}")


def _summary(shown: Shown) -> str:
    sizes = [100 * size for size in shown.matrices.values()]
    parts = _counted(shown.counts(), len(shown.unrelated))
    if sizes:
        parts.append(f"{len(sizes)} matrices changed, by {min(sizes):.2g} to {max(sizes):.2g}% of their norm")
    else:
        parts.append("no matrix changed: the model gave this answer before")
    said = "; ".join(parts) + ". The raw model itself is unchanged."
    if shown.contrast is not None and len(shown.parallel) > 1:
        told = "; ".join(_counted(shown.contrast, len(shown.unrelated)))
        said += f"\nBy contrast, finetuning (--approach finetuning): {told[0].lower()}{told[1:]}."
    return said


def _counted(counts: Mapping[str, Any], unrelated: int) -> list[str]:
    languages, kept = counts["languages"], unrelated - counts["unrelated_changed"]
    parts = [f"As desired in {counts['desired']} of {languages} languages"] if languages > 1 else []
    return parts + ([f"{kept} of {unrelated} unrelated answers unchanged"] if unrelated else [])


# Many edits of a file


def answered(backbone: Backbone, tokenizer: Any, inputs: Sequence[Input], update: Update) -> list[Said]:
    pairs = zip(predict(backbone, inputs), predict(backbone, inputs, update), strict=True)
    return [(a, b, {"before": spell(backbone, tokenizer, a), "after": spell(backbone, tokenizer, b)}) for a, b in pairs]


def _edit_file(
    options: Edit, dataset: Dataset, content: Any, editor: Editor, reader: Reader, model: str, cell: str
) -> None:
    assert options.file is not None
    assert options.save is not None
    saving.check_free(options.save)
    by_name = (
        None
        if dataset.classifies
        else {(f.relation, key, f.language): f for f in content.facts for key in (f.sub_label.casefold(), f.sub_uri)}
    )
    out = console(stderr=options.json)
    rows, skipped = _read(options.file, options, editor, content, reader, by_name)
    requests, notes = [made for _, made in rows], [*_repeated(rows), *_unread(rows, reader.tokenizer)]
    if not editor.method.TRAINED and not editor.parameters:  # the editor has no masks, so any language is allowed
        editor = replace(editor, languages=tuple(dict.fromkeys(made.language for made in requests)))
    with doing(out, "editing") as say:
        update, apart = _edit(requests, editor, options, lambda done: say(f"{done:,} of {len(rows):,}"))
    saving.check_one(update)
    if by_name is not None:
        rows = _known(rows, content)
    test = dataset.tasks(content, reader, Rulings(), {})["test"]
    found: dict[str, Any] = {"skipped": skipped, "notes": notes, "as": options.as_}
    about = {"approach": editor.method.NAME, "checkpoint": cell, "model": model}
    # The answers are those of what is kept: a narrow dtype or rank may lose a part of the edits.
    if options.as_ == "model":
        update = saving.save_model(update, editor.backbone, model, options.save)
    elif options.as_ == "lora":
        update, found["lora_errors"] = saving.lora(update, editor.backbone, options.rank)
        saving.save_lora(update, editor.backbone, model, options.save, options.rank)
    else:
        about["model_fingerprint"] = fingerprint(editor.backbone, reader.tokenizer)
        told = tuple(_named(row) for row, _ in rows)
        saving.save_updates(options.save / saving.UPDATE, saving.Saved(tuple(apart or [update]), told, about))
    found |= _report(rows, editor, test, reader.tokenizer, update)
    write_json(options.save / REPORT, found | about)
    if options.json:
        print_json(found | about)
        return
    failed = [f"failed: {r['where']} {r['text']}: the answer is {r['after']}" for r in found["rows"] if not r["took"]]
    broken = [f"changed, though unrelated: {r['text']}: {r['before']} → {r['after']}" for r in found["changed"]]
    lines = [*_first(failed), *_first(broken), *_first([f"note: {note}" for note in notes])]
    lines += [f"skipped: {line}" for line in skipped]
    lines += [f"{name}: relative error {error:.2g}" for name, error in found.get("lora_errors", {}).items()]
    for line in lines:
        out.print(line)
    by = f"{editor.method.NAME}, {cell}" if cell else editor.method.NAME
    out.print(
        f"By {by}: {found['took']} of {found['edits']} edits succeeded ({found['right_before']} were right before); "
        f"{found['unrelated'] - len(found['changed'])} of {found['unrelated']} unrelated answers are unchanged; "
        f"{len(skipped)} rows were skipped. Kept as {options.as_} in {options.save}, with edits.json."
    )


def _repeated(rows: Sequence[Row]) -> list[str]:
    """Rows that are one edit, which is made several times, and rows with several answers to one input."""
    same = dict[Input, dict[tuple[int, ...], list[str]]]()
    for told, made in rows:
        line = told["where"].rpartition(":")[2]
        same.setdefault(made.input, {}).setdefault(made.labels, []).append(line)
    notes = list[str]()
    for answers in same.values():
        for lines in answers.values():
            if len(lines) > 1:
                notes.append(f"lines {', '.join(_first(lines))} are one edit, made {len(lines)} times; keep one")
        if len(answers) > 1:
            lines = [line for each in answers.values() for line in each]
            notes.append(f"lines {', '.join(_first(lines))} want different answers to one input; keep one")
    return notes


def _unread(rows: Sequence[Row], tokenizer: Any) -> Iterator[str]:
    for told, _ in rows:
        if note := checks.unread(tokenizer, told["text"]):
            yield f"line {told['where'].rpartition(':')[2]}: {note}"


def _first(lines: list[str]) -> list[str]:
    left = len(lines) - SHOWN
    return lines[:SHOWN] + [f"… and {left} more, which edits.json has"] * (left > 0)


def _edit(requests: Sequence[EditRequest], editor: Editor, options: Edit, progress: Any) -> tuple[Update, list[Update]]:
    """All edits as one update, and one update for each edit if a file of edits can hold them."""
    apart, size = list[Update](), 1 if options.series else CHUNK
    if not options.series and (options.as_ != "update" or isinstance(editor.method, Merging)):
        return edit_all(editor, requests, progress=progress), apart
    update = Update()
    for start in range(0, len(requests), size):
        progress(start)
        made = edit_batch(editor, requests[start : start + size], at=update if options.series and start else None)
        update = compose([update, made])
        apart += [] if options.as_ != "update" else [made[i] for i in range(made.edits)]
    return update, apart


def _read(
    path: Path, options: Edit, editor: Editor, content: Any, reader: Reader, facts: Facts | None
) -> tuple[list[Row], list[str]]:
    if not path.exists():
        raise DataError(f"{path}: no such file; expected a table of edits")
    if not path.is_file() or files.kind(path.name) not in files.TABLES:
        raise DataError(f"{path}: is no table of edits; expected a file that ends in {', '.join(files.TABLES)}")
    rows, skipped = list[Row](), list[str]()
    longest, bound = editor.backbone.max_tokens, editor.method.TRAINED or editor.parameters
    with files.opened(path) as table:
        for line, row in _lines(table, path.name):
            where = f"{path}:{line}"
            try:
                if isinstance(row, DataError):
                    raise row
                filled = {name: value for name, value in row.items() if value is not None}
                told, made = _row({"language": options.language, **filled}, where, content, reader, facts)
                if bound and made.language not in editor.languages:
                    raise LanguageError(made.language, editor.languages, "to this editor")
                if len(made.input.ids) > longest:
                    raise UserError(f"has more than the {longest} tokens that the model reads; shorten it")
                rows.append(({"where": where, **told}, made))
            except UserError as error:
                said = str(error) if str(error).startswith(where) else f"{where}: {error}"
                if not options.skip_bad:
                    raise DataError(f"{said} (--skip-bad leaves such rows out)") from error
                skipped.append(said)
    if not rows:
        none = "it has no rows (the first line of a .csv or .tsv has the columns' names)"
        raise DataError(f"{path}: no row can be edited; {skipped[0] if skipped else none}")
    return rows, skipped


def named(classes: Sequence[str], to: str) -> str:
    """A class as the data spell it, whatever its letters' case or XNLI's other spellings."""
    meant = str(spelled(to.strip())).casefold()
    return next((name for name in classes if str(spelled(name)).casefold() == meant), to)


def _lines(table: files.Files, name: str) -> Iterator[tuple[int, dict[str, Any] | DataError]]:
    """(line, row) of a table, as `files.rows`; an unreadable row is its error, and reading continues after it."""
    kind, where, plain = files.kind(name), table.where(name), name[:-3] if name.lower().endswith(".gz") else name
    if kind == ".parquet":
        yield from files.rows(table, name)
        return
    with files.text(table, name, raw=True) as stream:
        lines = stream.read().splitlines(keepends=True)
    held = files.Files(table.root, {plain: lambda: BufferedReader(BytesIO(b"".join(lines)))})
    header = 0 if kind == ".jsonl" else next((i for i, line in enumerate(lines, 1) if line.strip()), 0)
    torn, done = dict[int, str](), header
    for i in range(header, len(lines)):
        try:
            lines[i].decode()
        except UnicodeDecodeError as error:
            torn[i + 1], lines[i] = f"is {explain(error)}", lines[i].decode(errors="replace").encode()
    while True:
        try:
            for line, row in files.rows(held, plain):
                bad = next((i for i in range(done + 1, line + 1) if i in torn), None)
                if line > done:
                    yield (line, row) if bad is None else (bad, DataError(f"{where}:{bad}: {torn[bad]}"))
                    done = line
            return
        except DataError as error:
            found = re.match(rf"{re.escape(held.where(plain))}:(\d+): ", str(error))
            if found is None or int(found[1]) <= done:
                raise  # the whole table is unreadable
            last, start = int(found[1]), header
            if kind == ".tsv":  # all rows decide how it is quoted, so the others stay
                start = last - 1
            elif isinstance(error.__cause__, csv.Error):  # an open quote takes all later lines; skip only its own
                last = next(i for i in range(done + 1, last + 1) if lines[i - 1].strip())
            yield last, DataError(f"{where}:{last}: {torn.pop(last, str(error)[found.end() :])}")
            lines[start:last], done = [b"\n"] * (last - start), done if kind == ".tsv" else last


def _row(row: Mapping[str, Any], where: str, content: Any, reader: Reader, facts: Facts | None) -> Row:
    ways = [("premise", "hypothesis")] if facts is None else [("prompt",), ("relation", "subject")]
    names = next((way for way in ways if all(name in row for name in way)), None)
    if names is None:
        raise UserError(f"has neither {' nor '.join(' and '.join(way) for way in ways)}; a row needs them, and to")
    others = [name for way in ways if way != names for name in way if name in row]
    if others:
        both = f"has {' and '.join(names)} and also {' and '.join(others)}"
        raise UserError(f"{both}, which may mean another edit; keep one of the two")
    files.texts(row, ("language", "to", *names), where)
    told: dict[str, Any] = {"language": row["language"], "to": row["to"], "fact": None}
    if facts is None:
        classes = class_numbers(content, reader.classes or {})
        numbers = dict(zip(content.classes, classes, strict=True))
        told["to"] = named(content.classes, row["to"])
        if told["to"] not in numbers:
            raise UserError(f"field 'to': unknown class {row['to']!r}; the classes are {', '.join(numbers)}")
        asked = pair(reader.tokenizer, row["premise"], row["hypothesis"], reader.longest)
        told["text"] = f"{row['premise']} | {row['hypothesis']}"
        return told, EditRequest(asked, (numbers[told["to"]],), row["language"])
    if names == ("prompt",):
        told["text"] = row["prompt"]
    else:
        place = (row["relation"], row["subject"], row["language"])
        fact = facts.get(place) or facts.get((place[0], place[1].casefold(), place[2]))
        if fact is None:
            raise UserError(f"the corpus has no {place[0]}/{place[1]} in {place[2]!r}; give the sentence as a prompt")
        template = content.templates[fact.language, fact.relation]
        told |= {"text": template.replace("[Y]", MASK).replace("[X]", fact.sub_label)}
        told |= {"fact": f"{fact.relation}/{fact.sub_uri}"}
    return told, request(reader.tokenizer, told["text"], row["to"], row["language"])


def _known(rows: list[Row], content: Any) -> list[Row]:
    prompts = {(told["language"], told["text"]) for told, _ in rows if told["fact"] is None}
    places = {
        (fact.language, text): f"{fact.relation}/{fact.sub_uri}"
        for fact in (content.facts if prompts else ())
        if (fact.language, text := content.text(fact, MASK)) in prompts
    }
    return [({**t, "fact": t["fact"] or places.get((t["language"], t["text"]))}, made) for t, made in rows]


def _report(rows: Sequence[Row], editor: Editor, task: Any, tokenizer: Any, update: Update) -> dict[str, Any]:
    edited = {told["fact"] for told, _ in rows}
    others, rng = [x for x in task.corpus.examples if x.fact not in edited], derived_rng(0, "broken")
    unrelated = [task.retain_input(others[i], rng) for i in rng.permutation(len(others))[:UNRELATED]]
    about, kept = (
        answered(editor.backbone, tokenizer, inputs, update) for inputs in ([made.input for _, made in rows], unrelated)
    )
    asked = [
        {**told, **said, "took": b == made.labels, "right_before": a == made.labels}
        for (told, made), (a, b, said) in zip(rows, about, strict=True)
    ]
    both = zip(unrelated, kept, strict=True)
    changed = [{"text": _text(tokenizer, i.ids), **said} for i, (a, b, said) in both if a != b]
    return {**_counts(asked), "unrelated": len(unrelated), "rows": asked, "changed": changed}


def _counts(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    return {"edits": len(rows), **{name: sum(row[name] for row in rows) for name in ("took", "right_before")}}


def _named(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in ("where", "language", "text", "to")}


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    """An input as text: without the tokens around it, a pair with `|` between its sentences."""
    ends = {getattr(tokenizer, f"{name}_token_id", None) for name in ("cls", "sep", "bos", "eos", "pad")}
    parts = (list(part) for around, part in groupby(ids, lambda token: token in ends) if not around)
    return " | ".join(str(tokenizer.decode(part)) for part in parts)


def edits(options: Edits) -> None:
    path = options.path / saving.UPDATE if options.path.is_dir() else options.path
    saved = saving.load_updates(path)
    report = path.with_name(REPORT)
    told = _reported(report, saved) if path.name == saving.UPDATE and report.exists() else None
    if options.drop:
        saved = saving.drop(saved, options.drop)
        saving.save_updates(path, saved)
        if told is not None:
            rows = [row for i, row in enumerate(told["rows"], 1) if i not in options.drop]
            gone = [_named(row) for i, row in enumerate(told["rows"], 1) if i in options.drop]
            write_json(report, told | _counts(rows) | {"rows": rows, "dropped": [*told.get("dropped", ()), *gone]})
    if options.json:
        print_json({"about": saved.about, "edits": saved.requests})
        return
    if not saved.requests:
        print("no edits: all were dropped", file=sys.stderr)
    for number, one in enumerate(saved.requests, 1):
        print("\t".join((str(number), *(str(one.get(key, "")) for key in ("language", "text", "to")))))


def _reported(report: Path, saved: saving.Saved) -> dict[str, Any]:
    told = read_json(report)
    with suppress(TypeError, KeyError, AttributeError):  # not of its form
        rows = told["rows"]
        if told | _counts(rows) | saved.about == told and [_named(row) for row in rows] == list(saved.requests):
            return dict(told)
    both = f"the {len(saved.requests)} edits of {saving.UPDATE} beside it; restore both"
    raise UserError(f"{report}: does not list {both}, or remove it: the edits are in {saving.UPDATE}")
