"""What data hold, what they lack in which language, and what a run would skip and why: `lime_editing check-data`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from .data import files, mlama

Kind = Literal["facts", "pairs"]


@dataclass(frozen=True, slots=True)
class Language:
    """Of all facts or pairs, how many a language has and lacks, by split how many, and the relations that it lacks."""

    has: int
    lacks: int
    splits: dict[str, int]
    lacking_relations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """What was found; `skipped` by reason, and `remarks` on what a run will mind."""

    kind: Kind
    source: str
    fingerprint: str
    languages: dict[str, Language]
    counts: dict[str, int]
    splits: dict[str, dict[str, int]]
    skipped: dict[str, int]
    remarks: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def kind_of(source: str) -> Kind:
    """Facts or pairs, by the names of files and columns. DataError: a table that cannot be read."""
    path = Path(source)
    if path.is_dir():
        if any(next(path.glob(f"{depth}*/templates.jsonl"), None) for depth in ("", "*/", "*/*/")):
            return "facts"
        found = files.of_folder(path, "**/*")
    elif path.is_file():
        found = files.of_folder(path.parent, path.name)
    else:
        return "facts"
    tables = [name for name in found.openers if name.lower().endswith(files.TABLES)]
    return "pairs" if tables and "premise" in files.columns_of(found, tables[0]) else "facts"


def examine(
    source: str, kind: Kind | None = None, languages: Sequence[str] | None = None, model: str | None = None
) -> Report:
    """Read the data as a run would, and say what is in them; with a `model`, also what is too long for it.

    DataError, LanguageError, ModelError: as the run would.
    """
    return (_facts if (kind or kind_of(source)) == "facts" else _pairs)(source, languages, model)


def _reader(model: str) -> tuple[Any, int]:
    """The tokenizer of a model, and its longest input."""
    from .backbone import load_tokenizer, max_tokens  # noqa: PLC0415  torch takes seconds to import

    return load_tokenizer(model), max_tokens(model)


def _facts(source: str, languages: Sequence[str] | None, model: str | None) -> Report:
    facts = mlama.read(source, languages)
    parts = mlama.split(facts)
    said: dict[tuple[str, str], set[str]] = {}  # (relation, subject) → languages
    answers = Counter((fact.language, fact.relation, fact.sub_uri) for fact in facts.facts)
    for language, relation, subject in answers:
        said.setdefault((relation, subject), set()).add(language)
    told = Counter((fact.language, fact.relation, fact.sub_uri, fact.obj_uri) for fact in facts.facts)
    groups = Counter((fact.language, fact.relation) for fact in facts.facts)
    has = Counter(language for language, _, _ in answers)
    by_split = {name: Counter(fact.language for fact in part.facts) for name, part in parts.items()}
    relations = sorted({relation for _, relation in groups})
    found = {
        language: Language(
            has[language],
            len(said) - has[language],
            {name: counts[language] for name, counts in by_split.items()},
            tuple(relation for relation in relations if (language, relation) not in groups),
        )
        for language in facts.languages
    }
    cut = {"validation": 0, "test": 0}
    for count in groups.values():
        a, b = round(count * 8 / 10), round(count * 9 / 10)
        cut["validation"] += b - a
        cut["test"] += count - b
    skipped = {
        **facts.left_out,
        "of test: the subject is in train, too": cut["test"] - len(parts["test"].facts),
        "of validation: the subject is in train or test, too": cut["validation"] - len(parts["validation"].facts),
        "another object of the same subject and relation: one input, whose labels are all objects of the relation": (
            len(told) - len(answers)
        ),
        "told twice: the same subject and object of a relation in one language": len(facts.facts) - len(told),
    }
    counts = {
        "facts": len(facts.facts),
        "inputs": len(answers),
        "parallel facts": len(said),
        "in one language only": sum(len(codes) == 1 for codes in said.values()),
        "relations": len(relations),
        "subjects": len({subject for _, subject in said}),
        "languages": len(found),
    }
    splits: dict[str, dict[str, int]] = {
        name: {"facts": len(part.facts), "subjects": len({fact.sub_uri for fact in part.facts})}
        for name, part in parts.items()
    }
    remarks = [*_empty(found, splits), *([] if languages else mlama.disagreements(source, facts))]
    remarks += [*_names(facts), *_twice(facts)]
    untold = sorted(set(facts.templates) - set(groups))
    if untold:
        remarks.append(f"{len(untold)} templates have no facts: {_some([f'{r} in {code}' for code, r in untold])}")
    if model is not None:
        tokenizer, longest = _reader(model)
        long = [
            f"{one.fact.source}: {one.named} has {one.tokens} with the {one.masks} of the label at {one.label.source}"
            for one in mlama.too_long(facts, tokenizer, longest)
        ]
        if long:
            remarks.append(f"{len(long):,} facts are longer than {longest} tokens and would stop a run: {_some(long)}")
    return _report("facts", source, mlama.fingerprint(facts), found, counts, splits, skipped, remarks)


def _names(facts: mlama.Facts) -> Iterator[str]:
    """Subjects of two names in one language and relation: an input has the first."""
    first: dict[tuple[str, str, str], mlama.Fact] = {}
    others = []
    for fact in facts.facts:
        known = first.setdefault((fact.language, fact.relation, fact.sub_uri), fact)
        if known.sub_label != fact.sub_label:
            others.append(f"{fact.source} has {fact.sub_label!r}, and {known.source} {known.sub_label!r}")
    if others:
        yield f"{len(others)} times a subject has another name in the same language and relation: {_some(others)}"


def _twice(facts: mlama.Facts) -> Iterator[str]:
    first: dict[tuple[str, ...], mlama.Fact] = {}
    again = []
    for fact in facts.facts:
        known = first.setdefault((fact.language, fact.relation, fact.sub_uri, fact.obj_uri), fact)
        if known is not fact:
            again.append(f"{fact.source} is {known.source} again")
    if again:
        yield f"{len(again)} facts are told twice, which moves where the splits are cut: {_some(again)}"


def _pairs(source: str, languages: Sequence[str] | None, model: str | None) -> Report:
    from .data import xnli  # noqa: PLC0415  `datasets` takes seconds to import

    pairs = xnli.read(source, languages)
    lacking = {split: Counter(code for _, code in pairs.lacking[split]) for split in xnli.SPLITS}
    found = {
        code: Language(
            sum(len(rows) - lacking[split][code] for split, rows in pairs.rows.items()),
            sum(counts[code] for counts in lacking.values()),
            {split: len(rows) - lacking[split][code] for split, rows in pairs.rows.items()},
        )
        for code in pairs.languages
    }
    splits: dict[str, dict[str, int]] = {}
    for split, rows in pairs.rows.items():
        classes = Counter(rows.with_format("numpy")["label"][:].tolist())
        splits[split] = {"pairs": len(rows), **{name: classes[i] for i, name in enumerate(pairs.classes)}}
    counts = {
        "pairs": len(pairs),
        "inputs": sum(language.has for language in found.values()),
        "languages": len(found),
        "classes": len(pairs.classes),
    }
    skipped = {
        f"of {split}: a premise or hypothesis is missing or blank in its language": sum(counts_.values())
        for split, counts_ in lacking.items()
    }
    remarks = list(_empty(found, splits))
    for part, numbers in splits.items():
        remarks += [f"{part} has no pair of class {name!r}" for name in pairs.classes if not numbers[name]]
    if model is not None:
        tokenizer, longest = _reader(model)
        for split in xnli.SPLITS:
            long = [
                f"{split}/{i} in {code!r} has {n}" for i, code, n in xnli.too_long(pairs, tokenizer, longest, split)
            ]
            if long:
                remarks.append(
                    f"{len(long):,} inputs of {split} are longer than {longest} tokens and are cut: {_some(long)}"
                )
    return _report("pairs", source, xnli.fingerprint(pairs), found, counts, splits, skipped, remarks)


def _report(
    kind: Kind,
    source: str,
    fingerprint: str,
    languages: dict[str, Language],
    counts: dict[str, int],
    splits: dict[str, dict[str, int]],
    skipped: dict[str, int],
    remarks: Sequence[str],
) -> Report:
    kept = {reason: count for reason, count in skipped.items() if count}
    return Report(kind, source, fingerprint, languages, counts, splits, kept, tuple(remarks))


def _empty(languages: dict[str, Language], splits: dict[str, dict[str, int]]) -> Iterator[str]:
    for split in splits:
        without = [code for code, language in languages.items() if not language.splits[split]]
        if without:
            yield f"no {split} items in {', '.join(without)}: a run wants these languages left out (--languages)"
    if "en" not in languages:
        yield "no 'en': a run edits in English, and trains on it (variant en)"


def _some(names: Sequence[str], shown: int = 5) -> str:
    return "; ".join(names[:shown]) + ("; …" if len(names) > shown else "")


def text(report: Report) -> str:
    """The report as lines for a person."""
    lines = [f"{report.source}: {report.kind}, fingerprint {report.fingerprint}"]
    lines += [", ".join(f"{name} {count:,}" for name, count in report.counts.items())]
    for name, numbers in report.splits.items():
        lines.append(f"  {name:<12}" + ", ".join(f"{what} {count:,}" for what, count in numbers.items()))
    lines += ["", f"  {'language':<12}{'has':>10}{'lacks':>10}" + "".join(f"{split:>12}" for split in report.splits)]
    for code, language in report.languages.items():
        row = f"  {code:<12}{language.has:>10,}{language.lacks:>10,}"
        row += "".join(f"{count:>12,}" for count in language.splits.values())
        lacks = language.lacking_relations
        lines.append(row + (f"  no facts of {', '.join(lacks)}" if lacks else ""))
    lines += ["", "skipped: nothing"] if not report.skipped else ["", "skipped:"]
    lines += [f"  {count:>10,}  {reason}" for reason, count in report.skipped.items()]
    lines += ["", "remarks:", *(f"  {remark}" for remark in report.remarks)] if report.remarks else []
    return "\n".join(lines)
