"""Calls across the border: the implementation's functions under a time limit, and what they return as plain data.

Whatever an implementation raises, prints as a warning, or waits for is its own, and told apart from what goes wrong in
the suite. Numbers keep the width in which they come back.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import faulthandler
import functools
import inspect
import os
import signal
import sys
import threading
import time
import unittest
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import hypothesis
import numpy as np
import pytest

from . import contract

#: The widths of numbers that the suite can hand out.
WIDTHS = ("float64", "float32")
#: Seconds that one call may take, unless --call-timeout says otherwise.
CALL_TIMEOUT = 120.0
#: A function that ran out of time this often is not called again.
GIVEN_UP_AFTER = 2
#: Ends the process at once; during a call of the implementation it is no longer `os._exit`.
END = os._exit
#: What a test framework understands as an order, and no implementation may give.
ORDERS = (unittest.SkipTest, hypothesis.errors.HypothesisException, pytest.exit.Exception)


class Handed:
    """The width in which models and arrays are handed out now; --dtype chooses it."""

    width = WIDTHS[0]

    @classmethod
    def out(cls, array: Any) -> Any:
        """An array in that width."""
        return np.asarray(array).astype(cls.width)


class SuiteError(Exception):
    """The suite or the adapter is broken, so nothing can be said about the implementation."""


class Lacking(Exception):
    """A function of a claimed chapter is missing."""

    def __init__(self, label: str, owner: str, function: str) -> None:
        super().__init__(f"{label} claims {owner!r} and lacks its function `{function}`")
        self.function = function


class Crash(Exception):
    """The implementation raised what is no error: SystemExit, pytest.skip, and the like."""


class TimedOut(BaseException):
    """A call took longer than it may. No error, so that `except Exception` in an implementation does not stop it."""


class Clock:
    """Ends calls that take too long.

    On POSIX a signal interrupts the main thread, in Python code and in system calls. Elsewhere a second thread
    raises the exception there. A call that neither can interrupt, since it is in C code, ends the whole run: the
    second thread calls `abort` once the limit has passed twice. C code that holds the interpreter lock stops that
    thread, too: then faulthandler, which the thread puts off again and again, prints where it is, and ends the process.
    """

    def __init__(self, limit: float = CALL_TIMEOUT, abort: Callable[[str], None] | None = None) -> None:
        self.limit, self.abort = limit, abort
        #: Where faulthandler prints, and whether it is free for this.
        self.stderr: Any = None
        self.last_resort = True
        self._call: tuple[str, float, int] | None = None
        self._watcher: threading.Thread | None = None
        self._fired = self._armed = False
        self._lock = threading.Lock()

    @property
    def _signals(self) -> bool:
        return hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()

    @contextlib.contextmanager
    def limiting(self, name: str) -> Iterator[None]:
        """The body may take `limit` seconds; a call within a call belongs to the outer one."""
        if not self.limit or self._call is not None:
            yield
            return
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._run, name="call limits", daemon=True)
            self._put_off()
            atexit.register(self.close)
            self._watcher.start()
        signals = self._signals
        self._fired = False
        self._call = (name, time.monotonic() + self.limit, 0 if signals else threading.get_ident())
        if signals:
            # Anew for each call, and back after it: a plug-in that limits tests takes the signal and its timer, too.
            began, before = time.monotonic(), signal.signal(signal.SIGALRM, self._ring)
            # Again and again, for code that swallows every exception.
            left, every = signal.setitimer(signal.ITIMER_REAL, self.limit, max(0.05, self.limit / 10))
        try:
            yield
        finally:
            self._call = None
            if signals:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, before or signal.SIG_DFL)
                signal.setitimer(signal.ITIMER_REAL, left and max(0.001, left - time.monotonic() + began), every)
            elif self._fired:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threading.get_ident()), None)

    def close(self) -> None:
        """Leave the process as it was."""
        atexit.unregister(self.close)
        with self._lock:
            self.limit = 0
            if self._armed:
                faulthandler.cancel_dump_traceback_later()
                self._armed = False

    def _ring(self, *_: object) -> None:
        if self._call is not None:
            raise TimedOut

    @property
    def _grace(self) -> float:
        return max(1.0, min(60.0, self.limit))

    def _put_off(self) -> None:
        """faulthandler ends the process unless it is put off again in time."""
        with self._lock, contextlib.suppress(OSError, ValueError, AttributeError, RuntimeError):
            if self.last_resort and self.limit:
                file = self.stderr or sys.__stderr__ or 2
                faulthandler.dump_traceback_later(self.limit + 2 * self._grace, exit=True, file=file)
                self._armed = True

    def _run(self) -> None:
        grace = self._grace
        while self.limit:
            time.sleep(min(1.0, self.limit / 4))
            self._put_off()
            call = self._call
            if call is None:
                continue
            name, end, thread = call
            now = time.monotonic()
            if thread and now > end and not self._fired and self._call is call:
                self._fired = True
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(TimedOut))
            if now > end + grace and self.abort is not None and self._call is call:
                self.abort(name)


class Journal:
    """What calls leave behind: a clock, the warnings that they gave, and how often each ran out of time."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock(0)
        #: How often each (function, category, message).
        self.warnings: Counter[tuple[str, str, str]] = Counter()
        self.timeouts: Counter[str] = Counter()
        #: What the last call returned, with the function's name.
        self.returned: tuple[str, Any] | None = None

    def warned(self, function: str, caught: list[warnings.WarningMessage]) -> None:
        for one in caught:
            first = str(one.message).strip().partition("\n")[0]
            self.warnings[function, one.category.__name__, first] += 1


