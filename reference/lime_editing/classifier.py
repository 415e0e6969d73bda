"""The raw classifier of sentence pairs, where none is given: an encoder fine-tuned on English training pairs (§B.1).

Ordinary fine-tuning, by transformers' Trainer. What it makes is a folder in the hub's layout beside the cells:

<classifier>/config.json, model.safetensors, tokenizer.json …
<classifier>/cell.json      what it depends on: encoder, pairs, settings, seed, code
<classifier>/curve.json     the losses of its training
<classifier>/metrics.json   its accuracy in each language; written last, so its presence means done

The folder comes into place whole. Trainer's own checkpoints hold pickles, which nothing here loads: an interrupted
fine-tuning starts again.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from . import __version__, store
from .backbone import Backbone, fingerprint, load, load_encoder, load_tokenizer, padded
from .config import Setup
from .data import xnli
from .devices import Precision
from .errors import LanguageError, ModelError, UserError
from .experiments import check_device, predict, prediction_key
from .types import Input

Progress = Callable[[int, int, float], None]  # step, steps, loss
REPORTS = 50  # losses in curve.json


@dataclass(frozen=True)
class Wanted:
    """A classifier that is there or is to be made: its place, what it depends on, and what it is made of."""

    folder: Path
    record: Mapping[str, Any]
    start: Backbone
    tokenizer: Any
    pairs: xnli.Pairs
    setup: Setup
    device: str
    precision: Precision

    @property
    def done(self) -> bool:
        return (self.folder / "metrics.json").is_file()

    @property
    def examples(self) -> xnli.Labelled:
        """What one epoch sees, each once (clause D8)."""
        longest, lacking = self.start.max_tokens, self.pairs.lacking.get("train", frozenset())
        return xnli.classifier_examples(self.pairs.rows, self.tokenizer, len(self.pairs.classes), lacking, longest)

    @property
    def steps(self) -> int:
        """Of the whole training."""
        return -(-len(self.examples) // self.setup.classifier.batch) * self.setup.classifier.epochs


def find(
    encoder: str,
    data: str,
    setup: Setup,
    results: Path,
    device: str = "cpu",
    precision: Precision = "float32",
    seed: int = 0,
    elsewhere: bool = False,
) -> Wanted:
    """The classifier of an encoder, a folder or hub id, on these pairs. Nothing is written.

    It may be looked for where its device is not, with `elsewhere`.
    UserError: pairs or an encoder that cannot be used, pairs without English, or a device that Trainer does not take.
    """
    if not elsewhere:
        check_device(device, precision)
    if torch.device(device).index:
        raise UserError(
            f"a raw classifier is fine-tuned on the first device, and not on {device}; choose with CUDA_VISIBLE_DEVICES"
        )
    pairs = xnli.read(data)
    if xnli.PIVOT not in pairs.languages:
        raise LanguageError(xnli.PIVOT, pairs.languages, f"in {data}; a raw classifier is fine-tuned on it")
    start = load_encoder(encoder, pairs.classes, setup.edited_layers, seed=seed)
    tokenizer = load_tokenizer(encoder)
    record = {
        "cell": {"task": "nli", "approach": "classifier", "variant": None, "seed": seed},
        "settings": asdict(setup.classifier),
        "encoder": fingerprint(start, tokenizer),
        "data": xnli.fingerprint(pairs),
        "classes": list(pairs.classes),
        "code": {
            "lime_editing": __version__,
            "digest": store.code_digest(("classifier.py",)),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "device": torch.device(device).type,
        "precision": precision,
    }
    folder = results / f"classifier-seed{seed}-{store.digest(record)[:8]}"
    machine = {"machine": f"{os.cpu_count()}-core {platform.machine()} CPU"}
    return Wanted(folder, {**record, **machine}, start, tokenizer, pairs, setup, device, precision)


def make(wanted: Wanted, progress: Progress = lambda step, steps, loss: None) -> dict[str, dict[str, float]]:
    """Fine-tune it and measure it, as far as that is not done yet: {split: {language: accuracy}}.

    ModelError: the training diverged. UserError: the folder cannot be written, or the disk has no room for it.
    """
    folder = wanted.folder
    if wanted.done:
        accuracy: dict[str, dict[str, float]] = store.read_json(folder / "metrics.json")
        return accuracy
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for leftover in folder.parent.glob(f".{folder.name}.*"):
            shutil.rmtree(leftover)
        if not folder.is_dir():
            _check_room(wanted)
            _keep(wanted, _train(wanted, progress))
        store.clean(folder)
        accuracy = _measure(wanted)
        store.write_json(folder / "metrics.json", accuracy)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{folder}: cannot be written ({reason}); name another --results") from error
    return accuracy


def _check_room(wanted: Wanted) -> None:
    """UserError: what hours of training would end in does not fit on the disk."""
    needed = sum(p.numel() * p.element_size() for p in wanted.start.model.parameters())
    free = shutil.disk_usage(wanted.folder.parent).free
    if free < needed:
        raise UserError(
            f"{wanted.folder.parent}: has {free / 1e6:,.0f} MB free, and the classifier takes {needed / 1e6:,.0f}; "
            "make room, or name another --results"
        )


def _train(wanted: Wanted, progress: Progress) -> list[dict[str, float]]:
    """Train `wanted.start` where it is; the losses."""
    settings, model, steps = wanted.setup.classifier, wanted.start.model, wanted.steps
    with TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=settings.batch,
            learning_rate=settings.lr,
            lr_scheduler_type="linear",
            warmup_steps=round(settings.warmup * steps),
            weight_decay=settings.weight_decay,
            bf16=wanted.precision == "bf16",
            save_strategy="no",
            logging_steps=max(1, steps // REPORTS),
            seed=wanted.record["cell"]["seed"],
            use_cpu=wanted.device == "cpu",
            dataloader_pin_memory=wanted.device != "cpu",
            remove_unused_columns=False,
            disable_tqdm=True,
            report_to="none",
        )
        arguments._n_gpu = min(arguments.n_gpu, 1)  # several would enlarge the batch
        heard = _Heard(progress)
        trainer = Trainer(
            model=model.requires_grad_(True),
            args=arguments,
            train_dataset=_Rows(wanted.examples),
            data_collator=partial(collate, pad=wanted.start.pad_id),
            callbacks=[heard],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    model.eval().requires_grad_(False).cpu()
    torch.cuda.empty_cache()  # the cells want it
    if not all(bool(p.isfinite().all()) for p in model.parameters()):
        raise ModelError(
            f"{wanted.folder}: the fine-tuning diverged: its weights are no numbers any more; lower the learning rate, "
            f"--set classifier.lr={settings.lr / 4:.0e}"
        )
    return heard.losses


class _Rows(torch.utils.data.Dataset[tuple[Input, int]]):
    """Labelled inputs as Trainer takes them."""

    def __init__(self, examples: xnli.Labelled) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, place: int) -> tuple[Input, int]:
        return self.examples[place]


class _Heard(TrainerCallback):  # type: ignore[misc]  # transformers' classes are untyped
    """Trainer's way of saying how far it is."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.losses = progress, list[dict[str, float]]()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if "loss" in logs:
            loss = float(logs["loss"])
            self.losses.append({"step": state.global_step, "loss": loss})
            self.progress(state.global_step, state.max_steps, loss)


