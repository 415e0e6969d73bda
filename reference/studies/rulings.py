"""What each ruling changes, measured at tiny scale on facts: the numbers of spec_tests/RULINGS.md.

    python -m reference.studies.rulings                  # trains what is missing, writes runs/rulings/rulings.json
    python -m reference.studies.rulings --only ascent    # this measurement alone, beside those of the same code
    python -m reference.studies.rulings --publish        # writes results/rulings.json, from which RULINGS.md is written
    python -m reference.studies.rulings --table          # the table of RULINGS.md, from results/rulings.json

It is part neither of the reference nor of what judges it. Trained editors are kept in runs/rulings; a second run trains
none. Percent and percentage points throughout.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lime_editing import results
from lime_editing.backbone import Backbone, load, load_tokenizer
from lime_editing.core import editing, masks, metrics
from lime_editing.core.evaluation import evaluate
from lime_editing.core.losses import rel_loss
from lime_editing.core.metrics import Counts
from lime_editing.core.sampling import derived_rng, evaluation_pairs
from lime_editing.core.training import assign
from lime_editing.data import Reader
from lime_editing.data.facts.read import Facts, read
from lime_editing.data.facts.task import FactTask, tasks
from lime_editing.editors import Edits, Gradient, finetuning, mend
from lime_editing.names import ALL, EN, EVALUATIONS, Positions, Rulings, Split
from lime_editing.records import EditRequest
from lime_editing.report import bootstrap, published
from lime_editing.report.counts import own_and_other
from lime_editing.reproduce import store
from lime_editing.reproduce.cells import Cell, Experiment, Sources, cell_folder, settings_of
from lime_editing.reproduce.processes import quiet
from lime_editing.reproduce.run import prepare, run_cell
from lime_editing.reproduce.scales import TINY, override
from lime_editing.updates import Update

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "results/rulings.json"
SEEDS = 3
SOURCES = Sources(str(ROOT / "fixtures/facts/mlama1.1"), str(ROOT / "fixtures/raw_model"), None)
PAPER = Rulings()

Numbers = Mapping[str, Any]
Judged = Mapping[str, Sequence[Counts]]  # evaluation → a run for each seed
Patch = Callable[[], Any]


@dataclass(frozen=True)
class Way:
    """One way to train an editor: the rulings, values of the scale, and what no ruling can say, as a patch."""

    approach: str = "mend"
    training: str | None = "all"
    rulings: Rulings = PAPER
    values: tuple[tuple[str, str], ...] = ()
    patch: Patch | None = None


@dataclass(frozen=True)
class Bench:
    """Where trained editors are kept; what is there already is not trained again."""

    cells: Path

    def train(self, way: Way) -> list[Path]:
        """The cells of all seeds; an approach that is not trained has one."""
        experiment, folders = _experiment(way), []
        root = self.cells / way.patch.__name__ if way.patch else self.cells
        for seed in range(SEEDS if way.training else 1):
            with way.patch() if way.patch else nullcontext():
                for _ in run_cell(_cell(way, seed), experiment, root):
                    pass
            folders.append(cell_folder(_cell(way, seed), experiment, root))
            print(f"  {folders[-1].relative_to(self.cells)}", flush=True)
        return folders

    def outcomes(self, way: Way) -> Judged:
        """The stored outcomes of all seeds."""
        counted = [results.read_rows(folder / "rows.parquet") for folder in self.train(way)]
        return {name: [run[name] for run in counted] for name in EVALUATIONS}

    def again(self, way: Way, name: str, task: FactTask, con_positions: Positions = "mask") -> Judged:
        """The same editors, judged on another task or at other positions."""
        counted = []
        for folder in self.train(way):
            path = self.cells / "again" / f"{folder.name}-{name}.parquet"
            if not path.exists():
                subject = self.editor(way, folder)
                judged = {
                    e: evaluate(subject, task, pairs, 0, con_positions=con_positions) for e, pairs in _pairs(task)
                }
                results.write_rows(path, judged)
            counted.append(results.read_rows(path))
        return {evaluation: [run[evaluation] for run in counted] for evaluation in EVALUATIONS}

    def editor(self, way: Way, folder: Path | None = None) -> editing.Editor:
        """An editor, untrained or as a cell left it."""
        cell, experiment = _cell(way, 0), _experiment(way)
        settings, scale = settings_of(cell, experiment), way.rulings.mask_scale
        editor = editing.make_editor(
            way.approach, self.backbone, self.languages, cell.masks, settings=settings, mask_scale=scale
        )
        if folder is not None and editor.parameters:
            assign(editor.parameters, store.load_parameters(folder / "editor.safetensors", editor.parameters))
        return editor

    @cached_property
    def backbone(self) -> Backbone:
        return load(SOURCES.model, TINY.tasks["facts"].edited_layers)

    @cached_property
    def facts(self) -> Facts:
        return read(SOURCES.data)

    @property
    def languages(self) -> tuple[str, ...]:
        return self.facts.languages

    @cached_property
    def tasks(self) -> Mapping[Split, FactTask]:
        return tasks(self.facts, Reader(load_tokenizer(SOURCES.model)), PAPER, {})

    @cached_property
    def requests(self) -> list[EditRequest]:
        """300 edits of the test split, in all languages."""
        pairs = evaluation_pairs(self.tasks["test"].corpus, self.languages, self.languages, 1, 1, 0, 300)
        return [self.tasks["test"].request(pair.edit, derived_rng(0, pair.edit.id)) for pair in pairs]


def _cell(way: Way, seed: int) -> Cell:
    return Cell("facts", way.approach, way.training, seed)


@cache
def _experiment(way: Way) -> Experiment:
    scale = TINY
    for path, value in way.values:
        changed = override(scale.tasks["facts"], path, value)
        scale = replace(scale, name="tiny-changed", tasks={**scale.tasks, "facts": changed})
    return prepare("facts", [_cell(way, 0)], scale, way.rulings, SOURCES)


def _pairs(task: FactTask) -> Iterator[tuple[str, Any]]:
    plan, languages = TINY.tasks["facts"].test, task.corpus.languages
    for name, edited in EVALUATIONS.items():
        drawn = (edited or languages, languages, plan.n_update, plan.n_retain, 0, plan.edits)
        yield name, evaluation_pairs(task.corpus, *drawn)


def compared(required: Judged, alternative: Judged) -> Numbers:
    """acc, con and succ of both, and the paired difference of succ, alternative minus required."""
    result = {}
    for name in EVALUATIONS:
        difference = bootstrap.succ_difference(alternative[name], required[name])
        result[name] = {
            "required": _mean(required[name]),
            "alternative": _mean(alternative[name]),
            "difference": {part: _percent(getattr(difference, part)) for part in ("value", "low", "high")},
        }
    return result


def _mean(judged: Sequence[Counts]) -> Numbers:
    """Means of the seeds, and succ of each."""
    each = [metrics.scores(run) for run in judged]
    mean = metrics.aggregate(each).as_dict()
    return {**{name: _percent(value) for name, value in mean.items()}, "seeds": [_percent(s.succ) for s in each]}


def _percent(value: float) -> float:
    return round(100 * value, 2)


BASE, LIME = Way(), Way(training="lime")
SUM_OF_1 = (("lambda_mask.sum", "1.0"),)
NO_GRADIENT = (("lambda_mask.sum", "0.0"),)


def kl_direction(bench: Bench) -> Numbers:
    """L2: trained with either direction."""
    return {"trained": compared(bench.outcomes(BASE), bench.outcomes(Way(rulings=Rulings(kl_direction="released"))))}


def penalty_gradient(bench: Bench) -> Numbers:
    """A5: the penalty detached, as if its weight were 0."""
    return {
        "no gradient": compared(bench.outcomes(LIME), bench.outcomes(replace(LIME, values=NO_GRADIENT))),
        "open gates": {
            "with": _open(bench.train(LIME)),
            "without": _open(bench.train(replace(LIME, values=NO_GRADIENT))),
        },
    }


def penalty(bench: Bench) -> Numbers:
    """A5: the sum against the mean, both with the paper's weight of 1.

    The mean's gradient is that of the sum with a weight of one over the number of gates, the tiny scale's own: LIME.
    """
    total = replace(LIME, values=SUM_OF_1)
    gates = sum(p.numel() for p in bench.editor(LIME).mask_parameters().values())
    return {
        "sum against mean": compared(bench.outcomes(total), bench.outcomes(LIME)),
        "sum against no masks": compared(bench.outcomes(BASE), bench.outcomes(total)),
        "open gates": {"sum": _open(bench.train(total)), "mean": _open(bench.train(LIME))},
        "gates": gates,
    }


def _open(folders: Sequence[Path]) -> float:
    """The share of gates that are not zero in the judged editors, in percent."""
    best = [[r for r in results.read_json(folder / "curve.json") if r["best"]][-1] for folder in folders]
    return _percent(fmean(report["open_gates"] for report in best))


def mask_scale(bench: Bench) -> Numbers:
    """A2: the mask is the gate, or the gate times a learned scale."""
    way = Way(training="lime", rulings=Rulings(mask_scale="learned"))
    base, learned = bench.outcomes(BASE), bench.outcomes(way)
    largest = []
    for folder in bench.train(way):
        p = bench.editor(way, folder).mask_parameters()
        largest += [
            (masks.gate(p[name]) * p[f"{name}_scale"]).abs().max().item() for name in p if not name.endswith("_scale")
        ]
    return {
        "learned scale": compared(bench.outcomes(LIME), learned),
        "learned scale against no masks": compared(base, learned),
        "largest mask": round(max(largest), 2),
    }


def con_positions(bench: Bench) -> Numbers:
    """M7: the same editors, con at masks and at every position."""
    tuned, test = Way("finetuning", None), bench.tasks["test"]
    return {
        "mend": compared(bench.outcomes(BASE), bench.again(BASE, "positions", test, "all")),
        "finetuning": compared(bench.outcomes(tuned), bench.again(tuned, "positions", test, "all")),
    }


def subject(bench: Bench) -> Numbers:
    """D6: trained and judged on either x_u, and the editors of the required one judged on the other."""
    other = Way(rulings=Rulings(subject="edit-language"))
    task = replace(bench.tasks["test"], subject="edit-language")
    return {
        "trained and judged": compared(bench.outcomes(BASE), bench.outcomes(other)),
        "judged alone": compared(bench.outcomes(BASE), bench.again(BASE, "subject", task)),
    }


def knowledge_editor_condition(bench: Bench) -> Numbers:
    """E5: with and without a look at y_e."""
    way = Way("knowledge_editor")
    blind = replace(way, rulings=Rulings(knowledge_editor_condition="input"))
    return {"trained": compared(bench.outcomes(way), bench.outcomes(blind))}


@contextmanager
def per_token() -> Iterator[None]:
    """A gate for each token of an edit, drawn where the required one is drawn once."""
    once = masks.masked

    def masked(
        parameters: Mapping[str, Tensor],
        name: str,
        rows: Sequence[int],
        values: Tensor,
        uniforms: Mapping[str, Tensor] | None,
    ) -> Tensor:
        if uniforms is None:
            return once(parameters, name, rows, values, None)
        drawn = _per_token(uniforms[name], values.shape[1])
        return masks.apply_mask(values, masks.gate(parameters[name][list(rows)][:, None], drawn))

    with mock.patch.object(masks, "masked", masked):
        yield


def _per_token(uniforms: Tensor, tokens: int) -> Tensor:
    """(E, T, width) uniforms that the (E, width) ones decide."""
    generator = torch.Generator().manual_seed(int(uniforms.double().sum().item() * 2**20))
    drawn = torch.rand(len(uniforms), tokens, uniforms.shape[1], generator=generator, dtype=torch.float64)
    return drawn.clamp(1e-6, 1 - 1e-6).to(uniforms)


def gates_per_token(bench: Bench) -> Numbers:
    """A3: how far the gradient that tokens mask one by one is from what their mean mask gives."""
    editor = bench.editor(LIME)
    distances = []
    factors = editing.edit_factors(editor, bench.requests)
    draws = masks.draw_uniforms(editor.parameters, len(bench.requests), 0)
    for name, (x, delta) in factors.items():
        m_x, m_delta = (
            masks.gate(torch.zeros(()), _per_token(draws[f"mask.{name}.{part}"], x.shape[1])) for part in ("x", "delta")
        )
        token_wise = masks.apply_mask(delta, m_delta).mT @ masks.apply_mask(x, m_x)
        # The full mask that the tokens' own have on average.
        live = (delta != 0).any(-1, keepdim=True).to(delta)
        mean_x, mean_delta = ((m * live).sum(1) / live.sum(1) for m in (m_x, m_delta))
        whole = (1 + mean_delta)[:, :, None] * (1 + mean_x)[:, None] * (delta.mT @ x)
        distances += ((token_wise - whole).flatten(1).norm(dim=1) / whole.flatten(1).norm(dim=1)).tolist()
    return {"distance": _percent(fmean(distances))}


def trained_per_token(bench: Bench) -> Numbers:
    """A3: trained so; at test time no gate is drawn."""
    return {"trained": compared(bench.outcomes(LIME), bench.outcomes(replace(LIME, patch=per_token)))}


@contextmanager
def plain_layer_norm() -> Iterator[None]:
    """An ordinary LayerNorm, with its eps of 1e-5."""

    def normalise(rows: Tensor, parameters: Mapping[str, Tensor], name: str) -> Tensor:
        return F.layer_norm(rows, rows.shape[-1:], parameters[f"{name}.weight"], parameters[f"{name}.bias"])

    with mock.patch.object(mend, "normalise", normalise):
        yield


def layer_norm(bench: Bench) -> Numbers:
    """E6: the size of a normalised δ (1 is normal), and the change of it under δ·1e-4."""
    editor = bench.editor(BASE)
    size: dict[str, list[float]] = {"required": [], "alternative": []}
    change: dict[str, list[float]] = {"required": [], "alternative": []}
    variance = []
    for _, delta in editing.edit_factors(editor, bench.requests).values():
        rows = delta[(delta != 0).any(-1)]
        own = {"norm.weight": torch.ones(rows.shape[-1]), "norm.bias": torch.zeros(rows.shape[-1])}
        variance.append(rows.var(-1, unbiased=False).median().item())
        for name, way in (("required", nullcontext), ("alternative", plain_layer_norm)):
            with way():
                normal, small = mend.normalise(rows, own, "norm"), mend.normalise(1e-4 * rows, own, "norm")
            size[name].append(normal.std(-1, unbiased=False).median().item())
            change[name].append(((normal - small).norm(dim=-1) / normal.norm(dim=-1)).median().item())
    return {
        "variance of δ": [float(f"{v:.1e}") for v in (min(variance), max(variance))],
        "size": {name: [round(min(values), 3), round(max(values), 3)] for name, values in size.items()},
        "change": {name: _percent(max(values)) for name, values in change.items()},
    }


def trained_with_eps(bench: Bench) -> Numbers:
    """E6: trained so."""
    return {"trained": compared(bench.outcomes(BASE), bench.outcomes(Way(patch=plain_layer_norm)))}


def ascent(bench: Bench) -> Numbers:
    """E11: the share of untrained edits, with an inner learning rate of 1e-5, whose loss at x_e falls."""
    inner = (("settings.mend.inner_lr", "1e-5"), ("settings.editable_training.inner_lr", "1e-5"))
    states = bench.backbone.trunk([request.input for request in bench.requests])
    labels = editing.labels_of(bench.requests, states)
    result: dict[str, float] = {"edits": len(bench.requests)}
    with torch.no_grad():
        before = rel_loss(bench.backbone.upper(states), labels, states.example)
        for approach in ("mend", "editable_training"):
            update = editing.edit(bench.editor(Way(approach, values=inner)), bench.requests)
            for name, sign in (("descent", 1), ("ascent", -1)):
                turned = replace(update, factors={key: (u, sign * v) for key, (u, v) in update.factors.items()})
                after = rel_loss(bench.backbone.upper(states, turned), labels, states.example)
                result[f"{approach} {name}"] = _percent((after < before).double().mean().item())
    return result


@dataclass(frozen=True)
class Told:
    """Edits that say of themselves when they are done: after `steps` steps each, or never; `seen` notes the truth."""

    edits: Edits
    numbers: Tensor
    seen: list[Tensor]
    steps: Tensor | None
    taken: int = 0

    def gradient(self, at: Update | None = None, differentiable: bool = False) -> Gradient:
        plain = self.edits.gradient(at, differentiable)
        step = len(self.seen)
        correct = plain.correct if self.steps is None else self.steps[self.numbers] <= step
        self.seen.append(self.numbers[~correct])
        return Gradient(plain.factors, correct)

    def condition(self, labels: bool) -> tuple[Tensor, Tensor]:
        return self.edits.condition(labels)

    def take(self, chosen: Tensor) -> Told:
        return replace(self, edits=self.edits.take(chosen), numbers=self.numbers[chosen])


def steps_taken(parameters: Mapping[str, Tensor], settings: finetuning.Settings, edits: Edits, count: int) -> Tensor:
    """How many of its steps each of `count` edits takes."""
    seen: list[Tensor] = []
    finetuning.update(parameters, settings, Told(edits, torch.arange(count), seen, None))
    # The look after the hundredth step is followed by none.
    return torch.bincount(torch.cat(seen[: settings.steps]), minlength=count)


@contextmanager
def without_last_step() -> Iterator[None]:
    """Finetuning that hands back the parameters from before its last step: done once more, a step shorter."""
    whole = finetuning.update

    def update(parameters: Mapping[str, Tensor], settings: finetuning.Settings, edits: editing.EditBatch) -> Update:
        count = len(edits.requests)
        with mock.patch.object(finetuning, "update", whole):
            taken = steps_taken(parameters, settings, edits, count)
        return whole(parameters, settings, Told(edits, torch.arange(count), [], (taken - 1).clamp(min=0)))

    with mock.patch.object(finetuning, "update", update):
        yield


def last_step(bench: Bench) -> Numbers:
    """E12, E3: finetuning with and without its last step; how many steps edits take."""
    tuned = Way("finetuning", None)
    required, alternative = bench.outcomes(tuned), bench.outcomes(replace(tuned, patch=without_last_step))
    editor = bench.editor(tuned)
    states = bench.backbone.trunk([request.input for request in bench.requests])
    batch = editing.EditBatch(editor, tuple(bench.requests), states)
    steps = steps_taken({}, editor.settings, batch, len(bench.requests)).numpy()
    own = {}
    for name, judged in (("required", required), ("alternative", alternative)):
        _, of, rate = metrics.rates(judged[ALL][0], own_and_other)
        own[name] = _percent(float(np.mean([np.nanmean(rate[of == i, 0]) for i in range(len(set(of.tolist())))])))
    return {
        "judged": compared(required, alternative),
        "acc in the edit's own language": own,
        "edits": len(steps),
        "no step": _percent(float((steps == 0).mean())),
        "median of steps": float(np.median(steps)),
        "all hundred steps": _percent(float((steps == 100).mean())),
    }


def averages(bench: Bench) -> Numbers:
    """M5, M6, M9 on stored outcomes of MEND and LiME: what other averages would print."""
    result: dict[str, Any] = {}
    gaps = []
    for label, way in (("base", BASE), ("lime", LIME)):
        rows: dict[str, list[float]] = {}
        for run in bench.outcomes(way)[ALL]:
            _, of, rate = metrics.rates(run, metrics.in_all)
            hits, asked = run.hits.sum((0, 2)), run.asked.sum((0, 2))
            by_language = [np.nanmean(rate[of == i], axis=0) for i in range(of.max() + 1)]
            macro, micro = np.mean(by_language, axis=0), np.nanmean(rate, axis=0)
            values = {
                "required": metrics.succ(*macro),
                "M5: every edit weighs the same": metrics.succ(*micro),
                "M4: every input weighs the same": metrics.succ(*(hits / asked)),
                "M6: mean of the languages' succ": fmean(metrics.succ(*pair) for pair in by_language),
                "M6: mean of the edits' succ": fmean(metrics.succ(*pair) for pair in rate.tolist()),
            }
            for name, value in values.items():
                rows.setdefault(name, []).append(value)
        result[label] = {name: _percent(fmean(values)) for name, values in rows.items()}
        for name in EVALUATIONS:
            each = [metrics.scores(run) for run in bench.outcomes(way)[name]]
            gaps.append(abs(fmean(s.succ for s in each) - metrics.aggregate(each).succ))
    result["M9: mean of succ against succ of means"] = [round(100 * gap, 4) for gap in (min(gaps), max(gaps))]
    printed = list(published.PRINTED.values())
    result["printed rows"] = len(printed)
    result["largest gap of a printed row"] = round(
        100 * max(abs(r.succ - metrics.succ(r.acc, r.con)) for r in printed), 3
    )
    return result


def entities(bench: Bench) -> Numbers:
    """D4, D5: how far the distributions are apart if an entity counts as often as it is in facts, and not once."""
    test, by_facts = bench.tasks["test"], _by_facts(bench)
    apart = [_distance(by_facts.candidates[key], test.candidates[key]) for key in by_facts.candidates]
    lengths = [_distance(by_facts.lengths[language], test.lengths[language]) for language in bench.languages]
    names = [(len(set(test.candidates[key])), len(by_facts.candidates[key])) for key in by_facts.candidates]
    mean = {
        name: round(fmean(fmean(task.lengths[language]) for language in bench.languages), 2)
        for name, task in (("required", test), ("alternative", by_facts))
    }
    return {
        "D4: distance of labels": _percent(fmean(apart)),
        "D4: entities and facts": [sum(column) for column in zip(*names, strict=True)],
        "D5: distance of lengths": _percent(fmean(lengths)),
        "D5: masks of a retain input": mean,
    }


def judged_by_facts(bench: Bench) -> Numbers:
    """D4, D5: the same editors, judged so."""
    base, test, by_facts = bench.outcomes(BASE), bench.tasks["test"], _by_facts(bench)
    return {
        "D4": compared(base, bench.again(BASE, "labels", replace(test, candidates=by_facts.candidates))),
        "D5": compared(base, bench.again(BASE, "lengths", replace(test, lengths=by_facts.lengths))),
    }


def _by_facts(bench: Bench) -> FactTask:
    """The test split, with labels and lengths as often as they are in facts."""
    tokenizer, test = load_tokenizer(SOURCES.model), bench.tasks["test"]
    labels: dict[tuple[str, str], list[tuple[int, ...]]] = {}
    for fact in bench.facts.facts:
        ids = tuple(tokenizer(fact.obj_label, add_special_tokens=False)["input_ids"])
        labels.setdefault((fact.language, fact.relation), []).append(ids)
    candidates = {key: tuple(sorted(found)) for key, found in labels.items()}
    lengths = {
        language: tuple(sorted(len(ids) for (of, _), found in labels.items() if of == language for ids in found))
        for language in bench.languages
    }
    return replace(test, candidates=candidates, lengths=lengths)


def _distance(ours: Sequence[Any], theirs: Sequence[Any]) -> float:
    """Total variation: the share of draws that would have to change."""
    names = {*ours, *theirs}
    return sum(abs(ours.count(n) / len(ours) - theirs.count(n) / len(theirs)) for n in names) / 2


def sampling(bench: Bench) -> Numbers:
    """S6, T1: the languages' shares of training edits, uniform over examples; facts that are one input twice."""
    corpus, facts = bench.tasks["train"].corpus, bench.facts.facts
    shares = [len(corpus.within([language]).examples) / len(corpus.examples) for language in bench.languages]
    return {
        "smallest share": _percent(min(shares)),
        "largest share": _percent(max(shares)),
        "uniform share": _percent(1 / len(shares)),
        "facts": len(facts),
        "facts that repeat an input": len(facts) - len({(f.language, f.relation, f.sub_uri) for f in facts}),
    }


