"""Facts (mLAMA, or a corpus of one's own): masked sentences whose answer is an entity's name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from .. import Dataset, Predict, Reader
from ..examination import Examination, Language, empty, some
from .question import question
from .read import Fact, Facts, read
from .task import counts, cuts, disagreements, fingerprint, misfits, split, tasks, too_long


def examine(
    source: str, languages: Sequence[str] | None, reader: Reader | None, predict: Predict | None = None, key: str = ""
) -> Examination:
    """What the facts of some languages (default: all) hold. Errors: as of `read`."""
    facts = read(source, languages)
    parts, told = split(facts), Counter((f.language, f.relation, f.sub_uri, f.obj_uri) for f in facts.facts)
    answers = dict.fromkeys((language, relation, subject) for language, relation, subject, _ in told)
    groups = Counter((fact.language, fact.relation) for fact in facts.facts)
    has, said = Counter(language for language, _, _ in answers), Counter(place[1:] for place in answers)
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
    skipped = {
        **facts.left_out,
        "of test: the subject is in train, too": sum(n - b for _, b, n in ends) - len(parts["test"].facts),
        "of validation: the subject is in train or test, too": (
            sum(b - a for a, b, _ in ends) - len(parts["validation"].facts)
        ),
        "another object of the same subject and relation: one input, whose labels are all objects of the relation": (
            len(told) - len(answers)
        ),
        "told twice: the same subject and object of a relation in one language": len(facts.facts) - len(told),
    }
    held = {
        "facts": len(facts.facts),
        "inputs": len(answers),
        "parallel facts": len(said),
        "in one language only": sum(count == 1 for count in said.values()),
        "relations": len(relations),
        "subjects": len({subject for _, subject in said}),
        "languages": len(found),
    }
    splits: dict[str, dict[str, int]] = {
        name: {"facts": count.facts, "subjects": count.subjects} for name, count in counts(facts).items()
    }
    noted = [*empty(found, splits), *([] if languages else disagreements(source, facts)), *doubts(facts)]
    untold = [f"{relation} in {code}" for code, relation in sorted(set(facts.templates) - set(groups))]
    noted += [f"{len(untold)} templates have no facts: {some(untold)}"] if untold else []
    if reader is not None:
        noted += misfits(facts, reader)
        long = [
            f"{fact.source}: {fact.relation}/{fact.sub_uri} in {fact.language!r} has {tokens} with the {masks} of the "
            f"label at {label.source}"
            for fact, tokens, masks, label in too_long(facts, reader.tokenizer, reader.longest)
        ]
        if long:
            noted.append(
                f"{len(long):,} facts are longer than {reader.longest} tokens and would stop a run: {some(long)}"
            )
    kept = {reason: count for reason, count in skipped.items() if count}
    return Examination("facts", source, fingerprint(facts), found, held, splits, kept, tuple(noted))


def remarks(source: str, facts: Facts) -> list[str]:
    """What a run says of facts in all their languages: where they are not what they are known to be."""
    return [*disagreements(source, facts), *doubts(facts)]


def doubts(facts: Facts) -> Iterator[str]:
    """What was left out in reading; subjects of two names, of which an input has the first; facts told twice."""
    yield from facts.notes
    named: dict[tuple[str, str, str], Fact] = {}
    first: dict[tuple[str, ...], Fact] = {}
    others, again = [], []
    for fact in facts.facts:
        known = named.setdefault((fact.language, fact.relation, fact.sub_uri), fact)
        if known.sub_label != fact.sub_label:
            others.append(f"{fact.source} has {fact.sub_label!r}, and {known.source} {known.sub_label!r}")
        known = first.setdefault((fact.language, fact.relation, fact.sub_uri, fact.obj_uri), fact)
        if known is not fact:
            again.append(f"{fact.source} is {known.source} again")
    if others:
        yield f"{len(others)} times a subject has another name in the same language and relation: {some(others)}"
    if again:
        yield f"{len(again)} facts are told twice, which moves where the splits are cut: {some(again)}"


DATASET = Dataset(
    name="facts",
    title="Facts",
    classifies=False,
    read=read,
    fingerprint=fingerprint,
    tasks=tasks,
    remarks=remarks,
    misfits=misfits,
    question=question,
    examine=examine,
)