def guarded(function: Callable[..., Any], name: str, journal: Journal) -> Callable[..., Any]:
    """The function, with its arguments checked, its time limited, its warnings counted and its errors marked."""
    finish = FINISH.get(name, _as_it_is)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        _check(function, name, args, kwargs)
        if journal.timeouts[name] >= GIVEN_UP_AFTER:
            raise _marked(TimedOut(f"`{name}` is not called any more: it ran out of time before"), name)
        given = _data_of(name, args, kwargs)
        before = _copied(given)
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                with journal.clock.limiting(name), _staying():
                    result = function(*args, **kwargs)
        except TimedOut as error:
            journal.timeouts[name] += 1
            limit = f"{journal.clock.limit:g} s"
            why = f"`{name}` did not return within {limit} (--call-timeout {journal.clock.limit:g})"
            raise _marked(TimedOut(why), name) from error
        except (KeyboardInterrupt, SuiteError):
            raise
        except BaseException as error:
            called = args, kwargs
            kind = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
            try:
                text = f"{kind}: {error}"
            except Exception as inner:  # the message is the implementation's code, too
                raise _marked(
                    Crash(f"{kind}, whose message cannot be read: {type(inner).__name__}"), name, called
                ) from None
            if not isinstance(error, Exception) or isinstance(error, ORDERS):
                raise _marked(Crash(text), name, called) from error
            try:
                _marked(error, name, called)
            except (AttributeError, TypeError):
                raise _marked(Crash(text), name, called) from error
            raise
        journal.warned(name, caught)
        journal.returned = name, result
        _check_untouched(given, before, name)
        if kwargs.get("interrupt") is None:  # what an interrupted run returns is not looked at
            _check_kind(result, name)
        return finish(result)

    return call


@contextlib.contextmanager
def _staying() -> Iterator[None]:
    """`os._exit` raises SystemExit: the run would end without a verdict, with any exit code. A forked child may end."""
    own = os.getpid()

    def leave(code: int) -> None:
        if os.getpid() != own:
            END(code)
        raise SystemExit(f"os._exit({code})")

    os._exit = leave  # type: ignore[assignment]
    try:
        yield
    finally:
        os._exit = END


def _check(function: Callable[..., Any], name: str, args: Any, kwargs: Any) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        wanted = _asked(name)
        raise SuiteError(
            f"`{name}` does not take the arguments of the contract: {error}"
            + (f"; it asks for {wanted}" if wanted else "")
        ) from error


def _asked(name: str) -> str:
    """A function of the contract as it is called: succ(acc, con)."""
    if name not in _signatures():
        return ""
    parameters = [str(p.replace(annotation=p.empty)) for p in _signatures()[name].parameters.values()]
    return f"{name}({', '.join(parameters[1:])})"


def _check_kind(result: Any, name: str) -> None:
    """SuiteError: a dictionary, a list or a tuple is asked for, and something else came back, such as a generator."""
    wanted = _kinds().get(name)
    fits = isinstance(result, Mapping) == (wanted == "dict") and isinstance(result, Collection)
    if wanted and (not fits or isinstance(result, str | bytes)):
        raise SuiteError(f"`{name}` returned {type(result).__name__}; the contract asks for a {wanted}")


#: Arguments that the implementation made itself: what it does with them is its own affair.
OWN = frozenset({"editor", "edits", "before"})


def _data_of(name: str, args: Any, kwargs: Any) -> dict[str, Any]:
    """The data that a call of a function of the contract hands out, by the names of its arguments."""
    asked = _signatures().get(name)
    if asked is None:
        return {}
    try:
        given = asked.bind_partial(None, *args, **kwargs).arguments
    except TypeError:  # `rank`, which a capability adds
        given = kwargs
    return {key: value for key, value in given.items() if key not in OWN}


def _copied(value: Any) -> Any:
    """Lists, dictionaries and arrays, copied as deep as they go; all else is itself."""
    if type(value) is dict:
        return {key: _copied(part) for key, part in value.items()}
    if type(value) in (list, tuple):
        return [_copied(part) for part in value]
    if isinstance(value, np.ndarray):
        return value.copy()
    return value.detach().clone() if _is_tensor(value) else value


