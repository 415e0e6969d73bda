"""Tensors on disk: parameters of trained editors, and checkpoints of trainings (results.py lists the files)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..core.metrics import Scores
from ..core.training import Report, State
from ..errors import ModelError
from ..results import differences, remedy, write_atomically


def save_parameters(path: Path, parameters: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors, with a JSON description in the file's metadata."""
    tensors = {name: p.detach().cpu().contiguous() for name, p in parameters.items()}
    metadata = {"about": json.dumps(about, ensure_ascii=False)}
    size = sum(tensor.nbytes for tensor in tensors.values())
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata), size)


def load_parameters(path: Path, expected: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """The tensors of a checkpoint. ModelError: truncated, or of another editor than `expected` (None: any)."""
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: is not a readable checkpoint ({error}); {remedy(path)}") from error
    if expected is None:
        return tensors
    shapes, wanted = ({name: p.shape for name, p in named.items()} for named in (tensors, expected))
    wrong = sorted(name for name in shapes.keys() | wanted.keys() if shapes.get(name) != wanted.get(name))
    if wrong:
        raise ModelError(f"{path}: is a checkpoint of another editor; these parameters differ: {', '.join(wrong[:5])}")
    return tensors


def read_about(path: Path) -> dict[str, Any]:
    """The JSON description of a checkpoint. ModelError: it cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get("about", "{}"))
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(f"{path}: is not a readable checkpoint ({error}); {remedy(path)}") from error
    return about if isinstance(about, dict) else {}


def step_reached(path: Path) -> int:
    """The step of an interrupted training's checkpoint; 0 if none can be read."""
    try:
        return int(read_about(path).get("step", 0))
    except ModelError:
        return 0


def save_state(path: Path, record: Mapping[str, Any], state: State) -> None:
    """Write a training's state as one file, with its cell's record."""
    groups = {"now": state.parameters, "best": state.best, "first": state.first, "second": state.second}
    tensors = {f"{group}/{name}": t for group, named in groups.items() for name, t in named.items()}
    reports = [asdict(report) for report in state.reports]
    save_parameters(path, tensors, {"step": state.step, "sums": state.sums, "reports": reports, "record": record})


def load_state(path: Path, record: Mapping[str, Any], expected: Mapping[str, Tensor]) -> State | None:
    """The inverse of save_state; None if there is no file.

    ModelError: truncated, or of another cell (the message shows the difference). A damaged state is an error: writes
    are atomic, so something else damages files, and hours of training would be lost silently.
    """
    if not path.exists():
        return None
    about = read_about(path)
    differ = differences(about.get("record"), dict(record))
    if differ:
        raise ModelError(f"{path}: is the checkpoint of another training ({'; '.join(differ[:5])}); {remedy(path)}")
    wanted = {f"{group}/{name}": p for group in ("now", "best", "first", "second") for name, p in expected.items()}
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in load_parameters(path, wanted).items():
        group, name = key.split("/", 1)
        groups.setdefault(group, {})[name] = tensor.to(expected[name].device)
    named = (groups["now"], groups["best"], groups["first"], groups["second"])
    try:
        reports = tuple(Report(**{**report, "scores": Scores(**report["scores"])}) for report in about["reports"])
        return State(int(about["step"]), *named, dict(about["sums"]), reports)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: is not a readable checkpoint (no {error}); {remedy(path)}") from error
