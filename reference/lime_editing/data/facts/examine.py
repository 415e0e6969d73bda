"""What `check-data` says of facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from .. import Reader
from ..examination import Examination, Language, empty, some
from .read import Fact, Facts, read
from .task import cuts, disagreements, fingerprint, split, too_long


def examine(source: str, languages: Sequence[str] | None, reader: Reader | None) -> Examination:
    """What the facts of some languages (default: all) hold. Errors: as of `read`."""
    facts = read(source, languages)
    parts = split(facts)
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
        a, b = cuts(count)
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
    remarks = [*empty(found, splits), *([] if languages else disagreements(source, facts))]
    remarks += [*_names(facts), *_twice(facts)]
    untold = sorted(set(facts.templates) - set(groups))
    if untold:
        remarks.append(f"{len(untold)} templates have no facts: {some([f'{r} in {code}' for code, r in untold])}")
    if reader is not None and reader.longest is not None:
        long = [
            f"{one.fact.source}: {one.named} has {one.tokens} with the {one.masks} of the label at {one.label.source}"
            for one in too_long(facts, reader.tokenizer, reader.longest)
        ]
        if long:
            remarks.append(
                f"{len(long):,} facts are longer than {reader.longest} tokens and would stop a run: {some(long)}"
            )
    kept = {reason: count for reason, count in skipped.items() if count}
    return Examination("facts", source, fingerprint(facts), found, counts, splits, kept, tuple(remarks))


def _names(facts: Facts) -> Iterator[str]:
    """Subjects of two names in one language and relation: an input has the first."""
    first: dict[tuple[str, str, str], Fact] = {}
    others = []
    for fact in facts.facts:
        known = first.setdefault((fact.language, fact.relation, fact.sub_uri), fact)
        if known.sub_label != fact.sub_label:
            others.append(f"{fact.source} has {fact.sub_label!r}, and {known.source} {known.sub_label!r}")
    if others:
        yield f"{len(others)} times a subject has another name in the same language and relation: {some(others)}"


def _twice(facts: Facts) -> Iterator[str]:
    first: dict[tuple[str, ...], Fact] = {}
    again = []
    for fact in facts.facts:
        known = first.setdefault((fact.language, fact.relation, fact.sub_uri, fact.obj_uri), fact)
        if known is not fact:
            again.append(f"{fact.source} is {known.source} again")
    if again:
        yield f"{len(again)} facts are told twice, which moves where the splits are cut: {some(again)}"
