"""The reference behind spec_tests/contract.py: `nox -s spec` tests this module as it would any other."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from transformers import AutoConfig

from . import results, saving
from .backbone import load_tokenizer, wrap
from .core import losses as objectives, masks as lime, metrics as scoring
from .core.corpus import Example, ParallelCorpus
from .core.editing import (
    Editor,
    Objective,
    edit as run_edit,
    edit_batch,
    edit_factors,
    make_editor as build,
    masks_of,
    training_losses,
)
from .core.sampling import derived_rng, evaluation_pairs as sample_pairs, training_triples as sample_triples
from .core.training import adam, early_stopping, step_seed, train_step as run_step
from .data import Dataset, Reader, find as find_data, register
from .data.facts import task as facts_task
from .data.facts.read import read as read_facts
from .data.pairs import task as pairs_task
from .data.pairs.read import NAMES, Pairs
from .data.pairs.task import PairTask
from .editors import editable_training, knowledge_editor, mend, methods
from .names import ALL, EN, PAPER_APPROACHES, TRAININGS, Rulings, Split
from .records import EditRequest, Input, Outcome, Triple
from .report import figures, tables
from .report.counts import Key, Run, Section
from .reproduce import cells, checkpoints, run as runs, store
from .reproduce.many import series
from .reproduce.scales import PAPER, Evaluation, Scale, override
from .updates import Factors, Update, compose

CLAIMS = frozenset({"T", "M", "S", "A", "B", "E", "L", "D", "R", "U", "C"})
CLAIMS |= {"batched", "factored", "ranked", "resumable"}
EDITORS = PAPER_APPROACHES


# T, M, S ----------------------------------------------------------------------------------------------------------


def _corpus(rows: Sequence[Mapping[str, Any]]) -> ParallelCorpus:
    return ParallelCorpus.of(Example(row["fact"], row["language"], row["id"]) for row in rows)


def parallel(corpus: Any, example: str, languages: Any = None) -> list[str]:
    return [x.id for x in _corpus(corpus).parallel(example, languages)]


succ = scoring.succ


def hit(predicted: Any, expected: Any, is_mask: Any, role: str) -> bool:
    masked = [i for i, counts in enumerate(is_mask) if counts]
    return scoring.hit([predicted[i] for i in masked], [expected[i] for i in masked])


def _counts(rows: Any) -> scoring.Counts:
    return scoring.count(Outcome(**row) for row in rows)


def metrics(outcomes: Any, languages: Any = None) -> dict[str, float]:
    return scoring.scores(_counts(outcomes), languages).as_dict()


def breakdown(outcomes: Any, by: Any) -> dict[str, dict[str, float]]:
    return {language: s.as_dict() for language, s in scoring.breakdown(_counts(outcomes), by).items()}


def aggregate(runs: Any) -> dict[str, float]:
    return scoring.aggregate([scoring.Scores(run["acc"], run["con"], 0.0) for run in runs]).as_dict()


def evaluation_pairs(
    corpus: Any, edit_languages: Any, update_languages: Any, n_update: int, n_retain: int, seed: int, limit: Any = None
) -> list[dict[str, Any]]:
    pairs = sample_pairs(_corpus(corpus), edit_languages, update_languages, n_update, n_retain, seed, limit)
    return [{"edit": p.edit.id, "update": [x.id for x in p.update], "retain": [x.id for x in p.retain]} for p in pairs]


def training_triples(
    corpus: Any, languages: Any, n: int, seed: int, validate_every: int | None = None
) -> list[dict[str, str]]:
    examples = _corpus(corpus).within(languages)
    triples = []
    for step in range(n):
        (t,) = sample_triples(examples, 1, seed, step)
        triples.append({"edit": t.edit.id, "update": t.update.id, "retain": t.retain.id})
        if validate_every and (step + 1) % validate_every == 0:
            sample_pairs(examples, languages, languages, 1, 1, seed, limit=len(languages))
    return triples


# A, B -------------------------------------------------------------------------------------------------------------


def apply_mask(w: Any, m: Any) -> Any:
    return lime.apply_mask(torch.as_tensor(w), torch.as_tensor(m)).numpy()


def gate(log_alpha: Any, uniforms: Any = None, beta: float = 2 / 3, gamma: float = -0.1, zeta: float = 1.1) -> Any:
    u = None if uniforms is None else torch.as_tensor(uniforms)
    return lime.gate(torch.as_tensor(log_alpha), u, beta, gamma, zeta).numpy()


def gate_probability(log_alpha: Any, beta: float = 2 / 3, gamma: float = -0.1, zeta: float = 1.1) -> Any:
    return lime.gate_probability(torch.as_tensor(log_alpha), beta, gamma, zeta).numpy()


def _leaves(log_alpha: Mapping[str, Any], matrix: str) -> dict[str, torch.Tensor]:
    return {f"mask.{matrix}.{part}": torch.tensor(v, requires_grad=True) for part, v in log_alpha.items()}


def mask_penalty(log_alpha: Any, weight: float) -> tuple[float, dict[str, dict[str, Any]]]:
    leaves = {matrix: _leaves(parts, matrix) for matrix, parts in log_alpha.items()}
    log_alphas = lime.side_by_side({name: p for parts in leaves.values() for name, p in parts.items()})
    value = weight * lime.penalty(log_alphas)
    value.backward()
    gradient = {
        matrix: {part: leaves[matrix][f"mask.{matrix}.{part}"].grad.numpy() for part in parts}  # type: ignore[union-attr]
        for matrix, parts in log_alpha.items()
    }
    return value.item(), gradient


def _masked(leaves: Any, languages: Any, language: str, x: Any, delta: Any, seed: int | None) -> Any:
    rows = torch.tensor(lime.mask_rows([language], languages, "language"))
    draws = None if seed is None else lime.draw_uniforms(leaves, 1, seed)
    factors = {"w": (torch.as_tensor(x)[None], torch.as_tensor(delta)[None])}
    masked_x, masked_delta = lime.masked(factors, lime.gate(lime.side_by_side(leaves, rows), draws))["w"]
    return masked_x[0], masked_delta[0]


def mask_factors(log_alpha: Any, languages: Any, language: str, x: Any, delta: Any, seed: int | None = None) -> Any:
    with torch.no_grad():
        masked_x, masked_delta = _masked(_leaves(log_alpha, "w"), languages, language, x, delta, seed)
    return masked_x.numpy(), masked_delta.numpy()


def mask_factors_gradient(
    log_alpha: Any,
    languages: Any,
    language: str,
    x: Any,
    delta: Any,
    grad_x: Any,
    grad_delta: Any,
    seed: int | None = None,
) -> dict[str, Any]:
    leaves = _leaves(log_alpha, "w")
    masked_x, masked_delta = _masked(leaves, languages, language, x, delta, seed)
    ((torch.as_tensor(grad_x) * masked_x).sum() + (torch.as_tensor(grad_delta) * masked_delta).sum()).backward()
    return {part: leaves[f"mask.w.{part}"].grad.numpy() for part in log_alpha}  # type: ignore[union-attr]


def _structured(parameters: Mapping[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """{"mask.<matrix>.<part>": tensor} → {matrix: {part: tensor}}."""
    result: dict[str, dict[str, torch.Tensor]] = {}
    for name, p in parameters.items():
        matrix, part = name.removeprefix("mask.").rsplit(".", 1)
        result.setdefault(matrix, {})[part] = p
    return result


def initial_masks(shapes: Any, languages: Any) -> dict[str, dict[str, Any]]:
    structured = _structured(lime.init_masks(shapes, len(languages)))
    return {matrix: {part: p.numpy() for part, p in parts.items()} for matrix, parts in structured.items()}


def editor_shapes(shapes: Any, languages: Any, masks: str) -> dict[str, tuple[int, ...]]:
    raw = {name: torch.empty(m, n, device="meta") for name, (n, m) in shapes.items()}
    parameters = mend.init(raw, 1, mend.Settings(), 0)
    if masks != "none":
        rows = 1 if masks == "shared" else len(languages)
        parameters |= lime.init_masks(shapes, rows, like=torch.zeros((), device="meta"))
    return {name: tuple(p.shape) for name, p in parameters.items()}


# E, L -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Session:
    """An editor with the optimiser that trains it, where there is anything to train."""

    editor: Editor
    optimiser: torch.optim.Optimizer | None


def _input(row: Any) -> Input:
    return Input(tuple(row["input_ids"]), tuple(row["positions"]), tuple(row.get("token_type_ids", ())))


def _request(row: Any) -> EditRequest:
    return EditRequest(_input(row), tuple(row["labels"]), row["language"])


def _triples(rows: Any) -> list[Triple]:
    return [Triple(_request(row["edit"]), _input(row["update"]), _input(row["retain"])) for row in rows]


def make_editor(
    name: str,
    model: Any,
    edited: Sequence[str],
    languages: Sequence[str],
    masks: Any = "none",
    seed: int = 0,
    inner_lr: float | None = None,
    lr: float | None = None,
    rank: int | None = None,
) -> Session:
    given = {key: value for key, value in (("inner_lr", inner_lr), ("lr", lr), ("rank", rank)) if value is not None}
    settings = methods()[name].Settings(**given) if name in methods() else None
    editor = build(name, wrap(model, list(edited)), languages, masks, seed, settings)
    return Session(editor, adam(editor) if editor.parameters else None)


def parameters(session: Session) -> dict[str, torch.Tensor]:
    return session.editor.parameters


def mask_parameters(session: Session) -> dict[str, dict[str, torch.Tensor]]:
    return _structured(session.editor.mask_parameters())


def optimizer_groups(session: Session) -> list[list[str]]:
    if session.optimiser is None:
        return []
    names = {id(p): name for name, p in session.editor.parameters.items()}
    return [[names[id(p)] for p in group["params"]] for group in session.optimiser.param_groups]


def capture(session: Session, request: Any) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    factors = edit_factors(session.editor, [_request(request)])
    return {name: (x[0], delta[0]) for name, (x, delta) in factors.items()}


@torch.no_grad()
def transform(session: Session, matrix: str, x: Any, delta: Any, language: str) -> tuple[torch.Tensor, torch.Tensor]:
    editor = session.editor
    factors: Factors = {matrix: (x[None], delta[None])}
    if editor.masks != "none":
        rows = torch.tensor(lime.mask_rows([language], editor.languages, editor.masks))
        own = {name: p for name, p in editor.parameters.items() if name.startswith(f"mask.{matrix}.")}
        factors = lime.masked(factors, masks_of(replace(editor, parameters=own), rows, None))
    index = mend.index_in_shape(editor.backbone.shapes, matrix)
    x_tilde, delta_tilde = mend.transform(editor.parameters, index, *factors[matrix])
    return x_tilde[0], delta_tilde[0]


def trained_weights(session: Session) -> dict[str, tuple[str, torch.Tensor]]:
    names = {matrix: f"{editable_training.WEIGHT}{matrix}" for matrix in session.editor.backbone.edited}
    return {matrix: (name, session.editor.parameters[name].detach()) for matrix, name in names.items()}


@torch.no_grad()
def gates(session: Session, request: Any) -> dict[str, dict[str, Any]]:
    editor = session.editor
    batch = edit_batch(editor, [_request(request)], editor.backbone.trunk([_input(request)]))
    states = knowledge_editor.read(editor.parameters, *batch.condition(editor.settings.condition == "input+label"))
    found = knowledge_editor.gates(editor.parameters, editor.settings, editor.backbone.shapes, states)
    return {
        name: {
            "scale": g.scale[0, 0, 0],
            "a": (g.a_softmax[0, 0], g.a_free[0, 0]),
            "b": (g.b_softmax[0, 0], g.b_free[0, 0]),
        }
        for name, g in zip(editor.backbone.shapes, found, strict=True)
    }


@torch.no_grad()
def edit(session: Session, requests: Any) -> Update:
    return run_edit(session.editor, [_request(row) for row in requests])


@torch.no_grad()
def dense(session: Session, edits: Update, index: int) -> dict[str, torch.Tensor]:
    return edits.dense(index, session.editor.backbone.raw)


def factors(session: Session, edits: Update, index: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return {name: (u[index], v[index]) for name, (u, v) in edits.factors.items()}


@torch.no_grad()
def _logits(session: Session, inputs: Any, update: Update | None) -> list[torch.Tensor]:
    states = session.editor.backbone.trunk([_input(row) for row in inputs])
    logits = session.editor.backbone.upper(states, update)
    return list(logits.split([len(row["positions"]) for row in inputs]))


def raw_logits(session: Session, inputs: Any) -> list[torch.Tensor]:
    return _logits(session, inputs, None)


def edited_logits(session: Session, edits: Update, index: int, inputs: Any) -> list[torch.Tensor]:
    return _logits(session, inputs, edits[index])


def losses(session: Session, triples: Any, seed: int) -> tuple[dict[str, float], dict[str, torch.Tensor | None]]:
    parts = training_losses(session.editor, _triples(triples), seed, Objective())
    live = session.editor.parameters
    gradients = torch.autograd.grad(parts["total"], list(live.values()), allow_unused=True)
    return {name: value.item() for name, value in parts.items()}, dict(zip(live, gradients, strict=True))


def train_step(session: Session, triples: Any, seed: int) -> dict[str, float]:
    assert session.optimiser is not None, "finetuning trains nothing"
    return run_step(session.editor, session.optimiser, _triples(triples), seed, Objective(), clip=1.0)


def _shares(mask: Any) -> torch.Tensor:
    """1 / how many predicted positions the example of each has."""
    shares: torch.Tensor = (1 / mask.sum(1, keepdim=True)).expand(mask.shape)[mask]
    return shares


def rel_loss(logits: Any, labels: Any, mask: Any, weight: float) -> tuple[float, torch.Tensor]:
    logits = logits.detach().clone().requires_grad_()
    value = weight * objectives.rel_loss(logits[mask], labels[mask], _shares(mask)) / len(mask)
    value.backward()
    return value.item(), logits.grad


def loc_loss(edited: Any, raw: Any, mask: Any, weight: float) -> tuple[float, torch.Tensor, torch.Tensor | None]:
    edited, raw = (t.detach().clone().requires_grad_() for t in (edited, raw))
    value = weight * objectives.loc_loss(edited[mask], raw[mask], _shares(mask)) / len(mask)
    value.backward()
    return value.item(), edited.grad, raw.grad


# D ----------------------------------------------------------------------------------------------------------------


class _Tokenizer:
    """What the data modules use of a tokenizer, over a given function."""

    mask_token = "[MASK]"

    def __init__(self, tokenize: Callable[..., list[int]], mask: int = -1) -> None:
        self.tokenize = tokenize
        self.mask_token_id = mask

    def __call__(self, text: Any, *pair: Any, add_special_tokens: bool = True) -> dict[str, Any]:
        alone = isinstance(text, str)
        return {"input_ids": self.tokenize(text, *pair) if alone else list(map(self.tokenize, text, *pair))}


def split(folder: Any) -> dict[str, list[dict[str, str]]]:
    names = ("language", "relation", "sub_uri", "obj_uri", "sub_label", "obj_label")
    parts = facts_task.split(read_facts(folder))
    return {part: [{name: getattr(fact, name) for name in names} for fact in f.facts] for part, f in parts.items()}


def _row_of(x: Input) -> dict[str, list[int]]:
    row = {"input_ids": list(x.ids), "positions": list(x.positions)}
    return {**row, "token_type_ids": list(x.types)} if x.types else row


def fact_inputs(
    folder: Any, tokenize: Any, mask: int, edit: Any, update: str, retain: Any, seeds: Sequence[int]
) -> list[dict[str, Any]]:
    return _facts(folder, _Tokenizer(tokenize, mask), edit, update, retain, seeds)


def encoded_facts(
    folder: Any, tokenizer: Any, edit: Any, update: str, retain: Any, seeds: Sequence[int]
) -> list[dict[str, Any]]:
    return _facts(folder, load_tokenizer(tokenizer), edit, update, retain, seeds)


def _facts(folder: Any, tokenizer: Any, edit: Any, update: str, retain: Any, seeds: Sequence[int]) -> list[Any]:
    facts = read_facts(folder)
    # Candidates and lengths are those of all splits anyway; here the inputs are, too.
    task = replace(facts_task.tasks(facts, Reader(tokenizer), Rulings(), {})["train"], facts=facts)

    def example(place: Any, language: str) -> Example:
        fact = f"{place['relation']}/{place['subject']}"
        return Example(fact, language, f"{fact}/{language}")

    x_e, x_u, x_r = example(edit, edit["language"]), example(edit, update), example(retain, retain["language"])
    triples = []
    for seed in seeds:
        rng = derived_rng(seed, "inputs", x_e.id)
        request = task.request(x_e, rng)
        described = {**_row_of(request.input), "labels": list(request.labels), "language": request.language}
        updated, retained = task.update_input(x_u, x_e, request), task.retain_input(x_r, rng)
        triples.append({"edit": described, "update": _row_of(updated), "retain": _row_of(retained)})
    return triples


def _pairs(rows: Sequence[Any], tokenizer: Any, classes: tuple[int, ...] = (0, 1, 2)) -> PairTask:
    return PairTask("test", rows, tuple(sorted(rows[0]["premise"])), tokenizer, classes)


def _pair_edit(
    task: pairs_task.PairTask, edit: Example, retain: Sequence[Example], seed: int, *place: int
) -> dict[str, Any]:
    def at(example: Example) -> tuple[int, str]:
        return int(example.fact.rpartition("/")[2]), example.language

    request = task.request(edit, derived_rng(seed, "inputs", edit.id, *place))
    row, language = at(edit)
    described = {"row": row, "language": language, "input": _row_of(request.input), "label": request.labels[0]}
    return {**described, "retain": [at(x) for x in retain]}


def pair_edits(rows: Any, predictions: Any, tokenize: Any, n_retain: int, seed: int) -> list[dict[str, Any]]:
    return _edits_of_errors(_pairs(rows, _Tokenizer(tokenize)), predictions, n_retain, seed)


def encoded_pairs(rows: Any, predictions: Any, model: Any, n_retain: int, seed: int) -> list[dict[str, Any]]:
    pairs, config = Pairs({"test": rows}, (), NAMES), AutoConfig.from_pretrained(model)
    classes = pairs_task.class_numbers(pairs, config.label2id)
    return _edits_of_errors(_pairs(rows, load_tokenizer(model), classes), predictions, n_retain, seed)


def _edits_of_errors(task: PairTask, predictions: Any, n_retain: int, seed: int) -> list[dict[str, Any]]:
    # In a language that is not edited no answer counts as wrong.
    gold = [task.classes[row["label"]] for row in task.rows]
    table = np.array([predictions.get(code, gold) for code in task.languages]).T
    task = replace(task, wrong=pairs_task.wrong(task, table))
    edited = sorted(predictions)
    pairs = sample_pairs(task.corpus, edited, task.languages, 1, n_retain, seed, limit=None, editable=task.editable)
    return [_pair_edit(task, pair.edit, pair.retain, seed) for pair in pairs]


def pair_training(rows: Any, tokenize: Any, n: int, seed: int) -> list[dict[str, Any]]:
    task = _pairs(rows, _Tokenizer(tokenize))
    drawn = [sample_triples(task.corpus, 1, seed, step)[0] for step in range(n)]
    return [_pair_edit(task, t.edit, [t.retain], seed, step) for step, t in enumerate(drawn)]


def classifier_examples(splits: Any, tokenize: Any) -> list[dict[str, Any]]:
    rows = {name: list(part) for name, part in splits.items()}
    languages = tuple(sorted({code for part in rows.values() for row in part for code in row["premise"]}))
    pairs = Pairs(rows, languages, ("0", "1", "2"))
    return [{**_row_of(x), "label": label} for x, label in pairs_task.labelled(pairs, Reader(_Tokenizer(tokenize)))]


# R ----------------------------------------------------------------------------------------------------------------


def paper_preset() -> dict[str, float]:
    setup = PAPER.tasks["facts"]
    settings, full, english = setup.settings, setup.all_languages, setup.english_only
    return {
        **{f"{name}_lr": chosen.lr for name, chosen in settings.items()},
        "finetuning_steps": settings["finetuning"].steps,
        **{f"{name}_inner_lr": settings[name].inner_lr for name in ("editable_training", "mend")},
        "lambda_rel": setup.lambda_rel,
        "lambda_loc": setup.lambda_loc,
        "mask_lr": setup.mask_lr,
        "lambda_mask": setup.lambda_mask["sum"],
        "runs": PAPER.seeds,
        "max_steps": full.edits,
        "validate_every": full.validate_every,
        "patience": full.patience,
        "english_validate_every": english.validate_every,
        "english_patience": english.patience,
    }


def experiments(languages: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for i, table in enumerate(tables.TABLES):
        for cell in cells.grid(["facts"], EDITORS, list(TRAININGS), [0]):
            if not table.shows(cell.training):
                continue
            trained_on = (cell.trained.languages or languages) if cell.trained else ()
            row = {"table": i + 1, "editor": cell.approach, "masks": cell.masks, "input_languages": list(languages)}
            row |= {"training_languages": list(trained_on), "run": cell.name}
            rows.append({**row, "edit_languages": list(cells.evaluations(languages)[table.evaluation])})
    return rows


def record(
    facts: Any, model: Any, seed: int, rulings: Mapping[str, Any], settings: Mapping[str, float] | None = None
) -> dict[str, Any]:
    cell, ruled = cells.Cell("facts", "mend", "lime", seed), Rulings(**rulings)
    scale: Any = PAPER.tasks["facts"]
    for name, value in (settings or {}).items():
        scale = override(scale, _SETTINGS[name].format(penalty=ruled.penalty), repr(value))
    sources = cells.Sources(str(facts), str(model), None)
    experiment = runs.prepare("facts", [cell], replace(PAPER, tasks={"facts": scale}), ruled, sources)
    found = cells.cell_record(cell, experiment)
    taken = {"seed": found["cell"]["seed"], **{name: found[name] for name in ("code", "data", "model", "rulings")}}
    return {**taken, "configuration": found["scale"]}


#: Where a hyper-parameter stands in a task's scale.
_SETTINGS = {
    "mend_lr": "settings.mend.lr",
    "mend_inner_lr": "settings.mend.inner_lr",
    "lambda_rel": "lambda_rel",
    "lambda_loc": "lambda_loc",
    "mask_lr": "mask_lr",
    "lambda_mask": "lambda_mask.{penalty}",
    "max_steps": "all_languages.edits",
    "validate_every": "all_languages.validate_every",
    "patience": "all_languages.patience",
}


def table(runs: Sequence[Any], edit_language: str | None) -> list[dict[str, Any]]:
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
    ended = False
    while not ended and len(validations) * validate_every < max_steps:
        validations.append(((len(validations) + 1) * validate_every, succ[len(validations)]))
        judged, ended = early_stopping(validations, patience)
    return validations[-1][0], judged


mask_similarity = figures.preferred_cosines


# U ----------------------------------------------------------------------------------------------------------------

Note = tuple[Split, str, Example, Any]
#: What was made of examples since it was last looked at: split, role, example, and what became of it.
_NOTES: list[Note] = []


@dataclass(frozen=True)
class _Noted:
    """A split that notes what becomes of its examples, in the order in which a run asks for it."""

    task: Any
    split: Split

    @property
    def corpus(self) -> Any:
        return self.task.corpus

    @property
    def editable(self) -> Any:
        return self.task.editable

    def within(self, languages: Sequence[str]) -> _Noted:
        return replace(self, task=self.task.within(languages))

    def request(self, edit: Example, rng: np.random.Generator) -> EditRequest:
        made: EditRequest = self.task.request(edit, rng)
        _NOTES.append((self.split, "edit", edit, made))
        return made

    def update_input(self, update: Example, edit: Example, request: EditRequest) -> Input:
        made: Input = self.task.update_input(update, edit, request)
        _NOTES.append((self.split, "update", update, made))
        return made

    def retain_input(self, retain: Example, rng: np.random.Generator) -> Input:
        made: Input = self.task.retain_input(retain, rng)
        _NOTES.append((self.split, "retain", retain, made))
        return made


@cache
def _noting(kind: str) -> Dataset:
    """The data set of this kind under another name, whose splits note what is asked of them."""
    plain = find_data(kind)

    def tasks(*given: Any) -> dict[Split, Any]:
        return {split: _Noted(task, split) for split, task in plain.tasks(*given).items()}

    noting = replace(plain, name=f"noted_{kind}", tasks=tasks)
    register(noting)
    return noting


def _tables_of(rows: Mapping[str, Sequence[Any]], folder: Path) -> Path:
    """Sentence pairs as tables, one for each split."""
    folder.mkdir(exist_ok=True)
    for split, told in rows.items():
        lines = [
            {"id": f"{split}-{i}", "language": said, "premise": row["premise"][said], "hypothesis": text}
            | {"label": NAMES[row["label"]]}
            for i, row in enumerate(told)
            for said, text in zip(row["hypothesis"]["language"], row["hypothesis"]["translation"], strict=True)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def _told(example: Example) -> dict[str, str]:
    return {"fact": example.fact.removeprefix("train/").removeprefix("validation/").removeprefix("test/")} | {
        "language": example.language
    }


def _asked(notes: Sequence[Note], split: Split) -> dict[str, dict[str, Any]]:
    """The edits of a split among the notes by their number and id, each with the inputs that follow it."""
    found: dict[str, dict[str, Any]] = {}
    last: dict[str, Any] = {}
    for of, role, example, made in notes:
        if of == split and role == "edit":
            request = {**_row_of(made.input), "labels": list(made.labels), "language": made.language}
            last = {"edit": _told(example), "request": request, "update": [], "retain": []}
            found[f"{len(found)} {example.id}"] = last
        elif of == split:
            last[role].append((_told(example), _row_of(made)))
    return found


def _scale_of(editor: str, plan: Mapping[str, Any], kind: str) -> Scale:
    paper = PAPER.tasks[kind]
    known = {f.name for f in fields(paper.settings[editor])}
    given = {name: plan[name] for name in ("lr", "inner_lr") if name in known and plan[name] is not None}
    lengths = {name: plan[name] for name in ("edits", "batch", "validate_every", "patience")}
    schedule = replace(paper.all_languages, **lengths, checkpoint_every=2 * plan["batch"])
    scale = replace(
        paper,
        settings={editor: replace(paper.settings[editor], **given)},
        all_languages=schedule,
        english_only=schedule,
        validation=Evaluation(plan["n_update"], plan["n_retain"], plan["validation_limit"]),
        test=Evaluation(plan["n_update"], plan["n_retain"], plan["test_limit"]),
    )
    return replace(PAPER, tasks={kind: scale})


def run(
    data: Any,
    model: Any,
    editor: str,
    training: str | None,
    seed: int,
    plan: Mapping[str, Any],
    folder: Any,
    interrupt: int | None = None,
) -> dict[str, Any]:
    kind = "nli" if isinstance(data, Mapping) else "facts"
    source = _tables_of(data, Path(folder) / "pairs") if isinstance(data, Mapping) else data
    cell = cells.Cell(_noting(kind).name, editor, training, seed)
    sources = cells.Sources(str(source), str(model), None)
    experiment = runs.prepare(cell.task, [cell], _scale_of(editor, plan, kind), Rulings(), sources)
    start = runs.assemble(cell, experiment)[0]
    _NOTES.clear()
    steps, validation = list[Any](), list[Any]()
    asked: dict[str, dict[str, Any]] = {EN: {}, ALL: {}}
    for status in runs.run_cell(cell, experiment, Path(folder) / "cells"):
        validation = validation or list(_asked(_NOTES, "validation").values())
        if status.doing.startswith("train"):
            drawn = {"seed": step_seed(seed, status.done // plan["batch"]), "loss": status.loss}
            steps.append({"edits": status.done, "asked": list(_asked(_NOTES, "train").values()), **drawn})
        else:
            of = asked[status.doing.removeprefix("test ")]
            of.update({f"{len(of)} {key}": one for key, one in _asked(_NOTES, "test").items()})
        _NOTES.clear()
        if interrupt is not None and status.done >= interrupt:
            return {}
    done = cells.cell_folder(cell, experiment, Path(folder) / "cells")
    judged = [_session(one) for one in (start, checkpoints.load(done, model))]
    trace = {"start": judged[0], "editor": judged[1], "steps": steps, **_curve(done, plan["batch"], validation)}
    return {**trace, "evaluations": {"en": _judged(done, EN, asked[EN]), "all": _judged(done, ALL, asked[ALL])}}


def _session(editor: Any) -> Session:
    return Session(editor, adam(editor) if editor.parameters else None)


def _curve(folder: Path, batch: int, asked: Sequence[Any]) -> dict[str, Any]:
    """The validations of a run, where it stopped and what it kept."""
    path = folder / "curve.json"
    reports = results.read_json(path) if path.is_file() else []
    told = [{"edits": r["step"] * batch, "asked": asked, **{n: r[n] for n in ("acc", "con", "succ")}} for r in reports]
    best = [r["step"] * batch for r in reports if r["best"]]
    return {"validations": told, "stopped": told[-1]["edits"] if told else 0, "judged": best[-1] if best else 0}


def _judged(folder: Path, name: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The stored outcomes of one evaluation, beside what was asked."""
    hits: dict[str, dict[str, list[bool]]] = {}
    for row in pq.read_table(folder / "rows.parquet").to_pylist():
        if row["evaluation"] == name:
            hits.setdefault(row["edit"], {"update": [], "retain": []})[row["role"]].append(row["hit"])
    edits = [
        {**one, "update_hits": own["update"], "retain_hits": own["retain"]}
        for key, one in asked.items()
        if (own := hits.get(key.rpartition(" ")[2])) is not None
    ]
    return {"edits": edits, **results.read_metrics(folder)[name].as_dict()}


