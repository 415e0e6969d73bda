"""`edit --file`: many edits, kept as a model, an adapter or a file of edits; and `edits`, which lists such a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import saving
from ..core.backbone import Backbone, fingerprint
from ..core.editing import Editor, edit as edit_batch
from ..core.editors import Merging
from ..core.evaluation import predict, spell
from ..core.records import EditRequest, Input
from ..core.sampling import derived_rng
from ..core.sets import CHUNK, edit_all
from ..core.task import MASK, pair, request
from ..core.updates import Update, compose
from ..data import Dataset, Reader, files
from ..data.pairs.task import class_numbers
from ..errors import DataError, LanguageError, UserError
from ..names import Rulings
from ..results import write_json
from .options import Edit, Edits
from .output import console, doing, print_json

UNRELATED, SHOWN = 200, 10  # unrelated inputs that are asked; lines of those that failed


@dataclass(frozen=True, slots=True)
class Corpus:
    """What rows are read against: the data, what the model reads with, and facts by relation, subject and language."""

    dataset: Dataset
    content: Any
    reader: Reader
    facts: Mapping[tuple[str, str, str], Any]


Row = tuple[dict[str, Any], EditRequest]  # what a row says, and its request
Said = tuple[tuple[int, ...], tuple[int, ...], dict[str, str]]  # before, after, and both as text


def answered(backbone: Backbone, tokenizer: Any, inputs: Sequence[Input], update: Update) -> list[Said]:
    """What the model says to inputs before and after an edit."""
    pairs = zip(predict(backbone, inputs), predict(backbone, inputs, update), strict=True)
    return [(a, b, {"before": spell(backbone, tokenizer, a), "after": spell(backbone, tokenizer, b)}) for a, b in pairs]


def edit_file(options: Edit, dataset: Dataset, content: Any, editor: Editor, reader: Reader, model: str) -> None:
    """Read the file, edit, keep, and report what took and what broke. UserError: as its parts."""
    assert options.file is not None
    assert options.save is not None
    saving.check_free(options.save)
    facts = () if dataset.classifies else content.facts
    known = {(f.relation, key, f.language): f for f in facts for key in (f.sub_label.casefold(), f.sub_uri)}
    corpus, out = Corpus(dataset, content, reader, known), console(stderr=options.json)
    rows, skipped = read(options.file, options, corpus, editor)
    requests = [made for _, made in rows]
    if not editor.method.TRAINED and not editor.parameters:  # no language has a part in it
        editor = replace(editor, languages=tuple(dict.fromkeys(made.language for made in requests)))
    with doing(out, "editing") as say:
        update, apart = _edit(requests, editor, options, lambda done: say(f"{done:,} of {len(rows):,}"))
    found = report(rows, editor, corpus, update) | {"skipped": skipped, "as": options.as_}
    about = {"approach": editor.method.NAME, "checkpoint": str(options.checkpoint or ""), "model": model}
    if options.as_ == "model":
        saving.save_model(update, editor.backbone, model, options.save)
    elif options.as_ == "lora":
        found["lora_errors"] = saving.save_lora(update, editor.backbone, model, options.save, options.rank)
    else:
        about["model_fingerprint"] = fingerprint(editor.backbone, reader.tokenizer)
        told = tuple({key: row[key] for key in ("where", "language", "text", "to")} for row in found["rows"])
        saving.save_updates(options.save / saving.UPDATE, saving.Saved(tuple(apart or [update]), told, about))
    write_json(options.save / "edits.json", found | about)
    if options.json:
        print_json(found | about)
        return
    for line in lines(found):
        out.print(line)
    out.print(
        f"{found['took']} of {found['edits']} edits took ({found['right_before']} were right before); "
        f"{found['unrelated'] - len(found['changed'])} of {found['unrelated']} unrelated answers are unchanged; "
        f"{len(skipped)} rows were skipped. Kept as {options.as_} in {options.save}, with edits.json."
    )


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


def read(path: Path, options: Edit, corpus: Corpus, editor: Editor) -> tuple[list[Row], list[str]]:
    """The rows, and what is wrong with those that are skipped. DataError: another wrong row."""
    if not path.is_file() or files.kind(path.name) not in files.TABLES:
        raise DataError(f"{path}: is no table of edits; expected a file that ends in {', '.join(files.TABLES)}")
    rows, skipped = list[Row](), list[str]()
    longest, bound = editor.backbone.max_tokens, editor.method.TRAINED or editor.parameters
    with files.opened(path) as table:
        for line, row in files.rows(table, path.name):
            where = f"{path}:{line}"
            try:
                told, made = _row({"language": options.language, **row}, where, corpus)
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
        raise DataError(f"{path}: no row can be edited; {skipped[0] if skipped else 'it is empty'}")
    return rows, skipped


def _row(row: Mapping[str, Any], where: str, corpus: Corpus) -> Row:
    """UserError: what is wrong with the row."""
    pairs = corpus.dataset.classifies
    ways = [("premise", "hypothesis")] if pairs else [("prompt",), ("relation", "subject")]
    names = next((way for way in ways if all(name in row for name in way)), None)
    if names is None:
        raise UserError(f"has neither {' nor '.join(' and '.join(way) for way in ways)}; a row needs them, and to")
    files.texts(row, ("language", "to", *names), where)
    told: dict[str, Any] = {"language": row["language"], "to": row["to"], "fact": None}
    if pairs:
        classes = class_numbers(corpus.content, corpus.reader.classes or {})
        numbers = dict(zip(corpus.content.classes, classes, strict=True))
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


def report(rows: Sequence[Row], editor: Editor, corpus: Corpus, update: Update) -> dict[str, Any]:
    """What took, on the edited inputs, and what broke, on inputs of the corpus that no edit is about."""
    tokenizer, edited = corpus.reader.tokenizer, {told["fact"] for told, _ in rows}
    task = corpus.dataset.tasks(corpus.content, corpus.reader, Rulings(), {})["test"]
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
    changed = [{"text": str(tokenizer.decode(list(i.ids))), **said} for i, (a, b, said) in both if a != b]
    counts = {"edits": len(rows), **{name: sum(row[name] for row in asked) for name in ("took", "right_before")}}
    return counts | {"unrelated": len(unrelated), "rows": asked, "changed": changed}


def lines(found: Mapping[str, Any]) -> list[str]:
    """Of the report for a person: what did not go well."""
    said = [f"did not take: {r['where']} {r['text']} → {r['after']}" for r in found["rows"] if not r["took"]][:SHOWN]
    said += [f"broken: {r['text']}: {r['before']} → {r['after']}" for r in found["changed"]][:SHOWN]
    said += [f"skipped: {line}" for line in found["skipped"]]
    return said + [f"{name}: relative error {error:.2g}" for name, error in found.get("lora_errors", {}).items()]


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
