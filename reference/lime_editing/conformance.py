"""The adapter of spec_tests/contract.py for this package; `nox -s spec` tests this module.

Its functions have the contract's arguments, however many; those that a function only passes on are not named again.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache, cached_property, partial, reduce
from itertools import product
from operator import getitem
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import AutoConfig

from . import results, saving
from .backbone import load_tokenizer, wrap
from .core import editing, losses as objectives, masks as lime, metrics as scoring, sampling, training as learning
from .core.corpus import Example, ParallelCorpus
from .data import Reader, find as find_data, register
from .data.facts import task as facts_task
from .data.facts.read import read as read_facts
from .data.pairs import task as pairs_task
from .data.pairs.read import NAMES, Pairs
from .editors import editable_training, knowledge_editor, mend
from .names import ALL, EN, PAPER_APPROACHES, PROTOCOLS, TRAININGS, Rulings, Split
from .records import EditRequest, Input, Outcome, Triple
from .report import figures, tables
from .report.counts import Key, Run, Section
from .reproduce import cells, many, run as runs, store
from .reproduce.scales import PAPER, Evaluation, Scale, override
from .updates import Update, compose

CLAIMS = frozenset("TMSABELDRUC") | {"batched", "factored", "ranked", "resumable"}
Rows = list[dict[str, Any]]
EDITORS = PAPER_APPROACHES
_PRINTED = Rulings()


# T, M, S ----------------------------------------------------------------------------------------------------------


def _corpus(rows: Sequence[Mapping[str, Any]]) -> ParallelCorpus:
    return ParallelCorpus.of(Example(row["fact"], row["language"], row["id"]) for row in rows)


def parallel(corpus: Any, example: str, languages: Any = None) -> list[str]:
    return [x.id for x in _corpus(corpus).parallel(example, languages)]


succ = scoring.succ


def hit(predicted: Any, expected: Any, is_mask: Any, role: str, ruled: Rulings = _PRINTED) -> bool:
    everywhere = role == "retain" and ruled.con_positions == "all"
    masked = [i for i, counts in enumerate(is_mask) if counts or everywhere]
    return scoring.hit([predicted[i] for i in masked], [expected[i] for i in masked])


def _counts(rows: Any) -> scoring.Counts:
    return scoring.count(Outcome(**row) for row in rows)


def metrics(outcomes: Any, languages: Any = None) -> dict[str, float]:
    return scoring.scores(_counts(outcomes), languages).as_dict()


def breakdown(outcomes: Any, by: Any) -> dict[str, dict[str, float]]:
    return {language: s.as_dict() for language, s in scoring.breakdown(_counts(outcomes), by).items()}


def aggregate(runs: Any) -> dict[str, float]:
    return scoring.aggregate([scoring.Scores(run["acc"], run["con"], 0.0) for run in runs]).as_dict()


def evaluation_pairs(corpus: Any, *drawn: Any, **named: Any) -> Rows:
    pairs = sampling.evaluation_pairs(_corpus(corpus), *drawn, **named)
    return [{"edit": p.edit.id, "update": [x.id for x in p.update], "retain": [x.id for x in p.retain]} for p in pairs]


def training_triples(corpus: Any, languages: Any, n: int, seed: int, validate_every: int | None = None) -> Rows:
    examples = _corpus(corpus).within(languages)
    triples: list[sampling.ExampleTriple] = []
    for step in range(n):
        triples += sampling.training_triples(examples, 1, seed, step)
        if validate_every and (step + 1) % validate_every == 0:
            sampling.evaluation_pairs(examples, languages, languages, 1, 1, seed, limit=len(languages))
    return [{"edit": t.edit.id, "update": t.update.id, "retain": t.retain.id} for t in triples]


# A, B -------------------------------------------------------------------------------------------------------------


def apply_mask(w: Any, m: Any) -> Any:
    return lime.apply_mask(torch.as_tensor(w), torch.as_tensor(m)).numpy()


def gate(log_alpha: Any, uniforms: Any = None, *constants: float, **named: float) -> Any:
    u = None if uniforms is None else torch.as_tensor(uniforms)
    return lime.gate(torch.as_tensor(log_alpha), u, *constants, **named).numpy()


def gate_probability(log_alpha: Any, *constants: float, **named: float) -> Any:
    return lime.gate_probability(torch.as_tensor(log_alpha), *constants, **named).numpy()


def _leaves(log_alpha: Mapping[str, Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """{matrix: {part: array}} as parameters {"mask.<matrix>.<part>": tensor}."""
    named = {f"{lime.PREFIX}{matrix}.{part}": v for matrix, parts in log_alpha.items() for part, v in parts.items()}
    return {name: torch.tensor(value, requires_grad=True) for name, value in named.items()}


def _structured(parameters: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    result: dict[str, dict[str, Any]] = {}
    for name, value in parameters.items():
        matrix, part = name.removeprefix(lime.PREFIX).rsplit(".", 1)
        result.setdefault(matrix, {})[part] = value
    return result


def _gradient(value: torch.Tensor, leaves: Mapping[str, torch.Tensor]) -> dict[str, dict[str, Any]]:
    gradients = torch.autograd.grad(value, list(leaves.values()))
    return _structured({name: gradient.numpy() for name, gradient in zip(leaves, gradients, strict=True)})


def mask_penalty(log_alpha: Any, weight: float, ruled: Rulings = _PRINTED) -> tuple[float, dict[str, dict[str, Any]]]:
    leaves = _leaves(log_alpha)
    value = weight * lime.penalty(lime.side_by_side(leaves), ruled.penalty)
    return value.item(), _gradient(value, leaves)


def _masked(own: Mapping[str, torch.Tensor], row: int, x: Any, delta: Any, seed: int | None = None) -> Any:
    """The masked factors (1, T, n) and (1, T, m) of one edit, by a row of one matrix's mask parameters."""
    only: Any = SimpleNamespace(parameters=own)  # all that `masks_of` reads of an editor
    draws = None if seed is None else lime.draw_uniforms(own, 1, seed)
    factors = {"w": (torch.as_tensor(x)[None], torch.as_tensor(delta)[None])}
    return lime.masked(factors, editing.masks_of(only, torch.tensor([row]), draws))["w"]


