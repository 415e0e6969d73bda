"""What crosses the border: limits on calls, errors that are the implementation's own, numbers and their widths."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as npst

from ..assertions import EPS, TOLERANCES, agree, close, equal, near, same_bits, width
from ..border import Clock, Crash, Journal, SuiteError, TimedOut, arrays, exact, guarded, plain
from ..conformance import Implementation, Violation

ROOT = Path(__file__).parents[2]


@pytest.fixture
def clocks() -> Iterator[list[Clock]]:
    """The clocks of a test, stopped after it."""
    made: list[Clock] = []
    yield made
    for clock in made:
        clock.close()


def calling(function: Any, clocks: list[Clock] | None = None, limit: float = 0.0) -> Any:
    clock = Clock(limit)
    if clocks is not None:
        clocks.append(clock)
    return guarded(function, "succ", Journal(clock))


# Limits


def _busy() -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        sum(range(1000))


def _hidden() -> None:
    """Catches whatever is an Exception."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            sum(range(1000))
        except Exception:
            continue


@pytest.mark.parametrize("function", [_busy, _hidden, lambda: time.sleep(20)], ids=["busy", "catching", "sleeping"])
def test_a_call_on_the_main_thread_is_interrupted(clocks: list[Clock], function: Any) -> None:
    """In Python code, in code that catches every Exception, and in a system call."""
    if not hasattr(__import__("signal"), "setitimer"):
        pytest.skip("no signals here")
    began = time.monotonic()
    with pytest.raises(TimedOut, match=r"`succ` did not return within 0\.2 s"):
        calling(function, clocks, 0.2)()
    assert time.monotonic() - began < 10


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="POSIX alone has this signal")
def test_the_alarm_of_a_plug_in_that_limits_tests_stays_its_own(clocks: list[Clock]) -> None:
    """It rings after a call and not in it, as pytest-timeout's, which is set again for each test."""
    rung, own = list[int](), signal.getsignal(signal.SIGALRM)

    def succ() -> int:
        time.sleep(0.2)
        return len(rung)

    try:
        for _ in range(2):
            signal.signal(signal.SIGALRM, lambda number, _: rung.append(number))
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            assert calling(succ, clocks, 5.0)() == 0
            time.sleep(0.05)
            assert rung == [signal.SIGALRM]
            rung.clear()
            with pytest.raises(TimedOut):
                calling(_busy, clocks, 0.2)()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, own)


@pytest.mark.parametrize("function", [_busy, _hidden], ids=["busy", "catching"])
def test_a_call_on_another_thread_is_interrupted(clocks: list[Clock], function: Any) -> None:
    """Where no signal arrives, a second thread raises the exception."""
    found: list[BaseException] = []

    def run() -> None:
        try:
            calling(function, clocks, 0.2)()
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(15)
    assert [type(error) for error in found] == [TimedOut]


def test_a_function_that_ran_out_of_time_is_given_up(clocks: list[Clock]) -> None:
    """After two calls nobody waits for a third."""
    call = calling(lambda: time.sleep(20), clocks, 0.1)
    for message in ("did not return", "did not return", "is not called any more"):
        with pytest.raises(TimedOut, match=message):
            call()


def test_a_quick_call_is_left_alone(clocks: list[Clock]) -> None:
    """A limit that is not reached leaves nothing behind that could ring later."""
    call = calling(lambda: 3, clocks, 0.2)
    assert call() == 3
    time.sleep(0.5)
    assert call() == 3


def test_c_code_that_holds_the_interpreter_ends_the_process() -> None:
    """faulthandler says where it is: no Python code can."""
    code = (
        "from spec_tests.border import Clock, Journal, guarded\n"
        "def succ(): return sum(range(10 ** 12))\n"
        "guarded(succ, 'succ', Journal(Clock(0.5)))()\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode != 0
    assert "Timeout" in done.stderr
    assert "in succ" in done.stderr


# Errors and warnings


class Slotted(Exception):
    """Takes no further attributes."""

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        if name == "raised_by_implementation":
            raise AttributeError(name)
        super().__setattr__(name, value)


@pytest.mark.parametrize("error", [KeyError("x"), AssertionError("x"), ValueError("x")])
def test_an_error_keeps_its_kind(error: Exception) -> None:
    """It passes through as it is, marked as the implementation's."""

    def function() -> None:
        raise error

    with pytest.raises(type(error)) as found:
        calling(function)()
    assert found.value is error
    assert found.value.raised_by_implementation == "succ"  # type: ignore[attr-defined]


class Speechless(ValueError):
    """Its message cannot be had."""

    def __str__(self) -> str:
        raise AttributeError("lost")


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), Slotted(), Speechless(), pytest.skip.Exception("x")])
def test_what_is_no_ordinary_error_is_a_crash(error: BaseException) -> None:
    """SystemExit ends no run of the suite, and a skip skips no test of it."""

    def function() -> None:
        raise error

    with pytest.raises(Crash, match=type(error).__name__):
        calling(function)()


