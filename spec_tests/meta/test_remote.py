"""An implementation in its own process: what crosses arrives, and whatever it does there is an outcome here."""

from __future__ import annotations

import ast
import gc
import io
import math
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from .. import probes, tiny
from ..border import Clock, Journal, SuiteError, TimedOut
from ..conformance import Implementation, Injected, load
from ..remote import client, server
from ..remote.client import Died, Remote
from ..run_mutants import BASE

SERVER = Path(server.__file__)
MISBEHAVING = "spec_tests.meta.misbehaving"


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    made = Remote(MISBEHAVING, limit=60)
    yield made
    made.close()


def implementation(remote: Remote) -> Implementation:
    return Implementation(remote, MISBEHAVING, MISBEHAVING)


# Messages

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.sampled_from([np.float32(0.1), np.int64(-3), np.bool_(True), np.float64(2.5)]),
)
KEYS = st.one_of(st.text(), st.integers(), st.tuples(st.text(), st.integers()))
VALUES = st.recursive(
    SCALARS,
    lambda inside: st.one_of(
        st.lists(inside), st.lists(inside).map(tuple), st.dictionaries(KEYS, inside), st.sets(st.integers())
    ),
    max_leaves=12,
)


def there_and_back(value: Any) -> Any:
    """Through a file, as between two processes."""
    coder, file = server.Coder(), io.BytesIO()
    wire = server.Wire(file, file)
    wire.send({"value": coder.encode(value)}, coder.arrays)
    file.seek(0)
    message, arrays = wire.receive()
    return server.Coder().decode(message["value"], arrays)


@given(VALUES)
def test_plain_data_arrive_as_they_are(value: Any) -> None:
    """Numbers, texts, lists, tuples, sets, and dictionaries with any keys; NumPy's numbers keep their type."""
    got = there_and_back(value)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_numbers_that_json_lacks_arrive(number: float) -> None:
    """Infinities, and what is no number."""
    assert repr(there_and_back([number])) == repr([number])


@pytest.mark.parametrize("kind", server.DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (3,), (2, 3)], ids=str)
def test_arrays_arrive_bit_for_bit(kind: str, shape: tuple[int, ...]) -> None:
    """Of every width and shape, whichever way they lie in memory."""
    rng = np.random.default_rng(0)
    array = np.asarray(100 * rng.standard_normal(shape)).astype(kind)
    for value in (array, np.asfortranarray(array), array[..., ::-1] if shape else array):
        got = there_and_back({"a": value})["a"]
        assert got.dtype == value.dtype
        assert np.array_equal(got, value)
    got = there_and_back(torch.from_numpy(array) if kind not in ("uint16", "uint32", "uint64") else torch.ones(2))
    assert isinstance(got, torch.Tensor)


@pytest.mark.parametrize(
    "text",
    [b"no json\n\n", b'{"arrays":[["object",[2]]]}\n', b'{"arrays":[["float64",[2]]]}\nshort', b'{"value":1}'],
    ids=["no json", "a dtype that runs code", "cut off", "no end"],
)
def test_what_is_no_message_is_refused(text: bytes) -> None:
    """Nothing is guessed, and no array of objects is made."""
    with pytest.raises((ValueError, EOFError)):
        server.Wire(io.BytesIO(text), io.BytesIO()).receive()


def test_the_server_needs_nothing_but_numpy() -> None:
    """It is one file of Python 3.8 that imports the standard library and NumPy; torch only where it is there."""
    tree = ast.parse(SERVER.read_text(encoding="utf-8"), feature_version=(3, 8))
    at_once = {name.name for node in tree.body if isinstance(node, ast.Import) for name in node.names}
    at_once |= {node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in at_once} <= {*sys.stdlib_module_names, "numpy"}
    later = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) and node not in tree.body]
    names = {getattr(node, "module", None) or node.names[0].name for node in later}
    assert {name.partition(".")[0] for name in names} <= {*sys.stdlib_module_names, "numpy", "torch", "transformers"}
    assert not {"pickle", "marshal", "shelve", "ctypes"} & {*at_once, *names}
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not {"eval", "exec", "compile", "__import__"} & called


# Calls