def _same(value: Any, copy: Any) -> bool:
    """Whether data are still what `_copied` made its copy of."""
    if type(value) is dict:
        return value.keys() == copy.keys() and all(_same(part, copy[key]) for key, part in value.items())
    if type(value) in (list, tuple):
        return len(value) == len(copy) and all(map(_same, value, copy))
    if isinstance(value, np.ndarray) or _is_tensor(value):
        old, new = arrays(copy), arrays(value)
        return bool(old.shape == new.shape and old.tobytes() == new.tobytes())
    return bool(value is copy or value == copy)


def _check_untouched(given: Mapping[str, Any], before: Mapping[str, Any], name: str) -> None:
    """SuiteError: a call changed what it was handed, so that the next call is about something else."""
    for argument, value in given.items():
        if not _same(value, before[argument]):
            raise SuiteError(
                f"`{name}` changed its argument `{argument}` in place; the contract forbids it: change a copy"
            )


def _functions() -> Iterator[tuple[str, Any]]:
    """The functions of the contract, by name."""
    return (f for owner in vars(contract).values() if isinstance(owner, type) for f in vars(owner).items())


@functools.cache
def _signatures() -> dict[str, inspect.Signature]:
    known = {name for names in (*contract.NAMES.values(), *contract.OF_EDITOR.values(), ("factors",)) for name in names}
    return {name: inspect.signature(function) for name, function in _functions() if name in known}


@functools.cache
def _kinds() -> dict[str, str]:
    """What the contract says that its functions return, where that is a dictionary, a list or a tuple."""
    found = {}
    for name, function in _functions():
        said = getattr(function, "__annotations__", {}).get("return", "").partition("[")[0]
        kind = "dict" if hasattr(getattr(contract, said, None), "__required_keys__") else said
        if kind in ("dict", "list", "tuple"):
            found[name] = kind
    return found


def _marked(error: BaseException, name: str, called: Any = None) -> BaseException:
    """The error as the implementation's, with the arguments of the call that raised it."""
    error.raised_by_implementation = name  # type: ignore[attr-defined]
    error.called_with = called  # type: ignore[attr-defined]
    error.add_note(f"raised by the implementation's `{name}`")
    return error


# What comes back


def plain(value: Any) -> Any:
    """Plain data: NumPy's and torch's numbers as Python's, tuples and arrays as lists, however deep they lie."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {plain(key) if not isinstance(key, str) else key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, np.ndarray) or _is_tensor(value):
        return plain(value.tolist())
    return value


def arrays(value: Any) -> Any:
    """Tensors as NumPy arrays of their width, in dictionaries, lists and tuples too; numbers stay numbers."""
    if _is_tensor(value):
        value = value.detach().cpu()
        return value.numpy() if value.dtype.itemsize > 2 else value.float().numpy()
    if isinstance(value, Mapping):
        return {key: arrays(part) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(arrays(part) for part in value)
    if isinstance(value, list) and value and not isinstance(value[0], int | float):
        return [arrays(part) for part in value]
    return value


def exact(value: Any) -> Any:
    """Floating tensors in float64, cut off from their graph: exactly the numbers that came back. Arrays are tensors."""
    if isinstance(value, np.ndarray) and "torch" in sys.modules:
        value = sys.modules["torch"].as_tensor(value)
    if _is_tensor(value):
        # A copy, since what came back may be a live parameter.
        value = value.detach().cpu().clone()
        return value.double() if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return {key: exact(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(exact(part) for part in value) if type(value) in (list, tuple) else tuple(map(exact, value))
    return value


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _as_it_is(value: Any) -> Any:
    return value


def _numbers_and_gradient(value: Any) -> Any:
    """A number, or some by name, and then gradients."""
    if not isinstance(value, list | tuple) or len(value) < 2:
        return value
    return (plain(value[0]), *(exact(part) for part in value[1:]))


def _number_and_arrays(value: Any) -> Any:
    if not isinstance(value, list | tuple) or len(value) != 2:
        return value
    return plain(value[0]), arrays(value[1])


_PLAIN = (
    *("parallel", "succ", "hit", "metrics", "breakdown", "aggregate", "evaluation_pairs", "training_triples"),
    *("editor_shapes", "optimizer_groups", "train_step", "split", "fact_inputs", "pair_edits", "pair_training"),
    *("classifier_examples", "paper_preset", "experiments", "record", "table", "stopping"),
)
_ARRAYS = (
    *("apply_mask", "gate", "gate_probability", "mask_factors", "mask_factors_gradient"),
    *("initial_masks", "mask_similarity"),
)
_EXACT = (*("capture", "transform", "dense", "factors", "gates", "trained_weights", "raw_logits", "edited_logits"),)
#: What is made of a function's result. Live parameters, editors and edits are handed on as they are.
FINISH: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(_PLAIN, plain),
    **dict.fromkeys(_ARRAYS, arrays),
    **dict.fromkeys(_EXACT, exact),
    **dict.fromkeys(("losses", "rel_loss", "loc_loss"), _numbers_and_gradient),
    "mask_penalty": _number_and_arrays,
}
