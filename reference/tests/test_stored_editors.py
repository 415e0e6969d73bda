"""`edit` takes the best stored editor of the model; the one of the repository still fits its model, and still edits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lime_editing.__main__ import main
from lime_editing.backbone import load_tokenizer
from lime_editing.reproduce import store
from lime_editing.reproduce.scales import FIXTURES
from reference.tests.corpora import write_model
from reference.tests.miniature import CELL, run

SHIPPED, RAW = FIXTURES / "editor", FIXTURES / "raw_model"
RENEW = "renew it by `python fixtures/build_editor.py`"


def edited(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, object]:
    assert main(["edit", *argv, "--json"]) == 0
    told: dict[str, object] = json.loads(capsys.readouterr().out)
    return told


def test_the_shipped_editor_fits_the_raw_model_and_is_small() -> None:
    editor = store.load(SHIPPED, RAW)
    assert (editor.method.NAME, editor.masks, len(editor.languages)) == ("mend", "language", 15), RENEW
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 3_000_000
    assert {path.name for path in SHIPPED.iterdir()} == {"cell.json", "editor.safetensors", "metrics.json"}


def test_a_fresh_clone_shows_an_edit_that_holds_in_most_languages_and_what_finetuning_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    told = edited(capsys, "--fact", "P36/France", "--to", "Berlin")
    assert (told["approach"], told["checkpoint"]) == ("mend", str(SHIPPED))
    assert told["languages"] == 15
    assert int(str(told["desired"])) >= 10, RENEW
    contrast = told["contrast"]
    assert isinstance(contrast, dict)
    assert contrast["approach"] == "finetuning"
    assert contrast["desired"] < told["desired"]
    assert main(["edit", "--fact", "P36/France", "--to", "Berlin"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"an edit in en by mend, {SHIPPED};" in out
    assert "By contrast, finetuning (--approach finetuning): as desired in" in out


def test_finetuning_is_what_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    told = edited(capsys, "--fact", "P36/France", "--to", "Berlin", "--approach", "finetuning", "--languages", "en,de")
    assert (told["approach"], told["checkpoint"], told["contrast"]) == ("finetuning", None, None)


def test_the_best_of_the_stored_editors_of_this_model_is_taken(
    facts: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not one of another model, of another approach than is asked for, not damaged, and not unfinished."""
    folder, tokenizer = run(facts, model, tmp_path / "runs" / "tiny"), load_tokenizer(model)
    better, worse, broken, unfinished = (tmp_path / "runs" / "tiny" / name for name in ("b", "w", "x", "u"))
    for to, succ in ((better, 0.99), (worse, 0.01), (broken, 1.0), (unfinished, 1.0)):
        shutil.copytree(folder, to)
        told = json.loads((to / "metrics.json").read_text())
        (to / "metrics.json").write_text(json.dumps(told | {"all → all": {"acc": succ, "con": succ, "succ": succ}}))
    (broken / "cell.json").write_text("{")
    (unfinished / "editor.safetensors").unlink()

    def best(approach: str | None = None, task: str = "facts", language: str = "en", of: Path = model) -> Path | None:
        return store.best([tmp_path / "runs"], task, approach, str(of), tokenizer, language)

    assert best() == best("mend") == better
    assert best("knowledge_editor") is best(language="xx") is best(task="nli") is None
    assert store.best([tmp_path / "runs" / "tiny"], "facts", None, str(model), tokenizer, "en") == better
    other = write_model(tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-6}))
    assert best(of=other) is None
    argv = ["--facts", str(facts), "--model", str(model), "--fact", "P1/Q0", "--to", "Bema"]
    assert edited(capsys, *argv, "--results", str(tmp_path / "runs"))["checkpoint"] == str(better)
    assert edited(capsys, *argv, "--results", str(tmp_path / "none"))["approach"] == "finetuning"
    assert edited(capsys, *argv, "--results", str(tmp_path / "runs"), "--edited-layers", "1")["checkpoint"] is None
    assert CELL.approach == "mend"
