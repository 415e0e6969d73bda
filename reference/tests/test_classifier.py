"""A raw classifier that is fine-tuned: made once, the same from the same seed, and whole or not there."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lime_editing import data, hardware
from lime_editing.__main__ import main
from lime_editing.backbone import load, load_tokenizer
from lime_editing.core.evaluation import predict
from lime_editing.data import Reader
from lime_editing.data.pairs.read import read
from lime_editing.data.pairs.task import tasks
from lime_editing.errors import LanguageError, ModelError, UserError
from lime_editing.hardware import Processes
from lime_editing.names import Rulings
from lime_editing.records import Input
from lime_editing.reproduce import classifier
from lime_editing.reproduce.cells import Cell, Sources
from lime_editing.reproduce.classifier import RawClassifier
from lime_editing.reproduce.scales import FineTuning
from lime_editing.results import read_rows
from reference.tests import hub
from reference.tests.corpora import CLASSES, LANGUAGES, WORDS, own_pairs, write_lines
from reference.tests.miniature import TASK, run

QUICK = FineTuning(epochs=2, batch=4, lr=1e-3, warmup=0.5, weight_decay=0.0)


def wanted(
    pairs: Path, encoder: Path, results: Path, seed: int = 0, device: str = "cpu", **changes: object
) -> RawClassifier:
    scale = replace(TASK, classifier=replace(QUICK, **changes))  # type: ignore[arg-type]
    return classifier.find(data.find("nli"), scale, Sources(str(pairs), str(encoder), None, device), results, seed)


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return hub.labse(tmp_path / "encoder")


def test_it_learns_and_says_how_well(pairs: Path, encoder: Path, tmp_path: Path) -> None:
    """English pairs that one word tells apart are learned; what is written is what transformers reads."""
    rows = [row | {"hypothesis": WORDS[CLASSES.index(row["label"])]} for row in own_pairs(pairs)]
    pairs = write_lines(tmp_path / "own.jsonl", rows)
    said: list[tuple[int, int, float]] = []
    one = wanted(pairs, encoder, tmp_path / "results", epochs=40, lr=3e-3, warmup=0.1)
    assert one.steps == 40 * 3
    accuracy = classifier.make(one, lambda *told: said.append(told))
    assert [accuracy[split].keys() for split in ("validation", "test")] == [set(LANGUAGES)] * 2
    assert accuracy["test"]["en"] == 1
    assert said[-1][:2] == (120, 120)
    assert said[-1][2] < 0.6 < said[0][2]
    names = {path.name for path in one.folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "cell.json", "curve.json", "metrics.json"} <= names
    assert not [path for path in one.folder.parent.iterdir() if path != one.folder]
    backbone = load(one.folder, 2, classifier=True)
    reader = Reader(load_tokenizer(one.folder), None, backbone.model.config.label2id)
    task = tasks(read(str(pairs)), reader, Rulings(), {})["test"]
    asked = [x for x in task.corpus.examples if x.language == "fr"]
    said_of = predict(backbone, [task.input(x) for x in asked])
    right = [classes == (task.gold(x),) for x, classes in zip(asked, said_of, strict=True)]
    assert accuracy["test"]["fr"] == pytest.approx(sum(right) / len(right))


def test_one_seed_is_one_classifier(pairs: Path, encoder: Path, tmp_path: Path) -> None:
    def weights(results: str, one: RawClassifier) -> bytes:
        one = replace(one, folder=tmp_path / results)
        classifier.make(one)
        return (one.folder / "model.safetensors").read_bytes()

    def of(seed: int) -> RawClassifier:
        return wanted(pairs, encoder, tmp_path, seed)

    assert weights("a", of(0)) == weights("b", of(0))
    # From one start on, it is the order of batches and dropout that the seed decides.
    assert weights("c", replace(of(1), start=of(0).start)) != weights("b", of(0))
    of_0 = of(0)
    assert weights("d", replace(of_0, sources=replace(of_0.sources, precision="bf16"))) != weights("b", of(0))


def test_a_finished_one_is_kept(pairs: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = wanted(pairs, encoder, tmp_path / "results")
    accuracy = classifier.make(one)
    monkeypatch.setattr(classifier, "_train", lambda *_: pytest.fail("it was trained again"))
    again = wanted(pairs, encoder, tmp_path / "results")
    assert (again.done, again.folder) == (True, one.folder)
    assert classifier.make(again) == accuracy


def test_what_it_depends_on_is_its_folder(pairs: Path, encoder: Path, tmp_path: Path) -> None:
    folders = {wanted(pairs, encoder, tmp_path).folder, wanted(pairs, encoder, tmp_path, 1).folder}
    folders |= {
        wanted(pairs, encoder, tmp_path, lr=1e-4).folder,
        wanted(pairs, hub.xlm_r(tmp_path / "x"), tmp_path).folder,
    }
    rows = own_pairs(pairs)
    other = write_lines(tmp_path / "own.jsonl", [row | {"premise": f"{row['premise']} aton"} for row in rows])
    folders.add(wanted(other, encoder, tmp_path).folder)
    assert len(folders) == 5


@pytest.mark.parametrize("at", ["training", "writing", "measuring"])
def test_an_interrupted_one_is_made_whole(
    at: str, pairs: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    whole = wanted(pairs, encoder, tmp_path / "whole")
    classifier.make(whole)
    cut = wanted(pairs, encoder, tmp_path / "cut")
    stand_in = {"training": (classifier.Trainer, "train"), "writing": (classifier.results, "write_json")}
    with monkeypatch.context() as patched:
        patched.setattr(*stand_in.get(at, (classifier, "_measure")), die)
        with pytest.raises(Killed):
            classifier.make(cut)
    left = [path.name for path in cut.folder.parent.iterdir()]
    assert left == ([cut.folder.name] if at == "measuring" else [])
    # What a process that was killed had no time to take away goes, too.
    (cut.folder.parent / f".{cut.folder.name}.1").mkdir()
    classifier.make(wanted(pairs, encoder, tmp_path / "cut"))
    assert [path.name for path in cut.folder.parent.iterdir()] == [cut.folder.name]
    for path in whole.folder.iterdir():
        assert (cut.folder / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_training_that_diverges_leaves_nothing(pairs: Path, encoder: Path, tmp_path: Path) -> None:
    one = wanted(pairs, encoder, tmp_path / "results", lr=1e30)
    with pytest.raises(ModelError, match=r"diverged.*--set classifier\.lr=\de\+29"):
        classifier.make(one)
    assert not list((tmp_path / "results").iterdir())


def test_a_folder_that_cannot_be_written_is_named(
    pairs: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the training where it can be known, and after it; nothing half-written is left."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/classifier-\S+: cannot be written: .*--results"):
        classifier.make(wanted(pairs, encoder, tmp_path / "file"))
    one = wanted(pairs, encoder, tmp_path / "results")
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(classifier, "_train", lambda *_: pytest.fail("it was trained"))
        patched.setattr(classifier.shutil, "disk_usage", lambda _: usage._replace(free=0))
        with pytest.raises(UserError, match=r"results: has 0 MB free, and the classifier takes \d+; make room"):
            classifier.make(one)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(type(one.tokenizer), "save_pretrained", full)
    with pytest.raises(UserError, match=r"cannot be written: No space left on device"):
        classifier.make(one)
    assert not list((tmp_path / "results").iterdir())


def test_pairs_without_english_teach_nothing(pairs: Path, encoder: Path, tmp_path: Path) -> None:
    rows = [row for row in own_pairs(pairs) if row["language"] != "en"]
    with pytest.raises(LanguageError, match=r"'en'; known in .*own\.jsonl.*: de, fr"):
        wanted(write_lines(tmp_path / "own.jsonl", rows), encoder, tmp_path)


def test_an_english_pair_that_is_not_said_is_not_learned_from(pairs: Path, encoder: Path, tmp_path: Path) -> None:
    rows = [row for row in own_pairs(pairs) if (row["id"], row["language"]) != ("train-3", "en")]
    assert len(wanted(pairs, encoder, tmp_path).examples) == 12
    assert len(wanted(write_lines(tmp_path / "own.jsonl", rows), encoder, tmp_path).examples) == 11


def test_a_device_that_trainer_does_not_take_is_refused(
    pairs: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="device 'toaster' cannot be used"):
        wanted(pairs, encoder, tmp_path, device="toaster")
    monkeypatch.setattr(classifier, "check_device", lambda *_: None)  # as on a machine of several
    with pytest.raises(UserError, match="CUDA_VISIBLE_DEVICES"):
        wanted(pairs, encoder, tmp_path, device="cuda:1")


def test_batches_are_padded_alike() -> None:
    """Ids with the padding's id, attention and types with zeros."""
    examples = [(Input((5, 6, 7), (0,), (0, 1, 1)), 2), (Input((5,), (0,)), 0)]
    made = {name: rows.tolist() for name, rows in classifier.collate(examples, pad=9).items()}
    assert made == {
        "input_ids": [[5, 6, 7], [5, 9, 9]],
        "attention_mask": [[1, 1, 1], [1, 0, 0]],
        "token_type_ids": [[0, 1, 1], [0, 0, 0]],
        "labels": [2, 0],
    }
    assert "token_type_ids" not in classifier.collate(examples[1:], pad=9)


