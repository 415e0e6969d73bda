"""What the Python API refuses: each wrong argument that a user may give ends with one sentence, and no guess."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from warnings import catch_warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import lime_editing as le
from lime_editing.core.corpus import FullCorpus
from lime_editing.core.sampling import Pair
from lime_editing.core.training import adam
from lime_editing.data import find
from lime_editing.editors import methods
from lime_editing.hardware import check_device
from lime_editing.names import Rulings
from lime_editing.reproduce.scales import TINY, override
from reference.tests.corpora import write_facts, write_model
from reference.tests.test_editors import Good

Given = SimpleNamespace
INPUT = le.Input((2, 11, 6, 9, 4, 5, 3), (4,))
REQUEST = le.EditRequest(INPUT, (12,), "en")
TRIPLE = le.Triple(REQUEST, INPUT, INPUT)
OUTCOME = le.Outcome("e", "en", "update", "en", True)
ROWS = FullCorpus("xnli/test", 3, ("en", "de"))
SCHEDULE = {"edits": 4, "batch": 2, "validate_every": 2, "patience": 4, "checkpoint_every": 2}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    """A raw model, editors, updates of one and of two edits, and a split of facts with pairs for an evaluation."""
    root = tmp_path_factory.mktemp("given")
    model, facts = write_model(root / "model"), write_facts(root / "facts")
    backbone, tokenizer = le.load(model, 2), le.load_tokenizer(model)
    editor = le.make_editor("finetuning", backbone, ["en"], settings={"lr": 0.05, "steps": 2})
    mend = le.make_editor("mend", backbone, ["en"], "language", settings={"rank": 4})
    reader = le.Reader(tokenizer, backbone.max_tokens)
    tasks = find("facts").tasks(find("facts").read(str(facts), None), reader, Rulings(), {})
    pairs = le.evaluation_pairs(tasks["train"].corpus, ["en"], ["en", "de"], 1, 1, 0, 2)
    two = le.edit(editor, [REQUEST, REQUEST])
    return Given(**locals(), one=two[0], task=tasks["train"], theirs=tasks["test"])


def request(**changed: Any) -> le.EditRequest:
    return replace(REQUEST, **changed)


def edit_of(changed: le.EditRequest) -> Callable[[Given], object]:
    return lambda g: le.edit(g.editor, [changed])


def other_model(given: Given) -> Path:
    """The raw model's folder with other weights."""
    shutil.copytree(given.model, there := given.root / "other")
    tensors = {name: tensor + 1 for name, tensor in load_file(there / "model.safetensors").items()}
    save_file(tensors, there / "model.safetensors", {"format": "pt"})
    return Path(there)


def made(method: str = "mend", languages: Any = ("en",), *more: Any, **settings: Any) -> Callable[[Given], object]:
    return lambda g: le.make_editor(method, g.backbone, languages, *more, settings=settings or None)


def schedule(**changed: Any) -> Callable[[Given], object]:
    return lambda _: le.Schedule(**{**SCHEDULE, **changed})


def trained(editor: str, objective: Any, languages: Any = ("de", "en", "fr")) -> Callable[[Given], object]:
    def train(g: Given) -> object:
        task = g.task.within(languages)
        return list(le.train(getattr(g, editor), task, lambda _: None, le.Schedule(**SCHEDULE), objective, 0))

    return train


def stepped(triples: list[le.Triple], **objective: Any) -> Callable[[Given], object]:
    return lambda g: le.train_step(g.mend, adam(g.mend), triples, 0, le.Objective(**objective), 1.0)


def under(mode: Any, call: Callable[[], Any]) -> Any:
    with mode:
        return call()


def checkpointed(model: Any) -> Any:
    for module in model.train().modules():
        module.gradient_checkpointing = True
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # active dropout is refused first
    return model


def unwrapped(given: Given) -> Any:
    return type(given.backbone.model).from_pretrained(given.model)


def adapted(given: Given) -> Any:
    peft = pytest.importorskip("peft")
    return peft.get_peft_model(unwrapped(given), peft.LoraConfig(target_modules=["query"]))


def changed_update(given: Given, change: Callable[[Any], Any]) -> le.Update:
    return le.Update(deltas={name: change(delta) for name, delta in given.one.deltas.items()})


def step_of(
    g: Given, editor: Any = None, optimiser: Any = ..., triples: Any = (TRIPLE,), seed: Any = 0, clip: Any = 1.0
) -> object:
    chosen = adam(g.mend) if optimiser is ... else optimiser
    return le.train_step(editor or g.mend, chosen, triples, seed, le.Objective(), clip)


def pairs_of(
    g: Given, edited: Any = ("en",), updated: Any = ("en",), seed: Any = 0, sizes: tuple[Any, Any, Any] = (1, 1, None)
) -> object:
    return le.evaluation_pairs(g.task.corpus, edited, updated, *sizes[:2], seed, sizes[2])


def diverged(g: Given) -> le.Update:
    return le.edit(le.make_editor("finetuning", g.backbone, ["en"], settings={"lr": 1e29}), [REQUEST])


def delta_of(m: int, n: int) -> le.Update:
    return le.Update(deltas={"w": torch.zeros(1, m, n)})


def factors_of(m: int, n: int) -> le.Update:
    return le.Update({"w": (torch.zeros(1, 1, n), torch.zeros(1, 1, m))})


