"""The figures: their data, their labels, and what they do without a font or a checkpoint."""

from __future__ import annotations

import html
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from safetensors.numpy import save_file

from lime_editing import results as store
from lime_editing.core import metrics
from lime_editing.errors import DataError
from lime_editing.names import ALL, EN
from lime_editing.report import figures, write as report
from lime_editing.report.counts import read
from reference.tests.cells import LANGUAGES, write_cell, write_grid, write_masks

FIGURES = figures.FIGURES
FEW = ("ar", "en", "hi", "sw", "zh")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_grid(tmp_path_factory.mktemp("figures") / "tiny", seeds=2, languages=FEW, edits=20)


def test_distributions_hold_the_breakdowns_averaged_over_seeds(folders: list[Path]) -> None:
    section = read(folders)[0]
    for figure, evaluation, by in zip(FIGURES[:2], (EN, ALL), ("language", "edit_language"), strict=True):
        data = figure.data(section, ())
        assert data is not None
        group = next(g for g in data["groups"] if (g["approach"], g["training"]) == ("mend", "all"))
        runs = [
            metrics.breakdown(store.read_rows(folder / "rows.parquet")[evaluation], by)  # type: ignore[arg-type]
            for folder in folders
            if folder.name in group["cells"]
        ]
        assert len(runs) == 2
        assert set(group["languages"]) == set(FEW)
        for language, values in group["languages"].items():
            expected = metrics.aggregate([run[language] for run in runs]).as_dict()
            assert values == pytest.approx(expected, abs=1e-12)


def test_distributions_show_what_the_papers_figures_show(folders: list[Path]) -> None:
    section = read(folders)[0]
    editors = ("editable_training", "knowledge_editor", "mend")
    for figure, trainings in zip(FIGURES[:2], (("en", "all"), ("all", "lime", "shared")), strict=True):
        data = figure.data(section, ())
        assert data is not None
        shown = [(g["approach"], g["training"]) for g in data["groups"]]
        assert shown == [("finetuning", None), *((e, t) for e in editors for t in trainings)]