@pytest.mark.parametrize(
    ("name", "result", "said"),
    [
        ("metrics", None, "`metrics` returned NoneType; the contract asks for a dict"),
        ("metrics", [0.5, 0.5], "`metrics` returned list; the contract asks for a dict"),
        ("train_step", 0.5, "`train_step` returned float; the contract asks for a dict"),
        ("evaluation_pairs", iter([]), "`evaluation_pairs` returned list_iterator; the contract asks for a list"),
        ("parallel", {"a": 1}, "`parallel` returned dict; the contract asks for a list"),
        ("parallel", "abc", "`parallel` returned str; the contract asks for a list"),
        ("losses", 0.5, "`losses` returned float; the contract asks for a tuple"),
    ],
)
def test_another_kind_of_result_is_an_error_of_the_adapter(name: str, result: Any, said: str) -> None:
    """None where a dictionary is asked for, or a generator for a list, is said before a test stumbles over it."""
    with pytest.raises(SuiteError, match=said):
        guarded(lambda: result, name, Journal(Clock(0)))()


def test_what_an_interrupted_run_returns_is_not_looked_at() -> None:
    """It is as if the process had been killed."""
    run = guarded(lambda interrupt=None: None, "run", Journal(Clock(0)))
    run(interrupt=30)
    with pytest.raises(SuiteError, match="`run` returned NoneType"):
        run()


@pytest.mark.parametrize("result", [["a"], ("a",), {"a"}, np.array(["a"]), torch.tensor([1])])
def test_a_list_may_be_of_any_library(result: Any) -> None:
    """A tuple, a set or an array will do."""
    guarded(lambda: result, "parallel", Journal(Clock(0)))()


def test_ctrl_c_is_the_users() -> None:
    """KeyboardInterrupt goes through."""

    def function() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calling(function)()


def test_accumulation_has_to_be_a_number() -> None:
    """How many calls make a step is 1 or more."""
    assert Implementation(type("It", (), {"ACCUMULATES": 4}), "it").accumulates == 4
    for wrong in (0, True, "4", 2.5):
        with pytest.raises(Exception, match="ACCUMULATES is"):
            Implementation(type("It", (), {"ACCUMULATES": wrong}), "it")


# Kinds of numbers


def test_plain_data_is_plain_whatever_made_it() -> None:
    """NumPy's and torch's numbers, tuples, arrays and keys."""
    made = {np.str_("a"): (np.float32(0.5), torch.tensor(2), np.bool_(True), [np.array([1, 2])])}
    found = plain(made)
    assert found == {"a": [0.5, 2, True, [[1, 2]]]}
    assert [type(part) for part in found["a"][:3]] == [float, int, bool]


def test_tensors_come_back_exactly_and_as_copies() -> None:
    """In float64 whatever they were, cut off from their graph; arrays keep their width."""
    live = torch.tensor([0.1, 0.2], dtype=torch.float32, requires_grad=True)
    found = exact({"a": (live, 3)})["a"][0]
    assert (found.dtype, found.requires_grad, found.tolist()) == (torch.float64, False, live.double().tolist())
    double = torch.zeros(2, dtype=torch.float64)
    copy = exact(double)
    double += 1
    assert copy.tolist() == [0, 0]
    assert arrays((live, None))[0].dtype == np.float32


finite = st.floats(-1e3, 1e3, allow_subnormal=False)


