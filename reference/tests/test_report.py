"""Tables, intervals, findings and the page, from cells whose rates are known."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from lime_editing import results as store
from lime_editing.core import metrics
from lime_editing.errors import DataError, UserError
from lime_editing.report import write as report
from lime_editing.report.bootstrap import (
    Interval,
    centred,
    harmonic,
    interval,
    resample_edits,
    resample_seeds,
    succ_difference,
)
from lime_editing.report.counts import ALL, EN, Judged, breakdown, count, own_and_other, read, scores
from lime_editing.report.findings import LIME, PARALLEL, PARTIAL, UNDERFITS, judge, verdict
from lime_editing.report.page import commands, inline
from lime_editing.report.published import TABLES
from lime_editing.report.tables import latex, markdown, rows, tex
from reference.tests.cells import GRID, RATES, write_cell, write_grid

FEW = ("de", "en", "fr", "sw")


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Both protocols of the whole grid with its control, in four languages, two seeds."""
    root = tmp_path_factory.mktemp("grid") / "tiny"
    return write_grid(root, ("facts",), ("paper", "released"), 2, languages=FEW, edits=20)


@pytest.fixture(scope="module")
def written(grid: list[Path]) -> Path:
    return report.write(grid[0].parent, grid).parent


def counted(path: Path, evaluation: str = ALL) -> Judged:
    return count(path / "rows.parquet")[evaluation]


# The printed tables


def test_every_printed_row_obeys_the_harmonic_mean() -> None:
    printed = [row for tasks in TABLES.values() for table in tasks.values() for row in table.values()]
    assert len(printed) == 28
    for acc, con, succ in printed:
        assert succ == pytest.approx(metrics.succ(acc, con), abs=0.01)


def test_the_printed_tables_have_the_rows_of_the_paper() -> None:
    editors = ("editable_training", "knowledge_editor", "mend")
    for evaluation, trainings in ((EN, ("en", "all")), (ALL, ("all", "lime"))):
        expected = {("finetuning", None), *((e, t) for e in editors for t in trainings)}
        assert {task: set(table) for task, table in TABLES[evaluation].items()} == {"facts": expected, "nli": expected}


# Counts


def test_counts_give_the_numbers_of_the_metrics(tmp_path: Path) -> None:
    folder = write_cell(tmp_path, languages=FEW, edits=15)
    stored = store.read_rows(folder / "rows.parquet")
    for name, judged in count(folder / "rows.parquet").items():
        expected = metrics.scores(stored[name])
        assert scores(judged).as_dict() == pytest.approx(expected.as_dict(), abs=1e-12)
        for by in ("edit_language", "language"):
            wanted = metrics.breakdown(stored[name], by)  # type: ignore[arg-type]
            found = breakdown(judged, by)
            assert found.keys() == wanted.keys()
            for language, expected in wanted.items():
                assert found[language].as_dict() == pytest.approx(expected.as_dict(), abs=1e-12)


def test_edits_weigh_the_same_however_many_inputs_they_got(tmp_path: Path) -> None:
    from lime_editing.core.records import Outcome

    outcomes = [Outcome("a", "en", "update", "en", True), *[Outcome("b", "en", "update", "en", False)] * 3]
    outcomes += [Outcome(e, "en", "retain", "en", True) for e in "ab"]
    outcomes += [Outcome("a", "de", role, "de", True) for role in ("update", "retain")]  # type: ignore[arg-type]
    store.write_rows(tmp_path / "rows.parquet", {ALL: outcomes})
    assert scores(count(tmp_path / "rows.parquet")[ALL]).acc == pytest.approx(0.75)
    assert metrics.scores(outcomes).acc == pytest.approx(0.75)


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    folder = write_cell(tmp_path, languages=FEW)
    stored = store.read_rows(folder / "rows.parquet")
    store.write_rows(tmp_path / "rows.parquet", {name: stored[name][::-1] for name in reversed(stored)})
    first, second = counted(folder), count(tmp_path / "rows.parquet")[ALL]
    assert (first.edits, first.inputs) == (second.edits, second.inputs)
    assert np.array_equal(first.hits, second.hits)
    assert np.array_equal(first.asked, second.asked)