def test_a_call_gives_what_the_function_gives(remote: Remote) -> None:
    """A number, a NumPy number, a structure, and what a function of the suite answers."""
    found = implementation(remote)
    assert found.claims == {"M"}
    assert found.succ(1.0, 0.5) == pytest.approx(2 / 3)
    assert found.hit([1, 2], [1, 3], [True, False], "update") is True
    nested = [{"a": (1, [2.5, None]), "b": np.arange(3)}]
    got = remote.metrics(nested)
    assert got[0]["a"] == (1, [2.5, None])
    assert got[0]["b"].tolist() == [0, 1, 2]
    asked: list[Any] = []
    assert remote.aggregate(lambda *args, **kwargs: asked.append((args, kwargs)) or [len(asked)]) == [1]
    assert asked == [((np.float32(0.5),), {"text": "ü"})]


def test_it_runs_in_another_process_that_knows_nothing_of_messages(remote: Remote) -> None:
    """Its arguments and its standard input are empty."""
    said = remote.breakdown([], "language")
    assert said["process"] != os.getpid()
    assert (said["arguments"], said["input"]) == ([], "")


def test_an_error_keeps_its_type_and_its_place(remote: Remote) -> None:
    """A ValueError of another name is one here, with message, file and line, and is marked as the implementation's."""
    with pytest.raises(ValueError, match="no such thing: ü") as caught:
        implementation(remote).succ(4, 0)
    assert type(caught.value).__name__ == "Strange"
    assert caught.value.raised_by_implementation == "succ"  # type: ignore[attr-defined]
    assert "misbehaving.py" in caught.value.where  # type: ignore[attr-defined]
    assert "in _raises" in "".join(caught.value.__notes__)


def test_what_is_no_error_is_an_error_here(remote: Remote) -> None:
    """Nothing that an implementation raises ends the suite or skips a test."""
    with pytest.raises(Exception, match="not today") as caught:
        implementation(remote).succ(5, 0)
    assert type(caught.value).__name__ == "Refusal"


def test_a_wrong_signature_is_the_adapters(remote: Remote) -> None:
    """As in the suite's own process."""
    with pytest.raises(SuiteError, match="`succ` does not take the arguments of the contract"):
        implementation(remote).succ(1)


def test_a_failing_function_of_the_suite_is_not_the_implementations(remote: Remote) -> None:
    """It is the suite that is broken."""
    with pytest.raises(SuiteError, match="a function that `aggregate` was given failed: ZeroDivisionError"):
        implementation(remote).aggregate(lambda *_, **__: 1 / 0)