MEASUREMENTS: Mapping[str, Callable[[Bench], Numbers]] = {
    "averages": averages,
    "sampling": sampling,
    "ascent": ascent,
    "layer_norm": layer_norm,
    "gates_per_token": gates_per_token,
    "entities": entities,
    "con_positions": con_positions,
    "last_step": last_step,
    "kl_direction": kl_direction,
    "penalty_gradient": penalty_gradient,
    "mask_scale": mask_scale,
    "subject": subject,
    "knowledge_editor_condition": knowledge_editor_condition,
    "penalty": penalty,
    "judged_by_facts": judged_by_facts,
    "trained_with_eps": trained_with_eps,
    "trained_per_token": trained_per_token,
}

#: Clause, what is compared, and where it stands in the file: a row of RULINGS.md's table for each.
ROWS = (
    ("M7", "con at every position; MEND", "con_positions", "mend"),
    ("M7", "con at every position; Finetuning", "con_positions", "finetuning"),
    ("D6", "subject of the edit's language; MEND", "subject", "trained and judged"),
    ("D6", "judged so alone; MEND", "subject", "judged alone"),
    ("L2", "KL(raw ‖ edited); MEND", "kl_direction", "trained"),
    ("A5", "penalty without gradient; MEND + LiME", "penalty_gradient", "no gradient"),
    ("A5", "mean, not sum, with weight 1; MEND + LiME", "penalty", "sum against mean"),
    ("A5", "(sum with weight 1, not MEND without masks)", "penalty", "sum against no masks"),
    ("A2", "gate times learned scale; MEND + LiME", "mask_scale", "learned scale"),
    ("A2", "(gate times learned scale, not MEND without masks)", "mask_scale", "learned scale against no masks"),
    ("A3", "gates drawn per token; MEND + LiME", "trained_per_token", "trained"),
    ("E5", "`y_e` unread; KnowledgeEditor", "knowledge_editor_condition", "trained"),
    ("E6", "LayerNorm's eps of 1e-5; MEND", "trained_with_eps", "trained"),
    ("E12", "last step lost; Finetuning", "last_step", "judged"),
    ("D4", "entities drawn as often as in facts; MEND", "judged_by_facts", "D4"),
    ("D5", "lengths drawn as often as in facts; MEND", "judged_by_facts", "D5"),
)


