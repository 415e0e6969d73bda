"""Edits kept on disk: an edited model, a LoRA adapter in PEFT's format, or a file of edits of our own.

model    a copy of the raw model's folder; only the edited matrices differ
lora     adapter_config.json and adapter_model.safetensors
update   update.safetensors: factors or ΔW, the requests, and fingerprints; its edits can be listed and dropped

A folder is written completely or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Literal

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from safetensors.torch import save, save_file
from torch import Tensor

from .backbone import Backbone
from .borders import border
from .errors import ModelError, UserError
from .results import write_atomically
from .updates import Update

Form = Literal["model", "lora", "update"]
UPDATE = "update.safetensors"
RANK = 64  # of a LoRA adapter if ΔW has no factors
NEEDED = ["*.safetensors", "*.json", "*.txt", "*.model"]  # of a model on the hub
#: Other weight files; they are not copied, because they hold the raw weights.
OTHER_WEIGHTS = (".bin", ".h5", ".msgpack", ".ot", ".pt", ".pth", ".onnx")


@dataclass(frozen=True, slots=True)
class Saved:
    """The file of edits: one update for each edit, or one for all; the requests; and metadata.

    about   fingerprints of the raw model and the editor, and other metadata
    """

    updates: tuple[Update, ...]
    requests: tuple[Mapping[str, Any], ...]
    about: Mapping[str, Any]

    @property
    def apart(self) -> bool:
        """Whether an edit can be dropped. Least squares and a stored sum of ΔW have one update for all edits."""
        return len(self.updates) == len(self.requests)


def save_model(update: Update, backbone: Backbone, source: str | Path, folder: str | Path) -> None:
    """The raw model of `source`, a folder or hub id, with W + ΔW of one edit.

    The sum is computed in float32 at least, and stored in W's dtype. All else is copied byte by byte, except an adapter
    beside the weights. UserError: the folder exists already, or cannot be written. ModelError: the weights lack an
    edited matrix.
    """
    _check_one(update)
    with border(ModelError, f"cannot find the model {str(source)!r}"):
        here = Path(source) if Path(source).is_dir() else Path(snapshot_download(str(source), allow_patterns=NEEDED))
    prefix, changes = f"{backbone.model.base_model_prefix}.", update.dense(0, backbone.raw)
    # A file of the encoder alone has no encoder prefix; a file of a larger model has one.
    known = {key: name for name in changes for key in (name, name.removeprefix(prefix), prefix + name)}

    def write(new: Path) -> None:
        found = set()
        for path in sorted(here.iterdir()):
            if not path.is_file() or path.name.startswith((".", "adapter_")) or path.suffix in OTHER_WEIGHTS:
                continue
            shutil.copyfile(path, new / path.name)
            if path.suffix == ".safetensors":
                found |= {_replace(new / path.name, key, changes[known[key]]) for key in _keys(path) if key in known}
        missing = [name for name in changes if not found & {name, name.removeprefix(prefix), prefix + name}]
        if missing:
            raise ModelError(
                f"{here}: its weights have no {missing[0]}; give the folder that the model was loaded from"
            )

    _whole(Path(folder), write)


def save_lora(
    update: Update, backbone: Backbone, source: str | Path, folder: str | Path, rank: int | None = None
) -> dict[str, float]:
    """Save one edit as a LoRA adapter of `source`. Returns the relative error of each matrix's ΔW.

    Factors with at most `rank` rows are stored unchanged; any other ΔW is truncated by SVD to `rank` (default: RANK).
    UserError: the folder exists already, or cannot be written.
    """
    _check_one(update)
    if rank is not None and rank < 1:
        raise UserError(f"the rank of an adapter must be above 0; got {rank}")
    pairs, errors = {}, {}
    for name, delta in update.dense(0, backbone.raw).items():
        plain = name in update.factors and name not in update.deltas and name not in update.weights
        a, b = (part[0].detach() for part in update.factors[name]) if plain else (delta[:0], delta[:0])
        a, b = a[(live := (b != 0).any(-1))], b[live] if plain else b
        if not plain or len(a) > (rank or len(a)):
            u, s, vh = torch.linalg.svd(delta.detach().double(), full_matrices=False)
            kept = min(rank or RANK, len(s))
            a, b = (vh[:kept] * s[:kept, None]).to(delta), u[:, :kept].mT.to(delta)
        pairs[name] = (a, b)
        errors[name] = float((b.mT @ a - delta).norm() / delta.norm().clamp_min(1e-30))
    widest = max(1, *(len(a) for a, _ in pairs.values()))
    tensors = {}
    for name, (a, b) in pairs.items():
        rows = torch.zeros(widest - len(a), 1)
        module = f"base_model.model.{name.removesuffix('.weight')}"
        tensors[f"{module}.lora_A.weight"] = torch.cat([a.cpu(), rows.expand(-1, a.shape[1])]).contiguous()
        tensors[f"{module}.lora_B.weight"] = torch.cat([b.cpu(), rows.expand(-1, b.shape[1])]).mT.contiguous()
    about: dict[str, Any] = {"peft_type": "LORA", "task_type": "SEQ_CLS" if backbone.classifies else None}
    about |= {"inference_mode": True}
    about |= {"r": widest, "lora_alpha": widest, "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": False}
    about |= {"base_model_name_or_path": str(source), "target_modules": [n.removesuffix(".weight") for n in pairs]}

    def write(new: Path) -> None:
        write_atomically(new / "adapter_model.safetensors", lambda file: save_file(tensors, file, {"format": "pt"}))
        (new / "adapter_config.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")

    _whole(Path(folder), write)
    return errors


def save_updates(path: str | Path, saved: Saved) -> None:
    """Write the file of edits. UserError: it cannot be written."""
    tensors: dict[str, Tensor] = {}
    for i, update in enumerate(saved.updates):
        for name, (u, v) in update.factors.items():
            live = (v[0] != 0).any(-1)
            tensors |= {f"{i}/u/{name}": u[0][live], f"{i}/v/{name}": v[0][live]}
        tensors |= {f"{i}/delta/{name}": delta[0] for name, delta in update.deltas.items()}
        tensors |= {f"weight/{name}": weight for name, weight in update.weights.items()}
    held = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    about = {"about": dict(saved.about), "requests": list(saved.requests), "updates": len(saved.updates)}
    size = sum(tensor.nbytes for tensor in held.values())
    metadata = {"lime_editing": json.dumps(about, ensure_ascii=False)}
    write_atomically(Path(path), lambda temporary: save_file(held, temporary, metadata), size)


def load_updates(path: str | Path, device: str = "cpu") -> Saved:
    """The inverse of `save_updates`; `compose` adds the edits. UserError: not a file of edits, or a damaged one."""
    updates: dict[int, dict[str, dict[str, Tensor]]] = {}
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; expected {UPDATE}, which `edit --as update` keeps")
    try:
        with safe_open(path, "pt", device) as file:
            told = json.loads(file.metadata()["lime_editing"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  not a mapping
        for key, tensor in tensors.items():
            number, _, rest = key.partition("/") if not key.startswith("weight/") else ("-1", "", key)
            kind, _, name = rest.partition("/")
            updates.setdefault(int(number), {}).setdefault(kind, {})[name] = tensor
        weights = updates.pop(-1, {}).get("weight", {})
        count, requests = told["updates"], tuple(told["requests"])
        if count not in (1, len(requests)) or updates.keys() != {*range(count)}:
            raise ValueError(f"{count} updates of {len(requests)} edits, and tensors of {len(updates)}")
        return Saved(tuple(_update(updates.get(i, {}), weights) for i in range(count)), requests, told["about"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: is no file of edits, or a damaged one ({error}); save the edits again") from error


def drop(saved: Saved, numbers: Sequence[int]) -> Saved:
    """The edits without these numbers, counted from 1 (chapter C). UserError: no such edit, or one update for all."""
    for number in numbers:
        if not 1 <= number <= len(saved.requests):
            raise UserError(f"there is no edit {number}; the file has 1 to {len(saved.requests)}")
    if not saved.apart:
        raise UserError(
            f"these {len(saved.requests)} edits were made as one update, so none can be dropped; edit again without it"
        )
    kept = [i for i in range(len(saved.requests)) if i + 1 not in numbers]
    return Saved(tuple(saved.updates[i] for i in kept), tuple(saved.requests[i] for i in kept), saved.about)


def check_free(folder: Path) -> None:
    """UserError: this path exists already, or cannot be written."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is there already; give another folder, or remove it first")
    with border(UserError, f"{folder}: cannot be written"):
        above = next(path for path in folder.absolute().parents if path.exists())
        NamedTemporaryFile(dir=above, prefix=".", suffix=".tmp").close()