def test_output_is_counted_and_breaks_no_message(remote: Remote, capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed, past Python too, is shown beside the test and counted like a warning."""
    journal = Journal()
    found = Implementation(remote, MISBEHAVING, None, journal)
    assert found.succ(2, 2) == 2
    assert found.succ(1, 1) == 1
    shown = capsys.readouterr()
    assert "a line of the implementation" in shown.out
    assert "a line past Python" in shown.out
    assert "a complaint" in shown.err
    assert journal.warnings == {("succ", "Printed", "it wrote to standard output"): 1}


def test_warnings_are_counted(remote: Remote) -> None:
    """By their own category, and as often as they came."""
    journal = Journal()
    Implementation(remote, MISBEHAVING, None, journal).succ(3, 3)
    assert journal.warnings == {("succ", "FutureWarning", "this will go away"): 3}


# The end of a process


@pytest.mark.parametrize(
    ("acc", "words"),
    [
        (7, ("was killed by SIGKILL", "`succ`")),
        (8, ("ended with exit code 3", "`succ`", "out of luck")),
        (9, ("ended with exit code 4", "`succ`")),
    ],
    ids=["killed", "exits", "leaves a child"],
)
@pytest.mark.skipif(os.name == "nt", reason="these are ways of POSIX to end")
def test_a_process_that_ends_is_a_crash_and_is_followed_by_another(acc: int, words: tuple[str, ...]) -> None:
    """How it ended is said, and the next call has a new process."""
    remote = Remote(MISBEHAVING, limit=20)
    try:
        with pytest.raises(Died) as caught:
            implementation(remote).succ(acc, 1)
        assert all(word in str(caught.value) for word in words), caught.value
        assert caught.value.raised_by_implementation == "succ"  # type: ignore[attr-defined]
        assert implementation(remote).succ(1, 1) == 1
    finally:
        remote.close()


@pytest.mark.parametrize("interrupted", [True, False], ids=["by the clock", "by the client"])
def test_a_call_that_hangs_is_ended(interrupted: bool) -> None:
    """Even one that catches everything; the message names the function and the limit, and the next call works."""
    clock = Clock(0.5) if interrupted else None
    remote = Remote(MISBEHAVING, limit=60 if interrupted else 0.5)
    found = Implementation(remote, MISBEHAVING, None, Journal(clock))
    try:
        start = time.monotonic()
        with pytest.raises(TimedOut, match="`succ` did not return within"):
            found.succ(6, 1)
        assert time.monotonic() - start < 20
        if clock:
            clock.limit = 60  # a new process starts within the next call
        assert found.hit([1], [1], [True], "update") is True
    finally:
        if clock:
            clock.close()
        remote.close()


def test_what_belongs_to_a_process_that_ended_says_so(remote: Remote) -> None:
    """An editor of a process that is gone cannot be used, and the message is that of the end."""
    editor = remote.make_editor("mend", tiny.setting("bert").model, [], [])
    edits = remote.edit(editor, ["nothing"])
    said = []
    # A number of that process would be another object of the next one.
    calls = (
        lambda: remote.succ(8, 1),
        lambda: remote.parameters(editor),
        lambda: remote.compose_edits(None, [edits]),
        lambda: remote.raw_logits(None, [{"edits": edits}]),
    )
    for call in calls:
        with pytest.raises(Died) as caught:
            call()
        said.append(str(caught.value))
    assert len(set(said)) == 1
    assert remote.succ(1, 1) == 1


@pytest.mark.parametrize(
    ("spelling", "python", "words"),
    [
        ("no.such.module", sys.executable, ("cannot import the implementation", "ModuleNotFoundError")),
        ("json:nothing", sys.executable, ("cannot import the implementation", "AttributeError")),
        (MISBEHAVING, "/no/such/python", ("there is no interpreter",)),
        (MISBEHAVING, "{folder}/broken", ("does not start",)),
        ("{folder}/exits.py", sys.executable, ("cannot import", "SystemExit")),
        ("{folder}/dies.py", sys.executable, ("cannot import", "its process was killed by SIGKILL")),
    ],
    ids=["no module", "no object", "no interpreter", "broken interpreter", "exits", "dies"],
)
def test_an_implementation_that_cannot_be_had_is_an_error_of_the_adapter(
    tmp_path: Path, spelling: str, python: str, words: tuple[str, ...]
) -> None:
    """Not imported, no interpreter there, or one that cannot run the server: each with its reason."""
    (tmp_path / "broken").write_text("#!/bin/sh\necho 'no luck' >&2\nexit 9\n")
    (tmp_path / "broken").chmod(0o755)
    (tmp_path / "exits.py").write_text("raise SystemExit(2)\n")
    (tmp_path / "dies.py").write_text("import os\nos.kill(os.getpid(), 9)\n")
    with pytest.raises(SuiteError) as caught:
        load(spelling.format(folder=tmp_path), None, python.format(folder=tmp_path))
    assert all(word in str(caught.value) for word in words), caught.value


def test_nothing_is_left_behind() -> None:
    """Neither processes nor folders, and what the suite drops is dropped there."""
    remote = Remote(MISBEHAVING, limit=60)
    process = remote._process
    assert process is not None
    for _ in range(3):
        remote.make_editor("mend", tiny.setting("bert").model, [], [])
    gc.collect()
    assert process.dropped
    assert process.dropped_models
    remote.succ(1, 1)
    assert process.dropped == process.dropped_models == []
    folders = [process.folder, remote._folders.root]
    remote.close()
    assert process.popen.poll() is not None
    assert not [folder for folder in folders if folder is None or folder.exists()]


# What both sides see


def test_live_parameters_follow_each_other(remote: Remote) -> None:
    """What the suite writes arrives there, and what training writes arrives here; parts stay parts of one memory."""
    editor = remote.make_editor("mend", tiny.setting("bert").model, [], [])
    live, masks = remote.parameters(editor), remote.mask_parameters(editor)
    masks["w"]["x"][1, 0] = 100.0
    assert live["flat"][15] == 100.0, "a mask is a part of the flat vector"
    live["own"].fill_(2.0)
    expected = [[15.0], [float(sum(range(10, 30)) - 15 + 100)], [4.0]]
    assert remote.optimizer_groups(editor) == expected
    parts = remote.train_step(editor, [], seed=0)
    assert (float(parts["rel"]), float(parts["loc"])) == (1.0, 2.0)
    assert live["flat"][15] == 101.0
    assert live["own"].tolist() == [3.0, 3.0], "a parameter that was given other memory"
    assert remote.parameters(editor)["flat"] is live["flat"]
    live["own"].add_(1.0)
    assert remote.optimizer_groups(editor)[2] == [8.0]


@pytest.mark.parametrize(
    ("what", "undo"), [("train", None), ("write", None), ("gradient", "clear"), ("hook", "unhook")]
)
def test_what_becomes_of_the_raw_model_is_seen(remote: Remote, what: str, undo: str | None) -> None:
    """A mode, a number, a gradient or a hook that an edit leaves on the model there shows on the suite's own."""
    world = tiny.setting("bert")
    editor = remote.make_editor("mend", world.model, [], [])
    one = tiny.make_input("bert", np.random.default_rng(0))

    def state() -> list[Any]:
        gradients = [name for name, value in world.model.named_parameters() if value.grad is not None]
        return [tiny.logits_of(world.model, one).detach(), world.model.training, gradients]

    def differ(first: list[Any], second: list[Any]) -> bool:
        return not torch.equal(first[0], second[0]) or first[1:] != second[1:]

    before, was = tiny.snapshot(world.model), state()
    remote.edit(editor, ["nothing"])
    assert not tiny.differences(before, tiny.snapshot(world.model))
    assert not differ(state(), was)
    edits = remote.edit(editor, [what])
    assert differ(state(), was)
    assert bool(tiny.differences(before, tiny.snapshot(world.model))) == (what in ("train", "write"))
    assert remote.dense(editor, edits, 0) == {"first": what}
    if undo:
        remote.edit(editor, [undo])
        assert not differ(state(), was)


def test_a_raw_model_keeps_its_numbers_and_its_width(remote: Remote) -> None:
    """Float32 and float64, in evaluation and training, of every kind; what the suite changes is changed there."""
    for kind in ("bert", "classifier", "roberta"):
        for width in (torch.float32, torch.float64):
            world = tiny.setting(kind, width)
            world.model.train()
            editor = remote.make_editor("mend", world.model, [], [])
            one = tiny.make_input(kind, np.random.default_rng(0))
            ids = torch.tensor([one["input_ids"]])
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            assert remote._process is not None
            found = remote._process.forward(len(remote._process.models), inputs, False)
            assert found.dtype == width
            expected = world.model(**inputs).logits
            assert torch.equal(found, expected), (kind, width)
            with torch.no_grad():
                next(world.model.parameters()).add_(1.0)
            remote.make_editor("mend", world.model, [], [])
            assert not torch.equal(remote._process.forward(len(remote._process.models), inputs, False), expected)
            del editor


# What a test looks at, in this process and in another

MUTANTS = {
    "raw-model-left-edited": ("test_t_task.py", "leave_the_raw_model and mend-bert-eval"),
    "noise-at-test": ("test_t_task.py", "leaves_the_editor_as_it_was and mend-bert"),
    "set-order": ("test_s_sampling.py", "hash_seeds"),
    "order-of-files": ("test_d_data.py", "order_of_a_listing"),
    "mask-multiplied-out": ("test_b_budget.py", "nothing_of_n_times_m and test-forward"),
    "hooks-left-behind": ("test_t_surroundings.py", "nothing_is_left_behind and mend-bert"),
    "saved-in-bfloat16": ("test_c_composition.py", "saved_model and mend-bert-float64"),
    "composition-of-the-last": ("test_c_composition.py", "sum_of_its_edits and mend-bert"),
    "a-matrix-per-language-on-the-way": ("test_b_budget.py", "makes_no_matrix_per_language and mend-language"),
}
QUIETLY = ("-q", "--hypothesis-profile=mutants", "-W", "ignore::pytest.PytestAssertRewriteWarning")


def judged_there(spelling: str, file: str, chosen: str) -> set[str]:
    """The outcomes of some tests of an implementation in its own process."""
    remote = Remote(spelling, limit=60)
    judged = Injected(remote, spelling, spelling)
    try:
        pytest.main([str(SERVER.parents[1] / file), "-k", chosen, *QUIETLY], plugins=[judged])
    finally:
        remote.close()
    return {result.outcome for result in judged.results} - {"not run", "not claimed"}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutants_are_found_in_another_process(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test sees of memory, folders, generators, hash seeds and the raw model, it sees there too."""
    monkeypatch.setenv(BASE, "spec_tests.adapters.plain")
    assert judged_there(f"spec_tests.run_mutants:{mutant}", *MUTANTS[mutant]) == {"failed"}


@pytest.mark.parametrize(
    "mutant", ["raw-model-left-edited", "mask-multiplied-out", "saved-in-bfloat16", "composition-of-the-last"]
)
def test_what_finds_mutants_there_finds_nothing_in_what_is_right(mutant: str) -> None:
    """The same tests pass without the mutation."""
    assert judged_there("spec_tests.adapters.plain", *MUTANTS[mutant]) == {"passed"}


def test_global_generators_are_set_for_the_calls_alone(remote: Remote) -> None:
    """In this process they stand afterwards where they stood before."""
    found = implementation(remote)
    before = torch.random.get_rng_state()
    with probes.global_state(found, 3):
        assert found.succ(1, 1) == 1
    assert torch.equal(torch.random.get_rng_state(), before)
    with warnings.catch_warnings(), probes.global_state(object(), 3):
        first = torch.rand(2), np.random.rand(2)
    with probes.global_state(object(), 3):
        assert torch.equal(torch.rand(2), first[0])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_editors_of_a_run_stay_where_they_are(remote: Remote) -> None:
    """Whatever they are made of: the rest of a trace is plain data."""
    trace = remote.run({}, Path("model"), "mend", "all", 0, {}, Path("folder"))
    assert trace["steps"] == [{"loss": 1.5}]
    assert {type(trace[name]) for name in ("start", "editor")} == {client.Handle}
    assert remote.raw_logits(trace["start"], []) == [{"a": 1}]


def test_many_edits_stay_where_they_are(remote: Remote, tmp_path: Path) -> None:
    """A composition, the next edit, and what is left of one are handles; a folder is written by the process."""
    editor = remote.make_editor("mend", tiny.setting("bert").model, [], [])
    made = [remote.edit(editor, [word]) for word in ("a", "b")]
    whole = remote.compose_edits(editor, made)
    after = remote.edit_after(editor, whole, ["c"])
    left = remote.drop_edit(editor, edits=after, index=0)
    assert {type(edits) for edits in (*made, whole, after, left)} == {client.Handle}
    assert [remote.dense(editor, edits, 1)["first"] for edits in (whole, after, left)] == ["b", "b", "c"]
    remote.save_edited(editor, left, 1, tmp_path / "saved")
    assert (tmp_path / "saved" / "edit.txt").read_text(encoding="utf-8") == "c"


def test_a_call_begins_in_the_callers_grad_mode(remote: Remote) -> None:
    """And what a call leaves behind in its process is seen, and gone in the next process."""
    found = implementation(remote)
    assert remote.preferences("nothing") is True
    with torch.no_grad():
        assert remote.preferences("nothing") is False
    state = probes.process_state(found)
    assert state["grad mode"] is True
    with probes.kept_process(found):
        remote.preferences("leave gradients off")
        assert probes.process_state(found)["grad mode"] is False
        remote.preferences("draw")
        assert probes.process_state(found)["random generator of torch"] != state["random generator of torch"]
        before = remote._process
    assert remote.preferences("nothing") is True
    assert remote._process is not before
    with probes.kept_process(found):
        remote.preferences("nothing")
    assert probes.process_state(found)["grad mode"] is True


def test_a_raw_model_is_handed_over_with_what_its_user_set(remote: Remote) -> None:
    """Frozen parameters, gradients, modes and hooks; each that the implementation changes is seen there."""
    world, found = tiny.setting("bert"), implementation(remote)
    first, second, *_ = world.model.named_parameters()
    first[1].requires_grad_(False)
    second[1].grad = torch.full_like(second[1], 0.5)
    world.model.bert.encoder.train()
    world.model.bert.register_forward_hook(lambda *_: None)
    here, there = server.surroundings(world.model), probes.surroundings(found, world.model)
    for what in ("requires_grad", "modes"):
        assert there[what] == here[what], what
    assert there["gradients"][second[0]][1] == here["gradients"][second[0]][1]
    assert len(there["hooks"]["bert"]["_forward_hooks"]) == 1
    editor = remote.make_editor("mend", world.model, [], [])
    assert probes.surroundings(found, world.model) == there
    remote.edit(editor, ["hook", "train"])
    changed = probes.surroundings(found, world.model)
    assert {what for what in there if changed[what] != there[what]} == {"hooks", "modes"}
    second[1].requires_grad_(False)
    assert probes.surroundings(found, world.model)["requires_grad"][second[0]] is False


def test_signals_have_names() -> None:
    """As a reader knows them."""
    assert client._how(-signal.SIGSEGV) == "was killed by SIGSEGV"
    assert client._how(2) == "ended with exit code 2"