def preferences(session: Session) -> tuple[list[str], Any]:
    with tempfile.TemporaryDirectory() as folder:
        path, languages = Path(folder) / results.EDITOR, list(session.editor.languages)
        store.save_parameters(path, session.editor.parameters, {"languages": languages})
        found, parameters = figures.mask_parameters(path)
    return found, figures.preferred_cosines(parameters)


# C ----------------------------------------------------------------------------------------------------------------


def compose_edits(session: Session, edits: Sequence[Update]) -> Update:
    return compose(edits)


def edit_after(session: Session, before: Update, requests: Any) -> Update:
    return run_edit(session.editor, [_request(row) for row in requests], at=before)


def drop_edit(session: Session, edits: Update, index: int) -> Update:
    kept = [str(i) for i in range(edits.edits)]
    saved = saving.Saved(tuple(edits[i] for i in range(edits.edits)), tuple({"edit": i} for i in kept), {})
    return compose(saving.drop(saved, [index + 1]).updates)


def save_edited(session: Session, edits: Update, index: int, folder: Path) -> None:
    backbone = session.editor.backbone
    with tempfile.TemporaryDirectory() as raw:
        backbone.model.save_pretrained(raw)
        saving.save_model(edits[index], backbone, raw, folder)


def edit_series(
    corpus: Any, edit_languages: Any, update_languages: Any, n_edits: int, n_update: int, n_retain: int, seed: int
) -> dict[str, Any]:
    made, kept = series(_corpus(corpus), edit_languages, update_languages, n_edits, n_update, n_retain, seed)
    edits = [{"edit": pair.edit.id, "update": [x.id for x in pair.update]} for pair in made]
    return {"edits": edits, "retain": [x.id for x in kept]}


def series_metrics(outcomes: Sequence[Any]) -> dict[str, float]:
    last = max(row["edit"] for row in outcomes)
    kept = [o["hit"] for o in outcomes if not o["edit"] and o["made"] == last]

    def acc(rows: Sequence[Any]) -> float:
        told = [Outcome(str(o["edit"]), o["edit_language"], "update", o["language"], o["hit"]) for o in rows]
        retained = [replace(o, role="retain") for o in told]  # scores want both roles
        return scoring.scores(scoring.count([*told, *retained])).acc

    own = [o for o in outcomes if o["edit"]]
    found = {"efficacy": acc([o for o in own if o["made"] == o["edit"]])}
    return {**found, "retention": acc([o for o in own if o["made"] == last]), "con": sum(kept) / len(kept)}