def _update(parts: Mapping[str, Mapping[str, Tensor]], weights: Mapping[str, Tensor]) -> Update:
    factors = {name: (u[None], parts["v"][name][None]) for name, u in parts.get("u", {}).items()}
    return Update(factors, {name: delta[None] for name, delta in parts.get("delta", {}).items()}, weights)


def _check_one(update: Update) -> None:
    """UserError: an update of several edits, or of none."""
    if update.edits > 1 or not (update.edits or update.weights):
        raise UserError(
            f"the update has {update.edits} edits, and one is saved; compose([update]) is the sum of several"
        )


def _keys(path: Path) -> list[str]:
    with safe_open(path, "pt") as file:
        return list(file.keys())


def _replace(path: Path, key: str, change: Tensor) -> str:
    """Add to one tensor of a safetensors file, in place."""
    with safe_open(path, "pt") as file:
        old = file.get_tensor(key)
    exact = torch.promote_types(old.dtype, torch.float32)
    new = (old.to(exact) + change.detach().cpu().to(exact)).to(old.dtype)
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        start, end = json.loads(file.read(length))[key]["data_offsets"]
        file.seek(8 + length + start)
        file.write(save({key: new})[start - end :])
    return key


def _whole(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a folder under a temporary name, and rename it. UserError: it exists already, or cannot be written."""
    check_free(folder)
    new = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        new.mkdir(parents=True)
        write(new)
        new.replace(folder)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder}: cannot be written: {getattr(error, 'strerror', None) or error}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