def table(measured: Mapping[str, Numbers]) -> str:
    """The Markdown table of what was trained or judged both ways."""
    lines = [
        "| clause | what is done instead; editor | evaluation | acc | con | succ | succ, points [95%] |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for clause, what, name, part in ROWS:
        if name not in measured:
            continue
        for evaluation in EVALUATIONS:
            found = measured[name][part][evaluation]
            pairs = [f"{found['required'][k]:.1f} → {found['alternative'][k]:.1f}" for k in ("acc", "con", "succ")]
            d = found["difference"]
            points = f"{d['value']:+.1f} [{d['low']:.1f}, {d['high']:.1f}]".replace("-", "−")
            named = (clause, what) if evaluation == EN else ("", "")
            lines.append(f"| {' | '.join((*named, evaluation, *pairs, points))} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="What each ruling changes, at tiny scale.")
    parser.add_argument("--only", default=",".join(MEASUREMENTS), help=f"of {', '.join(MEASUREMENTS)} (default: all)")
    parser.add_argument("--cells", type=Path, default=ROOT / "runs/rulings", help="where trained editors are kept")
    parser.add_argument("--publish", action="store_true", help="write results/rulings.json (default: beside the cells)")
    parser.add_argument("--table", action="store_true", help="print the table of the stored numbers")
    options = parser.parse_args()
    if options.table:
        print(table(results.read_json(PUBLISHED)["measurements"]))
        return
    path = PUBLISHED if options.publish else options.cells / "rulings.json"
    torch.set_num_threads(1)
    quiet()
    bench = Bench(options.cells)
    record = _experiment(BASE).record
    about = {
        "scale": record["scale"]["about"],
        "task": "facts",
        "seeds": SEEDS,
        "command": "python -m reference.studies.rulings",
        **{name: record[name] for name in ("machine", "code", "data", "model")},
    }
    stored = results.read_json(path) if path.exists() else {}
    # What other code has measured does not stand beside what this has.
    measured = dict(stored["measurements"]) if stored.get("about") == about else {}
    for name in options.only.split(","):
        print(name, flush=True)
        measured[name] = MEASUREMENTS[name](bench)
        ordered = {known: measured[known] for known in MEASUREMENTS if known in measured}
        results.write_json(path, {"about": about, "measurements": ordered})


if __name__ == "__main__":
    main()