REFUSED: dict[str, tuple[Callable[[Given], object], str]] = {
    # nothing, or too little
    "edit-nothing": (lambda g: le.edit(g.editor, []), "there are no requests; give at least one"),
    "edit-all-nothing": (lambda g: le.edit_all(g.editor, []), "there are no requests; give at least one"),
    "fit-nothing": (
        lambda g: le.fit(le.make_editor("rome", g.backbone, ["en"]), []),
        "there are no requests; give at least one",
    ),
    "edit-one": (lambda g: le.edit(g.editor, REQUEST), "must be a list of EditRequest; got one"),  # type: ignore[arg-type]
    "edit-text": (lambda g: le.edit(g.editor, "Aton"), "must be a list of EditRequest; got 'A' in it"),  # type: ignore[arg-type]
    "edit-a-generator": (lambda g: le.edit_all(g.editor, iter([REQUEST])), "list of EditRequest; got <list_iter"),  # type: ignore[arg-type]
    "fit-one": (lambda g: le.fit(le.make_editor("rome", g.backbone, ["en"]), REQUEST), "requests must be .* got one"),  # type: ignore[arg-type]
    "predict-one": (lambda g: le.predict(g.backbone, INPUT), "inputs must be a list of Input; got one"),  # type: ignore[arg-type]
    "answer-a-request": (lambda g: le.answers(g.backbone, g.tokenizer, [REQUEST]), "got EditRequest.* in it"),  # type: ignore[list-item]
    "train-on-nothing": (stepped([]), "there are no triples; give at least one"),
    "break-down-nothing": (lambda _: le.breakdown(le.count([]), "language"), "no outcomes to break down"),
    "draw-from-nothing": (lambda _: le.training_triples(le.ParallelCorpus.of([]), 1, 0, 0), "corpus has no examples"),
    "no-inputs": (lambda g: g.backbone.trunk([]), "there are no inputs; give at least one"),
    "no-editing-language": (
        lambda g: le.evaluation_pairs(g.task.corpus, [], ["en"], 1, 1, 0),
        "there are no edit_languages; give at least one",
    ),
    "no-updating-language": (
        lambda g: le.evaluation_pairs(g.task.corpus, ["en"], [], 1, 1, 0),
        "there are no update_languages; give at least one",
    ),
    "minus-one-input": (
        lambda g: le.evaluation_pairs(g.task.corpus, ["en"], ["en"], -1, 1, 0),
        "n_update must be a whole number of 0 or more; got -1",
    ),
    "a-pair-without-inputs": (
        lambda g: le.evaluate(g.editor, g.task, [Pair(g.pairs[0].edit, (), ())], 0),
        "has no inputs; give at least one",
    ),
    "no-languages": (made("mend", []), "there are no languages; give at least one"),
    "one-class": (lambda g: le.load_encoder(g.model, ["a"]), r"two distinct classes; got \['a'\]"),
    "a-class-twice": (lambda g: le.load_encoder(g.model, ["a", "b", "a"]), "two distinct classes"),
    "no-edited-matrix": (lambda g: le.load(g.model, []), r"what to edit must be .*; got \[\]"),
    "no-room-for-a-pair": (lambda g: le.pair(g.tokenizer, "a", "b", 3), "at most 3 tokens has no room for two texts"),
    "unknown-ruling": (
        lambda _: le.Rulings(kl_direction="x"),  # type: ignore[arg-type]
        "the ruling kl_direction must be one of paper, released; got 'x'",
    ),
    "no-mask": (lambda g: le.sentence(g.tokenizer, "Aton [MASK] .", 0), "count must be a whole number above 0; got 0"),
    "chunks-of-0": (lambda g: le.edit_all(g.editor, [REQUEST], 0), "chunk must be a whole number above 0; got 0"),
    "chunks-of-minus-1": (
        lambda g: le.edit_all(g.editor, [REQUEST], -1),
        "chunk must be a whole number above 0; got -1",
    ),
    "batches-of-0": (lambda g: le.predict(g.backbone, [INPUT], batch=0), "batch must be a whole number above 0; got 0"),
    "evaluation-of-0": (
        lambda g: le.evaluate(g.editor, g.task, g.pairs, 0, 0),
        "batch must be a whole number above 0; got 0",
    ),
    # requests and inputs
    "no-label": (edit_of(request(labels=())), r"request 0 has the labels \(\) and 1 predicted positions"),
    "labels-too-many": (edit_of(request(labels=(5, 6))), r"labels \(5, 6\) and 1 predicted positions; give one number"),
    "label-of-padding": (edit_of(request(labels=(-100,))), r"labels \(-100,\)"),
    "label-of-no-token": (edit_of(request(labels=(10_000,))), r"labels \(10000,\) .* one number below \d+"),
    "label-of-text": (edit_of(request(labels=("Aton",))), "labels"),
    "no-ids": (edit_of(request(input=le.Input((), ()))), "the input of request 0 has no tokens"),
    "position-after-the-end": (edit_of(request(input=replace(INPUT, positions=(7,)))), r"\(7,\), but only 7 tokens"),
    "parallels": (edit_of(request(parallels=(replace(INPUT, positions=(1, 2)),))), "a parallel with another number"),
    "unknown-language": (edit_of(request(language="xx")), "unknown language 'xx'; known to this editor: en"),
    "update-input": (stepped([replace(TRIPLE, update=replace(INPUT, positions=(1, 2)))]), "one predicted position for"),
    "retain-input": (stepped([replace(TRIPLE, retain=replace(INPUT, positions=()))]), "input 2 has no predicted"),
    "input-of-no-tokens": (lambda g: le.predict(g.backbone, [le.Input((), (0,))]), "input 0 has no tokens"),
    "negative-position": (lambda g: le.predict(g.backbone, [replace(INPUT, positions=(-1,))]), "negative position"),
    "too-few-types": (lambda g: le.predict(g.backbone, [replace(INPUT, types=(0,))]), "another number of token types"),
    "pairs-of-another-split": (lambda g: le.evaluate(g.editor, g.theirs, g.pairs, 0), "this split has no fact"),
    "unknown-role": (lambda _: le.count([replace(OUTCOME, role="both")]), "unknown role; known: update, retain"),
    "position-after-the-end-of-an-input": (
        lambda g: le.predict(g.backbone, [replace(INPUT, positions=(7,))]),
        r"input 0 has the positions \(7,\), but only 7 tokens",
    ),
    "ids-of-an-array": (
        lambda g: le.predict(g.backbone, [replace(INPUT, ids=np.array(INPUT.ids))]),  # type: ignore[arg-type]
        "input 0 must have its tokens.* as tuples of whole numbers; got one ndarray",
    ),
    "ids-of-fractions": (
        lambda g: le.predict(g.backbone, [replace(INPUT, ids=tuple(i + 0.7 for i in INPUT.ids))]),  # type: ignore[arg-type]
        "tuples of whole numbers; got .2.7, .* with float in it",
    ),
    "ids-of-a-request": (
        edit_of(request(input=replace(INPUT, ids=np.array(INPUT.ids)))),  # type: ignore[arg-type]
        "the input of request 0 must have its tokens",
    ),
    "label-of-a-fraction": (edit_of(request(labels=(5.0,))), r"request 0 .* got \(5.0,\), with float in it"),
    # updates
    "update-of-arrays": (
        lambda g: le.predict(g.backbone, [INPUT], changed_update(g, lambda d: d.numpy())),
        "the update of bert.* is ndarray; give a tensor",
    ),
    "update-of-doubles": (
        lambda g: le.predict(g.backbone, [INPUT], changed_update(g, torch.Tensor.double)),
        "is of torch.float64, but in the model this matrix is of torch.float32",
    ),
    "update-of-half-precision": (
        lambda g: le.predict(g.backbone, [INPUT], changed_update(g, torch.Tensor.bfloat16)),
        "is of torch.bfloat16, but in the model this matrix is of torch.float32; convert it",
    ),
    "edit-under-autocast": (
        lambda g: under(torch.autocast("cpu", torch.bfloat16), lambda: le.edit(g.editor, [REQUEST])),
        "torch.autocast is on, and the model is in float32; leave it, or load with precision='bf16'",
    ),
    "update-of-whole-numbers": (
        lambda g: le.predict(g.backbone, [INPUT], changed_update(g, torch.Tensor.int)),
        "is of torch.int32, but in the model",
    ),
    "update-without-a-dimension-of-edits": (
        lambda g: le.predict(g.backbone, [INPUT], changed_update(g, lambda d: d[0])),
        r"the update of bert.* must have the shape \(E, m, n\), for E edits; got \(\d+, \d+\)",
    ),
    "trained-weights-with-a-dimension-of-edits": (
        lambda g: le.compose([le.Update(weights=g.one.deltas)]),
        r"must have the shape \(m, n\).*; got \(1, ",
    ),
    "factors-without-a-dimension-of-edits": (
        lambda g: le.compose([le.Update({g.backbone.edited[0]: (torch.ones(2, 4), torch.ones(2, 4))})]),
        r"must have the shape \(E, T, n\) or \(E, T, m\), for E edits; got \(2, 4\)",
    ),
    "factors-of-unequal-rows": (
        lambda g: le.predict(g.backbone, [INPUT], le.Update({"w": (torch.ones(1, 2, 4), torch.ones(1, 3, 4))})),
        "the factors of w must have the same edits E and tokens T",
    ),
    "updates-of-unequal-numbers-of-edits": (
        lambda g: le.compose([le.Update(deltas={"w": torch.ones(2, 4, 4), "v": torch.ones(3, 4, 4)})]),
        "the update has 3 edits, but 2 of w; give as many for each matrix",
    ),
    "answers-of-two-edits": (
        lambda g: le.answers(g.backbone, g.tokenizer, [INPUT] * 3, g.two),
        r"has 2 edits; give one: update\[i\], or compose",
    ),
    "three-inputs-for-two-edits": (
        lambda g: g.backbone.upper(g.backbone.trunk([INPUT] * 3), g.two),
        "the update has 2 edits; the number of inputs is 3",
    ),
    "update-of-another-matrix": (
        lambda g: le.predict(g.backbone, [INPUT], le.Update(deltas={"w": torch.zeros(1, 2, 2)})),
        "the update of w is of a matrix that is not edited; edited are bert",
    ),
    "update-of-another-size": (
        lambda g: le.predict(g.backbone, [INPUT], le.Update(deltas={g.backbone.edited[0]: torch.zeros(1, 2, 2)})),
        r"is \(2, 2\) on cpu, and must be \(\d+, \d+\) on cpu; take edits of one model",
    ),
    "update-on-another-device": (
        lambda g: le.predict(g.backbone, [INPUT], le.Update(deltas={n: d.to("meta") for n, d in g.one.deltas.items()})),
        "on meta, and must be .* on cpu",
    ),
    "compose-one": (lambda g: le.compose(g.one), r"a list of updates; .* give compose\(\[update\]\)"),
    "compose-none": (lambda _: le.compose(None), "a list of updates"),  # type: ignore[arg-type]
    "compose-nones": (lambda _: le.compose([None]), "NoneType is not one"),  # type: ignore[list-item]
    "compose-two-sizes": (
        lambda _: le.compose([delta_of(2, 3), delta_of(3, 3)]),
        r"the update of w is \(3, 3\) on cpu, and must be \(2, 3\) on cpu; take edits of one model",
    ),
    "compose-factors-of-two-sizes": (
        lambda _: le.compose([factors_of(2, 50), factors_of(2, 3)]),
        r"the update of w is \(2, 3\) on cpu, and must be \(2, 50\) on cpu",
    ),
    "compose-factors-and-a-delta": (
        lambda _: le.compose([factors_of(2, 50), delta_of(2, 3)]),
        r"must be \(2, 50\) on cpu",
    ),
    "compose-weights-of-two-sizes": (
        lambda _: le.compose([delta_of(2, 3), le.Update(weights={"w": torch.zeros(3, 2)})]),
        r"\(3, 2\) on cpu, and must be \(2, 3\) on cpu",
    ),
    "compose-on-two-devices": (
        lambda _: le.compose([delta_of(2, 3), le.Update(deltas={"w": torch.zeros(1, 2, 3, device="meta")})]),
        "on meta, and must be .* on cpu; take edits of one model, on its device",
    ),
    "dense-without-raw": (
        lambda _: le.Update(weights={"w": torch.zeros(2, 2)}).dense(0),
        "replaces the raw weights; give them",
    ),
    "save-two-edits": (lambda g: le.save_model(g.two, g.backbone, g.model, g.root / "to"), "the update has 2 edits"),
    "adapt-two-edits": (lambda g: le.save_lora(g.two, g.backbone, g.model, g.root / "to"), "the update has 2 edits"),
    "save-no-edit": (lambda g: le.save_lora(le.Update(), g.backbone, g.model, g.root / "to"), "has 0 edits"),
    "rank-of-0": (
        lambda g: le.save_lora(g.one, g.backbone, g.model, g.root / "to", 0),
        "an adapter's rank must be a whole number above 0; got 0",
    ),
    "half-a-rank-of-an-adapter": (
        lambda g: le.save_lora(g.one, g.backbone, g.model, g.root / "to", 1.5),  # type: ignore[arg-type]
        "rank must be a whole number above 0; got 1.5",
    ),
    "save-nan": (lambda g: le.save_model(diverged(g), g.backbone, g.model, g.root / "to"), "the edit diverged: .* NaN"),
    "adapt-nan": (lambda g: le.save_lora(diverged(g), g.backbone, g.model, g.root / "to"), "a smaller learning rate"),
    "keep-nan": (lambda g: le.save_updates(g.root / "to", le.Saved((diverged(g),), ({},), {})), "the edit diverged"),
    "keep-a-request": (
        lambda g: le.save_updates(g.root / "to", le.Saved((g.one,), (REQUEST,), {})),  # type: ignore[arg-type]
        "kept as JSON: Object of type EditRequest is not JSON serializable; give texts",
    ),
    "edits-of-a-model": (lambda g: le.load_updates(g.model / "model.safetensors"), "other tensors, such as a model's"),
    "edits-on-no-device": (lambda g: le.load_updates(g.model / "model.safetensors", "cudax"), "device 'cudax' cannot"),
    "a-rate-beyond-all": (made("finetuning", lr=1e38), r"lr must be a finite number above 0; got 1e\+38"),
    "save-no-model": (lambda g: le.save_model(g.one, g.backbone, "/no/model", g.root / "to"), "cannot find the model"),
    "save-another-model": (
        lambda g: le.save_model(g.one, g.backbone, other_model(g), g.root / "to"),
        "is not that of the loaded model; give the model's own folder",
    ),
    "half-precision": (
        lambda g: le.wrap(deepcopy(g.backbone.model).half(), 1),
        r"the weights are not in float32 \(bert.embeddings.*\); call model.float\(\) first",
    ),
    # settings
    "rate-of-text": (made(lr="x"), "settings of mend: lr must be a finite number above 0; got 'x'"),
    "rate-of-nothing": (made(lr=None), "lr must be a finite number above 0; got None"),
    "rate-of-truth": (made(lr=True), "lr must be a finite number above 0; got True"),
    "rate-of-nan": (made(lr=math.nan), "lr must be a finite number above 0; got nan"),
    "rate-of-0": (made(lr=0.0), "lr must be a finite number above 0; got 0.0"),
    "negative-rate": (made(inner_lr=-1e-3), "inner_lr must be a finite number above 0; got -0.001"),
    "negative-rate-of-rates": (made(inner_lr_lr=-1), "inner_lr_lr must be a finite number of 0 or more; got -1"),
    "half-a-rank": (made(rank=4.0), "rank must be a whole number above 0; got 4.0"),
    "no-rank": (made(rank=0), "rank must be a whole number above 0; got 0"),
    "unknown-optimiser": (made("finetuning", optimiser="sgd"), "optimiser must be one of adam, rmsprop; got 'sgd'"),
    "truth-of-text": (made("rome", parallels="no"), "parallels must be true or false; got 'no'"),
    "unknown-setting": (made(rat=1, lr=1e-3), r"unknown settings of mend .*\'rat\'.*; it has Settings\(rank="),
    "settings-of-another": (
        lambda g: le.make_editor("mend", g.backbone, ["en"], settings=methods()["finetuning"].Settings()),
        "settings of mend must be a mapping, or Settings",
    ),
    "rate-of-masks": (
        lambda g: le.make_editor("mend", g.backbone, ["en"], mask_lr=-1.0),
        "mask_lr must be a finite number of 0 or more",
    ),
    "set-no-inputs": (
        lambda _: override(TINY.tasks["facts"], "test.n_update", "0"),
        "n_update must be a whole number above 0; got 0",
    ),
    "set-no-edits": (
        lambda _: override(TINY.tasks["facts"], "test.edits", "-1"),
        "edits must be a whole number above 0; got -1",
    ),
    "set-no-batch": (
        lambda _: override(TINY.tasks["nli"], "classifier.batch", "0"),
        "batch must be a whole number above 0; got 0",
    ),
    "set-a-negative-weight": (
        lambda _: override(TINY.tasks["facts"], "lambda_mask.sum", "-1"),
        "'sum' to '-1': expected 0 or more",
    ),
    "set-nan": (lambda _: override(TINY.tasks["facts"], "settings.mend.lr", "NaN"), "'lr' to 'NaN': lr must be a fin"),
    "unknown-direction": (stepped([TRIPLE], kl_direction="left"), "kl_direction must be one of paper, released"),
    "unknown-penalty": (trained("mend", le.Objective(penalty="all")), "penalty must be"),  # type: ignore[arg-type]
    "half-an-edit": (schedule(edits=4.5), "a schedule's edits must be a whole number above 0; got 4.5"),
    "clip-at-0": (schedule(clip=0), "a schedule's clip must be a finite number above 0"),
    "train-finetuning": (trained("editor", le.Objective()), "finetuning is not trained"),
    "rate-of-masks-nan": (lambda g: le.make_editor("mend", g.backbone, ["en"], mask_lr=math.nan), "mask_lr .* got nan"),
    "a-step-up": (lambda g: step_of(g, clip=-1.0), "clip must be a finite number above 0; got -1.0"),
    "a-step-of-0": (lambda g: step_of(g, clip=0), "clip must be a finite number above 0; got 0"),
    "a-step-of-nan": (lambda g: step_of(g, clip=math.nan), "clip must be a finite number above 0; got nan"),
    "another-s-optimiser": (
        lambda g: step_of(g, optimiser=torch.optim.SGD([torch.zeros(1)], 0.1)),
        "must have the editor's parameters; got SGD without them",
    ),
    "no-optimiser": (lambda g: step_of(g, optimiser=None), "must have the editor's parameters; got NoneType"),
    "step-finetuning": (lambda g: step_of(g, editor=g.editor), "finetuning is not trained; use it without"),
    "step-one": (lambda g: step_of(g, triples=TRIPLE), "triples must be a list of Triple; got one"),
    "a-schedule-of-fields": (
        lambda g: list(le.train(g.mend, g.task, lambda _: None, SCHEDULE, le.Objective(), 0)),  # type: ignore[arg-type,return-value]
        "schedule must be of the class Schedule; got {",
    ),
    "train-without-validations": (
        lambda g: list(le.train(g.mend, g.task, None, le.Schedule(**SCHEDULE), le.Objective(), 0)),  # type: ignore[arg-type]
        "validate must be a function; got None",
    ),
    # seeds
    "seed-of-numpy": (lambda g: le.derived_rng(np.int64(0)), r"plain int .*; got np.int64\(0\)"),  # type: ignore[arg-type]
    "seed-of-truth": (lambda g: pairs_of(g, seed=True), "plain int .*; got True"),
    "seed-of-draws": (lambda g: le.training_triples(g.task.corpus, 1, np.int64(0), 0), "plain int"),  # type: ignore[arg-type]
    "step-of-numpy": (
        lambda g: le.training_triples(g.task.corpus, 1, 0, np.int64(0)),
        "place must be plain int and str",
    ),  # type: ignore[arg-type]
    "seed-of-an-evaluation": (lambda g: le.evaluate(g.editor, g.task, g.pairs, "0"), "plain int .*; got '0'"),  # type: ignore[arg-type]
    "seed-of-a-validator": (lambda g: le.validator(g.task, g.pairs, 0.0), "plain int"),  # type: ignore[arg-type]
    "seed-of-a-training": (lambda g: step_of(g, seed=np.int64(0)), "plain int"),
    "seed-of-an-edit": (lambda g: le.edit(g.mend, [REQUEST], np.int64(3)), "plain int"),  # type: ignore[arg-type]
    "seed-of-an-editor": (made("mend", ["en"], "none", "x"), "plain int .*; got 'x'"),
    "seed-beyond-64-bits": (lambda g: le.edit(g.mend, [REQUEST], 2**70), "of 64 bits"),
    # languages
    "a-language-twice": (lambda g: pairs_of(g, ["en", "en"]), "edit_languages has 'en' twice; give each once"),
    "an-updating-language-twice": (
        lambda g: pairs_of(g, ["en"], ["en", "de", "en"]),
        "update_languages has 'en' twice",
    ),
    "languages-without-order": (lambda g: pairs_of(g, {"en", "de"}), "edit_languages must be a list of languages"),
    "languages-of-an-editor-twice": (made("mend", ["en", "de", "en"], "language"), "languages has 'en' twice"),
    "languages-of-a-generator": (made("mend", iter(["en"])), "must be a list of languages"),
    "languages-of-numpy": (made("mend", np.array(["en", "de"])), "must be a list of languages"),
    "languages-of-nothing": (made("mend", [None]), r"must be a list of languages.*; got \[None\]"),
    "an-empty-language": (made("mend", ["en", ""]), "must be a list of languages"),
    "within-a-text": (lambda g: g.task.corpus.within("en"), "must be a list of languages.*; got 'en'"),
    "rows-parallel-in-a-text": (lambda _: ROWS.parallel("xnli/test/0/en", "en"), "^languages must be a list of .*'en'"),
    "rows-within-a-text": (lambda _: ROWS.within("en"), "^languages must be a list of languages.*; got 'en'"),
    "rows-within-twice": (lambda _: ROWS.within(["en", "en"]), "^languages has 'en' twice"),
    "within-twice": (lambda g: g.task.corpus.within(["en", "en"]), "languages has 'en' twice"),
    "parallel-in-a-text": (lambda g: g.task.corpus.parallel(g.pairs[0].edit.id, "en"), "must be a list of languages"),
    "scores-in-a-text": (lambda _: le.scores(le.count([OUTCOME]), "en"), "must be a list of languages"),
    # one for many, and things of another kind
    "evaluate-one": (lambda g: le.evaluate(g.editor, g.task, g.pairs[0], 0), "pairs must be a list of Pair; got one"),
    "evaluate-a-generator": (lambda g: le.evaluate(g.editor, g.task, iter(g.pairs), 0), "pairs must be a list of Pair"),  # type: ignore[arg-type]
    "evaluate-nobody": (
        lambda g: le.evaluate(None, g.task, g.pairs, 0),
        "subject must be of the class Editor or Backbone; got None; make_editor makes one",
    ),  # type: ignore[arg-type]
    "evaluate-on-nothing": (lambda g: le.evaluate(g.editor, None, g.pairs, 0), "one split of a data set"),  # type: ignore[arg-type]
    "validate-on-nothing": (lambda g: le.validator(None, g.pairs, 0), "one split of a data set"),  # type: ignore[arg-type]
    "positions-of-masks": (
        lambda g: le.evaluate(g.editor, g.task, g.pairs, 0, con_positions="masks"),  # type: ignore[arg-type]
        "con_positions must be one of mask, all; got 'masks'",
    ),
    "aggregate-a-generator": (lambda _: le.aggregate(iter([])), "runs must be a list of Scores"),  # type: ignore[arg-type]
    "aggregate-other-things": (lambda _: le.aggregate([{"acc": 1}]), "runs must be a list of Scores; .* in it"),  # type: ignore[list-item]
    "count-one": (lambda _: le.count(OUTCOME), "outcomes must be a list of Outcome; got one"),  # type: ignore[arg-type]
    "count-nothing": (lambda _: le.count(5), "^outcomes must be a list of Outcome; got 5"),  # type: ignore[arg-type]
    "count-other-things": (lambda _: le.count([OUTCOME, 5]), "^outcomes must be a list of Outcome; got 5 in it"),  # type: ignore[list-item]
    "scores-of-outcomes": (
        lambda _: le.scores([OUTCOME]),  # type: ignore[arg-type]
        r"^counts must be of the class Counts; got \[Outcome.*; count makes one$",
    ),
    "break-down-outcomes": (
        lambda _: le.breakdown([OUTCOME], "language"),  # type: ignore[arg-type]
        r"^counts must be of the class Counts; got \[Outcome.*; count makes one$",
    ),
    "break-down-by-lang": (
        lambda _: le.breakdown(le.count([OUTCOME]), "lang"),  # type: ignore[arg-type]
        "by must be one of edit_language, language; got 'lang'",
    ),
    "break-down-and-drop": (
        lambda _: le.breakdown(le.count([OUTCOME]), "language", "drop"),  # type: ignore[arg-type]
        "incomplete must be one of refuse, skip; got 'drop'",
    ),
    "answers-of-a-list": (
        lambda g: le.answers(g.backbone, g.tokenizer, [INPUT], [g.one]),  # type: ignore[arg-type]
        r"update must be of the class Update; got \[Update.*; edit or compose makes one",
    ),
    "answers-of-no-tokenizer": (lambda g: le.answers(g.backbone, g.backbone, [INPUT]), "give a tokenizer, as of load_"),
    "an-editor-of-nothing": (lambda _: le.make_editor("mend", None, ["en"]), "backbone must be of the class Backbone"),  # type: ignore[arg-type]
    "an-editor-of-a-model": (lambda g: le.make_editor("mend", g.backbone.model, ["en"]), "; load or wrap makes one"),
    "edit-by-nobody": (lambda _: le.edit(None, [REQUEST]), "editor must be of the class Editor; got None"),  # type: ignore[arg-type]
    "half-a-chunk": (lambda g: le.edit_all(g.editor, [REQUEST], 1.5), "chunk must be a whole number above 0; got 1.5"),  # type: ignore[arg-type]
    "update-inputs-in-words": (
        lambda g: pairs_of(g, sizes=("1", 1, None)),
        "^n_update must be a whole number of 0 or more; got '1'",
    ),
    "half-a-retain-input": (
        lambda g: pairs_of(g, sizes=(1, 1.5, None)),
        "^n_retain must be a whole number of 0 or more; got 1.5",
    ),
    "half-a-limit": (lambda g: pairs_of(g, sizes=(1, 1, 2.5)), "^limit must be a whole number of 0 or more; got 2.5"),
    "half-a-draw": (lambda g: le.training_triples(g.task.corpus, 1.5, 0, 0), "count must be a whole number"),  # type: ignore[arg-type]
    "half-a-mask": (
        lambda g: le.sentence(g.tokenizer, "Aton [MASK] .", 1.5),
        "count must be a whole number above 0; got 1.5",
    ),  # type: ignore[arg-type]
    "longest-of-text": (lambda g: le.pair(g.tokenizer, "a", "b", "5"), "longest must be a whole number"),  # type: ignore[arg-type]
    # words
    "no-sentence": (lambda g: le.sentence(g.tokenizer, None), "text must be a text; got None"),  # type: ignore[arg-type]
    "a-sentence-of-bytes": (lambda g: le.sentence(g.tokenizer, b"[MASK]"), "text must be a text; got b'"),  # type: ignore[arg-type]
    "half-a-character": (lambda g: le.sentence(g.tokenizer, "\ud800 [MASK]"), "half of a character"),
    "a-tokenizer-s-folder": (lambda g: le.sentence(str(g.model), "[MASK]"), "give a tokenizer, as of load_tokenizer"),
    "desired-words": (lambda g: le.request(g.tokenizer, "[MASK]", ["Aton"], "en"), "to must be a text; got"),  # type: ignore[arg-type]
    "a-request-in-nothing": (lambda g: le.request(g.tokenizer, "[MASK]", "Aton", None), "language must be a non-empty"),  # type: ignore[arg-type]
    "a-pair-of-nothing": (lambda g: le.pair(g.tokenizer, None, "a"), "premise must be a text; got None"),  # type: ignore[arg-type]
    "one-language": (made("mend", "en"), "a list of languages, .*; got 'en'"),
    "masks-of-a-training": (made("mend", ["en"], "lime"), "masks must be one of none, language, shared; got 'lime'"),
    "mask-scale": (
        lambda g: le.make_editor("mend", g.backbone, ["en"], mask_scale="x"),  # type: ignore[arg-type]
        "mask_scale must be one of none, learned; got 'x'",
    ),
    "precision": (lambda g: le.load(g.model, precision="fp16"), "precision must be one of float32, bf16; got 'fp16'"),
    "no-device": (lambda _: check_device(None, "float32"), "device None cannot be used"),  # type: ignore[arg-type]
    "precision-to-wrap": (
        lambda g: le.wrap(g.backbone.model, 1, "bfloat16"),  # type: ignore[arg-type]
        "precision must be one of float32, bf16; got 'bfloat16'",
    ),
    "compiled": (
        lambda g: le.wrap(under(catch_warnings(action="ignore"), lambda: torch.compile(g.backbone.model))),
        r"OptimizedModule holds the model; give the model inside it \(model.module; compiled: _orig_mod\)",
    ),
    "in-parallel": (
        lambda g: le.wrap(torch.nn.DataParallel(g.backbone.model)),
        r"the model inside it \(model.module",
    ),
    "adapted": (
        lambda g: le.wrap(under(catch_warnings(action="ignore"), lambda: adapted(g))),
        r"an adapter \(PEFT\) in it; give what .*merge_and_unload",
    ),
    "loaded-in-inference-mode": (
        lambda g: le.wrap(under(torch.inference_mode(), lambda: unwrapped(g))),
        "load it outside",
    ),
    "not-in-memory": (lambda g: le.wrap(unwrapped(g).to("meta")), "not in memory .*; load it without device_map"),
    "checkpointed": (lambda g: le.wrap(checkpointed(unwrapped(g))), r"layers run twice; call model.eval\(\) first"),
    "wrap-in-inference-mode": (
        lambda g: under(torch.inference_mode(), lambda: le.wrap(g.backbone.model)),
        r"inference_mode\(\) is on, .* use torch.no_grad\(\), which is fine",
    ),
    "edit-in-inference-mode": (
        lambda g: under(torch.inference_mode(), lambda: le.edit(g.editor, [REQUEST])),
        r"use torch.no_grad\(\), which",
    ),
    "edit-all-in-inference-mode": (
        lambda g: under(torch.inference_mode(), lambda: le.edit_all(g.editor, [REQUEST])),
        r"use torch.no_grad\(\), which",
    ),
    "make-in-inference-mode": (lambda g: under(torch.inference_mode(), lambda: made()(g)), r"use torch.no_grad\(\)"),
    "train-in-inference-mode": (
        lambda g: under(torch.inference_mode(), lambda: trained("mend", le.Objective(), ["en"])(g)),
        r"inference_mode\(\) is on, and this needs gradients; leave it",
    ),
    "step-without-gradients": (
        lambda g: under(torch.no_grad(), lambda: stepped([TRIPLE])(g)),
        r"no_grad\(\) is on, and this needs gradients; leave it here$",
    ),
    "layers-of-text": (lambda g: le.load(g.model, "bert.weight"), "a list of parameter names; got 'bert.weight' .str"),
    "half-a-layer": (lambda g: le.load(g.model, 2.0), "a whole number of layers .* got 2.0 .float"),  # type: ignore[arg-type]
    "no-layers": (lambda g: le.load(g.model, None), "a whole number of layers .* got None"),  # type: ignore[arg-type]
    "truth-for-layers": (lambda g: le.load(g.model, True), "a whole number of layers .* got True"),
    "layers-of-numpy": (
        lambda g: le.load(g.model, np.int64(2)),
        r"a whole number of layers \(an int\) .*; got .*int64",
    ),  # type: ignore[arg-type]
    "no-model": (lambda _: le.load(None), "got None for a path; expected a folder"),  # type: ignore[arg-type]
    "a-path-to-wrap": (lambda _: le.wrap("model"), "a loaded transformers model; got str"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_argument_is_refused(name: str, given: Given) -> None:
    call, said = REFUSED[name]
    with pytest.raises(le.UserError, match=said) as caught:
        call(given)
    assert "\n" not in str(caught.value)


def test_languages_to_look_in_may_be_named_twice(given: Given) -> None:
    """They choose what is there; a draw would depend on it."""
    told = le.count([OUTCOME, replace(OUTCOME, role="retain")])
    assert le.scores(told, ["en", "en"]) == le.scores(told, ["en"])
    for corpus in (given.task.corpus, ROWS):
        one = corpus.examples[0].id
        assert corpus.parallel(one, ["en", "en"]) == corpus.parallel(one, ["en"])


def test_an_update_is_a_sequence_of_its_edits(given: Given) -> None:
    """It ends, so that a loop over it ends."""
    assert [one.edits for one in given.two] == [1, 1]
    for index in (2, -1):
        with pytest.raises(IndexError, match=f"there is no edit {index}; the update has 2"):
            given.two.dense(index)


def test_a_row_of_another_split_of_pairs_is_refused(pairs: Path, classifier: Path) -> None:
    """Its number is one of this split, too."""
    reader = le.Reader(le.load_tokenizer(classifier), None, {"entailment": 0, "neutral": 1, "contradiction": 2})
    tasks = find("nli").tasks(find("nli").read(str(pairs), None), reader, Rulings(), {})
    drawn = le.evaluation_pairs(tasks["train"].corpus, ["en"], ["en"], 1, 1, 0, 1)
    with pytest.raises(le.DataError, match="of another split than test"):
        tasks["test"].ready(drawn)


@pytest.mark.parametrize("settings", [{"lr": 1}, {"lr": np.float32(1e-3)}, {"rank": np.int64(4)}, {"inner_lr_lr": 0}])
def test_a_number_of_any_library_is_one(settings: dict[str, Any], given: Given) -> None:
    le.make_editor("mend", given.backbone, ["en"], settings={"rank": 4, **settings})


@dataclass(frozen=True)
class Own:
    """A plug-in's settings: what they mean is its own matter."""

    shift: float = -1.0
    steps: int = 0
    unknown: Missing | None = None  # type: ignore[name-defined]  # noqa: F821  as of a type checker's import


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"mine.log_scale": torch.zeros(2)}, "mine: the parameter 'mine.log_scale' has a name as of masks"),
        ({"mask.mine": torch.zeros(2)}, "mine: the parameter 'mask.mine' has a name as of masks"),
        ({"rate": 1.0}, "mine: `init` must give a dict of tensors by name"),
        (None, "mine: `init` must give a dict of tensors by name, of floating point; got None"),
    ],
)
def test_a_plug_in_s_parameters_are_told_from_the_masks(made: Any, said: str, given: Given) -> None:
    """Both are found by their names."""
    le.register(type("Mine", (Good,), {"NAME": "mine", "init": lambda *_: made})())
    with pytest.raises(le.UserError, match=said):
        le.make_editor("mine", given.backbone, ["en"])


