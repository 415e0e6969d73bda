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
from lime_editing.core.metrics import Counts
from lime_editing.core.sampling import derived_rng, evaluation_pairs
from lime_editing.core.training import assign
from lime_editing.data import Reader
from lime_editing.data.facts.read import Facts, read
from lime_editing.data.facts.task import FactTask, tasks
from lime_editing.editors import mend
from lime_editing.names import ALL, EN, EVALUATIONS, Positions, Rulings, Split
from lime_editing.records import EditRequest
from lime_editing.report import bootstrap, tables
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


def gates_per_token(bench: Bench) -> Numbers:
    """A3: how far the gradient that tokens mask one by one is from what their mean mask gives."""
    editor = bench.editor(LIME)
    generator, distances = torch.Generator().manual_seed(0), []

    def drawn(rows: Tensor) -> Tensor:
        return masks.gate(torch.zeros(()), torch.rand(rows.shape, generator=generator).clamp(1e-6, 1 - 1e-6))

    for x, delta in editing.edit_factors(editor, bench.requests).values():
        m_x, m_delta = drawn(x), drawn(delta)
        token_wise = masks.apply_mask(delta, m_delta).mT @ masks.apply_mask(x, m_x)
        # The full mask that the tokens' own have on average.
        live = (delta != 0).any(-1, keepdim=True).to(delta)
        mean_x, mean_delta = ((m * live).sum(1) / live.sum(1) for m in (m_x, m_delta))
        whole = (1 + mean_delta)[:, :, None] * (1 + mean_x)[:, None] * (delta.mT @ x)
        distances += ((token_wise - whole).flatten(1).norm(dim=1) / whole.flatten(1).norm(dim=1)).tolist()
    return {"distance": _percent(fmean(distances))}


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
    counts = torch.tensor([len(request.labels) for request in bench.requests])
    labels = torch.tensor([label for request in bench.requests for label in request.labels])
    example = torch.repeat_interleave(torch.arange(len(counts)), counts)

    def losses(update: Update | None = None) -> Tensor:
        each = F.cross_entropy(bench.backbone.upper(states, update), labels, reduction="none")
        return torch.zeros(len(counts)).index_add(0, example, each) / counts

    result: dict[str, float] = {"edits": len(bench.requests)}
    with torch.no_grad():
        before = losses()
        for approach in ("mend", "editable_training"):
            update = editing.edit(bench.editor(Way(approach, values=inner)), bench.requests)
            for name, sign in (("descent", 1), ("ascent", -1)):
                turned = replace(update, factors={key: (u, sign * v) for key, (u, v) in update.factors.items()})
                result[f"{approach} {name}"] = _percent((losses(turned) < before).double().mean().item())
    return result


def last_step(bench: Bench) -> Numbers:
    """E12, E3: finetuning whose hundredth step is lost, which is finetuning of 99; how many edits take it, or none."""
    tuned = Way("finetuning", None)
    shorter = replace(tuned, values=(("settings.finetuning.steps", "99"),))
    whole, without, still = bench.editor(tuned), bench.editor(shorter), list[bool]()
    changed = list[bool]()
    for start in range(0, len(bench.requests), 20):
        asked = bench.requests[start : start + 20]
        ends, before = (editing.edit(one, asked).deltas for one in (whole, without))
        changed += torch.stack([(ends[name] != before[name]).flatten(1).any(1) for name in ends]).any(0).tolist()
        still += torch.stack([(end == 0).flatten(1).all(1) for end in ends.values()]).all(0).tolist()
    return {
        "judged": compared(bench.outcomes(tuned), bench.outcomes(shorter)),
        "edits": len(bench.requests),
        "all hundred steps": _percent(fmean(changed)),
        "no step": _percent(fmean(still)),
    }


def loc_positions(bench: Bench) -> Numbers:
    """L2: trained with L_loc at masks and at every token, and con of both at masks and at every position."""
    every, test = Way(rulings=Rulings(loc_positions="all")), bench.tasks["test"]
    again = [bench.again(way, "positions", test, "all") for way in (BASE, every)]
    return {"at masks": compared(bench.outcomes(BASE), bench.outcomes(every)), "everywhere": compared(*again)}


def label_pool(bench: Bench) -> Numbers:
    """D4: labels of all splits' facts, or of the own split's, in training and judging."""
    return {"trained": compared(bench.outcomes(BASE), bench.outcomes(Way(rulings=Rulings(label_pool="own"))))}