def test_a_row_is_the_mean_over_seeds_of_acc_and_con(grid: list[Path]) -> None:
    section = read(grid)[0]
    for evaluation in (EN, ALL):
        for row in rows(section, evaluation):
            runs = [scores(counted(grid[0].parent / name, evaluation)) for name in row.runs.values()]
            assert len(runs) == (2 if row.key[1] else 1)
            assert row.scores == metrics.aggregate(runs)
            assert row.scores.succ == pytest.approx(metrics.succ(row.scores.acc, row.scores.con))
            if row.deviation is None:
                assert row.key[1] is None
            else:
                assert row.deviation.acc == pytest.approx(abs(runs[0].acc - runs[1].acc) / 2**0.5)


# The bootstrap


def pair(tmp_path: Path, ours: float, theirs: float, seeds: int = 3) -> tuple[list[Judged], list[Judged]]:
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
            Judged(edits, inputs, np.stack([rng.binomial(4, p, (80, 1)), rng.binomial(4, 0.9, (80, 1))], 1), asked)
            for p in (0.8, 0.6)
        )
        found = succ_difference([ours], [theirs], resamples=300)
        covered += found.low <= truth <= found.high
    assert 87 <= covered <= 100


def test_the_same_seed_gives_the_same_interval_and_another_does_not(tmp_path: Path) -> None:
    ours, theirs = pair(tmp_path, 0.8, 0.6)
    assert succ_difference(ours, theirs) == succ_difference(ours, theirs)
    assert succ_difference(ours, theirs) != succ_difference(ours, theirs, seed=1)


def test_pairing_makes_the_interval_of_alike_approaches_narrow() -> None:
    rng = np.random.default_rng(3)
    edits = tuple(("en", f"{i:03}") for i in range(100))
    asked = np.ones((100, 2, 1))
    hits = rng.binomial(1, 0.6, (100, 2, 1)).astype(float)
    better = hits.copy()
    better[:5, 0] = 1  # alike but for a few edits
    ours, theirs = Judged(edits, ("en",), better, asked), Judged(edits, ("en",), hits, asked)
    shuffled = Judged(edits, ("en",), hits[rng.permutation(100)], asked)
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
    means = resample_edits([Judged(edits, ("en",), hits, np.ones((20, 2, 1)))], resamples=50)
    assert np.array_equal(means.mean(2), np.full((51, 1, 2), 0.5))


def test_seeds_are_resampled_together_and_the_sample_comes_first() -> None:
    values = np.arange(3.0)[None, :, None] * np.ones((501, 3, 2))
    drawn = resample_seeds(values)
    assert {resample_seeds(values[:5], seed)[0, 0] for seed in range(20)} == {1}
    assert set(np.round(drawn[1:, 0] * 3).astype(int)) == set(range(7))
    assert np.allclose(resample_seeds(values + 1) - drawn, 1)


def test_harmonic_of_nothing_is_nothing() -> None:
    assert harmonic(np.array([[0.0, 0.0], [0.5, 0.5]])).tolist() == [0, 0.5]


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
        **{variant: ("mend", variant) for variant in ("en", "all", "lime", "shared")},
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
    succ = {(row.key, name): row.scores.succ for name in (EN, ALL) for row in rows(section, name)}
    found = judge(section).differences
    assert len(found) == 3 * 3 * 2
    for d in found:
        ours, theirs = (succ[(d.approach, training), d.evaluation] for training in (d.ours, d.theirs))
        assert d.interval.value == pytest.approx(ours - theirs, abs=1e-12)
        assert d.interval.low <= d.interval.value <= d.interval.high


# Scopes


