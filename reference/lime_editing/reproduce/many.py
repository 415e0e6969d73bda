"""Evaluation over many edits (chapter C): in series, and at once.

Edits are of facts of all splits, test facts first. Learned editors have seen training facts, but with other answers.
Retain inputs are half of the test facts and all validation facts, which are never edited.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from .. import results
from ..backbone import Backbone
from ..core.corpus import Corpus, Example, ParallelCorpus
from ..core.editing import Editor, edit
from ..core.evaluation import predict
from ..core.metrics import hit
from ..core.sampling import Pair, derived_rng
from ..core.sets import edit_all
from ..core.task import Task
from ..errors import UserError
from ..names import PIVOT, Split
from ..records import EditRequest, Input, Outcome
from ..updates import Update, compose
from . import store
from .cells import Cell, Experiment, Many, Status, cell_folder, described
from .run import EVALUATION_SEED, keep, tasks_of

Asked = tuple[Example, EditRequest, list[Input]]  # an edit, and its update inputs
Drawn = tuple[list[Asked], list[Input]]  # a series, and its retain inputs


def run(cell: Cell, experiment: Experiment, root: Path) -> Iterator[Status]:
    """All evaluations of one trained cell, stored like any cell. It runs as its statuses are read."""
    folder = cell_folder(cell, experiment, root)
    results.clean(folder)
    if results.is_done(folder):
        return
    assert experiment.many is not None
    trained = cell_folder(cell, replace(experiment, many=None), root)
    editor = store.load(trained, experiment.sources.model, experiment.sources.device)
    tasks = tasks_of(experiment, editor.backbone)
    outcomes = defaultdict[str, list[Outcome]](list)
    for name, languages in (("mixed", experiment.languages), (PIVOT, (PIVOT,))):
        drawn = _drawn(tasks, languages, experiment, experiment.many)
        for status in _judged(editor, drawn, experiment.many, name, outcomes):
            yield replace(status, cell=cell.name)
    results.write_json(folder / "cell.json", described(cell, experiment))
    keep(folder, outcomes)


def series(
    corpus: Corpus,
    edit_languages: Sequence[str],
    update_languages: Sequence[str],
    n_edits: int,
    n_update: int,
    n_retain: int,
    seed: int,
    first: frozenset[str] = frozenset(),
    kept: frozenset[str] | None = None,
) -> tuple[list[Pair], list[Example]]:
    """`n_edits` edits of different facts, those of `first` first, and retain inputs for all of them (clause C5).

    Facts of `kept` give the retain inputs. Nine parameters: those of `evaluation_pairs`, and the two sets of facts.
    """
    rng, edits, pairs = derived_rng(seed, "series"), corpus.within(edit_languages), list[Pair]()
    known = sorted({x.fact for x in edits.examples} - (kept or frozenset()))
    order = [known[i] for i in rng.permutation(len(known))]
    for fact in sorted(order, key=lambda fact: fact not in first)[:n_edits]:
        edit = edits.examples[int(rng.choice(edits.span(fact)))]
        parallel = corpus.parallel(edit.id, update_languages)
        drawn = rng.choice(len(parallel), size=min(n_update, len(parallel)), replace=False)
        pairs.append(Pair(edit, tuple(parallel[i] for i in sorted(drawn)), ()))
    taken = {pair.edit.fact for pair in pairs}
    rest = [x for x in corpus.within(update_languages).examples if x.fact not in taken]
    rest = [x for x in rest if kept is None or x.fact in kept]
    return pairs, [rest[i] for i in rng.permutation(len(rest))[:n_retain]]


def _drawn(tasks: Mapping[Split, Task], languages: Sequence[str], experiment: Experiment, many: Many) -> Drawn:
    home = {x.id: task for task in tasks.values() for x in task.corpus.examples}
    corpus, asked = ParallelCorpus.of(x for task in tasks.values() for x in task.corpus.examples), list[Asked]()
    test = sorted({x.fact for x in tasks["test"].corpus.examples})
    kept = frozenset(test[1::2]) | {x.fact for x in tasks["validation"].corpus.examples}
    shape = (max(many.short, *many.counts), many.n_update, many.n_retain)
    first = frozenset(test[::2])
    pairs, retain = series(corpus, languages, experiment.languages, *shape, EVALUATION_SEED, first, kept)
    if len(pairs) < max(many.counts):
        raise UserError(f"--edits {max(many.counts)}: only {len(pairs)} facts can be edited; give smaller numbers")
    rng = derived_rng(EVALUATION_SEED, "many", *languages)
    for pair in pairs:
        task = home[pair.edit.id]
        request = task.request(pair.edit, rng)
        asked.append((pair.edit, request, [task.update_input(x, pair.edit, request) for x in pair.update]))
    return asked, [home[x.id].retain_input(x, rng) for x in retain]


def _judged(
    editor: Editor, drawn: Drawn, many: Many, name: str, outcomes: dict[str, list[Outcome]]
) -> Iterator[Status]:
    """Fill `outcomes` by "<way> <languages> <N>"; "efficacy" is a series evaluated right after each edit."""
    (asked, kept), backbone = drawn, editor.backbone
    raw = predict(backbone, kept)
    for n in many.counts:
        groups = [asked[i * n : (i + 1) * n] for i in range(max(1, min(many.short, len(asked)) // n))]
        share = max(1, len(kept) // len(groups))
        for i, group in enumerate(groups):
            own = [(j, kept[j]) for j in range(i * share, (i + 1) * share) if j < len(kept)]
            held: Update | None = None
            for made, one in enumerate(group, 1):
                new = edit(editor, [one[1]], at=held)
                held = compose([new] if held is None else [held, new])
                outcomes[f"efficacy {name} {n}"] += _asked(backbone, [one], held)
                yield Status("", f"series of {n} {name}", i * n + made, len(groups) * n)
            at_once = held if n == 1 else edit_all(editor, [request for _, request, _ in group])
            for way, update in (("series", held), ("at once", at_once)):
                found = outcomes[f"{way} {name} {n}"]
                found += _asked(backbone, group, update)
                for (j, _), answer in zip(own, predict(backbone, [x for _, x in own], update), strict=True):
                    of = group[j % len(group)][0]
                    found.append(Outcome(of.id, of.language, "retain", "", hit(answer, raw[j])))
        # Efficacy is reported with the con of the same series.
        outcomes[f"efficacy {name} {n}"] += [o for o in outcomes[f"series {name} {n}"] if o.role == "retain"]


@torch.no_grad()
def _asked(backbone: Backbone, group: Sequence[Asked], update: Update | None) -> list[Outcome]:
    asked = [(x, edited, request) for edited, request, inputs in group for x in inputs]
    answers = zip(predict(backbone, [x for x, _, _ in asked], update), asked, strict=True)
    return [Outcome(e.id, e.language, "update", "", hit(answer, r.labels)) for answer, (_, e, r) in answers]
