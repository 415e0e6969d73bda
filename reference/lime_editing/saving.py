"""Edits kept on disk: an edited model, a LoRA adapter in PEFT's format, or a file of edits of our own.

model    a copy of the raw model's folder; only the edited matrices differ
lora     adapter_config.json and adapter_model.safetensors
update   update.safetensors: factors or ΔW, the requests, and fingerprints; its edits can be listed and dropped

A folder is written completely or not at all.
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import pad

from . import checks
from .backbone import Backbone
from .borders import border
from .errors import ModelError, UserError
from .hardware import check_device
from .results import existing, write_atomically, write_folder, write_json
from .updates import Update

UPDATE = "update.safetensors"
RANK = 64  # of a LoRA adapter if ΔW has no factors
NEEDED = ["*.safetensors", "*.json", "*.txt", "*.model"]  # of a model on the hub
#: Other weight files; they are not copied, because they hold the raw weights.
OTHER_WEIGHTS = (".bin", ".h5", ".msgpack", ".ot", ".pt", ".pth", ".onnx")


@dataclass(frozen=True, slots=True)
class Saved:
    """The file of edits: one update for each edit, or one for all; the requests; and metadata.

    requests  one mapping of texts and numbers for each edit, as `edit --as update` writes them; no `EditRequest`
    about     fingerprints of the raw model and the editor, and other metadata
    """

    updates: tuple[Update, ...]
    requests: tuple[Mapping[str, Any], ...]
    about: Mapping[str, Any]


def save_model(update: Update, backbone: Backbone, source: str | Path, folder: str | Path) -> Update:
    """Save the raw model of `source`, a folder or hub id, with W + ΔW of one edit. Returns what is stored.

    The sum is computed in float32 at least, and stored in W's dtype, whose rounding may change answers. All else is
    copied unchanged, except an adapter beside the weights. UserError: the folder exists already, is in the model's, or
    cannot be written. ModelError: the weights lack an edited matrix, or are not those of the model.
    """
    check_one(update)
    with border(ModelError, f"cannot find the model {str(source)!r}"):
        here = Path(source).expanduser()
        here = here if here.is_dir() else Path(snapshot_download(str(source), allow_patterns=NEEDED))
    if Path(folder).resolve().is_relative_to(here.resolve()):
        raise UserError(f"{folder}: is in the model's own folder, of which it would be a part; name another place")
    prefix, changes = f"{backbone.model.base_model_prefix}.", update.dense(0, backbone.raw)
    # A file of the encoder alone has no encoder prefix; a file of a larger model has one.
    known = {key: name for name in changes for key in (name, name.removeprefix(prefix), prefix + name)}
    stored = dict[str, Tensor]()

    def write(new: Path) -> None:
        for path in sorted(here.rglob("*")):
            name = path.relative_to(here)
            hidden = any(part.startswith(".") for part in name.parts) or path.name.startswith("adapter_")
            if not path.is_file() or hidden or path.suffix in OTHER_WEIGHTS:
                continue
            if path.suffix != ".safetensors":
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, new / name)
            if path.suffix != ".safetensors" or len(name.parts) > 1:  # weights in a subfolder are not the model's
                continue
            tensors, metadata = _read(path)
            for key in known.keys() & tensors.keys():
                old, change, raw = tensors[key], changes[known[key]].detach().cpu(), backbone.raw[known[key]].cpu()
                if not torch.equal(old.to(raw.dtype), raw):
                    raise ModelError(f"{path}: its {key} is not that of the loaded model; give the model's own folder")
                exact = torch.promote_types(old.dtype, torch.float32)
                tensors[key] = (old.to(exact) + change.to(exact)).to(old.dtype)
                stored[known[key]] = tensors[key].to(backbone.raw[known[key]])
            write_atomically(new / path.name, partial(save_file, tensors, metadata=metadata))
        if missing := changes.keys() - stored.keys():
            raise ModelError(f"{here}: its weights have no {min(missing)}; give the folder of the loaded model")

    check_free(Path(folder))
    write_folder(Path(folder), write)
    return Update(weights=stored)


def lora(update: Update, backbone: Backbone, rank: int | None = None) -> tuple[Update, dict[str, float]]:
    """The edit that `save_lora` saves, as factors, and the relative error of each matrix's ΔW.

    Factors with at most `rank` rows are unchanged; any other ΔW is truncated by SVD to `rank` (default: RANK).
    """
    check_one(update)
    checks.refuse(UserError, rank is not None and checks.of_number("an adapter's rank", rank, whole=True, above=True))
    pairs, errors = {}, {}
    for name, delta in update.dense(0, backbone.raw).items():
        plain = name in update.factors and name not in update.deltas and name not in update.weights
        a, b = (part[0].detach() for part in update.factors[name]) if plain else (delta[:0], delta[:0])
        a, b = a[(live := (b != 0).any(-1))], b[live] if plain else b
        if not plain or len(a) > (rank or len(a)):
            u, s, vh = torch.linalg.svd(delta.detach().double(), full_matrices=False)
            kept = min(rank or RANK, len(s))
            a, b = (vh[:kept] * s[:kept, None]).to(delta), u[:, :kept].mT.to(delta)
        pairs[name] = (a[None], b[None])
        errors[name] = float((b.mT @ a - delta).norm() / delta.norm().clamp_min(1e-30))
    return Update(pairs), errors


def save_lora(
    update: Update, backbone: Backbone, source: str | Path, folder: str | Path, rank: int | None = None
) -> dict[str, float]:
    """Save `lora` of one edit as an adapter of `source`. Returns the relative error of each matrix's ΔW.

    It is loaded by `PeftModel.from_pretrained(model, folder)` or the model's `load_adapter(folder)`. UserError: the
    folder exists already, or cannot be written.
    """
    kept, errors = lora(update, backbone, rank)
    pairs = {name: (u[0], v[0]) for name, (u, v) in kept.factors.items()}
    widest = max(1, *(len(a) for a, _ in pairs.values()))
    tensors = {}
    for name, (a, b) in pairs.items():
        module, rows = f"base_model.model.{name.removesuffix('.weight')}", (0, 0, 0, widest - len(a))
        tensors[f"{module}.lora_A.weight"] = pad(a, rows).cpu().contiguous()
        tensors[f"{module}.lora_B.weight"] = pad(b, rows).mT.cpu().contiguous()
    local = Path(source).expanduser()
    # No task type: with SEQ_CLS, PEFT expects a trained classification head in the adapter.
    about: dict[str, Any] = {"peft_type": "LORA", "task_type": None, "inference_mode": True}
    about |= {"base_model_name_or_path": str(local.resolve() if local.is_dir() else source)}
    about |= {"r": widest, "lora_alpha": widest, "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": False}
    about |= {"target_modules": [name.removesuffix(".weight") for name in pairs]}

    def write(new: Path) -> None:
        write_atomically(new / "adapter_model.safetensors", lambda file: save_file(tensors, file, {"format": "pt"}))
        write_json(new / "adapter_config.json", about)

    check_free(Path(folder))
    write_folder(Path(folder), write)
    return errors


def save_updates(path: str | Path, saved: Saved) -> None:
    """Write the file of edits. UserError: it cannot be written, or an update is not that of one edit or of all."""
    if len(saved.updates) not in (1, len(saved.requests)):
        raise UserError(f"{len(saved.updates)} updates of {len(saved.requests)} edits; give one for each or for all")
    tensors: dict[str, Tensor] = {}
    for i, update in enumerate(saved.updates):
        check_one(update)
        for name, (u, v) in update.factors.items():
            live = (v[0] != 0).any(-1)
            tensors |= {f"{i}/u/{name}": u[0][live], f"{i}/v/{name}": v[0][live]}
        tensors |= {f"{i}/delta/{name}": delta[0] for name, delta in update.deltas.items()}
        tensors |= {f"weight/{name}": weight for name, weight in update.weights.items()}
    held = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    about = {"about": dict(saved.about), "requests": list(saved.requests), "updates": len(saved.updates)}
    size = sum(tensor.nbytes for tensor in held.values())
    try:
        metadata = {"lime_editing": json.dumps(about, ensure_ascii=False)}
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: requests and `about` are kept as JSON: {error}; give texts and numbers") from error
    write_atomically(Path(path), lambda temporary: save_file(held, temporary, metadata), size)


def load_updates(path: str | Path, device: str = "cpu") -> Saved:
    """The inverse of `save_updates`; `compose` adds the edits. UserError: not a file of edits, or a damaged one."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; expected {UPDATE}, which `edit --as update` keeps")
    check_device(device, "float32")
    try:
        tensors, metadata = _read(Path(path), device)
        if "lime_editing" not in metadata:
            raise ValueError("it has other tensors, such as a model's")
        told, parts, made = json.loads(metadata["lime_editing"]), defaultdict[str, dict[str, Tensor]](dict), []
        if not all(isinstance(one, dict) for one in told["requests"]):
            raise ValueError("a request is no object")
        for key, tensor in tensors.items():
            part, _, name = key.rpartition("/")
            parts[part][name] = tensor
        count, requests = told["updates"], tuple(told["requests"])
        numbers = {part.partition("/")[0] for part in parts} - {"weight"}
        if count not in (1, len(requests)) or numbers != {str(i) for i in range(count)}:
            raise ValueError(f"{count} updates of {len(requests)} edits, and tensors of {len(numbers)}")
        for i in range(count):
            u, v, deltas = (parts[f"{i}/{kind}"] for kind in ("u", "v", "delta"))
            factors = {name: (u[name][None], v[name][None]) for name in u}
            made.append(Update(factors, {name: delta[None] for name, delta in deltas.items()}, parts["weight"]))
        return Saved(tuple(made), requests, told["about"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: is not a file of edits, or is damaged ({error}); save the edits again") from error


def drop(saved: Saved, numbers: Sequence[int]) -> Saved:
    """The edits without these numbers, counted from 1 (chapter C). UserError: no such edit, or one update for all."""
    for number in numbers:
        if not 1 <= number <= len(saved.requests):
            has = f"1 to {len(saved.requests)}" if saved.requests else "no edits any more"
            raise UserError(f"there is no edit {number}; the file has {has}")
    if len(saved.updates) != len(saved.requests):  # least squares, and a stored sum of ΔW
        raise UserError("these edits were made as one update, so none can be dropped; edit again without it")
    kept = [i for i in range(len(saved.requests)) if i + 1 not in numbers]
    return Saved(tuple(saved.updates[i] for i in kept), tuple(saved.requests[i] for i in kept), saved.about)


def check_free(folder: Path) -> None:
    """UserError: this path exists already, or cannot be written."""
    if folder.is_symlink():
        raise UserError(f"{folder}: is a symbolic link, which would be replaced; give the folder that it points to")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists already; give another folder, or remove it first")
    with border(UserError, f"{folder}: cannot be written"):
        NamedTemporaryFile(dir=existing(folder.absolute().parent), prefix=".", suffix=".tmp").close()


def check_one(update: Update) -> None:
    """UserError: an update of several edits, or of none, or one with NaN."""
    parts = [*(side for pair in update.factors.values() for side in pair), *update.deltas.values()]
    if not all(bool(part.isfinite().all()) for part in (*parts, *update.weights.values())):
        raise UserError("the edit diverged: the update has NaN or infinity; edit again with a smaller learning rate")
    if update.edits > 1 or not (update.edits or update.weights):
        raise UserError(f"the update has {update.edits} edits, and one is saved; compose([update]) is their sum")


def _read(path: Path, device: str = "cpu") -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, "pt", device) as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118  not a mapping
