"""Tables, intervals, findings and the page, from cells whose rates are known."""

from __future__ import annotations

import html
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from lime_editing import __main__ as command, results as store
from lime_editing.core import metrics
from lime_editing.core.metrics import Counts, Scores, scores
from lime_editing.errors import DataError, UserError
from lime_editing.names import ALL, EN
from lime_editing.records import Outcome
from lime_editing.report import bootstrap, write as report
from lime_editing.report.bootstrap import (
    Interval,
    centred,
    interval,
    resample_edits,
    resample_seeds,
    succ_difference,
    succ_of,
)
from lime_editing.report.counts import Section, own_and_other, read
from lime_editing.report.findings import judge, verdict
from lime_editing.report.tables import (
    DATA_SETS,
    PRINTED,
    TABLES,
    Table,
    caption,
    latex,
    markdown,
    rows,
    scores_of,
)
from lime_editing.report.template import tex
from reference.tests.cells import GRID, RATES, outcomes, write_cell, write_grid

FEW = ("de", "en", "fr", "sw")
FIRST, SECOND = TABLES
UNDERFITS = "Finetuning underfits across languages"
PARTIAL = "Training on English transfers in part"
PARALLEL = "Training on parallel sentences transfers"
LIME = "LiME improves its base editor"


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Both protocols of the whole grid with its control, in four languages, two seeds."""
    root = tmp_path_factory.mktemp("grid") / "tiny"
    return write_grid(root, ("facts",), ("paper", "released"), 2, languages=FEW, edits=20)


@pytest.fixture(scope="module")
def written(grid: list[Path]) -> Path:
    return report.write(grid[0].parent, grid).parent


def counted(path: Path, evaluation: str = ALL) -> Counts:
    return store.read_rows(path / "rows.parquet")[evaluation]


# The printed tables


def test_every_printed_row_obeys_the_harmonic_mean() -> None:
    assert len(PRINTED) == 28
    for row in PRINTED.values():
        assert row.succ == pytest.approx(metrics.succ(row.acc, row.con), abs=1e-4)


def test_the_printed_tables_have_the_rows_of_the_paper() -> None:
    editors = ("editable_training", "knowledge_editor", "mend")
    for evaluation, trainings in ((EN, ("en", "all")), (ALL, ("all", "lime"))):
        expected = {("finetuning", None), *((e, t) for e in editors for t in trainings)}
        for task in ("facts", "nli"):
            assert {key[2:] for key in PRINTED if key[:2] == (task, evaluation)} == expected


def test_printed_rows_are_those_of_the_paper() -> None:
    """One row of each table and data set, in percent as printed."""
    for key, expected in {
        ("facts", EN, "mend", "all"): (99.58, 75.76, 86.05),
        ("nli", EN, "knowledge_editor", "en"): (69.96, 96.79, 81.22),
        ("facts", ALL, "editable_training", "lime"): (97.87, 24.41, 39.08),
        ("nli", ALL, "finetuning", None): (56.48, 98.54, 71.81),
    }.items():
        assert tuple(100 * value for value in PRINTED[key].as_dict().values()) == pytest.approx(expected)


# Counts


def test_rows_are_read_back_as_they_were_counted(tmp_path: Path) -> None:
    folder = write_cell(tmp_path, languages=FEW, edits=15)
    for name, told in outcomes(FEW, 15, RATES["mend", "all"], 0).items():
        found, expected = counted(folder, name), metrics.count(told)
        assert (found.edits, found.languages) == (expected.edits, expected.languages)
        assert np.array_equal(found.hits, expected.hits)
        assert np.array_equal(found.asked, expected.asked)


def test_edits_weigh_the_same_however_many_inputs_they_got(tmp_path: Path) -> None:
    told = [Outcome("a", "en", "update", "en", True), *[Outcome("b", "en", "update", "en", False)] * 3]
    told += [Outcome(e, "en", "retain", "en", True) for e in "ab"]
    told += [Outcome("a", "de", role, "de", True) for role in ("update", "retain")]  # type: ignore[arg-type]
    store.write_rows(tmp_path / "rows.parquet", {ALL: told})
    assert scores(counted(tmp_path)).acc == pytest.approx(0.75)


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    told = outcomes(FEW, 12, RATES["mend", "all"], 0)
    for path, evaluations in (("a", told), ("b", {name: told[name][::-1] for name in reversed(told)})):
        store.write_rows(tmp_path / path / "rows.parquet", evaluations)
    first, second = counted(tmp_path / "a"), counted(tmp_path / "b")
    assert (first.edits, first.languages) == (second.edits, second.languages)
    assert np.array_equal(first.hits, second.hits)
    assert np.array_equal(first.asked, second.asked)


def test_a_row_is_the_mean_over_seeds_of_acc_and_con(grid: list[Path]) -> None:
    section = read(grid)[0]
    for evaluation in (EN, ALL):
        for row in rows(section, evaluation):
            runs = [scores(counted(grid[0].parent / name, evaluation)) for name in row.cells.values()]
            assert len(runs) == (2 if row.training else 1)
            assert Scores(row.acc, row.con, row.succ) == metrics.aggregate(runs)
            assert row.succ == pytest.approx(metrics.succ(row.acc, row.con))
            if row.deviation is None:
                assert row.training is None
            else:
                assert row.deviation.acc == pytest.approx(abs(runs[0].acc - runs[1].acc) / 2**0.5)


# The bootstrap


def pair(tmp_path: Path, ours: float, theirs: float, seeds: int = 3) -> tuple[list[Counts], list[Counts]]:
    """Seeds of two approaches that hit with these probabilities."""
    folders = [
        [
            write_cell(tmp_path, "mend", v, s, languages=FEW, edits=60, rates=(p, p, 0.9), noise=10 * s + i)
            for s in range(seeds)
        ]
        for i, (v, p) in enumerate((("lime", ours), ("all", theirs)))
    ]
    a, b = ([counted(folder) for folder in side] for side in folders)
    return a, b


def test_identical_approaches_differ_by_exactly_nothing(tmp_path: Path) -> None:
    ours, _ = pair(tmp_path, 0.7, 0.5)
    assert succ_difference(ours, ours) == Interval(0, 0, 0)


def test_the_interval_holds_a_known_difference_and_excludes_none(tmp_path: Path) -> None:
    found = succ_difference(*pair(tmp_path, 0.8, 0.6))
    # `hard` in the cells' generator takes a little off the update rates; its mean is known to be within 0.1.
    assert found.low < metrics.succ(0.74, 0.9) - metrics.succ(0.56, 0.9) < found.high
    assert 0 < found.low < found.value < found.high < 0.3


def test_intervals_cover_a_true_difference_about_as_often_as_they_say() -> None:
    rng, covered = np.random.default_rng(0), 0
    edits, inputs = tuple(("en", f"{i:03}") for i in range(80)), ("en",)
    asked = np.full((80, 2, 1), 4.0)
    truth = metrics.succ(0.8, 0.9) - metrics.succ(0.6, 0.9)
    for _ in range(100):
        ours, theirs = (
            Counts(edits, inputs, np.stack([rng.binomial(4, p, (80, 1)), rng.binomial(4, 0.9, (80, 1))], 1), asked)
            for p in (0.8, 0.6)
        )
        found = succ_difference([ours], [theirs], resamples=300)
        covered += found.low <= truth <= found.high
    assert 87 <= covered <= 100


def test_the_same_seed_gives_the_same_interval_and_another_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pair(tmp_path, 0.8, 0.6)
    found = succ_difference(ours, theirs)
    assert found == succ_difference(ours, theirs)
    monkeypatch.setattr(bootstrap, "SEED", 1)
    assert found != succ_difference(ours, theirs)


def test_pairing_makes_the_interval_of_alike_approaches_narrow() -> None:
    rng = np.random.default_rng(3)
    edits = tuple(("en", f"{i:03}") for i in range(100))
    asked = np.ones((100, 2, 1))
    hits = rng.binomial(1, 0.6, (100, 2, 1)).astype(float)
    better = hits.copy()
    better[:5, 0] = 1  # alike but for a few edits
    ours, theirs = Counts(edits, ("en",), better, asked), Counts(edits, ("en",), hits, asked)
    shuffled = Counts(edits, ("en",), hits[rng.permutation(100)], asked)
    paired, broken = succ_difference([ours], [theirs]), succ_difference([ours], [shuffled])
    assert paired.value == pytest.approx(broken.value)
    assert (broken.high - broken.low) > 2 * (paired.high - paired.low) > 0


def test_runs_that_were_asked_other_questions_cannot_be_paired(tmp_path: Path) -> None:
    first, second = (counted(write_cell(tmp_path / str(n), languages=FEW, edits=n)) for n in (10, 12))
    with pytest.raises(DataError, match="different questions"):
        succ_difference([first], [second])


def test_edits_are_resampled_within_their_language() -> None:
    # One language is always right and one always wrong: no resample may move the macro average.
    edits = tuple((language, f"{i}") for language in ("de", "en") for i in range(10))
    hits = np.repeat([1.0, 0.0], 10)[:, None, None] * np.ones((20, 2, 1))
    means = resample_edits([Counts(edits, ("en",), hits, np.ones((20, 2, 1)))], resamples=50)
    assert np.array_equal(means.mean(2), np.full((51, 1, 2), 0.5))


def test_seeds_are_resampled_together_and_the_sample_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(3.0)[None, :, None] * np.ones((501, 3, 2))
    drawn = resample_seeds(values)
    assert set(np.round(drawn[1:, 0] * 3).astype(int)) == set(range(7))
    assert np.allclose(resample_seeds(values + 1) - drawn, 1)
    for seed in range(20):
        monkeypatch.setattr(bootstrap, "SEED", seed)
        assert np.array_equal(resample_seeds(values[:5])[0], [1, 1])


def test_harmonic_of_nothing_is_nothing() -> None:
    assert succ_of(np.array([[0.0, 0.0], [0.5, 0.5]])).tolist() == [0, 0.5]


def test_centred_resamples_have_the_value_as_their_mean() -> None:
    values = centred(np.array([1.0, 3.0, 5.0]))
    assert values.tolist() == [1, 0, 2]
    assert interval(values).value == 1


def test_own_language_and_others_share_the_update_inputs(tmp_path: Path) -> None:
    judged = counted(write_cell(tmp_path, languages=FEW, edits=40, rates=(1.0, 0.0, 1.0)))
    means = resample_edits([judged], own_and_other, resamples=1)[0, 0]
    assert means.tolist() == [[1, 0]] * len(FEW)


# Findings


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        ([(0.01, 0.2)], "holds"),
        ([(-0.2, -0.01)], "does not hold"),
        ([(-0.1, 0.1)], "not shown here: interval includes 0"),
        ([(0.0, 0.1)], "not shown here: interval includes 0"),
        ([(0.0, 0.0)], "not shown here: interval includes 0"),
        ([(0.1, 0.2), (-0.1, 0.2)], "not shown here: interval includes 0"),
        ([(0.1, 0.2), (-0.2, -0.1)], "does not hold"),
    ],
)
def test_a_verdict_follows_from_the_intervals_alone(intervals: list[tuple[float, float]], expected: str) -> None:
    assert verdict([Interval((low + high) / 2, low, high) for low, high in intervals]) == expected


def judged(tmp_path: Path, task: str = "facts", apart: int = 10, **rates: tuple[float, float, float]) -> Any:
    """What is said of MEND and Finetuning with these rates; three seeds, in four languages.

    `apart=0`: the same random numbers for all, so that approaches differ by their rates alone.
    """
    cells = {
        "unedited": ("unedited", None),
        "finetuning": ("finetuning", None),
        **{training: ("mend", training) for training in ("en", "all", "lime", "shared")},
    }
    folders = [
        write_cell(
            tmp_path / "tiny",
            *cells[name],
            seed,
            task=task,
            languages=FEW,
            edits=100,
            rates=rates.get(name, RATES[cells[name]]),
            noise=i * apart + seed,
        )
        for i, name in enumerate(cells)
        if task == "facts" or name in ("en", "all")  # enough to tell a pipeline check
        for seed in range(3 if cells[name][1] else 1)
    ]
    return judge(read(folders)[0])


def said(judgement: Any, claim: str) -> str:
    return str(next(f.verdict for f in judgement.findings if f.claim == claim and f.approach in ("mend", "finetuning")))


def test_findings_hold_where_the_rates_make_them_hold(tmp_path: Path) -> None:
    found = judged(tmp_path)
    assert {said(found, claim) for claim in (UNDERFITS, PARTIAL, PARALLEL)} == {"holds"}
    # What is not trained has one run, which stands beside every seed of what is.
    assert "3 seeds" in next(f.sentence for f in found.findings if f.claim == PARTIAL)


def test_findings_do_not_hold_where_the_rates_are_turned_round(tmp_path: Path) -> None:
    found = judged(
        tmp_path,
        finetuning=(0.2, 0.9, 0.9),
        en=(0.9, 0.8, 0.9),
        all=(0.5, 0.3, 0.9),
        lime=(0.4, 0.1, 0.9),
        unedited=(0.9, 0.9, 1.0),
    )
    assert {said(found, claim) for claim in (UNDERFITS, PARTIAL, PARALLEL, LIME)} == {"does not hold"}


def test_lime_is_not_shown_where_it_is_its_base(tmp_path: Path) -> None:
    assert said(judged(tmp_path, lime=RATES["mend", "all"]), LIME).startswith("not shown here")


def test_nli_that_gains_little_is_a_pipeline_check_and_facts_never_are(tmp_path: Path) -> None:
    alike = {"en": (0.9, 0.8, 0.9), "all": (0.9, 0.8, 0.9)}
    assert judged(tmp_path / "a", "nli", **alike).pipeline_check
    assert not judged(tmp_path / "b", "nli").pipeline_check
    folders = [write_cell(tmp_path / "c", "mend", v, languages=FEW, edits=2) for v in ("en", "all")]
    assert not judge(read(folders)[0]).pipeline_check
    # A gain of less than five points is too small, even where its interval excludes 0.
    slight = {"en": (0.9, 0.80, 0.9), "all": (0.9, 0.86, 0.9)}
    found = judged(tmp_path / "d", "nli", apart=0, **slight)
    gain = next(d.interval for d in found.differences if (d.ours, d.evaluation) == ("all", EN))
    assert 0 < gain.low < gain.value < 0.05
    assert found.pipeline_check


def test_a_section_says_the_fewest_and_the_most_seeds(grid: list[Path]) -> None:
    """An editor with one seed less than the others is no secret."""
    assert "; 2 seeds, mean" in caption(read(grid)[0])
    fewer = [folder for folder in grid if "mend-all-seed1" not in folder.name]
    assert "; 1 to 2 seeds, mean" in caption(read(fewer)[0])


def test_differences_use_the_seeds_that_both_have(tmp_path: Path) -> None:
    folders = [write_cell(tmp_path, "mend", "all", seed, languages=FEW, noise=seed) for seed in range(3)]
    folders += [write_cell(tmp_path, "mend", "lime", seed, languages=FEW, noise=9 + seed) for seed in range(1, 4)]
    found = {d.evaluation: d for d in judge(read(folders)[0]).differences}
    assert {d.seeds for d in found.values()} == {2}
    assert found[ALL].interval == succ_difference(
        [counted(folders[3]), counted(folders[4])], [counted(folders[1]), counted(folders[2])]
    )


def test_a_difference_is_that_of_the_tables_rows(grid: list[Path]) -> None:
    section = read(grid)[0]
    succ = {((row.approach, row.training), name): row.succ for name in (EN, ALL) for row in rows(section, name)}
    found = judge(section).differences
    assert len(found) == 3 * 3 * 2
    for d in found:
        ours, theirs = (succ[(d.approach, training), d.evaluation] for training in (d.ours, d.theirs))
        assert d.interval.value == pytest.approx(ours - theirs, abs=1e-12)
        assert d.interval.low <= d.interval.value <= d.interval.high


# Scopes


def test_an_index_holds_no_seeds_of_other_settings(tmp_path: Path) -> None:
    """A run of one seed with another learning rate replaces all seeds; protocols and approaches stand apart."""
    old, new = ({"name": "tiny", "about": "small", "settings": {"lr": lr}} for lr in (1, 2))
    kept = [write_cell(tmp_path, "mend", "en", languages=FEW, scale=old)]
    kept.append(write_cell(tmp_path, "mend", "all", languages=FEW, scale=old, protocol="released"))
    gone = [write_cell(tmp_path, "mend", "all", seed, languages=FEW, scale=old) for seed in range(2)]
    store.add_to_index(tmp_path, [*kept, *gone])
    assert store.read_index(tmp_path) == [*kept, *gone]
    again = write_cell(tmp_path, "mend", "all", languages=FEW, scale=new)
    store.add_to_index(tmp_path, [again])
    assert store.read_index(tmp_path) == [*kept, again]
    read(store.read_index(tmp_path))


def test_cells_of_another_scope_get_a_section_of_their_own(tmp_path: Path) -> None:
    folders = [write_cell(tmp_path, "mend", v, languages=FEW) for v in ("en", "all")]
    others = [
        write_cell(tmp_path, "mend", "all", languages=FEW[:3]),
        write_cell(tmp_path, "mend", "all", languages=FEW, data="other"),
        write_cell(tmp_path, "mend", "all", languages=FEW, model="other"),
        write_cell(tmp_path, "mend", "all", languages=FEW, scale={"name": "small", "about": "small"}),
        write_cell(tmp_path, "mend", "all", languages=FEW, protocol="released"),
        write_cell(tmp_path, "mend", "all", languages=FEW, task="nli"),
    ]
    sections = read([*folders, *others])
    assert len(sections) == 7
    assert len({section.slug for section in sections}) == 7
    assert [section.slug for section in sections if len(section.runs) == 2] == ["facts"]


def test_a_cell_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    folders = [
        write_cell(tmp_path, languages=FEW),
        write_cell(tmp_path, languages=FEW, code={"digest": "other"}),
    ]
    with pytest.raises(DataError, match="the same cell, run in two ways"):
        read(folders)


def test_seeds_of_different_settings_are_refused(tmp_path: Path) -> None:
    scales = [{"name": "tiny", "about": "small", "settings": {"lr": lr}} for lr in (1, 2)]
    folders = [write_cell(tmp_path, seed=i, languages=FEW, scale=scale) for i, scale in enumerate(scales)]
    with pytest.raises(DataError, match="differ in more than the seed"):
        read(folders)


def test_cells_that_were_asked_other_questions_are_refused(tmp_path: Path) -> None:
    folders = [write_cell(tmp_path, training=v, languages=FEW, edits=n) for v, n in (("en", 10), ("all", 11))]
    with pytest.raises(DataError, match="different questions"):
        read(folders)


def test_what_is_no_finished_cell_is_refused(tmp_path: Path) -> None:
    folder = write_cell(tmp_path, languages=FEW)
    record = store.read_json(folder / "cell.json")
    store.write_json(folder / "cell.json", {k: v for k, v in record.items() if k != "protocol"})
    with pytest.raises(DataError, match=r"is not the record of a cell \(no 'protocol'"):
        read([folder])
    store.write_json(folder / "cell.json", record | {"cell": record["cell"] | {"seed": "zero"}})
    with pytest.raises(DataError, match=r"cell\.json: the seed 'zero' is no number; remove"):
        read([folder])
    store.write_json(folder / "cell.json", record)
    rows = pq.read_table(folder / "rows.parquet").to_pandas()
    pq.write_table(pa.Table.from_pandas(rows.assign(hit=2.0 * rows["hit"])), folder / "rows.parquet")
    with pytest.raises(DataError, match="cannot be read as a table of outcomes"):
        read([folder])
    (folder / "rows.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be read as a table"):
        read([folder])
    (folder / "metrics.json").unlink()
    with pytest.raises(DataError, match="no finished cell"):
        read([folder])
    with pytest.raises(UserError, match="no finished cells"):
        report.write(tmp_path, [])


# What is written


def test_a_report_can_be_written_into_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder of the cells stays as it is, and the page says how it was written. Figure 5 needs no checkpoint."""
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "runs/tiny"
    cell = write_cell(runs, "mend", "lime", languages=FEW)
    store.add_to_index(runs, [cell])
    argv = ["report", "--results", "runs/tiny", "--to", "results/tiny"]
    assert command.main(argv) == 0
    assert capsys.readouterr().out == f"{Path('results/tiny/report.html')}\n"
    assert {path.name for path in runs.iterdir()} == {cell.name, "index.json"}
    published = tmp_path / "results/tiny"
    assert {path.name for path in published.iterdir()} == {
        *("report.html", "tables.json", "tables.md", "table1.tex", "table2.tex", "figures")
    }
    assert f"<code>python -m lime_editing {' '.join(argv)}</code>" in (published / "report.html").read_text("utf-8")
    first = (published / "figures/figure5-facts.json").read_bytes()
    assert command.main(argv[:3]) == 0
    (cell / "editor.safetensors").unlink()
    for _ in range(2):  # from the JSON in the cells' folder, and then from the one in the folder itself
        (published / "figures/figure5-facts.json").unlink(missing_ok=True)
        assert command.main(argv) == 0
        assert (published / "figures/figure5-facts.json").read_bytes() == first
    (runs / "figures/figure5-facts.json").unlink()
    assert command.main(argv) == 0
    assert (published / "figures/figure5-facts.json").read_bytes() == first


