"""Mutants that nothing notices, and survivors.toml, which explains them."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

LIST = Path(__file__).with_name("survivors.toml")
#: equivalent: no input tells it from the original. accepted: one would, and the test is not worth having.
KINDS = ("equivalent", "accepted")


@dataclass(frozen=True)
class Mutation:
    """The lines of a function (lime_editing.updates.Update.apply) before and after, stripped."""

    function: str
    before: str
    after: str

    def __str__(self) -> str:
        lines = [f"  - {line}" for line in self.before.splitlines()] + [
            f"  + {line}" for line in self.after.splitlines()
        ]
        return "\n".join([self.function, *lines])


@dataclass(frozen=True)
class Explanation:
    """Why a mutation survives."""

    mutation: Mutation
    kind: str
    why: str


@dataclass(frozen=True)
class Run:
    """What became of each mutant: how many of which verdict, the functions that were mutated, and the survivors."""

    verdicts: Counter[str]
    functions: frozenset[str]
    survivors: tuple[Mutation, ...]


def explanations(path: Path = LIST) -> list[Explanation]:
    """One for each line `after` of each entry."""
    return [
        Explanation(Mutation(entry["function"], entry["before"].strip(), after.strip()), entry["kind"], entry["why"])
        for entry in tomllib.loads(path.read_text(encoding="utf-8"))["survivor"]
        for after in entry["after"]
    ]


def unexplained(run: Run, known: Iterable[Explanation]) -> list[Mutation]:
    """The survivors that the list does not have."""
    explained = {e.mutation for e in known}
    return [mutation for mutation in run.survivors if mutation not in explained]


def outdated(run: Run, known: Iterable[Explanation]) -> list[Mutation]:
    """What the list has of the mutated functions and is killed, or gone."""
    return [e.mutation for e in known if e.mutation.function in run.functions and e.mutation not in set(run.survivors)]


def rate(run: Run, known: Iterable[Explanation]) -> str:
    """How many mutants were killed, of how many; why the others survived; what else happened."""
    kinds = {e.mutation: e.kind for e in known}
    survived = Counter(kinds.get(mutation, "unexplained") for mutation in run.survivors)
    total = run.verdicts.total()
    parts = [f"{run.verdicts['killed']} of {total} mutants killed ({run.verdicts['killed'] / total:.1%})"]
    parts += [f"{count} survived, {kind}" for kind, count in sorted(survived.items())]
    parts += [f"{n} {verdict}" for verdict, n in sorted(run.verdicts.items()) if verdict not in ("killed", "survived")]
    return "; ".join(parts)


def report(run: Run, known: Sequence[Explanation]) -> list[str]:
    """What is wrong with the list, in lines; none where it is right."""
    lines = [f"survived without an explanation in {LIST.name}: {mutation}" for mutation in unexplained(run, known)]
    return lines + [f"explained in {LIST.name}, but killed or gone: {mutation}" for mutation in outdated(run, known)]
