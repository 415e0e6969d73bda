"""The raw classifier of sentence pairs: an encoder fine-tuned on English pairs (§B.1), by transformers' Trainer.

It is a folder in the hub's layout beside the cells, with cell.json (its dependencies), curve.json (losses) and
metrics.json (accuracy by split and language; written last, so its presence means done). The folder is written under a
temporary name and renamed. Trainer's checkpoints are pickles, which are never loaded here: an interrupted fine-tuning
starts again.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from .. import plugins, results
from ..backbone import Backbone, fingerprint, load, load_encoder, load_tokenizer, padded
from ..borders import explain
from ..data import Dataset
from ..errors import LanguageError, ModelError, UserError
from ..hardware import check_device
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
        """The examples of one epoch, each once (clause D8)."""
        assert self.dataset.labelled is not None
        found, most = (
            self.dataset.labelled(self.content, reader_of(self.tokenizer, self.start)),
            self.scale.classifier.pairs,
        )
        return found if most is None else [found[i] for i in range(0, len(found), -(-len(found) // most))]

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole training."""
        return -(-len(self.examples) // self.scale.classifier.batch) * self.scale.classifier.epochs


def find(
    dataset: Dataset, scale: TaskScale, sources: Sources, root: Path, seed: int = 0, elsewhere: bool = False
) -> RawClassifier:
    """The (finished or planned) classifier of an encoder (`sources.model`) on these pairs. Nothing is written.

    With `elsewhere` the device belongs to another machine. UserError: unusable pairs or encoder, pairs without English,
    or a device that Trainer cannot use.
    """
    device = sources.device
    if dataset.labelled is None or dataset.accuracy is None:
        raise UserError(
            f"no raw classifier can be fine-tuned on data of the task {dataset.name}, which has neither `labelled` nor "
            "`accuracy`; give a finished one (--raw-model)"
        )
    check_device(device, sources.precision, elsewhere)
    if torch.device(device).index:
        raise UserError(
            f"a raw classifier is fine-tuned on the first device, and not on {device}; choose with CUDA_VISIBLE_DEVICES"
        )
    content = dataset.read(sources.data, None)
    if PIVOT not in content.languages:
        raise LanguageError(PIVOT, content.languages, f"in {sources.data}; a raw classifier is fine-tuned on it")
    start = load_encoder(sources.model, content.classes, scale.edited_layers, seed=seed)
    tokenizer = load_tokenizer(sources.model)
    record = {
        "cell": {"task": dataset.name, "approach": "classifier", "training": None, "seed": seed},
        "settings": asdict(scale.classifier),
        "encoder": fingerprint(start, tokenizer),
        "data": dataset.fingerprint(content),
        "classes": list(content.classes),
        "code": {
            **versions(torch, transformers),
            "digest": results.code_digest([Path(__file__), *plugins.files(dataset)]),
        },
        "device": torch.device(device).type,
        "precision": sources.precision,
    }
    folder = root / f"classifier-seed{seed}-{results.digest(record)[:8]}"
    record["machine"] = f"{os.cpu_count()}-core {platform.machine()} CPU"
    return RawClassifier(folder, record, start, tokenizer, dataset, content, scale, sources)


def make(wanted: RawClassifier, say: Say = lambda step, steps, loss: None) -> dict[str, dict[str, float]]:
    """Fine-tune the classifier and measure it, unless done before: {split: {language: accuracy}}.

    ModelError: the training diverged. UserError: the folder cannot be written, or the disk is full.
    """
    folder = wanted.folder
    if wanted.done:
        accuracy: dict[str, dict[str, float]] = results.read_json(folder / "metrics.json")
        return accuracy
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for leftover in folder.parent.glob(f".{folder.name}.*"):
            shutil.rmtree(leftover)
        if not folder.is_dir():  # check the free disk space before hours of training
            needed = sum(p.numel() * p.element_size() for p in wanted.start.model.parameters())
            free = shutil.disk_usage(folder.parent).free
            if free < needed:
                raise UserError(
                    f"{folder.parent}: has {free / 1e6:,.0f} MB free, and the classifier takes {needed / 1e6:,.0f}; "
                    "make room, or name another --results"
                )
            _keep(wanted, _train(wanted, say))
        results.clean(folder)
        accuracy = _measure(wanted)
        results.write_json(folder / "metrics.json", accuracy)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder}: cannot be written: {explain(error)}; --results names another place") from error
    return accuracy


