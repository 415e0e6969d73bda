"""`many`: series and compositions of trained editors, their report, and resuming."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lime_editing import hardware, results
from lime_editing.__main__ import main
from lime_editing.core.corpus import Example, ParallelCorpus
from lime_editing.report import many as report
from lime_editing.reproduce.many import series

SHORT = ("all_languages.edits=16", "all_languages.validate_every=16", "all_languages.checkpoint_every=16")


def run(facts: Path, model: Path, folder: Path, *more: str) -> int:
    settings = [part for one in (*SHORT, "test.edits=6", "validation.edits=3") for part in ("--set", one)]
    given = [
        "--facts",
        str(facts),
        "--model",
        str(model),
        "--results",
        str(folder),
        "--jobs",
        "1",
        "--edited-layers",
        "2",
    ]
    return main(["many", *given, *settings, *more])


def test_many_edits_are_judged_kept_and_reported(
    facts: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each editor has its evaluations; the next run keeps them; the page says what holds and what masks do."""
    approaches = ("--approach", "mend,ultraedit", "--edits", "1,3,8")
    assert run(facts, model, tmp_path, *approaches) == 0
    out = capsys.readouterr().out
    assert "facts-mend-lime-seed0" in out
    root = tmp_path / "tiny-changed" / "many"
    folders = results.read_index(root)
    assert {folder.name.rsplit("-", 1)[0] for folder in folders} == {
        *("facts-ultraedit-seed0", "facts-mend-all-seed0", "facts-mend-lime-seed0")
    }
    for folder in folders:
        judged = results.read_rows(folder / "rows.parquet")
        ways = ("efficacy", "series", "at once")
        assert set(judged) == {f"{way} {spoken} {n}" for way in ways for spoken in ("mixed", "en") for n in (1, 3, 8)}
        made = {n: len(judged[f"series mixed {n}"].edits) for n in (1, 3, 8)}
        assert made == {n: made[1] - made[1] % n for n in made}
        assert made[1] > 8
        same = judged["series en 1"], judged["at once en 1"]
        assert np.array_equal(same[0].hits, same[1].hits)
    text = (root / "many.md").read_text(encoding="utf-8")
    assert text.count(f"torch {torch.__version__}, code {results.code_digest()}.") == 2
    assert "Results at TINY scale (not comparable with the paper's numbers): a raw model of " in text
    assert "| MEND, all languages + LiME |" in text
    assert "In series, in all languages, UltraEdit keeps working up to" in text
    assert "of MEND: " in text
    for suffix in ("figure6-facts.json", "figure6-facts-mixed.svg", "figure6-facts-en.png"):
        assert (root / suffix).is_file()
    before = {folder: (folder / "rows.parquet").stat().st_mtime_ns for folder in folders}
    assert run(facts, model, tmp_path, *approaches) == 0
    assert {folder: (folder / "rows.parquet").stat().st_mtime_ns for folder in folders} == before


def test_figure_6_has_every_editor_in_the_order_of_edits(tmp_path: Path) -> None:
    """Numbers that rise and fall as stored, with efficacy beside retention."""
    points = [
        {"approach": "mend", "training": None, "name": "MEND", "seeds": 1, "way": way, "languages": "mixed", "edits": n}
        | {metric: [1 / n, 0.5 / n, 1.0] for metric in ("acc", "con", "succ")}
        for n in (1, 10)
        for way in ("efficacy", "series", "at once")
    ]
    figure = report.draw(points, "mixed")
    lines = figure.axes[0].get_lines()
    assert [line.get_linestyle() for line in lines] == ["-", "--"]
    assert list(lines[0].get_ydata()) == [100, 10]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--dry-run"], "unrecognized arguments: --dry-run"),
        (["--protocol", "both"], "invalid choice: 'both'"),
        (["--edits", "0"], "above 0"),
        (["--edits", "1,5000"], "--edits 5000: only "),
    ],
)
def test_what_does_not_fit_is_refused(
    facts: Path, model: Path, tmp_path: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code: object = None
    try:
        code = run(facts, model, tmp_path, *more)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert message in capsys.readouterr().err


def test_torchrun_is_refused(
    facts: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "launched", lambda: 2)
    monkeypatch.setattr(hardware, "join", lambda device: hardware.Processes(count=2))
    assert run(facts, model, tmp_path) == 2
    assert "leave out torchrun" in capsys.readouterr().err


def test_series_edit_first_facts_first_and_keep_others() -> None:
    corpus = ParallelCorpus.of(Example(f"f{i:02}", code, f"f{i:02}/{code}") for i in range(20) for code in ("de", "en"))
    first, kept = frozenset({"f03", "f07"}), frozenset({"f01", "f02"})
    pairs, retain = series(corpus, ["en"], ["de", "en"], 5, 2, 10, 0, first, kept)
    assert {pair.edit.fact for pair in pairs[:2]} == first
    assert {x.fact for x in retain} == kept
    assert all(pair.edit.language == "en" for pair in pairs)
    assert not {pair.edit.fact for pair in pairs} & kept
    assert json.dumps([pair.edit.id for pair in pairs]) == json.dumps(
        [pair.edit.id for pair in series(corpus, ["en"], ["de", "en"], 5, 2, 10, 0, first, kept)[0]]
    )
