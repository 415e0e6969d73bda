"""Parts of a batch, several processes, bf16: the same meaning on any hardware."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lime_editing.backbone import Backbone, Rows, load, load_tokenizer, wrap
from lime_editing.core import evaluation, training
from lime_editing.core.editing import Editor, Objective, make_editor
from lime_editing.core.metrics import Scores
from lime_editing.core.sampling import evaluation_pairs
from lime_editing.core.task import Task
from lime_editing.core.training import batch_of_triples, gradients
from lime_editing.data import Reader
from lime_editing.data.facts.read import read
from lime_editing.data.facts.task import tasks as tasks_of
from lime_editing.editors import find
from lime_editing.errors import UserError
from lime_editing.hardware import Processes, halving
from lime_editing.names import Positions, Rulings
from lime_editing.reproduce.cells import Cell, Status
from reference.tests.miniature import EDITORS, TASK, finished, prepared, run

LEARNED = [name for name in EDITORS if find(name).TRAINED]
BATCH = 7  # no multiple of the parts


def made(method: str, model: Path, languages: tuple[str, ...], precision: str = "float32") -> Editor:
    return make_editor(method, load(model, 2, precision=precision), languages, "language", 0, TASK.settings[method])


@pytest.fixture
def tasks(facts: Path, model: Path) -> dict[str, Task]:
    return dict(tasks_of(read(facts), Reader(load_tokenizer(model)), Rulings(), {}))


def of_memory(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """Let the trunk run out of memory beyond so many inputs at a time; the sizes that were tried."""
    tried: list[int] = []
    read = Backbone.read

    def small(self: Backbone, rows: Rows) -> torch.Tensor:
        # A row may hold several inputs, which are numbered.
        tried.append(len(rows.ids) if rows.answering is None else int(rows.answering.max()) + 1)
        if tried[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …")
        return read(self, rows)

    monkeypatch.setattr(Backbone, "read", small)
    return tried


@pytest.mark.parametrize("method", LEARNED)
@pytest.mark.parametrize("at_a_time", [1, 3, 4])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(
    method: str, at_a_time: int, facts: Path, model: Path, tasks: dict[str, Task]
) -> None:
    exact = wrap(load(model, 2).model.double(), 2)
    editor = make_editor(method, exact, read(facts).languages, "language", 0, TASK.settings[method])
    triples = batch_of_triples(tasks["train"], BATCH, 0, 1)
    expected = gradients(editor, triples, 5, Objective())
    wanted = {name: p.grad.clone() for name, p in editor.parameters.items() if p.grad is not None}
    assert len(wanted) == len(editor.parameters)
    got = gradients(editor, triples, 5, Objective(), at_a_time=at_a_time)
    assert got == pytest.approx(expected, rel=1e-9)
    for name, parameter in editor.parameters.items():
        torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_processes_share_all_items_once(count: int) -> None:
    for items in (0, 1, 5, 10):
        shares = [list(Processes(rank, count).share(items)) for rank in range(count)]
        assert [i for share in shares for i in share] == list(range(items))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_too_little_memory_halves_the_batch_and_says_so(
    facts: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(facts, model, tmp_path / "whole")
    tried = of_memory(monkeypatch, 5)  # a batch of two is six inputs
    said: list[Status] = []
    parts = run(facts, model, tmp_path / "parts", listen=said.append)
    assert max(tried) > 5
    assert any(p.doing == "train, 1 edits at a time for lack of memory" for p in said)
    curves = [json.loads((folder / "curve.json").read_text()) for folder in (whole, parts)]
    assert [report["at_a_time"] for curve in curves for report in curve] == [2] * 3 + [1] * 3
    for first, second in zip(*curves, strict=True):
        assert second["total"] == pytest.approx(first["total"], rel=1e-4)
    assert (parts / "metrics.json").read_text() == (whole / "metrics.json").read_text()


def test_the_size_that_fits_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def attempt(size: int) -> int:
        if size > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return -size

    assert halving(attempt, 10) == (-3, 3)
    assert halving(attempt, 2) == (-2, 2)


def test_memory_for_no_edit_at_all_is_said() -> None:
    def attempt(size: int) -> int:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …")

    with pytest.raises(UserError, match=r"too little memory for one edit \(CUDA out of memory"):
        halving(attempt, 10)


@pytest.mark.parametrize("positions", ["mask", "all"])
def test_judging_in_parts_gives_the_same_outcomes(
    positions: Positions, facts: Path, model: Path, tasks: dict[str, Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = made("mend", model, read(facts).languages)
    pairs = evaluation_pairs(tasks["test"].corpus, editor.languages, editor.languages, 2, 2, 0, 9)
    expected = evaluation.evaluate(editor, tasks["test"], pairs, 0, con_positions=positions)
    assert len({o.hit for o in expected}) == 2
    tried = of_memory(monkeypatch, 12)
    assert evaluation.evaluate(editor, tasks["test"], pairs, 0, con_positions=positions) == expected
    assert max(tried) > 12


def test_a_loss_that_is_not_finite_leaves_the_parameters(facts: Path, model: Path, tasks: dict[str, Task]) -> None:
    editor = made("mend", model, read(facts).languages)
    with torch.no_grad():
        editor.parameters["mend.log_inner_lr"].fill_(float("inf"))
    before = {name: p.detach().clone() for name, p in editor.parameters.items()}
    with pytest.raises(UserError, match=r"training loss is nan at step 1; lower the learning rates"):
        list(training.train(editor, tasks["train"], lambda _: Scores(0, 0, 0), TASK.all_languages, Objective(), 0))
    assert all(torch.equal(p, before[name]) for name, p in editor.parameters.items())


@pytest.mark.parametrize("method", LEARNED)
def test_bf16_is_near_float32(method: str, facts: Path, model: Path, tasks: dict[str, Task]) -> None:
    triples = batch_of_triples(tasks["train"], BATCH, 0, 1)
    losses = []
    for precision in ("float32", "bf16"):
        editor = made(method, model, read(facts).languages, precision)
        losses.append(gradients(editor, triples, 5, Objective()))
        assert all(p.grad is not None and p.grad.dtype == p.dtype == torch.float32 for p in editor.parameters.values())
    assert losses[0] != losses[1]
    assert losses[1]["rel"] == pytest.approx(losses[0]["rel"], rel=0.02)  # eight bits of a mantissa
    assert losses[1]["mask"] == losses[0]["mask"]


@pytest.mark.parametrize("method", EDITORS)
def test_a_cell_runs_in_bf16(method: str, facts: Path, model: Path, tmp_path: Path) -> None:
    cell = Cell("facts", method, "all" if method in LEARNED else None, 0)
    experiment = prepared(facts, model, cell=cell)
    mixed = replace(experiment, sources=replace(experiment.sources, precision="bf16"))
    folder = finished(cell, mixed, tmp_path)
    assert json.loads((folder / "metrics.json").read_text()).keys() == {"en → all", "all → all"}


SCRIPT = """
import sys
from pathlib import Path
from lime_editing import hardware
from lime_editing.reproduce.run import run_cell
from reference.tests.miniature import CELL, prepared
together = hardware.join("cpu")
with together.in_turn():
    experiment = prepared(Path(sys.argv[1]), Path(sys.argv[2]))