@pytest.mark.parametrize("make", [hub.mbert, hub.xlm_r, hub.labse], ids=lambda make: make.__name__)
def test_what_is_made_of_any_encoder_is_a_raw_model_like_any_other(
    make: Callable[[Path], Path], pairs: Path, tmp_path: Path
) -> None:
    one = wanted(pairs, make(tmp_path / "encoder"), tmp_path)
    classifier.make(one)
    folder = run(pairs, one.folder, tmp_path / "results", Cell("nli", "mend", "all", 0))
    assert set(read_rows(folder / "rows.parquet")) == {"en → all", "all → all"}


def test_processes_of_one_cell_do_not_fine_tune(
    pairs: Path, encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that torchrun starts; they take what one process has made."""
    monkeypatch.setattr(hardware, "join", lambda _: Processes(0, 2))
    argv = ["reproduce", "--task", "nli", "--nli", str(pairs), "--model", str(encoder), "--results", str(tmp_path)]
    assert main([*argv, "--edited-layers", "2", "--jobs", "1"]) == 2
    assert "first run `make-classifier` without torchrun" in capsys.readouterr().err


def test_the_command_fine_tunes_and_edits(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a plan, as a run, and as a plan of what then is there already."""
    folder, results = hub.e5(tmp_path / "encoder"), tmp_path / "results"
    argv = ["reproduce", "--task", "nli", "--approach", "finetuning", "--nli", str(pairs), "--model", str(folder)]
    argv += ["--results", str(results), "--edited-layers", "2", "--jobs", "1"]
    for setting in ("classifier.epochs=1", "settings.finetuning.steps=2", "test.edits=6"):
        argv += ["--set", setting]

    def plan() -> dict[str, Any]:
        assert main([*argv, "--dry-run", "--json"]) == 0
        said: dict[str, Any] = json.loads(capsys.readouterr().out)
        return said

    planned = plan()
    first, *cells = planned["cells"]
    assert (first["cell"], first["state"], first["trained"], first["judged"]) == ("nli-classifier", "to do", 12, 72)
    assert planned["seconds"] == pytest.approx(first["seconds"] + sum(cell["seconds"] for cell in cells))
    assert not results.exists()
    assert main(argv) == 0
    said = "".join(capsys.readouterr().out.split())
    kept = next(results.glob("*/classifier-seed0-*"))
    assert kept.name == Path(first["folder"]).name
    assert f"theEnglishpairsof{pairs}first,1steps:therawclassifier,keptin{kept}(`make-classifier`" in said
    assert f"Therawclassifierin{kept}isrighton" in said
    assert [cell["state"] for cell in plan()["cells"]] == ["done"] * 3
    monkeypatch.setattr(classifier, "_train", lambda *_: pytest.fail("it was trained again"))
    assert main(argv) == 0
    assert "isrighton" not in "".join(capsys.readouterr().out.split())


def test_make_classifier_makes_the_one_that_reproduce_looks_for(
    pairs: Path, encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It prints the folder last; the same command again trains nothing."""
    common = ["--model", str(encoder), "--nli", str(pairs), "--results", str(tmp_path / "results")]
    common += ["--set", "classifier.epochs=1", "--set", "test.edits=6"]
    folders = []
    for _ in range(2):
        assert main(["make-classifier", *common]) == 0
        said = capsys.readouterr().out
        assert "% of the test pairs in English" in " ".join(said.split())
        folders.append(Path(said.splitlines()[-1]))
        monkeypatch.setattr(classifier, "_train", lambda *_: pytest.fail("it was trained again"))
    assert folders[0] == folders[1]
    assert load(folders[0], classifier=True).classifies
    argv = ["reproduce", "--task", "nli", "--approach", "finetuning", "--edited-layers", "2", *common]
    assert main([*argv, "--dry-run", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)["cells"][0]
    assert (first["cell"], first["state"], first["folder"]) == ("nli-classifier", "done", str(folders[0]))
