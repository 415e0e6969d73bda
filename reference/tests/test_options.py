"""What the options of a run choose: models, layers, protocols, and the scale's own where nothing is named."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from lime_editing import __main__ as command
from lime_editing import results as store
from lime_editing.core.backbone import load
from lime_editing.data import download
from lime_editing.report import counts as runs
from lime_editing.reproduce import checkpoints
from lime_editing.reproduce import processes as grid
from lime_editing.reproduce import run as experiments
from lime_editing.reproduce import scales as config

MATRICES = ("bert.encoder.layer.0.output.dense.weight", "bert.encoder.layer.2.intermediate.dense.weight")


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_grid(
        cells: Sequence[experiments.Cell],
        ready: Mapping[str, experiments.Experiment],
        results: Path,
        jobs: int,
        listen: experiments.Listener,
    ) -> dict[experiments.Cell, Path]:
        return {cell: experiments.run_cell(cell, ready[cell.task], results, listen) for cell in cells}

    monkeypatch.setattr(grid, "run_grid", run_grid)


def run(facts: Path, model: Path, results: Path, *more: str) -> list[Path]:
    """The folders of the cells that the report is about, in the order of the index."""
    argv = ["reproduce", "--task", "facts", "--approach", "finetuning", "--facts", str(facts), "--model", str(model)]
    argv += ["--results", str(results), "--set", "settings.finetuning.steps=2", "--set", "test.edits=6", *more]
    assert command.main(argv) == 0
    return store.read_index(results / "tiny-changed")


def test_both_protocols_are_one_run_and_one_report(facts: Path, model: Path, tmp_path: Path) -> None:
    """The same cells as of one and then the other."""
    folders = run(facts, model, tmp_path / "both", "--edited-layers", "2", "--protocol", "both")
    records = [json.loads((folder / "cell.json").read_text()) for folder in folders]
    assert [(r["cell"]["approach"], r["protocol"]) for r in records] == [
        ("unedited", "paper"),
        ("finetuning", "paper"),
        ("unedited", "released"),
        ("finetuning", "released"),
    ]
    for name in ("paper", "released"):
        assert {r["rulings"]["con_positions"] for r in records if r["protocol"] == name} == {
            config.PROTOCOLS[name].con_positions
        }
    each = [
        run(facts, model, tmp_path / "each", "--edited-layers", "2", "--protocol", p) for p in ("paper", "released")
    ]
    assert {folder.name for folder in folders} == {folder.name for found in each for folder in found}
    assert [section.protocol for section in runs.read(folders)] == ["paper", "released"]
    page = (tmp_path / "both/tiny-changed/report.html").read_text()
    assert "were made with the released code, whose rulings these are" in page
    assert "not under this protocol" in page


def test_a_ruling_that_is_named_is_that_of_both(facts: Path, model: Path, tmp_path: Path) -> None:
    folders = run(facts, model, tmp_path, "--edited-layers", "2", "--protocol", "both", "--con-positions", "mask")
    rulings = [json.loads((folder / "cell.json").read_text())["rulings"] for folder in folders]
    assert {r["con_positions"] for r in rulings} == {"mask"}
    assert {r["kl_direction"] for r in rulings} == {"paper", "released"}


def test_matrices_by_name_are_what_is_edited_and_what_a_checkpoint_remembers(
    facts: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In any order they are one cell; the folder alone says which they were."""
    folders = run(facts, model, tmp_path, "--edited-layers", ",".join(MATRICES))
    again = run(facts, model, tmp_path, "--edited-layers", ",".join(reversed(MATRICES)))
    assert again == folders
    record = json.loads((folders[1] / "cell.json").read_text())
    assert record["preset"]["edited_layers"] == list(MATRICES)
    assert checkpoints.load(folders[1], model).backbone.edited == load(model, MATRICES).edited == MATRICES
    argv = ["edit", "--facts", str(facts), "--model", str(model), "--fact", "P1/Q0", "--to", "Bema", "--json"]
    capsys.readouterr()
    assert command.main([*argv, "--edited-layers", MATRICES[0]]) == 0
    assert set(json.loads(capsys.readouterr().out)["matrices"]) == {MATRICES[0]}
    assert command.main([*argv, "--checkpoint", str(folders[1])]) == 0
    assert set(json.loads(capsys.readouterr().out)["matrices"]) == set(MATRICES)
    assert command.main([*argv, "--checkpoint", str(folders[1]), "--edited-layers", "1"]) == 2
    assert "the checkpoint says which layers" in capsys.readouterr().err


GIVEN = {
    ("facts", ""): ("fixtures/facts/mlama1.1", "fixtures/raw_model", True),
    ("facts", "--model m"): ("fixtures/facts/mlama1.1", "m", True),
    ("nli", ""): ("fixtures/nli", "fixtures/raw_classifier", True),
    ("nli", "--model m"): ("fixtures/nli", "m", False),
    ("nli", "--raw-model r"): ("fixtures/nli", "r", True),
    ("nli", "--model m --raw-model r --nli n"): ("n", "r", True),
    ("facts", "--scale paper"): ("yxu/LiME_data", "bert-base-multilingual-cased", True),
    ("facts", "--scale paper --facts f.zip"): ("f.zip", "bert-base-multilingual-cased", True),
    ("nli", "--scale paper"): ("facebook/xnli", "bert-base-multilingual-cased", False),
    ("nli", "--scale paper --model xlm-roberta-base"): ("facebook/xnli", "xlm-roberta-base", False),
    ("nli", "--scale paper --raw-model r"): ("facebook/xnli", "r", True),
}


@pytest.mark.parametrize(("task", "argv"), GIVEN)
def test_what_is_not_named_is_the_scales_own(task: str, argv: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "locate", lambda source, *_: source)  # no hub
    options = command.parser().parse_args(["reproduce", *argv.split()])
    assert command._given(options, command._preset(options), task) == GIVEN[task, argv]


UNUSED = {
    "reproduce --task facts --nli n": "--nli has no part in the task facts",
    "reproduce --task facts --raw-model r": "--raw-model has no part in the task facts",
    "reproduce --task nli --facts f": "--facts has no part in the task nli",
    "reproduce --task nli --model m --raw-model r": "--model has no part in the task nli beside --raw-model",
    "reproduce --json": "--json prints the plan of --dry-run",
    "reproduce --hours 2": "--hours is for jobs",
    "reproduce --partition p": "--partition and --slurm are for jobs on a cluster",
    "reproduce --executor local --slurm mem=1G": "--partition and --slurm are for jobs on a cluster",
    "reproduce --executor local --device cuda:1": "give --device cuda",
}


@pytest.mark.parametrize("argv", UNUSED)
def test_an_option_that_nothing_would_come_of_is_refused(argv: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(argv.split()) == 2
    assert UNUSED[argv] in capsys.readouterr().err


def test_an_edit_of_a_pair_wants_a_classifier(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["edit", "--model", "fixtures/raw_model", "--pair", "test/1", "--to", "neutral"]) == 2
    assert "give --raw-model" in capsys.readouterr().err
