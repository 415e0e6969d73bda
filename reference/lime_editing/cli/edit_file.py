"""`edit --file`: many edits, kept as a model, an adapter or a file of edits; and `edits`, which lists such a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from .. import saving
from ..backbone import fingerprint
from ..core.editing import Editor, edit as edit_batch
from ..core.evaluation import predict, spell
from ..core.sampling import derived_rng
from ..core.sets import CHUNK, edit_all
from ..core.task import MASK, pair, request
from ..data import Dataset, Reader, files
from ..data.pairs.task import class_numbers
from ..editors import Merging
from ..errors import DataError, LanguageError, UserError
from ..names import Rulings
from ..records import EditRequest, Input
from ..results import write_json
from ..updates import Update, compose
from .options import Edit, Edits
from .output import doing, print_json

UNRELATED, SHOWN = 200, 10  # unrelated inputs that are asked; lines of those that failed


@dataclass(frozen=True, slots=True)
class Corpus:
    """What rows are read against: the data, what the model reads with, and facts by relation, subject and language."""

    dataset: Dataset
    content: Any
    reader: Reader
    facts: Mapping[tuple[str, str, str], Any]


def edit_file(
    options: Edit, dataset: Dataset, content: Any, editor: Editor, reader: Reader, model: str, console: Console
) -> None:
    """Read the file, edit, keep, and report what took and what broke. UserError: as its parts."""
    assert options.file is not None
    assert options.save is not None
    saving.check_free(options.save)
    facts = () if dataset.classifies else content.facts
    known = {(f.relation, key, f.language): f for f in facts for key in (f.sub_label.casefold(), f.sub_uri)}
    corpus = Corpus(dataset, content, reader, known)
    rows, skipped = read(options.file, options, corpus, editor)
    if not editor.method.TRAINED and not editor.parameters:  # no language has a part in it
        editor = replace(editor, languages=tuple(dict.fromkeys(made.language for _, made in rows)))
    with doing(console, "editing") as say:
        told = lambda done: say(f"{done:,} of {len(rows):,}")  # noqa: E731
        update, apart = _edit([made for _, made in rows], editor, options, told)
    found = report(rows, editor, corpus, update) | {"skipped": skipped, "as": options.as_}
    about = {"approach": editor.method.NAME, "checkpoint": str(options.checkpoint or ""), "model": str(model)}
    if options.as_ == "model":
        saving.save_model(update, editor.backbone, model, options.save)
    elif options.as_ == "lora":
        found["lora_errors"] = saving.save_lora(update, editor.backbone, model, options.save, options.rank)
    else:
        about["model_fingerprint"] = fingerprint(editor.backbone, reader.tokenizer)
        told_rows = tuple({key: row[key] for key in ("where", "language", "text", "to")} for row in found["rows"])
        saving.save_updates(options.save / saving.UPDATE, saving.Saved(tuple(apart or [update]), told_rows, about))
    write_json(options.save / "edits.json", found | about)
    if options.json:
        print_json(found | about)
    else:
        write(console, found, options.save)


def _edit(requests: Sequence[EditRequest], editor: Editor, options: Edit, progress: Any) -> tuple[Update, list[Update]]:
    """All edits as one, and each apart where a file of edits can hold them so."""
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


def read(
    path: Path, options: Edit, corpus: Corpus, editor: Editor
) -> tuple[list[tuple[dict[str, Any], EditRequest]], list[str]]:
    """Each row with its request, and what is wrong with those that are skipped. DataError: another wrong row."""
    if not path.is_file() or files.kind(path.name) not in files.TABLES:
        raise DataError(f"{path}: is no table of edits; expected a file that ends in {', '.join(files.TABLES)}")
    rows, skipped = list[tuple[dict[str, Any], EditRequest]](), list[str]()
    for line, row in _lines(path):
        where = f"{path}:{line}"
        try:
            told, made = _row({"language": options.language, **row}, where, corpus)
            if (editor.method.TRAINED or editor.parameters) and made.language not in editor.languages:
                raise LanguageError(made.language, editor.languages, "to this editor")
            if len(made.input.ids) > editor.backbone.max_tokens:
                raise UserError(
                    f"has more than the {editor.backbone.max_tokens} tokens that the model reads; shorten it"
                )
            rows.append(({"where": where, **told}, made))
        except UserError as error:
            said = str(error) if str(error).startswith(where) else f"{where}: {error}"
            if not options.skip_bad:
                raise DataError(f"{said} (--skip-bad leaves such rows out)") from error
            skipped.append(said)
    if not rows:
        raise DataError(f"{path}: no row can be edited; {skipped[0] if skipped else 'it is empty'}")
    return rows, skipped


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with files.opened(path) as table:
        yield from files.rows(table, path.name)


def _row(row: Mapping[str, Any], where: str, corpus: Corpus) -> tuple[dict[str, Any], EditRequest]:
    """What a row says, and its request. UserError: what is wrong with it."""
    pairs = corpus.dataset.classifies
    ways = [("premise", "hypothesis")] if pairs else [("prompt",), ("relation", "subject")]
    names = next((way for way in ways if all(name in row for name in way)), None)
    if names is None:
        raise UserError(f"has neither {' nor '.join(' and '.join(way) for way in ways)}; a row needs them, and to")
    files.texts(row, ("language", "to", *names), where)
    told: dict[str, Any] = {"language": row["language"], "to": row["to"], "fact": None}
    if pairs:
        numbers = dict(
            zip(corpus.content.classes, class_numbers(corpus.content, corpus.reader.classes or {}), strict=True)
        )
        if row["to"] not in numbers:
            raise UserError(f"field 'to': unknown class {row['to']!r}; the classes are {', '.join(numbers)}")
        asked = pair(corpus.reader.tokenizer, row["premise"], row["hypothesis"], corpus.reader.longest)
        told["text"] = f"{row['premise']} | {row['hypothesis']}"
        return told, EditRequest(asked, (numbers[row["to"]],), row["language"])
    if names == ("prompt",):
        told["text"] = row["prompt"]
    else:
        place = (row["relation"], row["subject"], row["language"])
        fact = corpus.facts.get(place) or corpus.facts.get((place[0], place[1].casefold(), place[2]))
        if fact is None:
            raise UserError(f"the corpus has no {place[0]}/{place[1]} in {place[2]!r}; give the sentence as a prompt")
        template = corpus.content.templates[fact.language, fact.relation]
        told |= {"text": template.replace("[Y]", MASK).replace("[X]", fact.sub_label)}
        told |= {"fact": f"{fact.relation}/{fact.sub_uri}"}
    return told, request(corpus.reader.tokenizer, told["text"], row["to"], row["language"])


def report(
    rows: Sequence[tuple[dict[str, Any], EditRequest]], editor: Editor, corpus: Corpus, update: Update
) -> dict[str, Any]:
    """What took, on the edited inputs, and what broke, on inputs of the corpus that no edit is about."""
    backbone, tokenizer, edited = editor.backbone, corpus.reader.tokenizer, {told["fact"] for told, _ in rows}
    task = corpus.dataset.tasks(corpus.content, corpus.reader, Rulings(), {})["test"]
    others, rng = [x for x in task.corpus.examples if x.fact not in edited], derived_rng(0, "broken")
    unrelated = [task.retain_input(others[i], rng) for i in rng.permutation(len(others))[:UNRELATED]]

    def answered(inputs: Sequence[Input]) -> list[tuple[tuple[int, ...], tuple[int, ...], dict[str, str]]]:
        pairs = zip(predict(backbone, inputs), predict(backbone, inputs, update), strict=True)
        said = [(a, b, spell(backbone, tokenizer, a), spell(backbone, tokenizer, b)) for a, b in pairs]
        return [(a, b, {"before": before, "after": after}) for a, b, before, after in said]

    asked = [
        {**told, **said, "took": b == made.labels, "right_before": a == made.labels}
        for (told, made), (a, b, said) in zip(rows, answered([made.input for _, made in rows]), strict=True)
    ]
    kept = zip(unrelated, answered(unrelated), strict=True)
    changed = [{"text": str(tokenizer.decode(list(i.ids))), **said} for i, (a, b, said) in kept if a != b]
    counts = {"edits": len(rows), "took": sum(row["took"] for row in asked)}
    counts |= {"right_before": sum(row["right_before"] for row in asked)}
    return counts | {"unrelated": len(unrelated), "rows": asked, "changed": changed}


def write(console: Console, found: Mapping[str, Any], folder: Path) -> None:
    """The report for a person."""
    lines = [f"did not take: {r['where']} {r['text']} → {r['after']}" for r in found["rows"] if not r["took"]][:SHOWN]
    lines += [f"broken: {r['text']}: {r['before']} → {r['after']}" for r in found["changed"]][:SHOWN]
    lines += [f"skipped: {line}" for line in found["skipped"]]
    lines += [f"{name}: relative error {error:.2g}" for name, error in found.get("lora_errors", {}).items()]
    for line in lines:
        console.print(line, highlight=False, markup=False)
    console.print(
        f"{found['took']} of {found['edits']} edits took ({found['right_before']} were right before); "
        f"{found['unrelated'] - len(found['changed'])} of {found['unrelated']} unrelated answers are unchanged; "
        f"{len(found['skipped'])} rows were skipped. Kept as {found['as']} in {folder}, with edits.json.",
        highlight=False,
        markup=False,
    )


def edits(options: Edits) -> None:
    """The command: list a file's edits, or write it again without some. UserError: as its parts."""
    saved = saving.load_updates(options.path)
    if options.drop:
        saved = saving.drop(saved, options.drop)
        saving.save_updates(options.path, saved)
    if options.json:
        print_json({"about": saved.about, "edits": saved.requests})
        return
    for number, one in enumerate(saved.requests, 1):
        print("\t".join((str(number), *(str(one.get(key, "")) for key in ("language", "text", "to")))))