def test_cells_of_an_interrupted_run_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The run writes its index at its end; until then the report finds what is finished."""
    write_cell(tmp_path, languages=FEW)
    assert not (tmp_path / "index.json").exists()
    assert command.main(["report", "--results", str(tmp_path)]) == 0
    assert "report.html" in capsys.readouterr().out


def test_cells_beside_an_index_are_reported_if_they_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Such as a cell that was run alone. What is left out is named: other settings, no end, no record."""
    first = write_cell(tmp_path, "mend", "all", languages=FEW)
    store.add_to_index(tmp_path, [first])
    second = write_cell(tmp_path, "mend", "all", 1, languages=FEW)
    other = write_cell(tmp_path, "mend", "all", 2, languages=FEW, data="other")
    begun, broken = (write_cell(tmp_path, "finetuning", None, seed, languages=FEW) for seed in (0, 1))
    (begun / "metrics.json").unlink()
    store.write_json(broken / "cell.json", {"cell": {}})
    assert command.main(["report", "--results", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert f"left out: {other.name}: has other data, model, languages or settings than later cells" in said
    assert f"left out: {begun.name}: is not finished" in said
    assert re.search(f"left out: {broken.name}: .*cell.json: is not the record of a cell", said)
    assert store.read_index(tmp_path) == [second, first]
    (section,) = read(store.read_index(tmp_path))
    assert section.seeds == "2"


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told | {ALL: told[ALL] | {"acc": told[ALL]["acc"] + 1e-6}},
        lambda told: {EN: told[EN]},
        lambda told: {},
    ],
    ids=["another-number", "an-evaluation-less", "nothing"],
)
def test_rows_and_scores_of_a_cell_belong_together(
    tmp_path: Path, change: Callable[[dict[str, dict[str, float]]], object]
) -> None:
    """Rows that were cut, or copied from another cell, are found by the scores that were written with them."""
    cell = write_cell(tmp_path, languages=FEW)
    store.write_json(cell / "metrics.json", change(store.read_json(cell / "metrics.json")))
    with pytest.raises(
        DataError, match=r"its metrics\.json and its rows\.parquet are of different evaluations; remove"
    ):
        report.write(tmp_path, [cell])


