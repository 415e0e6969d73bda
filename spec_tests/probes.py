"""What a test needs beside the contract's functions, for an implementation in this process or in one of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from .conformance import Implementation
from .remote import server
from .remote.client import Remote
from .remote.server import Seen

__all__ = [
    "Seen",
    "backward_listings",
    "elsewhere",
    "global_state",
    "kept_process",
    "process_state",
    "surroundings",
    "watching",
]


def _remote(implementation: Any) -> Remote | None:
    """The other process that an implementation is in, under whatever stands around it."""
    target = getattr(implementation, "target", implementation)
    while not isinstance(target, Remote) and "base" in getattr(target, "__dict__", {}):
        target = target.base
    return target if isinstance(target, Remote) else None


def _during(implementation: Any, here: Callable[[], AbstractContextManager[Any]], **options: Any) -> Any:
    remote = _remote(implementation)
    return here() if remote is None else remote.during_calls(**options)


def watching(implementation: Any, least: int = 0) -> AbstractContextManager[Seen]:
    """Records what the calls in the body make: see `Seen`."""
    return _watching(implementation, Seen(least))


@contextmanager
def _watching(implementation: Any, seen: Seen) -> Iterator[Seen]:
    with _during(implementation, lambda: server.watching(seen), watch=seen):
        yield seen


def backward_listings(implementation: Any) -> AbstractContextManager[None]:
    """While the body runs, the implementation sees folders listed from the last name to the first."""
    found: AbstractContextManager[None] = _during(implementation, server.backward_listings, backward_listings=True)
    return found


def global_state(implementation: Any, seed: int) -> AbstractContextManager[None]:
    """While the body runs, the global random generators of the implementation begin at `seed`."""
    found: AbstractContextManager[None] = _during(implementation, lambda: server.global_state(seed), global_state=seed)
    return found


def process_state(implementation: Any) -> dict[str, Any]:
    """What all code shares that runs in the implementation's process, each thing by name."""
    remote = _remote(implementation)
    found: dict[str, Any] = server.process_state() if remote is None else remote.look()
    return found


def surroundings(implementation: Any, model: Any) -> dict[str, Any]:
    """What a user may have set of a raw model, as it is in the implementation's process."""
    remote = _remote(implementation)
    found: dict[str, Any] = server.surroundings(model) if remote is None else remote.look(model)
    return found


@contextmanager
def kept_process(implementation: Any) -> Iterator[None]:
    """What a wrong implementation changes in its process harms no other test."""
    remote = _remote(implementation)
    if remote is None:
        with server.kept_process():
            yield
        return
    before = remote.look()
    try:
        yield
    finally:
        if remote.look() != before:
            remote.start_anew()


@contextmanager
def elsewhere(implementation: Implementation, **environment: str) -> Iterator[Implementation]:
    """The same implementation in another process, which has these environment variables.

    `implementation.spelling` has to say how that process can load it.
    """
    remote = _remote(implementation)
    if remote is None:
        assert implementation.spelling is not None
        known = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        other = Remote(implementation.spelling, sys.executable, environment={**known, **environment})
    else:
        other = remote.elsewhere(**environment)
    try:
        yield Implementation(other, implementation.label)
    finally:
        other.close()
