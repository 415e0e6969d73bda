"""What the options of a run choose: models, layers, protocols, and the scale's own where nothing is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from lime_editing import data, results
from lime_editing.__main__ import main
from lime_editing.backbone import load
from lime_editing.cli.options import Reproduce, read
from lime_editing.cli.parser import parser
from lime_editing.cli.sources import given, scale_of
from lime_editing.data import download
from lime_editing.names import PROTOCOLS
from lime_editing.report import counts
from lime_editing.reproduce import processes, store
from lime_editing.reproduce.cells import Cell, Experiment, Status, cell_folder, status_at_the_end
from lime_editing.reproduce.run import run_cell
from reference.tests.miniature import set_options

MATRICES = ("bert.encoder.layer.0.output.dense.weight", "bert.encoder.layer.2.intermediate.dense.weight")


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_grid(
        cells: Sequence[Cell], ready: Mapping[str, Experiment], root: Path, where: Sequence[str | None]
    ) -> Iterator[Status]:
        for cell in cells:
            yield from run_cell(cell, ready[cell.task], root)
            yield status_at_the_end(cell, cell_folder(cell, ready[cell.task], root), "done")

    monkeypatch.setattr(processes, "run_grid", run_grid)


def run(facts: Path, model: Path, root: Path, *more: str) -> list[Path]:
    """The folders of the cells that the report is about, in the order of the index."""
    argv = ["reproduce", "--task", "facts", "--approach", "finetuning", "--facts", str(facts), "--model", str(model)]
    argv += ["--results", str(root), "--set", "settings.finetuning.steps=2", "--set", "test.edits=6", *more]
    assert main(argv) == 0
    return results.read_index(root / "tiny-changed")


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
            PROTOCOLS[name].con_positions
        }
    each = [
        run(facts, model, tmp_path / "each", "--edited-layers", "2", "--protocol", p) for p in ("paper", "released")
    ]
    assert {folder.name for folder in folders} == {folder.name for found in each for folder in found}
    assert [section.scope["protocol"] for section in counts.read(folders)] == ["paper", "released"]
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
    assert record["scale"]["edited_layers"] == list(MATRICES)
    assert store.load(folders[1], model).backbone.edited == load(model, MATRICES).edited == MATRICES
    argv = ["edit", "--facts", str(facts), "--model", str(model), "--fact", "P1/Q0", "--to", "Bema", "--json"]
    capsys.readouterr()
    assert main([*argv, "--edited-layers", MATRICES[0]]) == 0
    assert set(json.loads(capsys.readouterr().out)["matrices"]) == {MATRICES[0]}
    assert main([*argv, "--checkpoint", str(folders[1])]) == 0
    assert set(json.loads(capsys.readouterr().out)["matrices"]) == set(MATRICES)
    assert main([*argv, "--checkpoint", str(folders[1]), "--edited-layers", "1"]) == 2
    assert "the checkpoint says which layers" in capsys.readouterr().err


KEPT: dict[str, list[str]] = {
    "as-it-is": [],
    "layers-and-languages": ["--edited-layers", "1", "--languages", "en,de"],
    "matrices": ["--edited-layers", ",".join(MATRICES)],
    "a-protocol-and-a-ruling": ["--protocol", "released", "--con-positions", "mask"],
    "both-protocols": ["--protocol", "both"],
    "trained": ["--approach", "mend", "--training", "lime", "--control", "--seeds", "2"],
    "tuned": ["--split", "validation", "--set", "settings.finetuning.lr=0.01"],
}


@pytest.mark.parametrize("more", KEPT.values(), ids=KEPT.keys())
def test_the_command_that_a_cell_keeps_makes_the_same_cells(
    more: list[str], facts: Path, model: Path, tmp_path: Path
) -> None:
    """In an empty folder: the same names, which stand for all that numbers depend on, and the same rows."""
    root = tmp_path / "results"
    argv = ["reproduce", "--task", "facts", "--approach", "finetuning", "--facts", str(facts), "--model", str(model)]
    assert main([*argv, "--results", str(root), *set_options(), *more]) == 0

    def rows() -> dict[str, bytes]:
        return {path.parent.name: path.read_bytes() for path in root.rglob("rows.parquet")}

    made = rows()
    kept = {tuple(json.loads(path.read_text())["command"]) for path in root.rglob("cell.json")}
    assert len(kept) == 1
    shutil.rmtree(root)
    assert main(kept.pop()) == 0
    assert rows() == made


FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
FACTS, PAIRS, MODEL, CLASSIFIER = (
    str(FIXTURES / name) for name in ("facts/mlama1.1", "nli", "raw_model", "raw_classifier")
)
GIVEN = {
    ("facts", ""): (FACTS, MODEL, True),
    ("facts", "--model m"): (FACTS, "m", True),
    ("nli", ""): (PAIRS, CLASSIFIER, True),
    ("nli", "--model m"): (PAIRS, "m", False),
    ("nli", "--raw-model r"): (PAIRS, "r", True),
    ("nli", "--model m --raw-model r --nli n"): ("n", "r", True),
    ("facts", "--scale paper"): ("yxu/LiME_data", "bert-base-multilingual-cased", True),
    ("facts", "--scale paper --facts f.zip"): ("f.zip", "bert-base-multilingual-cased", True),
    ("nli", "--scale paper"): ("facebook/xnli", "bert-base-multilingual-cased", False),
    ("nli", "--scale paper --model xlm-roberta-base"): ("facebook/xnli", "xlm-roberta-base", False),
    ("nli", "--scale paper --raw-model r"): ("facebook/xnli", "r", True),
}


@pytest.mark.parametrize(("task", "argv"), GIVEN)
def test_what_is_not_named_is_the_scales_own(task: str, argv: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "locate", lambda source, *_, **__: source)  # no hub
    options = read(Reproduce, parser().parse_args(["reproduce", *argv.split()]))
    assert given(options, scale_of(options.scale), data.find(task)) == GIVEN[task, argv]


UNUSED = {
    "reproduce --task facts --nli n": "--nli has no effect on the task facts",
    "reproduce --task facts --raw-model r": "--raw-model has no effect on the task facts",
    "reproduce --task nli --facts f": "--facts has no effect on the task nli",
    "reproduce --task nli --model m --raw-model r": "--model has no effect on the task nli beside --raw-model",
    "reproduce --json": "--json prints the plan of --dry-run",
    "reproduce --hours 2": "--hours is for jobs",
    "reproduce --partition p": "--partition and --slurm are for jobs on a cluster",
    "reproduce --executor local --slurm mem=1G": "--partition and --slurm are for jobs on a cluster",
    "reproduce --executor local --device cuda:1": "give --device cuda",
}


@pytest.mark.parametrize("argv", UNUSED)
def test_an_option_that_nothing_would_come_of_is_refused(argv: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv.split()) == 2
    assert UNUSED[argv] in capsys.readouterr().err


def test_an_edit_of_a_pair_wants_a_classifier(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["edit", "--model", "fixtures/raw_model", "--pair", "test/1", "--to", "neutral"]) == 2
    assert "give --raw-model" in capsys.readouterr().err