@pytest.mark.usefixtures("registries")
def test_a_plug_in_s_numbers_may_be_negative(given: Given) -> None:
    le.register(type("Shifted", (Good,), {"NAME": "shifted", "Settings": Own})())
    assert le.make_editor("shifted", given.backbone, ["en"]).settings.shift == -1


def test_numbers_of_numpy_are_whole_numbers(given: Given) -> None:
    """In tuples, as `tuple(array)` makes them."""
    ids, asked = tuple(np.array(INPUT.ids)), replace(REQUEST, labels=(np.int64(12),))
    assert le.predict(given.backbone, [replace(INPUT, ids=ids)]) == le.predict(given.backbone, [INPUT])
    assert le.edit(given.editor, [asked]).edits == 1


def test_without_gradients_an_edit_is_made_and_an_answer_given_in_inference_mode(given: Given) -> None:
    expected = le.answers(given.backbone, given.tokenizer, [INPUT], given.one)
    with torch.no_grad():
        one = le.edit(given.editor, [REQUEST])
    with torch.inference_mode():
        assert le.answers(given.backbone, given.tokenizer, [INPUT], one) == expected


def test_an_update_in_double_precision_fits_a_model_of_it(given: Given) -> None:
    backbone = le.wrap(deepcopy(given.backbone.model).double(), 2)
    le.predict(backbone, [INPUT], changed_update(given, torch.Tensor.double))


def test_what_fits_in_another_form_is_taken(given: Given, tmp_path: Path) -> None:
    assert le.load(str(given.model), given.backbone.edited, torch.device("cpu")).edited == given.backbone.edited
    assert le.edit(given.editor, (REQUEST,), None).edits == 1


def test_an_answer_that_another_composition_spells_is_said_to_be(given: Given) -> None:
    tokenizer = deepcopy(given.tokenizer)
    tokenizer.add_tokens(["Z\u00fcrich"])
    tokenizer.backend_tokenizer.normalizer = None
    with pytest.raises(le.UserError, match=r"cannot spell .*: it can in the composition NFC, which unicodedata"):
        le.request(tokenizer, "Aton P1 en [MASK] .", "Zu\u0308rich", "en")


def test_all_names_are_imported_by_a_star() -> None:
    names: dict[str, object] = {}
    exec("from lime_editing import *", names)
    assert names["edit"] is le.edit
    assert {*le.__all__} == {*dir(le)} - {"__version__"}
