"""The raw classifier of sentence pairs: an encoder fine-tuned on English pairs (§B.1), by transformers' Trainer.

It is a folder in the hub's layout beside the cells, with cell.json (its dependencies), curve.json (losses) and
metrics.json (accuracy by split and language; written last, so its presence means done). The folder is written under a
temporary name and renamed. Trainer's checkpoints are pickles, which are never loaded here: an interrupted fine-tuning
starts again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import ProgressCallback, Trainer, TrainerCallback, TrainingArguments

from .. import plugins, results
from ..backbone import Backbone, fingerprint, load, load_encoder, load_tokenizer, padded
from ..borders import border
from ..data import Dataset
from ..errors import LanguageError, ModelError, UserError
from ..hardware import check_device, name_of
from ..names import JUDGED, PIVOT
from ..records import Input
from .cells import Sources
from .run import classes_of, prediction_key, reader_of, versions
from .scales import TaskScale

Say = Callable[[int, int, float], None]  # step, steps, loss
REPORTS = 50  # losses in curve.json


@dataclass(frozen=True)
class RawClassifier:
    """A finished or planned classifier: its folder, its dependencies, and its encoder and data."""

    folder: Path
    record: Mapping[str, Any]
    start: Backbone
    tokenizer: Any
    dataset: Dataset
    content: Any
    scale: TaskScale
    sources: Sources

    @property
    def done(self) -> bool:
        return (self.folder / "metrics.json").is_file()

    @property
    def examples(self) -> Sequence[tuple[Input, int]]:
        assert self.dataset.labelled is not None
        found = self.dataset.labelled(self.content, reader_of(self.tokenizer, self.start))
        most = self.scale.classifier.pairs
        return [found[i] for i in range(0, len(found), ceil(len(found) / most))] if most else found

    @property
    def steps(self) -> int:
        return ceil(len(self.examples) / self.scale.classifier.batch) * self.scale.classifier.epochs


def find(
    dataset: Dataset, scale: TaskScale, sources: Sources, root: Path, seed: int = 0, elsewhere: bool = False
) -> RawClassifier:
    """The (finished or planned) classifier of an encoder (`sources.model`) on these pairs. Nothing is written."""
    device = sources.device
    if dataset.labelled is None or dataset.accuracy is None:
        lacks = "it lacks `labelled` or `accuracy`; give a finished one (--raw-model)"
        raise UserError(f"no raw classifier can be fine-tuned on data of the task {dataset.name}: {lacks}")
    check_device(device, sources.precision, elsewhere)
    if torch.device(device).index:
        raise UserError(f"{device}: a raw classifier is fine-tuned on the first device; set CUDA_VISIBLE_DEVICES")
    content = dataset.read(sources.data, None)
    if PIVOT not in content.languages:
        raise LanguageError(PIVOT, content.languages, f"in {sources.data}; a raw classifier is fine-tuned on it")
    start = load_encoder(sources.model, content.classes, scale.edited_layers, seed=seed)
    tokenizer = load_tokenizer(sources.model)
    code = results.code_digest([Path(__file__), *plugins.files(dataset)])
    record = {
        "cell": {"task": dataset.name, "approach": "classifier", "training": None, "seed": seed},
        "settings": asdict(scale.classifier),
        "encoder": fingerprint(start, tokenizer),
        "data": dataset.fingerprint(content),
        "classes": list(content.classes),
        "code": {**versions(torch, transformers), "digest": code},
        "device": torch.device(device).type,
        "precision": sources.precision,
    }
    folder = root / f"classifier-seed{seed}-{results.digest(record)[:8]}"
    record["machine"] = name_of("cpu")
    return RawClassifier(folder, record, start, tokenizer, dataset, content, scale, sources)


def make(wanted: RawClassifier, say: Say = lambda step, steps, loss: None) -> dict[str, dict[str, float]]:
    """Fine-tune the classifier and measure it, unless done before: {split: {language: accuracy}}."""
    folder, measured = wanted.folder, wanted.folder / "metrics.json"
    if not wanted.done:
        elsewhere = "; --results names another place"
        with border(UserError, f"{folder}: cannot be written", more=elsewhere):
            _make_room(wanted)
        if not folder.is_dir():
            results.write_folder(folder, partial(_keep, wanted, _train(wanted, say)), elsewhere)
        results.clean(folder)
        results.write_json(measured, _measure(wanted))
    accuracy: dict[str, dict[str, float]] = results.read_json(measured)
    return accuracy


def _make_room(wanted: RawClassifier) -> None:
    """Remove what a killed process left. UserError: the disk is too full; this is known before hours of training."""
    place, weights = wanted.folder.parent, wanted.start.model.parameters()
    place.mkdir(parents=True, exist_ok=True)
    for leftover in place.glob(f".{wanted.folder.name}.*"):
        shutil.rmtree(leftover)
    needed, free = sum(p.numel() * p.element_size() for p in weights) / 1e6, shutil.disk_usage(place).free / 1e6
    if free < needed and not wanted.folder.is_dir():
        raise UserError(f"{place}: has {free:,.0f} MB free, and the classifier takes {needed:,.0f}; make room there")


def _train(wanted: RawClassifier, say: Say) -> list[dict[str, float]]:
    settings, model, steps = wanted.scale.classifier, wanted.start.model, wanted.steps
    arguments = TrainingArguments(
        output_dir=str(wanted.folder.parent),  # nothing is written to it
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch,
        learning_rate=settings.lr,
        warmup_steps=round(settings.warmup * steps),
        weight_decay=settings.weight_decay,
        bf16=wanted.sources.precision == "bf16",
        save_strategy="no",
        logging_steps=max(1, steps // REPORTS),
        seed=wanted.record["cell"]["seed"],
        use_cpu=wanted.sources.device == "cpu",
        dataloader_pin_memory=wanted.sources.device != "cpu",
        remove_unused_columns=False,
        report_to="none",
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # with several GPUs Trainer would enlarge the batch
    trainer = Trainer(
        model=model.requires_grad_(True),
        args=arguments,
        train_dataset=wanted.examples,
        data_collator=partial(collate, pad=wanted.start.pad_id, types=wanted.start.reads_types),
        callbacks=[_Log(say)],
    )
    trainer.remove_callback(ProgressCallback)
    trainer.train()
    model.eval().requires_grad_(False).cpu()
    torch.cuda.empty_cache()  # for the cells
    if not all(bool(p.isfinite().all()) for p in model.parameters()):
        raise ModelError(f"{wanted.folder}: the fine-tuning diverged; try --set classifier.lr={settings.lr / 4:.0e}")
    return [{"step": one["step"], "loss": one["loss"]} for one in trainer.state.log_history if "loss" in one]


class _Log(TrainerCallback):  # type: ignore[misc]  # transformers' classes are untyped
    def __init__(self, say: Say) -> None:
        self.say = say

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if "loss" in logs:
            self.say(state.global_step, state.max_steps, float(logs["loss"]))


def collate(examples: Sequence[tuple[Input, int]], pad: int, types: bool = True) -> dict[str, Tensor]:
    """A padded batch with its classes, and with token types if the model has them."""
    inputs, labels = zip(*examples, strict=True)
    rows = {"input_ids": padded([i.ids for i in inputs], pad), "labels": torch.tensor(labels)}
    rows["attention_mask"] = padded([(1,) * len(i.ids) for i in inputs], 0)
    if any(i.types for i in inputs) and types:
        rows["token_type_ids"] = padded([i.types or (0,) * len(i.ids) for i in inputs], 0)
    return rows


def _keep(wanted: RawClassifier, losses: list[dict[str, float]], folder: Path) -> None:
    wanted.start.model.save_pretrained(folder)
    wanted.tokenizer.save_pretrained(folder)
    results.write_json(folder / "cell.json", wanted.record)
    results.write_json(folder / "curve.json", losses)
    for weights in folder.glob("*.safetensors"):  # safetensors lets nobody but the owner read its files
        weights.chmod((folder / "config.json").stat().st_mode)


def _measure(wanted: RawClassifier) -> dict[str, dict[str, float]]:
    sources, dataset = wanted.sources, wanted.dataset
    assert dataset.accuracy is not None
    backbone = load(wanted.folder, wanted.scale.edited_layers, sources.device, True, sources.precision)
    tokenizer = load_tokenizer(wanted.folder)
    reader, ask = reader_of(tokenizer, backbone), partial(classes_of, backbone)
    key = prediction_key(dataset, fingerprint(backbone, tokenizer), wanted.record["data"], sources)
    return {split: dataset.accuracy(wanted.content, reader, split, ask, key) for split in JUDGED}