def _train(wanted: RawClassifier, say: Say) -> list[dict[str, float]]:
    """Train `wanted.start` in place; returns the losses."""
    settings, model, steps = wanted.scale.classifier, wanted.start.model, wanted.steps
    with TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=settings.batch,
            learning_rate=settings.lr,
            lr_scheduler_type="linear",
            warmup_steps=round(settings.warmup * steps),
            weight_decay=settings.weight_decay,
            bf16=wanted.sources.precision == "bf16",
            save_strategy="no",
            logging_steps=max(1, steps // REPORTS),
            seed=wanted.record["cell"]["seed"],
            use_cpu=wanted.sources.device == "cpu",
            dataloader_pin_memory=wanted.sources.device != "cpu",
            remove_unused_columns=False,
            disable_tqdm=True,
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
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    model.eval().requires_grad_(False).cpu()
    torch.cuda.empty_cache()  # for the cells
    if not all(bool(p.isfinite().all()) for p in model.parameters()):
        raise ModelError(
            f"{wanted.folder}: the fine-tuning diverged: its weights are not finite; lower the learning rate, "
            f"--set classifier.lr={settings.lr / 4:.0e}"
        )
    return [{"step": one["step"], "loss": one["loss"]} for one in trainer.state.log_history if "loss" in one]


class _Log(TrainerCallback):  # type: ignore[misc]  # transformers' classes are untyped
    def __init__(self, say: Say) -> None:
        self.say = say

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if "loss" in logs:
            self.say(state.global_step, state.max_steps, float(logs["loss"]))


def collate(examples: Sequence[tuple[Input, int]], pad: int, types: bool = True) -> dict[str, Tensor]:
    """A padded batch with its classes, and with token types if the model has them."""
    inputs = [example for example, _ in examples]
    masks = padded([(1,) * len(i.ids) for i in inputs], 0)
    rows = {"input_ids": padded([i.ids for i in inputs], pad), "attention_mask": masks}
    if any(i.types for i in inputs) and types:
        rows["token_type_ids"] = padded([i.types or (0,) * len(i.ids) for i in inputs], 0)
    return {**rows, "labels": torch.tensor([label for _, label in examples])}


def _keep(wanted: RawClassifier, losses: list[dict[str, float]]) -> None:
    """Write the folder under a temporary name, and rename it."""
    temporary = wanted.folder.with_name(f".{wanted.folder.name}.{os.getpid()}")
    try:
        wanted.start.model.save_pretrained(temporary)
        wanted.tokenizer.save_pretrained(temporary)
        results.write_json(temporary / "cell.json", wanted.record)
        results.write_json(temporary / "curve.json", losses)
        for weights in temporary.glob("*.safetensors"):  # safetensors lets nobody but the owner read its files
            weights.chmod((temporary / "config.json").stat().st_mode)
        temporary.replace(wanted.folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _measure(wanted: RawClassifier) -> dict[str, dict[str, float]]:
    """The accuracy of the written classifier on validation and test."""
    sources, dataset = replace(wanted.sources, model=str(wanted.folder)), wanted.dataset
    assert dataset.accuracy is not None
    backbone = load(wanted.folder, wanted.scale.edited_layers, sources.device, True, sources.precision)
    tokenizer = load_tokenizer(wanted.folder)
    reader, ask = reader_of(tokenizer, backbone), partial(classes_of, backbone)
    key = prediction_key(dataset, fingerprint(backbone, tokenizer), wanted.record["data"], sources)
    return {split: dataset.accuracy(wanted.content, reader, split, ask, key) for split in JUDGED}