def test_cosines_are_taken_on_each_rows_own_highest_dimensions() -> None:
    parameters = np.zeros((2, 300))
    parameters[0, :3], parameters[1, :3] = (9, 8, 7), (9, 8, -7)
    parameters[1, 100:103] = (20, 30, 40)
    parameters[0, 100:103] = (0, 0, 5)
    parameters[0, 200], parameters[1, 200] = -99, 99  # low for one: not among its own
    parameters[1, 102] = 1
    found = figures.cosines(parameters)
    rows = {0: [0, 1, 2], 1: [200, 101, 100]}
    for row, dims in rows.items():
        for column in range(2):
            a, b = parameters[row, dims], parameters[column, dims]
            assert found[row, column] == pytest.approx(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
    assert np.diag(found) == pytest.approx([1, 1])


def test_masks_are_all_matrices_side_by_side_without_scales(tmp_path: Path) -> None:
    write_masks(tmp_path / "editor.safetensors", FEW, width=50)
    languages, parameters = figures.mask_parameters(tmp_path / "editor.safetensors")
    assert languages == list(FEW)
    assert parameters.shape == (len(FEW), 4 * 50)


def test_a_checkpoint_without_a_mask_per_language_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "editor.safetensors"
    save_file({"mask.m.x": np.ones((1, 4), np.float32)}, path, {"about": json.dumps({"languages": ["en", "de"]})})
    with pytest.raises(DataError, match="no mask for each of its 2 languages"):
        figures.mask_parameters(path)
    path.write_bytes(b"short")
    with pytest.raises(DataError, match="not a readable checkpoint"):
        figures.mask_parameters(path)


def test_figure_5_is_drawn_again_without_its_checkpoint(tmp_path: Path) -> None:
    cell = write_cell(tmp_path, "mend", "lime", languages=FEW)
    report.write(tmp_path, [cell])
    stored = tmp_path / "figures" / "figure5-facts.json"
    drawn = {kind: stored.with_suffix(kind).read_bytes() for kind in (".json", ".svg", ".png")}
    (cell / "editor.safetensors").unlink()
    report.write(tmp_path, [cell])
    for kind, content in drawn.items():
        assert stored.with_suffix(kind).read_bytes() == content
    # Numbers of another cell are not taken for this one's.
    store.write_json(stored, {**json.loads(drawn[".json"]), "cell": "another"})
    text = report.write(tmp_path, [cell]).read_text(encoding="utf-8")
    assert not stored.exists()
    assert not stored.with_suffix(".svg").exists()
    assert "Figure 5: how alike the languages' masks are is left out" in html.unescape(text)


#: The languages of mLAMA.
MLAMA = re.findall(
    r"\w+",
    """af ar az be bg bn ca ceb cs cy da de el en es et eu fa fi fr ga gl he hi hr hu hy id it ja ka ko la lt lv ms nl
    pl pt ro ru sk sl sq sr sv ta th tr uk ur vi zh""",
)


def test_every_language_of_mlama_has_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """In its own script and as a label begins; codes that nobody knows stay as they are."""
    monkeypatch.setattr(figures.font_manager, "get_font", lambda path: Anything())
    fonts = ("A font with all characters",)
    names = {language: figures.label(language, fonts)[0] for language in (*MLAMA, *LANGUAGES)}
    assert len(set(names.values())) == len(names) == 54
    assert not set(names) & set(names.values())
    assert (names["fr"], names["ka"], names["zh"], names["ar"]) == ("Français", "ქართული", "中文", "العربية")
    for code in ("xx", "klingon", "../x", "", "zh-Hans-CN-x"):
        assert figures.label(code, fonts) == (code, ["sans-serif"])


class Anything:
    def get_char_index(self, character: int) -> int:
        return 1


def test_trainings_have_a_colour_of_their_own() -> None:
    """The known ones the same in every figure, whatever else is shown; others after them."""
    few, many = (
        figures._colours([{"training": name} for name in names])
        for names in ((None, "lime"), (None, "zeta", "en", "all", "lime", "shared", "alpha"))
    )
    assert few["lime"] == many["lime"]
    assert len(set(many.values())) == len(many) == 7
    assert list(many) == [None, "en", "all", "lime", "shared", "alpha", "zeta"]


def test_figures_say_in_words_what_they_show() -> None:
    group = {
        "training": "lime",
        "title": "MEND",
        "languages": {"en": {"succ": 0.9}, "sw": {"succ": 0.5}, "de": {"succ": 0.8}},
    }
    assert figures.FIGURES[0].tell({"groups": [group]}) == (
        "succ in percent by language. MEND, all languages + LiME: from 50.0 (sw) to 90.0 (en), median 80.0."
    )
    data = {"languages": ["en", "sw"], "cosine": [[1, 0.2], [0.4, 1]], "cosine_over_all": [[1, 0.9], [0.9, 1]]}
    assert "mean cosine of 0.90 over all dimensions, and of 0.30" in figures.FIGURES[2].tell(
        {**data, "preferred": 3, "seed": 0}
    )


def test_labels_fall_back_to_codes_without_a_glyph_missing(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "FAMILIES", ("DejaVu Sans",))
    only = figures.installed(("DejaVu Sans",))
    assert only == ("DejaVu Sans",)
    labels = {language: figures.label(language, only)[0] for language in LANGUAGES}
    assert (labels["hi"], labels["th"], labels["zh"]) == ("hi", "th", "zh")
    assert (labels["ru"], labels["vi"]) == ("Русский", "Tiếng Việt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = report.draw(read(folders), tmp_path)["facts"]
    assert set(drawn) == {"figure3", "figure4", "figure5"}
    text = drawn["figure3"][1].read_text(encoding="utf-8")
    assert ">hi</text>" in text
    assert "हिन्दी" not in text


def test_an_svg_keeps_its_text_and_has_no_date(folders: list[Path], tmp_path: Path) -> None:
    drawn = report.draw(read(folders), tmp_path)["facts"]
    for _, path in drawn.values():
        text = path.read_text(encoding="utf-8")
        assert "English</text>" in text
        assert "<dc:date>" not in text
        assert "<image" not in text


@pytest.mark.parametrize("name", ["figure3", "figure4", "figure5"])
def test_titles_and_names_stay_in_a_narrow_figure(name: str, tmp_path: Path) -> None:
    """Of one editor, whose title is long and has a sign of TeX, in a few languages."""
    title = "My editor of many words, at $5 or at 6$ each"
    scores = {code: {"succ": 0.1 * i} for i, code in enumerate(FEW)}
    data = {
        "groups": [{"title": title, "training": "lime", "languages": scores}],
        "cosine": np.eye(2).tolist(),
        "languages": FEW[:2],
    }
    drawing, drawn = next(one for one in FIGURES if one.name == name), list[Figure]()
    whole = f"{drawing.title} · Facts, protocol “paper”"
    figures.save(lambda: drawn.append(drawing.draw(data, whole)) or drawn[0], tmp_path / name)
    inside, texts = drawn[0].bbox.padded(3), drawn[0].axes[0].findobj(Text)
    for text in (one for one in texts if one.get_text() and one.get_in_layout()):
        box = text.get_window_extent()
        assert inside.x0 <= box.x0 <= box.x1 <= inside.x1, text.get_text()
    assert name == "figure5" or "$5" in html.unescape((tmp_path / f"{name}.svg").read_text(encoding="utf-8"))


def test_a_matplotlibrc_changes_no_figure(folders: list[Path], tmp_path: Path) -> None:
    """It may even ask for a LaTeX that is not there."""
    plain = report.draw(read(folders), tmp_path / "plain")["facts"]
    with figures.mpl.rc_context({"text.usetex": True, "axes.facecolor": "red", "figure.figsize": (30, 1)}):
        own = report.draw(read(folders), tmp_path / "own")["facts"]
    for (_, one), (_, other) in zip(plain.values(), own.values(), strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_labels_stay_within_their_bounds() -> None:
    assert figures.spaced([9.9, 9.8, 0.1], 1.0, 0.5, 9.5) == [9.5, 8.5, 0.5]
    assert figures.spaced([5, 5, 5], 3.0, 1.0, 7.0) == [1, 4, 7]


@pytest.mark.parametrize("values", [[1.0], [3, 1, 2], [1, 1, 1, 1], [0, 10, 10.1, 10.2, 30], [5, 4.9, 5.1, 0]])
def test_spaced_labels_keep_their_order_and_their_distance(values: list[float]) -> None:
    found = figures.spaced(values, 1.0)
    order = np.argsort(values, kind="stable")
    assert (np.diff(np.array(found)[order]) >= 1 - 1e-9).all()
    assert sum(found) == pytest.approx(sum(values))
    if (np.diff(np.sort(values)) >= 1).all():
        assert found == pytest.approx(values)