def test_cells_of_another_scope_get_a_section_of_their_own(tmp_path: Path) -> None:
    folders = [write_cell(tmp_path, "mend", v, languages=FEW) for v in ("en", "all")]
    others = [
        write_cell(tmp_path, "mend", "all", languages=FEW[:3]),
        write_cell(tmp_path, "mend", "all", languages=FEW, data="other"),
        write_cell(tmp_path, "mend", "all", languages=FEW, model="other"),
        write_cell(tmp_path, "mend", "all", languages=FEW, preset={"name": "small", "about": "small"}),
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
    presets = [{"name": "tiny", "about": "small", "settings": {"lr": lr}} for lr in (1, 2)]
    folders = [write_cell(tmp_path, seed=i, languages=FEW, preset=preset) for i, preset in enumerate(presets)]
    with pytest.raises(DataError, match="differ in more than the seed"):
        read(folders)


def test_cells_that_were_asked_other_questions_are_refused(tmp_path: Path) -> None:
    folders = [write_cell(tmp_path, variant=v, languages=FEW, edits=n) for v, n in (("en", 10), ("all", 11))]
    with pytest.raises(DataError, match="different questions"):
        read(folders)


def test_what_is_no_finished_cell_is_refused(tmp_path: Path) -> None:
    folder = write_cell(tmp_path, languages=FEW)
    record = store.read_json(folder / "cell.json")
    store.write_json(folder / "cell.json", {k: v for k, v in record.items() if k != "protocol"})
    with pytest.raises(DataError, match="lacks protocol"):
        read([folder])
    (folder / "rows.parquet").write_bytes(b"PAR1")
    store.write_json(folder / "cell.json", record)
    with pytest.raises(DataError, match="cannot be read as a table"):
        read([folder])
    (folder / "metrics.json").unlink()
    with pytest.raises(DataError, match="no finished cell"):
        read([folder])
    with pytest.raises(UserError, match="no finished cells"):
        report.write(tmp_path, [])


# What is written


def test_every_number_in_the_json_can_be_traced_to_its_cells(written: Path) -> None:
    tables = json.loads((written / "tables.json").read_text())
    assert set(tables) == {"facts", "facts-released"}
    for section in tables.values():
        assert {"rulings", "preset", "languages", "data", "model"} <= section.keys()
        for row in section["rows"]:
            assert len(row["cells"]) == row["seeds"]
            for seed, name in row["cells"].items():
                cell = json.loads((written / name / "cell.json").read_text())["cell"]
                assert (cell["approach"], cell["variant"], str(cell["seed"])) == (row["approach"], row["variant"], seed)
            assert row["succ"] == pytest.approx(metrics.succ(row["acc"], row["con"]), abs=1e-12)


def test_the_tables_have_the_papers_order_with_ours_marked(grid: list[Path]) -> None:
    section = read(grid[::-1])[0]
    editors = ("Editable Training", "KnowledgeEditor", "MEND")
    first = [row.labels for row in rows(section, EN, ("en", "all"))]
    assert first[:2] == [("no edit (ours)", ""), ("Finetuning", "")]
    assert first[2:] == [(e, t) for e in editors for t in ("English only", "all languages")]
    second = [row.labels for row in rows(section, ALL, ("all", "lime", "shared"))]
    trainings = ("all languages", "all languages + LiME", "all languages + one shared mask (ours)")
    assert second[2:] == [(e, t) for e in editors for t in trainings]
    assert {row.labels[0] for row in rows(section, ALL) if row.printed is None and row.key[1] == "all"} == set()


def test_latex_is_balanced_and_escaped(grid: list[Path]) -> None:
    assert tex("50% of a_b & c#1 → ± −{x}") == r"50\% of a\_b \& c\#1 $\rightarrow$ $\pm$ $-$\{x\}"
    text = latex(read(grid), "table2")
    assert text.count("\\begin{table}") == text.count("\\end{table}") == text.count("\\bottomrule") == 2
    assert text.count("{") == text.count("}")
    for line in re.findall(r"^(?:MEND|Finetuning) .*$", text, re.MULTILINE):
        assert len(re.split(r"(?<!\\)&", line)) == 8
        assert line.endswith(r" \\")
    assert not re.search(r"(?<!\\)%", text.split("\n", 1)[1])


def test_markdown_rows_are_as_wide_as_their_head(grid: list[Path]) -> None:
    sections = read(grid)
    text = markdown(sections, [judge(section) for section in sections])
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.split(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    hostile = markdown([], [])
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
    assert "nox -s reproduce -- --task facts --protocol released --seeds 2 --control" in text
    assert "report --results results/tiny<" in text
    assert str(written) not in text


def test_what_cells_say_of_themselves_is_escaped(tmp_path: Path) -> None:
    preset = {"name": "<b>", "about": "<script>alert(1)</script> | a_b & 100%"}
    folders = write_grid(tmp_path, languages=FEW, seeds=1, preset=preset, machine="<img src=x>")
    text = report.write(tmp_path, folders).read_text(encoding="utf-8")
    parsed(text)
    assert "<script" not in text
    assert "<img" not in text
    assert r"\| a\_b" in (tmp_path / "tables.md").read_text()
    assert r"a\_b \& 100\%" in (tmp_path / "table1.tex").read_text()


def test_partial_grids_say_what_is_missing(tmp_path: Path) -> None:
    for i, keep in enumerate(
        [[("unedited", None)], [("mend", "en")], [("finetuning", None), ("mend", "lime")], GRID[:3]]
    ):
        root = tmp_path / str(i)
        folders = [write_cell(root, *key, languages=FEW, checkpoint=False) for key in keep]
        text = report.write(root, folders).read_text(encoding="utf-8")
        parsed(text)
        assert "Figure 5: how alike the languages&#x27; masks are is left out" in text


def test_the_same_cells_give_the_same_files(grid: list[Path], written: Path) -> None:
    names = sorted(p for p in written.rglob("*") if p.is_file() and p.parent.name in (written.name, "figures"))
    before = {path: path.read_bytes() for path in names}
    report.write(written, grid[::-1])
    assert {path.name for path in names} >= {"report.html", "tables.json", "tables.md", "table1.tex", "table2.tex"}
    for path, content in before.items():
        assert path.read_bytes() == content, path.name
    assert not [path for path in written.rglob(".*") if path.is_file()]


def test_commands_name_what_is_not_the_default(tmp_path: Path) -> None:
    def command(**options: Any) -> str:
        folder = write_cell(tmp_path, "mend", "all", **{"edits": 2, **options})
        return commands(read([folder])[0], Path("results/tiny"))[0]

    assert command(languages=FEW).endswith("--seeds 1 --languages de,en,fr,sw")
    assert command() == "nox -s reproduce -- --task facts --seeds 1"
    assert command(preset={"name": "paper", "about": ""}).endswith("--task facts --scale paper --seeds 1")
    for edited, named in (
        (3, ""),
        (2, " --edited-layers 2"),
        (["a.weight", "b.weight"], " --edited-layers a.weight,b.weight"),
    ):
        said = command(preset={"name": "tiny", "about": "", "edited_layers": edited})
        assert said == f"nox -s reproduce -- --task facts --seeds 1{named}"
    assert command(precision="bf16").endswith("--task facts --precision bf16 --seeds 1")
    assert command(split="validation").endswith("--task facts --split validation --seeds 1")
    assert "--kl-direction released --penalty sum" in command(
        protocol="custom", rulings={"kl_direction": "released", "penalty": "sum"}
    )


def test_cells_of_another_precision_stand_in_a_table_of_their_own(tmp_path: Path) -> None:
    folders = [write_cell(tmp_path, "mend", "all", precision=p) for p in ("float32", "bf16")]
    folders.append(write_cell(tmp_path, "mend", "en"))  # from before it was recorded
    sections = read(folders)
    assert [(section.scope["precision"], len(section.runs)) for section in sections] == [("float32", 2), ("bf16", 1)]


def test_inlined_figures_do_not_share_ids() -> None:
    svg = '<?xml version="1.0"?>\n<svg><path id="a"/><use xlink:href="#a" clip-path="url(#a)" fill="#aabbcc"/></svg>'
    expected = '<svg><path id="p-a"/><use xlink:href="#p-a" clip-path="url(#p-a)" fill="#aabbcc"/></svg>'
    assert inline(svg, "p-") == expected


def test_the_terminal_table_has_every_row(grid: list[Path]) -> None:
    console = Console(width=200, record=True, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115
    console.print(report.table(grid))
    text = console.export_text()
    console.file.close()
    assert text.count("not comparable") == 2
    assert text.count("one shared mask (ours)") == 6
    assert text.count("MEND") == 8


def percentages(lines: Sequence[str]) -> list[float]:
    return [float(number) for line in lines for number in re.findall(r"\d+\.\d\d", line)]


def test_what_is_printed_obeys_the_harmonic_mean_too(grid: list[Path]) -> None:
    section = read(grid)[0]
    for row in rows(section, EN):
        acc, con, succ = percentages([cell.split(" ±")[0] for cell in row.cells()])
        assert succ == pytest.approx(metrics.succ(acc, con), abs=0.01)
