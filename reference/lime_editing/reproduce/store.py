"""Tensors on disk: trained editors, loaded from the folders of their cells, and checkpoints of trainings.

results.py describes a folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from .. import data, results
from ..backbone import fingerprint, load as load_model, load_tokenizer
from ..core.editing import Editor, make_editor
from ..core.metrics import Scores
from ..core.training import Report, State, assign
from ..editors import Measuring, find
from ..errors import DataError, LanguageError, ModelError
from ..names import ALL
from ..results import differences, remedy, write_atomically
from .cells import Cell
from .scales import TaskScale

#: The groups of tensors in a state's file, and their fields of State.
GROUPS = {"now": "parameters", "best": "best", "first": "first", "second": "second"}


def save_parameters(path: Path, parameters: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    tensors = {name: p.detach().cpu().contiguous() for name, p in parameters.items()}
    metadata = {"about": json.dumps(about, ensure_ascii=False)}
    size = sum(tensor.nbytes for tensor in tensors.values())
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata), size)


def load_parameters(path: Path, expected: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """The tensors of a checkpoint. ModelError: truncated, or of another editor than `expected` (None: any)."""
    with _reading(path):
        tensors: dict[str, Tensor] = load_file(path)
    if expected is None:
        return tensors
    shapes, wanted = ({name: p.shape for name, p in named.items()} for named in (tensors, expected))
    wrong = sorted(name for name in shapes.keys() | wanted.keys() if shapes.get(name) != wanted.get(name))
    if wrong:
        raise ModelError(f"{path}: is a checkpoint of another editor; these parameters differ: {', '.join(wrong[:5])}")
    return tensors


def read_about(path: Path) -> dict[str, Any]:
    with _reading(path), safe_open(path, "pt") as file:
        return dict(json.loads((file.metadata() or {}).get("about", "{}")))


def step_reached(path: Path) -> int:
    """The step of an interrupted training's checkpoint; 0 if none can be read."""
    with suppress(ModelError):
        return int(read_about(path).get("step", 0))
    return 0


def save_state(path: Path, record: Mapping[str, Any], state: State) -> None:
    tensors = {f"{group}/{name}": t for group, of in GROUPS.items() for name, t in getattr(state, of).items()}
    reports = [asdict(report) for report in state.reports]
    save_parameters(path, tensors, {"step": state.step, "sums": state.sums, "reports": reports, "record": record})


def load_state(path: Path, record: Mapping[str, Any], expected: Mapping[str, Tensor]) -> State | None:
    """The inverse of save_state; None if there is no file. ModelError: of another cell, or damaged.

    Writes are atomic, so something else damages files, and hours of training would be lost silently.
    """
    if not path.exists():
        return None
    about = read_about(path)
    differ = differences(about.get("record"), dict(record))
    if differ:
        raise ModelError(f"{path}: is the checkpoint of another training ({'; '.join(differ[:5])}); {remedy(path)}")
    tensors = load_parameters(path, {f"{group}/{name}": p for group in GROUPS for name, p in expected.items()})
    now, best, first, second = (
        {name: tensors[f"{group}/{name}"].to(p.device) for name, p in expected.items()} for group in GROUPS
    )
    with _reading(path):
        reports = tuple(Report(**{**report, "scores": Scores(**report["scores"])}) for report in about["reports"])
        return State(int(about["step"]), now, best, first, second, dict(about["sums"]), reports)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: is not a readable checkpoint ({error}); {remedy(path)}") from error


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
        fits = f"it was trained for model {record['model']}, and {model} is {given}"
        raise ModelError(f"{folder}: does not fit: {fits}; give the model, with its tokenizer, of its training")
    about = (of.approach, backbone, record["languages"], of.masks, of.seed, method.Settings(**scale["settings"]))
    editor = make_editor(*about, scale.get("mask_lr", 0.0), record["rulings"]["mask_scale"])
    measures, path = isinstance(method, Measuring), folder / results.EDITOR
    if not editor.parameters and not measures:
        return editor
    expected = {"approach": of.approach, "languages": record["languages"], "masks": of.masks}
    said = read_about(path)
    differ = "; ".join(differences({name: said.get(name) for name in expected}, expected))
    if differ:
        raise ModelError(f"{path}: belongs to another cell than cell.json beside it ({differ}); restore the right one")
    stored = load_parameters(path, None if measures else editor.parameters)
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
        what, command = "trained" if method.TRAINED else "fitted", f"reproduce --task {task} --approach {approach}"
        told = f"{approach} needs a {what} checkpoint: --checkpoint, a folder of `python -m lime_editing {command}`"
        raise ModelError(f"{told}; finetuning needs none")
    backbone = load_model(model, scale.edited_layers, device, classifier=data.find(task).classifies)
    return make_editor(method.NAME, backbone, (language,), settings=scale.settings.get(method.NAME))


def best(
    places: Sequence[Path], task: str, approach: str | None, model: str, tokenizer: Any, language: str
) -> Path | None:
    """The stored editor with the best succ (all → all) of those that fit, in folders of cells or of scales."""
    found = list[tuple[float, Path, str]]()
    depths = ("cell.json", "*/cell.json", "*/*/cell.json")
    for path in sorted({path for place in places for depth in depths for path in place.glob(depth)}):
        with suppress(ModelError, DataError, KeyError, TypeError):
            folder, of, record = _read(path.parent)
            if of.task == task and of.training and approach in (None, of.approach) and language in record["languages"]:
                found.append((results.read_metrics(folder)[ALL].succ, folder, record["model"]))
    if not found:
        return None
    own = fingerprint(load_model(model, 1, classifier=data.find(task).classifies), tokenizer)
    return max(((succ, folder) for succ, folder, of in found if of == own), default=(0.0, None))[1]


def _read(cell: str | Path) -> tuple[Path, Cell, Mapping[str, Any]]:
    """A cell's folder, the cell, and its cell.json. ModelError: not the folder of a cell with an editor."""
    folder = Path(cell)
    if not (folder / "cell.json").is_file():
        raise ModelError(f"{folder}: no cell.json, so it is no cell's folder; expected <results>/<scale>/<cell>")
    record = results.read_json(folder / "cell.json")
    try:
        of = Cell(**record["cell"])
        if of.approach == "unedited":
            raise ModelError(f"{folder}: is the cell of the unedited model, which has no editor")
        method = find(of.approach)
        method.Settings(**record["scale"]["settings"])
        _ = of.masks, record["model"], record["languages"][0], record["rulings"]["mask_scale"]
    except (KeyError, TypeError) as error:
        raise ModelError(f"{folder / 'cell.json'}: is not of this version ({error}); train the cell again") from error
    if (of.training is not None or isinstance(method, Measuring)) and not (folder / results.EDITOR).is_file():
        raise ModelError(f"{folder}: has no {results.EDITOR}: its training has not ended; the same command resumes it")
    return folder, of, record
