"""The figures: their data, their labels, and what they do without a font or a checkpoint."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lime_editing import results as store
from lime_editing.core import metrics
from lime_editing.errors import DataError
from lime_editing.report import figures
from lime_editing.report import write as report
from lime_editing.report.counts import ALL, EN, read
from reference.tests.cells import LANGUAGES, write_cell, write_grid, write_masks

FEW = ("ar", "en", "hi", "sw", "zh")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_grid(tmp_path_factory.mktemp("figures") / "tiny", seeds=2, languages=FEW, edits=20)


def test_distributions_hold_the_breakdowns_averaged_over_seeds(folders: list[Path]) -> None:
    section = read(folders)[0]
    for name, evaluation, by in (("figure3", EN, "language"), ("figure4", ALL, "edit_language")):
        data = figures.distribution(section, name)
        assert data is not None
        group = next(g for g in data["groups"] if (g["approach"], g["variant"]) == ("mend", "all"))
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
    for name, trainings in (("figure3", ("en", "all")), ("figure4", ("all", "lime", "shared"))):
        data = figures.distribution(section, name)
        assert data is not None
        shown = [(g["approach"], g["variant"]) for g in data["groups"]]
        assert shown == [("finetuning", None), *((e, t) for e in editors for t in trainings)]


def test_cosines_are_taken_on_each_rows_own_highest_dimensions() -> None:
    parameters = np.zeros((2, 300))
    parameters[0, :3], parameters[1, :3] = (9, 8, 7), (9, 8, -7)
    parameters[1, 100:103] = (20, 30, 40)
    parameters[0, 100:103] = (0, 0, 5)
    parameters[0, 200], parameters[1, 200] = -99, 99  # low for one: not among its own
    parameters[1, 102] = 1
    found = figures.preferred_cosines(parameters)
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
    assert "Figure 5: how alike the languages&#x27; masks are is left out" in text


def test_labels_fall_back_to_codes_without_a_glyph_missing(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "FAMILIES", ("DejaVu Sans",))
    only = figures.installed(("DejaVu Sans",))
    assert only == ("DejaVu Sans",)
    labels = {language: figures.label(language, only) for language in LANGUAGES}
    assert (labels["hi"], labels["th"], labels["zh"]) == ("hi", "th", "zh")
    assert (labels["ru"], labels["vi"]) == ("Русский", "Tiếng Việt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = report.draw(read(folders)[0], tmp_path)
    assert set(drawn) == {"figure3", "figure4", "figure5"}
    text = drawn["figure3"].read_text(encoding="utf-8")
    assert ">hi</text>" in text
    assert "हिन्दी" not in text


def test_an_svg_keeps_its_text_and_has_no_date(folders: list[Path], tmp_path: Path) -> None:
    drawn = report.draw(read(folders)[0], tmp_path)
    for path in drawn.values():
        text = path.read_text(encoding="utf-8")
        assert "English</text>" in text
        assert "<dc:date>" not in text
        assert "<image" not in text


@pytest.mark.parametrize("values", [[1.0], [3, 1, 2], [1, 1, 1, 1], [0, 10, 10.1, 10.2, 30], [5, 4.9, 5.1, 0]])
def test_spaced_labels_keep_their_order_and_their_distance(values: list[float]) -> None:
    found = figures.spaced(values, 1.0)
    order = np.argsort(values, kind="stable")
    assert (np.diff(np.array(found)[order]) >= 1 - 1e-9).all()
    assert sum(found) == pytest.approx(sum(values))
    if (np.diff(np.sort(values)) >= 1).all():
        assert found == pytest.approx(values)