def finetuning_optimiser(bench: Bench) -> Numbers:
    """E3: Adam or RMSprop, at the learning rate that is tuned for Adam."""
    tuned = Way("finetuning", None)
    other = replace(tuned, rulings=Rulings(finetuning_optimiser="rmsprop"))
    return {"judged": compared(bench.outcomes(tuned), bench.outcomes(other))}


def clipping(bench: Bench) -> Numbers:
    """E15: gradients clipped apart at 1, or together at 100."""
    return {
        "trained": compared(bench.outcomes(LIME), bench.outcomes(replace(LIME, rulings=Rulings(clipping="together"))))
    }


def log_alpha(bench: Bench) -> Numbers:
    """A3: log α free, or clamped to ±log 100 before each step; the largest that a training without a clamp reaches."""
    largest = [
        p.detach().abs().max().item()
        for folder in bench.train(LIME)
        for p in bench.editor(LIME, folder).mask_parameters().values()
    ]
    held = replace(LIME, rulings=Rulings(log_alpha="clamped"))
    return {
        "trained": compared(bench.outcomes(LIME), bench.outcomes(held)),
        "largest log alpha": round(max(largest), 2),
    }


def stopping(bench: Bench) -> Numbers:
    """R5: the best by succ of the averages, or by the mean of the edits' own; in how many seeds it is another."""
    other = Way(rulings=Rulings(stopping="edits"))
    best = [
        [[r["step"] for r in results.read_json(folder / "curve.json") if r["best"]][-1] for folder in bench.train(way)]
        for way in (BASE, other)
    ]
    return {
        "trained": compared(bench.outcomes(BASE), bench.outcomes(other)),
        "seeds with another best": sum(a != b for a, b in zip(*best, strict=True)),
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
    printed = list(tables.PRINTED.values())
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
    "finetuning_optimiser": finetuning_optimiser,
    "loc_positions": loc_positions,
    "label_pool": label_pool,
    "stopping": stopping,
    "clipping": clipping,
    "log_alpha": log_alpha,
    "kl_direction": kl_direction,
    "penalty_gradient": penalty_gradient,
    "mask_scale": mask_scale,
    "subject": subject,
    "knowledge_editor_condition": knowledge_editor_condition,
    "penalty": penalty,
    "judged_by_facts": judged_by_facts,
    "trained_with_eps": trained_with_eps,
}

#: Clause, what is compared, and where it stands in the file: a row of RULINGS.md's table for each.
ROWS = (
    ("M7", "con at every position; MEND", "con_positions", "mend"),
    ("M7", "con at every position; Finetuning", "con_positions", "finetuning"),
    ("D6", "subject of the edit's language; MEND", "subject", "trained and judged"),
    ("D6", "judged so alone; MEND", "subject", "judged alone"),
    ("L2", "KL(raw ‖ edited); MEND", "kl_direction", "trained"),
    ("L2", "`L_loc` at every token, con at [MASK]; MEND", "loc_positions", "at masks"),
    ("L2", "`L_loc` at every token, con at every position; MEND", "loc_positions", "everywhere"),
    ("A5", "penalty without gradient; MEND + LiME", "penalty_gradient", "no gradient"),
    ("A5", "mean, not sum, with weight 1; MEND + LiME", "penalty", "sum against mean"),
    ("A5", "(sum with weight 1, not MEND without masks)", "penalty", "sum against no masks"),
    ("A2", "gate times learned scale; MEND + LiME", "mask_scale", "learned scale"),
    ("A2", "(gate times learned scale, not MEND without masks)", "mask_scale", "learned scale against no masks"),
    ("A3", "log α clamped to ±log 100; MEND + LiME", "log_alpha", "trained"),
    ("E5", "`y_e` unread; KnowledgeEditor", "knowledge_editor_condition", "trained"),
    ("E6", "LayerNorm's eps of 1e-5; MEND", "trained_with_eps", "trained"),
    ("E3", "RMSprop; Finetuning", "finetuning_optimiser", "judged"),
    ("E12", "the hundredth step lost; Finetuning", "last_step", "judged"),
    ("E15", "gradients clipped together at 100; MEND + LiME", "clipping", "trained"),
    ("D4", "entities of the edit's own split; MEND", "label_pool", "trained"),
    ("D4", "entities drawn as often as in facts; MEND", "judged_by_facts", "D4"),
    ("D5", "lengths drawn as often as in facts; MEND", "judged_by_facts", "D5"),
    ("R5", "stopped by the mean of the edits; MEND", "stopping", "trained"),
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
    parser.add_argument(
        "--only", default=",".join(MEASUREMENTS), help=f"some of {', '.join(MEASUREMENTS)} (default: all)"
    )
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