def mask_factors(log_alpha: Any, languages: Any, language: str, x: Any, delta: Any, seed: int | None = None) -> Any:
    (row,) = lime.mask_rows([language], languages, "language")
    return tuple(factor[0].detach().numpy() for factor in _masked(_leaves({"w": log_alpha}), row, x, delta, seed))


def mask_factors_gradient(
    log_alpha: Any, languages: Any, language: str, x: Any, delta: Any, grad_x: Any, grad_delta: Any, seed: Any = None
) -> dict[str, Any]:
    leaves, (row,) = _leaves({"w": log_alpha}), lime.mask_rows([language], languages, "language")
    masked_x, masked_delta = _masked(leaves, row, x, delta, seed)
    value = (torch.as_tensor(grad_x) * masked_x).sum() + (torch.as_tensor(grad_delta) * masked_delta).sum()
    return _gradient(value, leaves)["w"]


def initial_masks(shapes: Any, languages: Any, ruled: Rulings = _PRINTED) -> dict[str, dict[str, Any]]:
    made = lime.init_masks(shapes, len(languages), ruled.mask_scale)
    return _structured({name: p.numpy() for name, p in made.items()})


def editor_shapes(shapes: Any, languages: Any, masks: str, ruled: Rulings = _PRINTED) -> dict[str, tuple[int, ...]]:
    raw = {name: torch.empty(m, n, device="meta") for name, (n, m) in shapes.items()}
    parameters = mend.init(raw, 1, mend.Settings(), 0)
    if masks != "none":
        rows = 1 if masks == "shared" else len(languages)
        parameters |= lime.init_masks(shapes, rows, ruled.mask_scale, torch.zeros((), device="meta"))
    return {name: tuple(p.shape) for name, p in parameters.items()}


