"""What `check-data` says of good and of bad data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lime_editing import data
from lime_editing.__main__ import main
from lime_editing.backbone import load_tokenizer, max_tokens
from lime_editing.cli.check_data import task_of, text
from lime_editing.data import Reader
from lime_editing.data.examination import Examination
from lime_editing.data.facts.read import read
from lime_editing.data.facts.task import fingerprint
from reference.tests.corpora import lines, own_facts, write_lines, write_zip
from reference.tests.test_facts import upload


def said_of(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(["check-data", *argv])
    said = capsys.readouterr()
    return code, said.out, said.err


def examined(task: str, source: Path, model: Path | None = None) -> Examination:
    examine = data.find(task).examine
    assert examine is not None
    return examine(str(source), None, Reader(load_tokenizer(model), max_tokens(model)) if model else None)


def test_what_a_language_has_and_lacks_is_counted(facts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = facts / "fr" / "P1.jsonl"
    write_lines(path, list(lines(path))[:9])
    (facts / "de" / "P2.jsonl").write_text("")
    code, out, err = said_of(capsys, str(facts), "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report["task"] == "facts"
    assert report["fingerprint"] == fingerprint(read(facts))
    assert report["counts"] == {
        "facts": 57,
        "inputs": 57,
        "parallel facts": 24,
        "in one language only": 0,
        "relations": 2,
        "subjects": 12,
        "languages": 3,
    }
    assert [(code, told["has"], told["lacks"]) for code, told in report["languages"].items()] == [
        ("de", 12, 12),
        ("en", 24, 0),
        ("fr", 21, 3),
    ]
    assert report["languages"]["de"]["lacking_relations"] == ["P2"]
    assert sum(told["splits"]["train"] for told in report["languages"].values()) == report["splits"]["train"]["facts"]
    dropped = 57 - sum(part["facts"] for part in report["splits"].values())
    assert sum(report["skipped"].values()) == dropped > 0
    assert "1 templates have no facts: P2 in de" in report["remarks"]


def test_a_person_reads_the_same(facts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = facts / "fr" / "P1.jsonl"
    rows = list(lines(path))
    again = [{**rows[0], "obj_uri": "other", "obj_label": "Bema"}, {**rows[1], "sub_label": "Bemá"}]
    write_lines(path, [*rows, *again])
    code, out, _ = said_of(capsys, str(facts))
    assert code == 0
    assert "facts 74, inputs 72, parallel facts 24" in out
    assert "another object of the same subject and relation" in out
    assert "1 times a subject has another name in the same language and relation: " in out
    assert "fr/P1.jsonl:14 has 'Bemá', and " in out


def test_a_fact_that_is_told_twice_is_named(facts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = facts / "fr" / "P1.jsonl"
    rows = list(lines(path))
    write_lines(path, [*rows, {**rows[2], "uuid": "another", "lineid": 99}])
    _, out, _ = said_of(capsys, str(facts))
    assert f"1 facts are told twice, which moves where the splits are cut: {path}:13 is {path}:3 again" in out
    assert "         1  told twice: the same subject and object of a relation in one language" in out
    assert "another object" not in out


def test_ids_of_rows_that_nothing_reads_may_be_there_twice(facts: Path, tmp_path: Path) -> None:
    """mLAMA's uuids: what is parallel, its subject and relation say."""
    before = examined("facts", facts)
    for path in facts.glob("*/P*.jsonl"):
        write_lines(path, [row | {"uuid": "same"} for row in lines(path)])
    assert examined("facts", facts) == before