@given(npst.arrays(np.float64, st.integers(1, 5), elements=finite))
def test_a_width_is_what_the_numbers_say(array: Any) -> None:
    """float32 stored in float64 is float32; a number that float32 cannot hold makes it float64; a lone one has none."""
    single = array.astype(np.float32)
    assert width(single) == width(single.astype(np.float64)) == width(torch.from_numpy(single).double()) == "float32"
    assert width(np.append(single.astype(np.float64), 0.1)) == "float64"
    assert width(0.1) == width([0.1, 0.2]) == "float32"


@given(npst.arrays(np.float64, st.integers(1, 5), elements=finite))
def test_rounding_to_float32_is_no_violation(array: Any) -> None:
    """A right array in float32 is right, and a wrong one in either width is not."""
    single = array.astype(np.float32)
    close("A1", single, array, "rounded", "arrays")
    near("A1", single, array, "rounded", "model")
    same_bits("A9", single, array, "rounded")
    for wrong in (array + 1 + np.abs(array), np.full_like(array, np.nan)):
        for off in (wrong, wrong.astype(np.float32)):
            with pytest.raises(Violation, match="tolerance: "):
                near("A1", off, array, "wrong", "model")


def test_a_tolerance_says_why() -> None:
    """Its width and its reason are in the message, and float32's is never the smaller one."""
    assert all(one.float64 <= one.float32 for one in TOLERANCES.values())
    with pytest.raises(Violation, match=r"tolerance: 1e-06, relative above 1 \(float32: a few operations on numbers\)"):
        close("M3", 0.5, 0.6, "succ is another")
    with pytest.raises(Violation, match=r"1e-06 of the largest number \(float64: a pass through a model"):
        near("E1", np.array([0.1, 0.3]), np.array([0.1, 0.2]), "x and δ make another gradient")


def test_numbers_beside_which_a_difference_was_formed_round_it() -> None:
    """ΔW = W_u - W in float32 has the rounding of W, and no more than that is allowed."""
    weights = np.linspace(0.1, 1, 50)
    step = 1e-6 * np.ones(50)
    rounded = (weights + step).astype(np.float32).astype(np.float64) - weights.astype(np.float32)
    assert not agree(rounded, step, "model")
    assert agree(rounded, step, "model", of=[np.float32(1) * weights.astype(np.float32)], beside=weights)
    assert not agree(rounded + 20 * EPS["float32"], step, "model", of=[weights.astype(np.float32)], beside=weights)


def test_equal_takes_tuples_for_lists() -> None:
    """And NumPy's truth for Python's."""
    equal("M7", np.bool_(True), True)
    equal("R5", (np.int64(3), 4), [3, 4])
    with pytest.raises(Violation):
        equal("M7", np.bool_(False), True)


def _sorts(outcomes: list[Any], languages: Any = None) -> dict[str, float]:
    outcomes.sort(key=str)
    return {}


def _renames(outcomes: list[Any], languages: Any = None) -> dict[str, float]:
    outcomes[0]["edit"] = "b"
    return {}


def _doubles(w: Any, m: Any) -> Any:
    w *= 1 + m
    return w


def _fills(logits: Any, labels: Any, mask: Any, weight: float) -> Any:
    labels[~mask] = -100
    return 0.0, logits


@pytest.mark.parametrize(
    ("name", "function", "given", "argument"),
    [
        ("metrics", _sorts, ([{"edit": "b"}, {"edit": "a"}],), "outcomes"),
        ("metrics", _renames, ([{"edit": "a"}],), "outcomes"),
        ("apply_mask", _doubles, (np.ones(3), np.ones(3)), "w"),
        ("rel_loss", _fills, (torch.zeros(1, 2, 3), torch.ones(1, 2), torch.tensor([[True, False]]), 1.0), "labels"),
    ],
)
def test_what_is_handed_out_is_not_changed(name: str, function: Any, given: tuple[Any, ...], argument: str) -> None:
    """A list that is sorted, a row or an array that is written to: the next call would be about something else."""
    with pytest.raises(SuiteError, match=f"`{name}` changed its argument `{argument}` in place"):
        guarded(function, name, Journal())(*given)


def test_what_an_implementation_made_itself_may_change() -> None:
    """Its edits may keep what they have computed."""
    kept: list[dict[str, int]] = [{}]
    guarded(lambda editor, edits: edits[0].update(seen=1) or {}, "compose_edits", Journal())(None, kept)
    assert kept == [{"seen": 1}]