# E, L -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Session:
    """An editor with its optimiser."""

    editor: editing.Editor
    ruled: Rulings

    @cached_property
    def optimiser(self) -> torch.optim.Optimizer:
        return learning.adam(self.editor)


def _input(row: Any) -> Input:
    return Input(tuple(row["input_ids"]), tuple(row["positions"]), tuple(row.get("token_type_ids", ())))


def _request(row: Any) -> EditRequest:
    return EditRequest(_input(row), tuple(row["labels"]), row["language"])


def _triples(rows: Any) -> list[Triple]:
    return [Triple(_request(row["edit"]), _input(row["update"]), _input(row["retain"])) for row in rows]


def make_editor(
    name: str, model: Any, edited: Any, languages: Any, masks: Any = "none", seed: int = 0, **chosen: Any
) -> Session:
    ruled: Rulings = chosen.pop("ruled", _PRINTED)
    known, scale, wrapped = PAPER.tasks["facts"].under(ruled).settings, ruled.mask_scale, wrap(model, list(edited))
    given = {key: value for key, value in chosen.items() if value is not None}
    settings = cells.ruled(replace(known[name], **given), ruled) if name in known else None
    return Session(editing.make_editor(name, wrapped, languages, masks, seed, settings, mask_scale=scale), ruled)


def parameters(session: Session) -> dict[str, torch.Tensor]:
    return session.editor.parameters


def mask_parameters(session: Session) -> dict[str, dict[str, torch.Tensor]]:
    return _structured(session.editor.mask_parameters())


def optimizer_groups(session: Session) -> list[list[str]]:
    names = {id(p): name for name, p in session.editor.parameters.items()}
    return [[names[id(p)] for p in group["params"]] for group in (session.optimiser.param_groups if names else ())]


def capture(session: Session, request: Any) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    factors = editing.edit_factors(session.editor, [_request(request)])
    return {name: (x[0], delta[0]) for name, (x, delta) in factors.items()}


@torch.no_grad()
def transform(session: Session, matrix: str, x: Any, delta: Any, language: str) -> tuple[torch.Tensor, torch.Tensor]:
    editor = session.editor
    if editor.masks != "none":
        (row,) = lime.mask_rows([language], editor.languages, editor.masks)
        own = {name: p for name, p in editor.parameters.items() if name.startswith(f"{lime.PREFIX}{matrix}.")}
        x, delta = (factor[0] for factor in _masked(own, row, x, delta))
    return mend.transform(editor.parameters, mend.index_in_shape(editor.backbone.shapes, matrix), x, delta)


def trained_weights(session: Session) -> dict[str, tuple[str, torch.Tensor]]:
    names = {matrix: f"{editable_training.WEIGHT}{matrix}" for matrix in session.editor.backbone.edited}
    return {matrix: (name, session.editor.parameters[name].detach()) for matrix, name in names.items()}


@torch.no_grad()
def gates(session: Session, request: Any) -> dict[str, dict[str, Any]]:
    editor, of_matrices = session.editor, dict[str, dict[str, Any]]()
    asked = editing.edit_batch(editor, [_request(request)]).condition(editor.settings.condition == "input+label")
    states = knowledge_editor.read(editor.parameters, *asked)
    found = knowledge_editor.gates(editor.parameters, editor.settings, editor.backbone.shapes, states)
    for name, parts in zip(editor.backbone.shapes, found, strict=True):
        scale, a_softmax, a_free, b_softmax, b_free = (part[0, 0] for part in parts)
        of_matrices[name] = {"scale": scale[0], "a": (a_softmax, a_free), "b": (b_softmax, b_free)}
    return of_matrices


@torch.no_grad()
def edit(session: Session, requests: Any) -> Update:
    return editing.edit(session.editor, [_request(row) for row in requests])


@torch.no_grad()
def dense(session: Session, edits: Update, index: int) -> dict[str, torch.Tensor]:
    return edits.dense(index, session.editor.backbone.raw)