def test_a_report_of_no_cells_makes_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["report", "--results", str(tmp_path / "runs"), "--to", str(tmp_path / "out")]) == 2
    assert "no finished cells" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_figures_of_an_earlier_report_do_not_stay(tmp_path: Path) -> None:
    facts, nli = (write_cell(tmp_path, "mend", "all", languages=FEW, task=task) for task in ("facts", "nli"))
    report.write(tmp_path, [facts, nli])
    (tmp_path / "figures" / "mine.png").write_bytes(b"")
    report.write(tmp_path, [facts])
    kinds = ("json", "png", "svg")
    expected = {f"{figure}-facts.{kind}" for figure in ("figure3", "figure4") for kind in kinds} | {"mine.png"}
    assert {path.name for path in (tmp_path / "figures").iterdir()} == expected


def test_nothing_of_the_report_loads_torch() -> None:
    code = "import sys, lime_editing.report.write, lime_editing.cli.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_colours_of_the_page_have_contrast() -> None:
    """WCAG 2: at least 4.5 between text and both of its backgrounds, in light and in dark mode."""
    style = (Path(report.__file__).parent / "page.html.jinja").read_text(encoding="utf-8")
    modes = [dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in re.findall(r":root \{[^}]*--[^}]*\}", style)]
    assert len(modes) == 2
    for colours in modes:
        for text in ("ink", "soft", "holds", "fails", "open", "link"):
            for background in ("paper", "panel"):
                light, dark = sorted((luminance(colours[text]), luminance(colours[background])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, background)


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(c * weight for c, weight in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))