assert list(run_cell(CELL, experiment, Path(sys.argv[3]), together))
assert not list(run_cell(CELL, experiment, Path(sys.argv[3]), together))
together.leave()
"""
ROOT = Path(__file__).resolve().parents[2]


def torchrun(*argv: object, processes: int) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    paths = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    command = [*launcher, *map(str, argv)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)


def test_two_processes_train_what_one_does(facts: Path, model: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = torchrun(script, facts, model, tmp_path / "two", processes=2)
    assert done.returncode == 0, done.stderr
    (two,) = (tmp_path / "two").iterdir()
    one = run(facts, model, tmp_path / "one")
    assert two.name == one.name
    read: Callable[[Path, str], object] = lambda folder, name: json.loads((folder / name).read_text())  # noqa: E731
    assert read(two, "metrics.json") == read(one, "metrics.json")
    for first, second in zip(read(one, "curve.json"), read(two, "curve.json"), strict=True):
        assert second == pytest.approx(first, rel=1e-4, abs=1e-6)
    machines = [read(folder, "cell.json")["machine"] for folder in (one, two)]
    assert machines[1] == f"2 × {machines[0]}"
    names = {path.name for path in two.iterdir()}
    assert names == {"cell.json", "curve.json", "editor.safetensors", "metrics.json", "rows.parquet"}


def test_the_command_runs_under_torchrun(facts: Path, model: Path, tmp_path: Path) -> None:
    argv = ["-m", "lime_editing", "reproduce", "--task", "facts", "--approach", "finetuning", "--facts", facts]
    argv += ["--model", model, "--results", tmp_path / "results", "--set", "edited_layers=2"]
    done = torchrun(*argv, processes=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("by 2 processes") == 1  # one speaks for all
    assert (tmp_path / "results/tiny-changed/report.html").is_file()
    refused = torchrun(*argv, "--jobs", "2", processes=2)
    assert refused.returncode != 0
    assert "under torchrun all processes work on one cell" in refused.stderr