def test_what_a_model_cannot_read_is_named_before_a_run(
    facts: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A subject too long for it in one language, and a label whose masks are too many in all."""
    assert "tokens" not in said_of(capsys, str(facts), "--model", str(model))[1]
    path = facts / "fr" / "P2.jsonl"
    rows = list(lines(path))
    rows[4]["sub_label"] = " ".join(["Aton"] * 30)
    write_lines(path, rows)
    _, out, _ = said_of(capsys, str(facts), "--model", str(model))
    assert f"1 facts are longer than 32 tokens and would stop a run: {path}:5: P2/Q4 in 'fr' has 37 with the 2 " in out
    rows[4] |= {"sub_label": "Elno", "obj_uri": "long", "obj_label": " ".join(["Aton"] * 31)}
    write_lines(path, rows)
    _, out, _ = said_of(capsys, str(facts), "--model", str(model))
    assert "facts are longer than 32 tokens and would stop a run" in out
    assert f"/de/P2.jsonl:1: P2/Q0 in 'de' has 37 with the 31 of the label at {path}:5; " in out
    assert "tokens" not in said_of(capsys, str(facts))[1]
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # which --offline changes; a hub out of reach is asked for a minute
    code, _, err = said_of(capsys, str(facts), "--model", "no-such-model", "--offline")
    assert (code, err.count("\n")) == (1, 1)


def test_pairs_that_a_model_cuts_are_named(tmp_path: Path, model: Path) -> None:
    rows = [
        {"id": f"{split}{i}", "language": code, "premise": "Aton", "hypothesis": "Bema", "label": i, "split": split}
        for split in ("train", "validation", "test")
        for i in range(3)
        for code in ("de", "en")
    ]
    rows[-2]["hypothesis"] = " ".join(["Bema"] * 50)
    report = examined("nli", write_lines(tmp_path / "own.jsonl", rows), model)
    assert report.remarks[1:] == ("1 inputs of test are longer than 32 tokens and are cut: test/2 in 'de' has 54",)


def test_a_language_that_a_run_would_refuse_is_named(facts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for relation in ("P1", "P2"):
        path = facts / "fr" / f"{relation}.jsonl"
        write_lines(path, list(lines(path))[:3])
    _, out, _ = said_of(capsys, str(facts))
    assert "no validation items in fr: a run wants these languages left out" in out
    _, out, _ = said_of(capsys, str(facts), "--languages", "de,fr")
    assert "no 'en'" in out


def test_lists_of_subjects_that_disagree_are_named(
    facts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = upload(facts, tmp_path / "upload")
    (source / "sub_uri_list/test_sub_uri_list.json").write_text("[]")
    assert "test: 1 subjects are not in test_sub_uri_list.json (Q11)" in said_of(capsys, str(source))[1]


def test_facts_and_pairs_are_told_apart(facts: Path, tmp_path: Path) -> None:
    rows = [
        {
            "id": f"{split}{i}",
            "language": code,
            "premise": f"p{i}",
            "hypothesis": f"h{i}",
            "label": i % 2,
            "split": split,
        }
        for split in ("train", "validation", "test")
        for i in range(6)
        for code in ("de", "en")
        if (split, i, code) != ("test", 1, "de")
    ]
    pairs = write_lines(tmp_path / "pairs.jsonl", rows)
    assert task_of(str(facts)) == "facts"
    assert task_of(str(write_zip(tmp_path / "a.zip", facts))) == "facts"
    assert task_of(str(write_lines(tmp_path / "own.jsonl", own_facts(facts)))) == "facts"
    assert task_of(str(pairs)) == "nli"
    report = examined("nli", pairs)
    assert report.counts == {"pairs": 18, "inputs": 35, "languages": 2, "classes": 3}
    assert report.splits["test"] == {"pairs": 6, "entailment": 3, "neutral": 3, "contradiction": 0}
    assert (report.languages["de"].lacks, report.languages["de"].splits["test"]) == (1, 5)
    assert report.skipped == {"of test: a premise or hypothesis is missing or blank in its language": 1}
    assert "train has no pair of class 'contradiction'" in report.remarks
    assert "contradiction 0" in text(report)


def test_data_that_cannot_be_read_end_with_1(
    facts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    (facts / "fr" / "P1.jsonl").write_text("{\n")
    code, out, err = said_of(capsys, str(facts))
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {facts}/fr/P1.jsonl:1: is not a JSON object")
    assert err.count("\n") == 1
    assert said_of(capsys, str(facts), "--languages", "xx")[0] == 1
    assert said_of(capsys, "http://127.0.0.1:9/a.zip", "--offline")[0] == 1
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_facts_are_checked_without_waiting_for_torch(facts: Path) -> None:
    program = (
        "import sys; from lime_editing.__main__ import main; main(['check-data', sys.argv[1]]); "
        "sys.exit(bool({'torch', 'datasets', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program, str(facts)], check=False, capture_output=True).returncode == 0