def test_every_number_in_the_json_can_be_traced_to_its_cells(written: Path) -> None:
    tables = json.loads((written / "tables.json").read_text())
    assert set(tables) == {"facts", "facts-released"}
    for section in tables.values():
        assert {"rulings", "scale", "languages", "data", "model"} <= section.keys()
        for row in section["rows"]:
            assert len(row["cells"]) == row["seeds"]
            for seed, name in row["cells"].items():
                cell = json.loads((written / name / "cell.json").read_text())["cell"]
                assert (cell["approach"], cell["training"], str(cell["seed"])) == (
                    row["approach"],
                    row["training"],
                    seed,
                )
            assert row["succ"] == pytest.approx(metrics.succ(row["acc"], row["con"]), abs=1e-12)


def test_the_tables_have_the_papers_order_with_ours_marked(grid: list[Path]) -> None:
    section = read(grid[::-1])[0]
    editors = ("Editable Training", "KnowledgeEditor", "MEND")
    first = labels(section, FIRST)
    assert first[:2] == [("no edit (ours)", ""), ("Finetuning", "")]
    assert first[2:] == [(e, t) for e in editors for t in ("English only", "all languages")]
    second = labels(section, SECOND)
    trainings = ("all languages", "all languages + LiME", "all languages + one shared mask (ours)")
    assert second[2:] == [(e, t) for e in editors for t in trainings]
    assert [row.approach for row in rows(section, ALL) if row.printed is None and row.training == "all"] == []


