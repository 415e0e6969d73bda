"""Trained editors, loaded from the folders of their cells (results.py describes a folder)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import data, results
from ..backbone import fingerprint, load as load_model, load_tokenizer
from ..core.editing import Editor, make_editor
from ..core.training import assign
from ..editors import Measuring, find
from ..errors import DataError, LanguageError, ModelError
from ..names import ALL
from . import store
from .cells import Cell
from .scales import TaskScale


def load(cell: str | Path, model: str | Path, device: str = "cpu", tokenizer: Any = None) -> Editor:
    """The editor of a cell, on the raw model that it was trained for (a folder or hub id).

    The cell's folder has the settings; Finetuning has no parameters. ModelError: no finished cell, a damaged one, or
    another model; the message shows the difference.
    """
    folder, of, record = _read(cell)
    scale, method = record["scale"], find(of.approach)
    backbone = load_model(model, scale["edited_layers"], device, classifier=data.find(of.task).classifies)
    given = fingerprint(backbone, load_tokenizer(model) if tokenizer is None else tokenizer)
    if given != record["model"]:
        size = sum(p.numel() for p in backbone.model.parameters())
        raise ModelError(
            f"{folder}: does not fit: it was trained for model {record['model']} ({record.get('parameters', 0):,} "
            f"parameters), and {model} is {given} ({size:,} parameters); give the model, with its tokenizer, that it "
            "was trained for"
        )
    about = (of.approach, backbone, record["languages"], of.masks, of.seed, method.Settings(**scale["settings"]))
    editor = make_editor(*about, scale.get("mask_lr", 0.0), record["rulings"]["mask_scale"])
    measures, path = isinstance(method, Measuring), folder / results.EDITOR
    if not editor.parameters and not measures:
        return editor
    expected = {"approach": of.approach, "languages": record["languages"], "masks": of.masks}
    said = store.read_about(path)
    differ = results.differences({name: said.get(name) for name in expected}, expected)
    if differ:
        shown = "; ".join(differ)
        raise ModelError(f"{path}: belongs to another cell than cell.json beside it ({shown}); restore the right one")
    stored = store.load_parameters(path, None if measures else editor.parameters)
    if measures:
        return replace(editor, parameters={name: p.to(backbone.like.device) for name, p in stored.items()})
    assign(editor.parameters, stored)
    return editor


def choose(
    task: str,
    approach: str | None,
    cell: Path | None,
    model: str | Path,
    tokenizer: Any,
    language: str,
    scale: TaskScale,
    device: str = "cpu",
) -> Editor:
    """The editor of a cell to edit in `language`; without a cell, Finetuning with the settings of `scale`.

    ModelError: the approach needs a cell, or is not the cell's; the cell has another task or model. LanguageError: not
    a language of the cell's editor.

    Eight parameters: task, editor, model and device are independent.
    """
    if cell is not None:
        _, of, _ = _read(cell)
        if of.task != task:
            raise ModelError(f"{cell}: does not fit: it edits {of.task}, and what is to be edited is {task}")
        if approach not in (None, of.approach):
            raise ModelError(f"{cell}: does not fit: it is {of.approach}, and not {approach}")
        editor = load(cell, model, device, tokenizer)
        if language not in editor.languages:
            raise LanguageError(language, editor.languages, f"to {cell}")
        return editor
    method = find(approach or "finetuning")
    if method.TRAINED or isinstance(method, Measuring):
        raise ModelError(
            f"{approach} needs a {'trained' if method.TRAINED else 'fitted'} checkpoint: --checkpoint CELL, the folder "
            f"of a cell that ran by `python -m lime_editing reproduce --task {task} --approach {approach}`; finetuning "
            "needs none"
        )
    backbone = load_model(model, scale.edited_layers, device, classifier=data.find(task).classifies)
    return make_editor(method.NAME, backbone, (language,), settings=scale.settings.get(method.NAME))


def best(
    places: Sequence[Path], task: str, approach: str | None, model: str, tokenizer: Any, language: str
) -> Path | None:
    """The stored editor with the best succ (all → all) of those that fit; None if none fits.

    `places` are folders of cells, or of scales. Damaged cells are skipped.
    """
    found: list[tuple[float, str, Path]] = []
    depths = ("cell.json", "*/cell.json", "*/*/cell.json")
    for path in sorted({path for place in places for depth in depths for path in place.glob(depth)}):
        try:
            (folder, of, record), scores = _read(path.parent), results.read_metrics(path.parent)
            languages, succ = record["languages"], scores[ALL].succ
        except (ModelError, DataError, KeyError, TypeError):
            continue
        if of.task == task and of.training and approach in (None, of.approach) and language in languages:
            found.append((succ, str(record["model"]), folder))
    if not found:
        return None
    own = fingerprint(load_model(model, 1, classifier=data.find(task).classifies), tokenizer)
    return max(((succ, folder) for succ, of, folder in found if of == own), default=(0.0, None))[1]


def _read(cell: str | Path) -> tuple[Path, Cell, Mapping[str, Any]]:
    """A cell's folder, the cell, and its cell.json. ModelError: not the folder of a cell with an editor."""
    folder = Path(cell)
    if folder.is_file():
        folder = folder.parent
    if not (folder / "cell.json").is_file():
        raise ModelError(f"{folder}: no cell.json, so it is no cell's folder; expected <results>/<scale>/<cell>")
    record = results.read_json(folder / "cell.json")
    try:
        of = Cell(**record["cell"])
        _ = of.masks, record["model"], record["languages"][0], record["rulings"]["mask_scale"]
        method = None if of.approach == "unedited" else find(of.approach)
        if method:
            method.Settings(**record["scale"]["settings"])
    except (KeyError, TypeError) as error:
        raise ModelError(f"{folder / 'cell.json'}: is not of this version ({error}); train the cell again") from error
    if method is None:
        raise ModelError(f"{folder}: is the cell of the unedited model, which has no editor")
    if (of.training is not None or isinstance(method, Measuring)) and not (folder / results.EDITOR).is_file():
        raise ModelError(
            f"{folder}: has no {results.EDITOR}: its training has not ended; the command that began it resumes it"
        )
    return folder, of, record