def collate(examples: Sequence[tuple[Input, int]], pad: int) -> dict[str, Tensor]:
    """A padded batch with its classes."""
    inputs = [example for example, _ in examples]
    rows = {
        "input_ids": padded([i.ids for i in inputs], pad),
        "attention_mask": padded([(1,) * len(i.ids) for i in inputs], 0),
    }
    if any(i.types for i in inputs):
        rows["token_type_ids"] = padded([i.types or (0,) * len(i.ids) for i in inputs], 0)
    return {**rows, "labels": torch.tensor([label for _, label in examples])}


def _keep(wanted: Wanted, losses: list[dict[str, float]]) -> None:
    """Write the folder beside its place, and move it there."""
    temporary = wanted.folder.with_name(f".{wanted.folder.name}.{os.getpid()}")
    try:
        wanted.start.model.save_pretrained(temporary)
        wanted.tokenizer.save_pretrained(temporary)
        store.write_json(temporary / "cell.json", wanted.record)
        store.write_json(temporary / "curve.json", losses)
        temporary.replace(wanted.folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _measure(wanted: Wanted) -> dict[str, dict[str, float]]:
    """The accuracy of what was written, on the splits that it has not seen."""
    backbone = load(wanted.folder, wanted.setup.edited_layers, wanted.device, True, wanted.precision)
    tokenizer = load_tokenizer(wanted.folder)
    tasks = xnli.tasks(wanted.pairs, tokenizer, backbone.model.config.label2id, {}, backbone.max_tokens)
    model, data = fingerprint(backbone, tokenizer), wanted.record["data"]
    return {
        split: xnli.accuracy(
            tasks[split],
            xnli.predicted(
                tasks[split],
                partial(predict, backbone),
                prediction_key(model, data, wanted.device, wanted.precision, split),
            ),
        )
        for split in ("validation", "test")
    }
