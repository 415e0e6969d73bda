"""What a mutant is: a small wrapper around any implementation, wrong in one way."""

from __future__ import annotations

import inspect
from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..conformance import Implementation


class Mutation(ABC):  # noqa: B024  # what a subclass leaves open is abstract
    """Everything as the base has it, but for what a subclass defines."""

    #: Chapters that the base has to claim beside the clause's own.
    NEEDS: frozenset[str] = frozenset()
    #: Whether it takes another process to see what is wrong.
    ELSEWHERE = False

    def __init__(self, base: Any) -> None:
        self.base = base
        judged = Implementation(base, "base")
        self.CLAIMS = judged.claims
        self.RULINGS = judged.rulings
        self.EDITORS = judged.editors

    def __getattr__(self, name: str) -> Any:
        return getattr(self.base, name)


@dataclass(frozen=True)
class Mutant:
    id: str
    clause: str
    sentence: str
    build: Callable[[Any], Mutation]
    #: Chapters and capabilities that the base has to claim.
    needs: frozenset[str]


MUTANTS: list[Mutant] = []


def named(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call of one of the contract's functions, by name, defaults included."""
    call = inspect.signature(function).bind(None, *args, **kwargs)
    call.apply_defaults()
    return {name: value for name, value in call.arguments.items() if name != "self"}


def mutant(name: str, clause: str, sentence: str, *needs: str) -> Callable[[type[Mutation]], type[Mutation]]:
    def register(build: type[Mutation]) -> type[Mutation]:
        MUTANTS.append(Mutant(name, clause, sentence, build, build.NEEDS | {clause[0], *needs}))
        return build

    return register