def factors(session: Session, edits: Update, index: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return {name: (u[index], v[index]) for name, (u, v) in edits.factors.items()}


@torch.no_grad()
def raw_logits(session: Session, inputs: Any, update: Update | None = None) -> list[torch.Tensor]:
    states = session.editor.backbone.trunk([_input(row) for row in inputs])
    logits = session.editor.backbone.upper(states, update)
    return list(logits.split([len(row["positions"]) for row in inputs]))


def edited_logits(session: Session, edits: Update, index: int, inputs: Any) -> list[torch.Tensor]:
    return raw_logits(session, inputs, edits[index])


def losses(session: Session, triples: Any, seed: int) -> tuple[dict[str, float], dict[str, torch.Tensor | None]]:
    parts = editing.training_losses(session.editor, _triples(triples), seed, editing.Objective.under(session.ruled))
    live = session.editor.parameters
    gradients = torch.autograd.grad(parts["total"], list(live.values()), allow_unused=True)
    return {name: value.item() for name, value in parts.items()}, dict(zip(live, gradients, strict=True))


def train_step(session: Session, triples: Any, seed: int) -> dict[str, float]:
    aim, clip = editing.Objective.under(session.ruled), PAPER.tasks["facts"].under(session.ruled).all_languages.clip
    return learning.train_step(session.editor, session.optimiser, _triples(triples), seed, aim, clip)


def _loss(of: Callable[..., torch.Tensor], mask: Any, weight: float, *given: Any) -> tuple[Any, ...]:
    """An objective at the predicted positions of some logits, and its gradients."""
    logits = [t.detach().clone().requires_grad_() for t in given]
    shares = (1 / mask.sum(1, keepdim=True)).expand(mask.shape)[mask]
    value = weight * of(*(t[mask] for t in logits), shares) / len(mask)
    value.backward()
    return value.item(), *(t.grad for t in logits)


def rel_loss(logits: Any, labels: Any, mask: Any, weight: float) -> tuple[Any, ...]:
    return _loss(lambda predicted, shares: objectives.rel_loss(predicted, labels[mask], shares), mask, weight, logits)


def loc_loss(edited: Any, raw: Any, mask: Any, weight: float, ruled: Rulings = _PRINTED) -> tuple[Any, ...]:
    return _loss(partial(objectives.loc_loss, direction=ruled.kl_direction), mask, weight, edited, raw)


# D ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tokenizer:
    """The part of a tokenizer that the data modules use, built from a given function."""

    tokenize: Callable[..., list[int]]
    mask_token_id: int = -1
    mask_token: str = "[MASK]"

    def __call__(self, text: Any, *pair: Any, add_special_tokens: bool = True) -> dict[str, Any]:
        alone = isinstance(text, str)
        return {"input_ids": self.tokenize(text, *pair) if alone else list(map(self.tokenize, text, *pair))}


def split(folder: Any) -> dict[str, list[dict[str, str]]]:
    names = ("language", "relation", "sub_uri", "obj_uri", "sub_label", "obj_label")
    parts = facts_task.split(read_facts(folder))
    return {part: [{name: getattr(fact, name) for name in names} for fact in f.facts] for part, f in parts.items()}


def _row_of(x: Input) -> dict[str, Any]:
    row = {"input_ids": list(x.ids), "positions": list(x.positions)}
    return {**row, "token_type_ids": list(x.types)} if x.types else row


def _row_of_request(request: EditRequest) -> dict[str, Any]:
    return {**_row_of(request.input), "labels": list(request.labels), "language": request.language}


def fact_inputs(folder: Any, tokenize: Any, mask: int, *told: Any, **named: Any) -> Rows:
    return _facts(folder, _Tokenizer(tokenize, mask), *told, **named)


def encoded_facts(folder: Any, tokenizer: Any, *told: Any, **named: Any) -> Rows:
    return _facts(folder, load_tokenizer(tokenizer), *told, **named)


def _facts(
    folder: Any, tokenizer: Any, edit: Any, update: str, retain: Any, seeds: Sequence[int], ruled: Rulings = _PRINTED
) -> Rows:
    facts = read_facts(folder)
    splits = list(facts_task.tasks(facts, Reader(tokenizer), ruled, {}).values())
    asked = (edit["language"], edit["relation"], edit["subject"])
    own = (t for t in splits if asked in {(f.language, f.relation, f.sub_uri) for f in t.facts.facts})
    # The edit's split defines the label pool; inputs may come from any split.
    task = replace(next(own, splits[0]), facts=facts)
    places = ({**edit}, {**edit, "language": update}, retain)
    x_e, x_u, x_r = (task.corpus["{relation}/{subject}/{language}".format(**place)] for place in places)
    triples = []
    for seed in seeds:
        rng = sampling.derived_rng(seed, "inputs", x_e.id)
        request = task.request(x_e, rng)
        updated, retained = task.update_input(x_u, x_e, request), task.retain_input(x_r, rng)
        triples.append({"edit": _row_of_request(request), "update": _row_of(updated), "retain": _row_of(retained)})
    return triples


def _pairs(rows: Sequence[Any], tokenizer: Any, classes: tuple[int, ...] = (0, 1, 2)) -> pairs_task.PairTask:
    return pairs_task.PairTask("test", rows, tuple(sorted(rows[0]["premise"])), tokenizer, classes)


def _pair_edit(task: Any, edit: Example, retain: Sequence[Example], seed: int, *place: int) -> dict[str, Any]:
    def at(example: Example) -> tuple[int, str]:
        return int(example.fact.rpartition("/")[2]), example.language

    request = task.request(edit, sampling.derived_rng(seed, "inputs", edit.id, *place))
    row, language = at(edit)
    described = {"row": row, "language": language, "input": _row_of(request.input), "label": request.labels[0]}
    return {**described, "retain": [at(x) for x in retain]}


def pair_edits(rows: Any, predictions: Any, tokenize: Any, n_retain: int, seed: int) -> Rows:
    return _edits_of_errors(_pairs(rows, _Tokenizer(tokenize)), predictions, n_retain, seed)


def encoded_pairs(rows: Any, predictions: Any, model: Any, n_retain: int, seed: int) -> Rows:
    pairs, config = Pairs({"test": rows}, (), NAMES), AutoConfig.from_pretrained(model)
    classes = pairs_task.class_numbers(pairs, runs.class_ids(config))
    return _edits_of_errors(_pairs(rows, load_tokenizer(model), classes), predictions, n_retain, seed)


def _edits_of_errors(task: pairs_task.PairTask, predictions: Any, n_retain: int, seed: int) -> Rows:
    # Answers in other languages count as correct.
    gold = [task.classes[row["label"]] for row in task.rows]
    wrong = pairs_task.wrong(task, np.array([predictions.get(code, gold) for code in task.languages]).T)
    task, common = replace(task, wrong=wrong), (task.corpus, sorted(predictions), task.languages, 1, n_retain, seed)
    return [_pair_edit(task, p.edit, p.retain, seed) for p in sampling.evaluation_pairs(*common, editable=wrong)]


def pair_training(rows: Any, tokenize: Any, n: int, seed: int) -> Rows:
    task = _pairs(rows, _Tokenizer(tokenize))
    drawn = [sampling.training_triples(task.corpus, 1, seed, step)[0] for step in range(n)]
    return [_pair_edit(task, t.edit, [t.retain], seed, step) for step, t in enumerate(drawn)]


def classifier_examples(splits: Any, tokenize: Any) -> Rows:
    languages = tuple(sorted({code for part in splits.values() for row in part for code in row["premise"]}))
    pairs = Pairs(splits, languages, ("0", "1", "2"))
    return [{**_row_of(x), "label": label} for x, label in pairs_task.labelled(pairs, Reader(_Tokenizer(tokenize)))]


# R ----------------------------------------------------------------------------------------------------------------


#: Hyper-parameter → its path in a task's scale.
_SETTINGS: Mapping[str, str] = {
    **{f"{name}_lr": f"settings.{name}.lr" for name in EDITORS},
    **{f"{name}_inner_lr": f"settings.{name}.inner_lr" for name in ("editable_training", "mend")},
    "finetuning_steps": "settings.finetuning.steps",
    **{name: name for name in ("lambda_rel", "lambda_loc", "mask_lr")},
    "lambda_mask": "lambda_mask.{penalty}",
    "max_steps": "all_languages.edits",
    **{name: f"all_languages.{name}" for name in ("validate_every", "patience")},
    **{f"english_{name}": f"english_only.{name}" for name in ("validate_every", "patience")},
}


def paper_preset(ruled: Rulings = _PRINTED) -> dict[str, float]:
    scale: Any = asdict(PAPER.tasks["facts"].under(ruled))
    places = {name: place.format(penalty=ruled.penalty).split(".") for name, place in _SETTINGS.items()}
    return {"runs": PAPER.seeds, **{name: reduce(getitem, place, scale) for name, place in places.items()}}


def experiments(languages: Sequence[str]) -> Rows:
    rows = []
    shown = product(enumerate(tables.TABLES, 1), cells.grid(["facts"], EDITORS, list(TRAININGS), [0]))
    for (number, table), cell in shown:
        if cell.training not in table.omits:
            edited, trained = cells.evaluations(languages)[table.evaluation], cell.trained
            spoken = {"edit_languages": list(edited), "input_languages": list(languages)}
            spoken["training_languages"] = list(trained.languages or languages) if trained else []
            rows.append({"table": number, "editor": cell.approach, "masks": cell.masks, "run": cell.name, **spoken})
    return rows


def record(facts: Any, model: Any, seed: int, rulings: Any, settings: Any = None) -> dict[str, Any]:
    cell, ruled = cells.Cell("facts", "mend", "lime", seed), Rulings(**rulings)
    scale: Any = PAPER.tasks["facts"]
    for name, value in (settings or {}).items():
        scale = override(scale, _SETTINGS[name].format(penalty=ruled.penalty), repr(value))
    sources = cells.Sources(str(facts), str(model), None)
    experiment = runs.prepare("facts", [cell], replace(PAPER, tasks={"facts": scale}), ruled, sources)
    found = cells.cell_record(cell, experiment)
    return {**found, "seed": found["cell"]["seed"], "configuration": found["scale"]}


def table(runs: Sequence[Any], edit_language: str | None) -> Rows:
    evaluation = ALL if edit_language is None else EN
    by_key: dict[Key, dict[int, Run]] = {}
    for one in runs:
        seeds = by_key.setdefault((one["editor"], one["training"]), {})
        seeds[one["seed"]] = Run(Path(one["name"]), {}, {evaluation: _counts(one["outcomes"])})
    rows = []
    for row in tables.rows(Section("facts", "", {"task": "facts"}, by_key), evaluation):
        shown = (float(text.partition(" ")[0]) for text in row.texts())
        described = {"editor": row.approach, "training": row.training, "runs": list(row.cells.values())}
        rows.append({**described, **dict(zip(tables.METRICS, shown, strict=True))})
    return rows


def stopping(succ: Sequence[float], validate_every: int, patience: int, max_steps: int) -> tuple[int, int]:
    validations: list[tuple[int, float]] = []
    for step, value in zip(range(validate_every, max_steps + 1, validate_every), succ, strict=True):
        validations.append((step, value))
        judged, ended = learning.early_stopping(validations, patience)
        if ended:
            break
    return step, judged


mask_similarity = figures.cosines


# U ----------------------------------------------------------------------------------------------------------------

#: Split → (id, what a trace tells) of each edit that was asked of it since the last reset, in order.
_ASKED: defaultdict[str, list[tuple[str, dict[str, Any]]]] = defaultdict(list)


@dataclass(frozen=True)
class _Noted:
    """A split that notes in `_ASKED` what is asked of it."""

    task: Any
    split: Split

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def within(self, languages: Sequence[str]) -> _Noted:
        return replace(self, task=self.task.within(languages))

    def request(self, edit: Example, rng: Any) -> EditRequest:
        made: EditRequest = self.task.request(edit, rng)
        about = {"edit": self._told(edit), "request": _row_of_request(made), "update": [], "retain": []}
        _ASKED[self.split].append((edit.id, about))
        return made

    def update_input(self, update: Example, *of: Any) -> Input:
        return self._note("update", update, self.task.update_input(update, *of))

    def retain_input(self, retain: Example, rng: Any) -> Input:
        return self._note("retain", retain, self.task.retain_input(retain, rng))

    def _note(self, role: str, example: Example, made: Input) -> Input:
        _, last = _ASKED[self.split][-1]
        last[role].append((self._told(example), _row_of(made)))
        return made

    def _told(self, example: Example) -> dict[str, str]:
        return {"fact": example.fact.removeprefix(f"{self.split}/"), "language": example.language}


@cache
def _noting(kind: str) -> str:
    """The name of a data set like this one, whose splits are noted."""
    plain, name = find_data(kind), f"noted_{kind}"
    register(replace(plain, name=name, tasks=lambda *given: {s: _Noted(t, s) for s, t in plain.tasks(*given).items()}))
    return name


def _tables_of(rows: Mapping[str, Sequence[Any]], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split, told in rows.items():
        pd.DataFrame(list(told)).to_parquet(folder / f"{split}.parquet")
    return folder


def _scale_of(editor: str, plan: Mapping[str, Any], kind: str, ruled: Rulings) -> Scale:
    # The plan's values override those of a ruling.
    paper = replace(PAPER.tasks[kind].under(ruled), released={})
    lengths = {name: plan[name] for name in ("edits", "batch", "validate_every", "patience")}
    schedule = replace(paper.all_languages, **lengths, checkpoint_every=2 * plan["batch"])
    own = paper.settings[editor]
    given = {n: plan[n] for n in ("lr", "inner_lr") if plan[n] is not None and hasattr(own, n)}
    scale = replace(paper, settings={editor: replace(own, **given)})
    drawn = (plan["n_update"], plan["n_retain"])
    judged: Any = {name: Evaluation(*drawn, plan[f"{name}_limit"]) for name in ("validation", "test")}
    return replace(PAPER, tasks={kind: replace(scale, all_languages=schedule, english_only=schedule, **judged)})


def run(
    data: Any,
    model: Any,
    editor: str,
    training: Any,
    seed: int,
    plan: Any,
    folder: Any,
    interrupt: int | None = None,
    ruled: Rulings = _PRINTED,
) -> dict[str, Any]:
    kind = "nli" if isinstance(data, Mapping) else "facts"
    source = _tables_of(data, Path(folder) / "pairs") if isinstance(data, Mapping) else data
    cell, root = cells.Cell(_noting(kind), editor, training, seed), Path(folder) / "cells"
    sources = cells.Sources(str(source), str(model), None)
    experiment = runs.prepare(cell.task, [cell], _scale_of(editor, plan, kind, ruled), ruled, sources)
    start: Any = runs.assemble(cell, experiment)[0]
    steps, validation, tested = list[Any](), list[Any](), defaultdict[str, list[Any]](list)
    _ASKED.clear()
    for status in runs.run_cell(cell, experiment, root):
        validation = validation or _ASKED["validation"]
        if status.doing.startswith("train"):
            drawn = {"seed": learning.step_seed(seed, status.done // plan["batch"]), "loss": status.loss}
            steps.append({"edits": status.done, "asked": [one for _, one in _ASKED["train"]], **drawn})
        else:
            tested[status.doing.removeprefix("test ")] += _ASKED["test"]
        _ASKED.clear()
        if interrupt is not None and status.done >= interrupt:
            return {}
    done = cells.cell_folder(cell, experiment, root)
    trace = {"steps": steps, **_curve(done, plan["batch"], [one for _, one in validation])}
    trace |= {"start": Session(start, ruled), "editor": Session(store.load(done, model), ruled)}
    return {**trace, "evaluations": {"en": _judged(done, EN, tested[EN]), "all": _judged(done, ALL, tested[ALL])}}


def _curve(folder: Path, batch: int, asked: Sequence[Any]) -> dict[str, Any]:
    path = folder / "curve.json"
    reports = results.read_json(path) if path.is_file() else []
    told = [{**report, "edits": report["step"] * batch, "asked": asked} for report in reports]
    best = [report["edits"] for report in told if report["best"]]
    return {"validations": told, "stopped": told[-1]["edits"] if told else 0, "judged": best[-1] if best else 0}


def _judged(folder: Path, name: str, asked: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    rows = pd.read_parquet(folder / "rows.parquet")
    hits = rows[rows["evaluation"] == name].groupby(["edit", "role"])["hit"].agg(list).unstack().add_suffix("_hits")
    edits = [{**one, **hits.loc[edit]} for edit, one in asked if edit in hits.index]
    return {"edits": edits, **results.read_metrics(folder)[name].as_dict()}


def preferences(session: Session) -> tuple[list[str], Any]:
    with tempfile.TemporaryDirectory() as folder:
        path, languages = Path(folder) / results.EDITOR, list(session.editor.languages)
        store.save_parameters(path, session.editor.parameters, {"languages": languages})
        found, parameters = figures.mask_parameters(path)
    return found, figures.cosines(parameters)


# C ----------------------------------------------------------------------------------------------------------------


def compose_edits(session: Session, edits: Sequence[Update]) -> Update:
    return compose(edits)


def edit_after(session: Session, before: Update, requests: Any) -> Update:
    return editing.edit(session.editor, [_request(row) for row in requests], at=before)


def drop_edit(session: Session, edits: Update, index: int) -> Update:
    kept = [str(i) for i in range(edits.edits)]
    saved = saving.Saved(tuple(edits[i] for i in range(edits.edits)), tuple({"edit": i} for i in kept), {})
    return compose(saving.drop(saved, [index + 1]).updates)


def save_edited(session: Session, edits: Update, index: int, folder: Path) -> None:
    backbone = session.editor.backbone
    with tempfile.TemporaryDirectory() as raw:
        backbone.model.save_pretrained(raw)
        saving.save_model(edits[index], backbone, raw, folder)


def edit_series(corpus: Any, *drawn: Any, **named: Any) -> dict[str, Any]:
    made, kept = many.series(_corpus(corpus), *drawn, **named)
    edits = [{"edit": pair.edit.id, "update": [x.id for x in pair.update]} for pair in made]
    return {"edits": edits, "retain": [x.id for x in kept]}


def series_metrics(outcomes: Sequence[Any]) -> dict[str, float]:
    last = max(row["edit"] for row in outcomes)
    kept = [o["hit"] for o in outcomes if not o["edit"] and o["made"] == last]

    def acc(rows: Sequence[Any]) -> float:
        told = (Outcome(str(o["edit"]), o["edit_language"], "update", o["language"], o["hit"]) for o in rows)
        both = [replace(o, role=role) for o in told for role in scoring.ROLES]  # scores need both roles
        return scoring.scores(scoring.count(both)).acc

    own = [o for o in outcomes if o["edit"]]
    efficacy, retention = acc([o for o in own if o["made"] == o["edit"]]), acc([o for o in own if o["made"] == last])
    return {"efficacy": efficacy, "retention": retention, "con": fmean(kept)}


# Other rulings ----------------------------------------------------------------------------------------------------

_FREE = {"retain_inputs", "clipping", "log_alpha"}  # rulings that no clause tests
_RULED = (
    *(hit, mask_penalty, initial_masks, editor_shapes, make_editor, loc_loss, fact_inputs, encoded_facts),
    *(paper_preset, run),
)


def under(ruled: Rulings) -> SimpleNamespace:
    """This module as an implementation that follows and declares these rulings."""
    known = {name: value for name, value in globals().items() if not name.startswith("_")}
    turned = {function.__name__: partial(function, ruled=ruled) for function in _RULED}
    declared = {f.name: getattr(ruled, f.name) for f in fields(ruled) if f.name not in _FREE}
    return SimpleNamespace(**known | turned | {"RULINGS": declared})


released = under(PROTOCOLS["released"])