def labels(section: Section, table: Table) -> list[tuple[str, ...]]:
    return [tuple(line[:2]) for line in scores_of(section, table).body]


def test_latex_is_balanced_and_escaped(grid: list[Path]) -> None:
    assert tex("50% of a_b & c#1 → ± −{x}") == r"50\% of a\_b \& c\#1 $\rightarrow$ $\pm$ $-$\{x\}"
    text = latex(read(grid), SECOND)
    assert text.count("\\begin{table}") == text.count("\\end{table}") == text.count("\\bottomrule") == 2
    assert text.count("\\label{tab:table2-facts}") == text.count("\\label{tab:table2-facts-released}") == 1
    assert text.count("{") == text.count("}")
    for line in re.findall(r"^(?:MEND|Finetuning) .*$", text, re.MULTILINE):
        assert len(re.split(r"(?<!\\)&", line)) == 8
        assert line.endswith(r" \\")
    assert not re.search(r"(?<!\\)%", text.split("\n", 1)[1])


def test_markdown_rows_are_as_wide_as_their_head(grid: list[Path]) -> None:
    text = markdown([(section, judge(section)) for section in read(grid)])
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.split(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    hostile = markdown([])
    assert hostile == "\n"


class Tags(HTMLParser):
    """Open and close tags must match; everything that could leave the file is noted."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "br", "link", "img"}:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            if name in {"href", "src", "xlink:href"}:
                self.links.append(str(value))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)


def parsed(text: str) -> Tags:
    tags = Tags()
    tags.feed(text)
    assert not tags.open
    return tags


def test_the_page_is_one_file_that_links_to_itself_alone(written: Path) -> None:
    text = (written / "report.html").read_text(encoding="utf-8")
    tags = parsed(text)
    assert len(set(tags.ids)) == len(tags.ids)
    assert all(link.startswith("#") and link[1:] in tags.ids for link in tags.links)
    assert not re.search(r"<(script|link|img|iframe)\b|@import|url\((?!#)", text)
    assert text.count("<svg") == 6
    assert "Not the paper's numbers" in text
    assert "Which of the paper's findings hold here" in text
    assert text.count('<svg role="img" aria-label="Figure ') == 6
    assert "<code>python -m lime_editing reproduce --task facts --seeds 3</code>" in text


def test_what_cells_say_of_themselves_is_escaped(tmp_path: Path) -> None:
    scale = {"name": "<b>", "about": "<script>alert(1)</script> | a_b & 100%"}
    folders = write_grid(tmp_path, languages=FEW, seeds=1, scale=scale, machine="<img src=x>")
    text = report.write(tmp_path, folders).read_text(encoding="utf-8")
    parsed(text)
    assert "<script" not in text
    assert "<img" not in text
    assert r"\| a\_b" in (tmp_path / "tables.md").read_text()
    assert r"a\_b \& 100\%" in (tmp_path / "table1.tex").read_text()


def test_printed_numbers_of_xnli_carry_their_caveat(tmp_path: Path) -> None:
    """Beside every one of them, in every format; those of mLAMA have none."""
    cells = [("finetuning", None), ("mend", "all")]
    folders = [write_cell(tmp_path, *key, task=task, languages=FEW) for task in ("facts", "nli") for key in cells]
    page = report.write(tmp_path, folders).read_text(encoding="utf-8")
    numbers = re.findall(r'<td class="n printed">(\d[^<]*)</td>', page)
    assert [number.endswith(" †") for number in numbers] == [False] * 12 + [True] * 12
    caveat = DATA_SETS["nli"]["caveat"]
    assert html.unescape(page).count(f"† {caveat}") == 2  # below both tables
    markdown_text = (tmp_path / "tables.md").read_text(encoding="utf-8")
    facts, nli = markdown_text.split("## NLI")
    assert "†" not in facts
    assert len(re.findall(r"\| \d+\.\d\d † (?=\|)", nli)) == 12
    assert "may follow another protocol" in nli
    for name in ("table1", "table2"):
        facts, nli = (tmp_path / f"{name}.tex").read_text(encoding="utf-8").split("\\begin{table}")[1:]
        assert r"\dag{}" not in facts
        assert len(re.findall(r"\d\.\d\d \\dag\{\} ", nli)) == 6
        assert "may follow another protocol" in nli


def test_plug_ins_stand_in_tables_and_figures_under_their_own_titles(tmp_path: Path) -> None:
    """An approach, a training and a task that this repository does not know, after those that it knows."""
    rates = RATES["mend", "all"]
    keys = [("zeta", "en"), ("halves", None), ("zeta", "all"), ("mend", "mine"), ("mend", "all")]
    titles = {"zeta": "Zeta [bold]", "halves": "<Halves>", "mend": "MEND"}
    folders = [
        write_cell(
            tmp_path,
            *key,
            languages=FEW,
            task="quotes",
            rates=rates,
            noise=i,
            titles={"task": "Quotations", "approach": titles[key[0]]},
        )
        for i, key in enumerate(keys)
    ]
    folders.append(write_cell(tmp_path, "mend", "all", languages=FEW))
    sections = read(folders)
    assert [section.title for section in sections] == ["Facts, protocol “paper”", "Quotations, protocol “paper”"]
    assert labels(sections[1], FIRST) == [
        ("MEND", "all languages"),
        ("MEND", "mine (ours)"),
        ("<Halves> (ours)", ""),
        ("Zeta [bold] (ours)", "English only"),
        ("Zeta [bold] (ours)", "all languages"),
    ]
    judgement = judge(sections[1])
    assert {(d.approach, d.ours, d.theirs) for d in judgement.differences} == {("zeta", "all", "en")}
    assert {f.approach for f in judgement.findings} == {"zeta"}
    page = report.write(tmp_path, folders).read_text(encoding="utf-8")
    parsed(page)
    assert "&lt;Halves&gt;" in page
    assert "The paper has no numbers for this task." in page
    assert "Zeta \\[bold\\]" in (tmp_path / "tables.md").read_text(encoding="utf-8")
    console = Console(width=200)
    with console.capture() as shown:
        console.print(report.table(folders))
    assert "Zeta [bold] (ours)" in shown.get()


def test_a_task_s_name_never_leads_out_of_the_folder(tmp_path: Path) -> None:
    folder = write_cell(tmp_path / "cells", task="x", languages=FEW)
    record = store.read_json(folder / "cell.json")
    record["cell"]["task"] = "../../../out of here"
    store.write_json(folder / "cell.json", record)
    before = set(tmp_path.iterdir())
    page = report.write(tmp_path / "cells", [folder])
    parsed(page.read_text(encoding="utf-8"))
    assert set(tmp_path.iterdir()) == before
    assert {path.name for path in (tmp_path / "cells/figures").iterdir()} == {
        f"{figure}----------out-of-here.{kind}" for figure in ("figure3", "figure4") for kind in ("json", "png", "svg")
    }


def test_partial_grids_say_what_is_missing(tmp_path: Path) -> None:
    for i, keep in enumerate(
        [[("unedited", None)], [("mend", "en")], [("finetuning", None), ("mend", "lime")], GRID[:3]]
    ):
        root = tmp_path / str(i)
        folders = [write_cell(root, *key, languages=FEW, checkpoint=False) for key in keep]
        text = report.write(root, folders).read_text(encoding="utf-8")
        parsed(text)
        assert "Figure 5: how alike the languages' masks are is left out" in html.unescape(text)


def test_the_same_cells_give_the_same_files(grid: list[Path], written: Path) -> None:
    names = sorted(p for p in written.rglob("*") if p.is_file() and p.parent.name in (written.name, "figures"))
    before = {path: path.read_bytes() for path in names}
    report.write(written, grid[::-1])
    assert {path.name for path in names} >= {"report.html", "tables.json", "tables.md", "table1.tex", "table2.tex"}
    for path, content in before.items():
        assert path.read_bytes() == content, path.name
    assert not [path for path in written.rglob(".*") if path.is_file()]


def test_the_page_prints_the_commands_that_made_its_cells(tmp_path: Path) -> None:
    """Whole, quoted for a shell, each once; and the command that writes the page."""
    first = ["reproduce", "--task", "facts", "--set", "mask_lr=0.01", "--facts", "my facts.csv"]
    folders = [write_cell(tmp_path, "mend", "all", seed, languages=FEW, command=first) for seed in range(2)]
    folders.append(write_cell(tmp_path, "mend", "en", languages=FEW, command=["reproduce", "--training", "en"]))
    text = report.write(tmp_path, folders).read_text(encoding="utf-8")
    found = re.findall(r"<li><code>(.*?)</code>", text)
    assert [shlex.split(html.unescape(command)) for command in found] == [
        ["python", "-m", "lime_editing", "reproduce", "--training", "en"],
        ["python", "-m", "lime_editing", *first],
    ]
    assert "do not say which command" not in text
    assert f"report --results {tmp_path}</code>" in text


def test_cells_without_a_command_are_counted(tmp_path: Path) -> None:
    folders = [write_cell(tmp_path, "mend", t, languages=FEW, command=None) for t in ("en", "all")]
    folders.append(write_cell(tmp_path, "mend", "lime", languages=FEW))
    text = report.write(tmp_path, folders).read_text(encoding="utf-8")
    assert "2 of 3 cells do not say which command made them" in text
    assert "reproduce --task facts --seeds 3</code>" in text


def test_cells_of_another_precision_stand_in_a_table_of_their_own(tmp_path: Path) -> None:
    folders = [write_cell(tmp_path, "mend", t, precision=p) for t, p in (("all", "float32"), ("all", "bf16"))]
    folders.append(write_cell(tmp_path, "mend", "en", precision="float32"))
    sections = read(folders)
    assert [(section.scope["precision"], len(section.runs)) for section in sections] == [("float32", 2), ("bf16", 1)]


def test_inlined_figures_do_not_share_ids() -> None:
    svg = '<?xml version="1.0"?>\n<svg><path id="a"/><use xlink:href="#a" clip-path="url(#a)" fill="#aabbcc"/></svg>'
    inner = '<path id="p-a"/><use xlink:href="#p-a" clip-path="url(#p-a)" fill="#aabbcc"/></svg>'
    assert report.inline(svg, "p-", 'A "<b>"') == '<svg role="img" aria-label="A &quot;&lt;b&gt;&quot;">' + inner


def test_the_terminal_table_has_every_row(grid: list[Path]) -> None:
    console = Console(width=200, record=True, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115
    console.print(report.table(grid))
    text = console.export_text()
    console.file.close()
    assert text.count("not comparable") == 2
    assert text.count("one shared mask (ours)") == 6
    assert text.count("MEND") == 2 * 5


def percentages(lines: Sequence[str]) -> list[float]:
    return [float(number) for line in lines for number in re.findall(r"\d+\.\d\d", line)]


def test_what_is_printed_obeys_the_harmonic_mean_too(grid: list[Path]) -> None:
    section = read(grid)[0]
    for row in rows(section, EN):
        acc, con, succ = percentages([cell.split(" ±")[0] for cell in row.texts()])
        assert succ == pytest.approx(metrics.succ(acc, con), abs=0.01)


def test_read_only_results_are_reported_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A colleague's: nothing is written there, and --to is written."""
    there, to = tmp_path / "there", tmp_path / "to"
    store.write_json(there / "index.json", [folder.name for folder in write_grid(there)])
    names = {path.relative_to(there) for path in there.rglob("*")}
    monkeypatch.setattr("os.access", lambda path, mode: not str(path).startswith(str(there)))
    monkeypatch.setattr(store, "check_place", lambda place, write=True: place == to or pytest.fail("not to be written"))
    assert command.main(["report", "--results", str(there), "--to", str(to)]) == 0
    assert {path.relative_to(there) for path in there.rglob("*")} == names
    assert (to / "report.html").is_file()
