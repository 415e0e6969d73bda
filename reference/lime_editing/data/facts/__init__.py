"""Facts (mLAMA, or a user's corpus): masked sentences whose answer is an entity's name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from .. import Dataset, Predict, Reader
from ..examination import Examination, Language, empty, longer, some
from .question import question
from .read import Fact, Facts, read
from .task import counts, cuts, disagreements, fingerprint, misfits, split, tasks, too_long


def examine(
    source: str, languages: Sequence[str] | None, reader: Reader | None, predict: Predict | None = None, key: str = ""
) -> Examination:
    """The report on the facts in some languages (default: all). Errors: as of `read`."""
    facts = read(source, languages)
    parts, told = split(facts), {fact[:4] for fact in facts.facts}
    answers, groups = {one[:3] for one in told}, Counter(fact[:2] for fact in facts.facts)
    has, said = Counter(one[0] for one in answers), Counter(one[1:] for one in answers)
    by_split = {name: Counter(fact.language for fact in part.facts) for name, part in parts.items()}
    relations = sorted({relation for _, relation in groups})
    found = {
        code: Language(
            has[code],
            len(said) - has[code],
            {name: of[code] for name, of in by_split.items()},
            tuple(relation for relation in relations if (code, relation) not in groups),
        )
        for code in facts.languages
    }
    ends = [(*cuts(count), count) for count in groups.values()]
    cut = {"test": sum(n - b for _, b, n in ends), "validation": sum(b - a for a, b, _ in ends)}
    skipped = {
        **facts.left_out,
        "of test: the subject is in train, too": cut["test"] - len(parts["test"]),
        "of validation: the subject is in train or test, too": cut["validation"] - len(parts["validation"]),
        "another object of the same subject and relation: one input, whose labels are all objects of the relation": (
            len(told) - len(answers)
        ),
        "told twice: the same subject and object of a relation in one language": len(facts) - len(told),
    }
    skipped = {reason: count for reason, count in skipped.items() if count}
    held = {
        "facts": len(facts),
        "inputs": len(answers),
        "parallel facts": len(said),
        "in one language only": sum(count == 1 for count in said.values()),
        "relations": len(relations),
        "subjects": len({subject for _, subject in said}),
        "languages": len(found),
    }
    splits = {str(name): {"facts": of.facts, "subjects": of.subjects} for name, of in counts(facts).items()}
    noted = [*empty(found, splits), *([] if languages else disagreements(source, facts)), *doubts(facts)]
    untold = [f"{relation} in {code}" for code, relation in sorted(set(facts.templates) - set(groups))]
    noted += [f"{len(untold)} templates have no facts: {some(untold)}"] if untold else []
    if reader is not None:
        long = [
            f"{fact.source}: {fact.key} in {fact.language!r} has {tokens} with the {masks} of the label at {of.source}"
            for fact, tokens, masks, of in too_long(facts, reader)
        ]
        noted += [*misfits(facts, reader), *longer(long, "facts", reader.longest, "would stop a run")]
    return Examination("facts", source, fingerprint(facts), found, held, splits, skipped, tuple(noted))


def remarks(source: str, facts: Facts) -> list[str]:
    """Sentences that a run prints: differences from the published facts, in all languages."""
    return [*disagreements(source, facts), *doubts(facts)]


def doubts(facts: Facts) -> Iterator[str]:
    """Ignored rows, subjects with two names (an input has the first one), and duplicate facts."""
    yield from facts.notes
    named: dict[tuple[Any, ...], Fact] = {}
    others, again = [], []
    for fact in facts.facts:
        known = named.setdefault(fact[:3], fact)
        if known.sub_label != fact.sub_label:
            others.append(f"{fact.source} has {fact.sub_label!r}, and {known.source} {known.sub_label!r}")
        known = named.setdefault(fact[:4], fact)
        if known is not fact:
            again.append(f"{fact.source} is {known.source} again")
    if others:
        yield f"{len(others)} times a subject has another name in the same language and relation: {some(others)}"
    if again:
        yield f"{len(again)} facts are told twice, which moves where the splits are cut: {some(again)}"


DATASET = Dataset(
    "facts",
    "Facts",
    False,
    read,
    fingerprint,
    tasks,
    remarks=remarks,
    misfits=misfits,
    question=question,
    examine=examine,
)
