"""Chapter U: runs from data and a raw model to outcomes, played again.

Nine small runs, made once for all tests: MEND with masks, of two seeds, and on English alone, Editable Training,
KnowledgeEditor, Finetuning, MEND on sentence pairs of all languages and of English, and a longer training of MEND for
what it draws. Each is played again with chapter E's functions.
"""

from __future__ import annotations

import itertools
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom

from . import oracles
from .assertions import FALSE_ALARM, assume, close, distributed, equal, holds
from .conformance import Implementation, clause, needs
from .contract import Asked
from .runs import (
    LANGUAGES,
    SHUFFLED as CLASSES,
    UNEVEN_WORDS,
    WORDS,
    Done,
    World,
    as_triples,
    check_inputs,
    check_sampling,
    facts,
    hits,
    outcomes,
    pairs,
    place,
    plan,
    uneven_facts,
)
from .showing import shown
from .test_d_data import folder_of, written
from .texts import write_model
from .tiny import make, set_masks, setting, step as take_step

#: Editor, training, changes of the plan.
RUNS: dict[str, tuple[str, str | None, dict[str, Any]]] = {
    "masks": ("mend", "lime", {"inner_lr": 7e-4}),
    # So large a rate makes no edit succeed: the first validation stays the best, and patience ends the training.
    "English": ("mend", "en", {"inner_lr": 0.1, "patience": 40, "edits": 80}),
    "model": ("editable_training", "all", {"lr": 0.02, "inner_lr": 0.01, "test_limit": 8}),
    "finetuning": ("finetuning", None, {"lr": 5e-3, "test_limit": 7, "edits": 10}),
    "reader": ("knowledge_editor", "lime", {"edits": 40, "test_limit": 5}),
    "pairs": ("mend", "all", {"inner_lr": 2e-3, "patience": 40}),
    "English pairs": ("mend", "en", {"inner_lr": 2e-3, "edits": 40, "test_limit": 5}),
    # Another seed; and what is judged is not what came last, as above, of an editor with masks.
    "seed": ("mend", "lime", {"inner_lr": 0.05, "edits": 40, "test_limit": 3}),
    "draws": (
        "mend",
        "all",
        {"edits": 400, "validate_every": 400, "patience": 400, "validation_limit": None, "test_limit": 3},
    ),
}
#: The data of the runs that are not made on the facts.
DATA = {"pairs": "pairs", "English pairs": "pairs", "English": "uneven", "draws": "uneven"}
FACTS = ("masks", "English", "model", "finetuning")
TRAINED = ("masks", "English", "model", "reader", "pairs", "English pairs")
#: Under an implementation that lacks an editor, runs of it are left out.
EDITOR = {name: needs("E", editor) for name, (editor, _, _) in RUNS.items()}


def of(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", [pytest.param(name, marks=EDITOR[name]) for name in names])


Runs = Callable[[str], Done]


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, World]]:
    """Facts, uneven facts and sentence pairs with their models."""
    models = {name: tmp_path_factory.mktemp(name) for name in ("facts", "uneven", "pairs")}
    write_model(models["facts"], WORDS)
    write_model(models["uneven"], UNEVEN_WORDS)
    write_model(models["pairs"], WORDS, CLASSES)
    rows, uneven = facts(), uneven_facts()
    with folder_of(written(rows)) as folder, folder_of(written(uneven)) as other:
        yield {
            "facts": World(folder, models["facts"], rows),
            "uneven": World(other, models["uneven"], uneven),
            "pairs": World(pairs(), models["pairs"], pairs()),
        }


@pytest.fixture(scope="module")
def runs(implementation: Implementation, worlds: dict[str, World], tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """The runs of this chapter by name, each made when it is first asked for."""
    done: dict[str, Done] = {}

    def run(name: str) -> Done:
        if name not in done:
            editor, training, changes = RUNS[name]
            world, planned = worlds[DATA.get(name, "facts")], plan(**changes)
            folder = tmp_path_factory.mktemp("run")
            seed = 4 if name == "seed" else 3
            trace = implementation.run(world.data, world.model, editor, training, seed, planned, folder)
            done[name] = Done(world, editor, training, planned, trace)
        return done[name]

    return run


def editing(which: str) -> tuple[str, ...]:
    return ("en",) if which == "en" else LANGUAGES


# --- U1, U2, U3: evaluations ------------------------------------------------------------------------------------------


@clause("U1", "U3")
@of("masks", "English", "pairs")
def test_every_test_edit_is_judged_once(runs: Runs, name: str) -> None:
    """In both evaluations: all edits of the test set in the editing languages, those of the last batch too."""
    done = runs(name)
    possible = done.world.wrong("test") if done.world.of_pairs else done.world.examples("test")
    equal("U3", set(done.trace["evaluations"]), {"en", "all"}, "evaluations", run=name)
    for which, evaluation in done.trace["evaluations"].items():
        expected = sorted(one for one in possible if one[1] in editing(which))
        got = sorted(place(one["edit"]) for one in evaluation["edits"])
        equal("U1", got, expected, f"edits from {which} to all", run=name)


@clause("U1", "S9")
@of("model", "finetuning")
def test_a_limited_evaluation_is_spread_over_its_languages(runs: Runs, name: str) -> None:
    """As many edits as the limit says, all different, from every editing language alike."""
    done = runs(name)
    limit = done.plan["test_limit"]
    for which, evaluation in done.trace["evaluations"].items():
        edits = [place(one["edit"]) for one in evaluation["edits"]]
        equal("U1", len(set(edits)), limit, f"different edits from {which} to all", run=name)
        equal("U1", len(edits), limit, f"edits from {which} to all", run=name)
        per = [Counter(said for _, said in edits)[said] for said in editing(which)]
        holds(
            "U1",
            max(per) - min(per) <= 1,
            "edits per language",
            expected="counts that differ by one at most",
            got=per,
            run=name,
        )
        stray = [one for one in edits if one not in done.world.examples("test", editing(which))]
        equal("U1", stray, [], "edits from elsewhere", run=name)
        for order, key in (("file's", done.world.order), ("sorted", str)):
            known = sorted(done.world.examples("test", editing(which)), key=key)
            firsts = [[one for one in known if one[1] == said][: per[n]] for n, said in enumerate(editing(which))]
            prefix = sorted(edits) == sorted(one for part in firsts for one in part)
            holds(
                "S9",
                not prefix,
                "edits of each language",
                expected="some drawn at random",
                got=f"the first in {order} order",
                run=name,
            )


@clause("U1", "S4", "U3")
@of(*FACTS, "pairs")
def test_edits_are_judged_on_inputs_of_all_languages(implementation: Implementation, runs: Runs, name: str) -> None:
    """Parallel update and unrelated retain inputs of the test set, as many as planned, and one outcome for each."""
    done = runs(name)
    counts = done.plan["n_update"], done.plan["n_retain"]
    for which, evaluation in done.trace["evaluations"].items():
        said: Counter[tuple[str, str]] = Counter()
        for one in evaluation["edits"]:
            check_sampling("U1", done.world, "test", one, LANGUAGES, counts)
            check_inputs("U1", implementation, done.world, "test", one)
            for role in ("update", "retain"):
                asked, hit = one[role], one[f"{role}_hits"]  # type: ignore[literal-required]
                equal("U1", len(hit), len(asked), f"outcomes of {role} inputs", edit=one["edit"])
                said.update((role, told["language"]) for told, _ in asked)
        for role in ("update", "retain"):
            languages = {language for of_role, language in said if of_role == role}
            equal("U3", languages, set(LANGUAGES), f"languages of {role} inputs", run=name, evaluation=which)


@clause("U1", "S3")
@of("masks")
def test_an_evaluation_draws_retain_inputs_for_each_edit(runs: Runs, name: str) -> None:
    """Not from a few that all edits share: as many different ones as independent draws have, but for a third.

    An edit draws from nearly all examples, so that the number of different ones hardly varies.
    """
    done = runs(name)
    for which, evaluation in done.trace["evaluations"].items():
        drawn = [place(told) for one in evaluation["edits"] for told, _ in one["retain"]]
        examples = len(done.world.examples("test"))
        expected = examples * (1 - (1 - 1 / examples) ** len(drawn))
        got = len(set(drawn))
        told = f"different retain inputs from {which} to all, in {len(drawn)} draws from {examples}"
        holds("U1", got > expected * 2 / 3, told, expected=f"about {expected:.0f}", got=got, run=name)


@clause("U1", "U2")
@of(*FACTS, "pairs")
def test_an_input_hits_where_the_edited_model_predicts_it(
    implementation: Implementation, runs: Runs, name: str
) -> None:
    """The edit is what `edit` makes of its request today; retained is what a raw model of the suite's predicts."""
    done = runs(name)
    compared: Counter[Any] = Counter()
    answered = [
        (which, one, found)
        for which, evaluation in done.trace["evaluations"].items()
        for one, found in hits(implementation, done.world, done.trace["editor"], evaluation["edits"])
    ]
    # A wrong edit shows at the inputs of both roles, a wrong raw prediction at retain inputs alone.
    for role, clause_id in (("update", "U1"), ("retain", "U2")):
        for which, one, found in answered:
            pairs_ = zip(one[role], found[role], one[f"{role}_hits"], strict=True)  # type: ignore[literal-required]
            for (told, x), expected, got in pairs_:
                if expected is None:
                    continue
                compared[role, expected] += 1
                about = {"edit": one["edit"], "input": told, "tokens": x["input_ids"], "run": name}
                equal(clause_id, bool(got), expected, f"hit of a {role} input, from {which} to all", **about)
    enough = compared.total() > 20
    holds("U1", enough, "hits that can be compared", expected="more than 20", got=dict(compared), run=name)


@clause("U3", "M5")
@of(*FACTS, "pairs")
def test_a_run_reports_the_rates_of_its_outcomes(runs: Runs, name: str) -> None:
    """acc, con and succ of M, macro averages over the editing languages."""
    for which, evaluation in runs(name).trace["evaluations"].items():
        edits = evaluation["edits"]
        found = [{"update": one["update_hits"], "retain": one["retain_hits"]} for one in edits]
        rows = outcomes(edits, found)
        assert rows is not None
        expected = oracles.metrics(rows)
        for rate in ("acc", "con", "succ"):
            got = evaluation[rate]  # type: ignore[literal-required]
            close("U3", got, float(expected[rate]), f"{rate} from {which} to all", 1e-6, run=name)


@clause("U1", "U4", "D4", "D5")
@of("masks", "draws")
def test_labels_and_lengths_are_drawn_for_each_edit(implementation: Implementation, runs: Runs, name: str) -> None:
    """Over all edits of a run: entities of the relation evenly, and lengths as their language's entities have them."""
    done = runs(name)
    split = None
    if implementation.ruling("label_pool") == "own":
        split = "test" if name == "masks" else "train"
    pools = done.world.labels(split)
    clause_id = "U1" if name == "masks" else "U4"
    asked: list[Asked] = [one for step in done.trace["steps"] for one in step["asked"]]
    if name == "masks":
        asked = [one for evaluation in done.trace["evaluations"].values() for one in evaluation["edits"]]
    labels: Counter[int] = Counter()
    expected: Counter[int] = Counter()
    lengths: Counter[int] = Counter()
    for one in asked:
        pool = pools[one["edit"]["language"], one["edit"]["fact"].split("/")[0]]
        label = tuple(one["request"]["labels"])
        holds(clause_id, label in pool, f"label of {one['edit']}", expected=pool, got=label, run=name)
        labels[pool.index(label)] += 1
        expected.update({number: 1 / len(pool) for number in range(len(pool))})  # type: ignore[arg-type]
        lengths.update(len(x["positions"]) for _, x in one["retain"])
    distributed(clause_id, labels, expected, "desired labels by their number", run=name)
    distributed(clause_id, lengths, _of_lengths(done.world, asked), "numbers of retained masks", run=name)


def by_chance(clause_id: str, found: Sequence[bool], chances: Sequence[float], what: str, **inputs: Any) -> None:
    """As many of these are so as chance has it: neither fewer nor more, but once in a million times each.

    Their number has the tails of a binomial one of the same mean at most (Hoeffding 1956).
    """
    mean = float(np.mean(chances))
    least, most = (int(binom.ppf(share, len(found), mean)) for share in (FALSE_ALARM, 1 - FALSE_ALARM))
    expected = f"{least} to {most} of {len(found)}"
    holds(clause_id, least <= sum(found) <= most, what, expected=expected, got=sum(found), **inputs)


#: What asks edits of facts: the clause, the run and the split.
ASKING = {
    "training": ("U4", "draws", "train"),
    "validation": ("U6", "draws", "validation"),
    "test": ("U1", "masks", "test"),
}


@clause("U4", "U6", "U1")
@EDITOR["draws"]
@pytest.mark.parametrize("what", ASKING)
def test_labels_and_lengths_follow_from_nothing_else(implementation: Implementation, runs: Runs, what: str) -> None:
    """The known answer is desired as often as any other, and a retain input is as long as the label by chance."""
    clause_id, name, split = ASKING[what]
    done = runs(name)
    trace = done.trace
    asked: list[Any] = [one for step in trace["steps"] for one in step["asked"]]
    if what != "training":
        asked = list(trace["validations"][0]["asked"] if what == "validation" else trace["evaluations"]["all"]["edits"])
    pools = done.world.labels(split if implementation.ruling("label_pool") == "own" else None)
    names = {(f"{row['relation']}/{row['sub_uri']}", row["language"]): row["obj_label"] for row in done.world.rows}
    known, chances, alike, shares = [], [], [], []
    for one in asked:
        label, pool = tuple(one["request"]["labels"]), pools[one["edit"]["language"], one["edit"]["fact"].split("/")[0]]
        known.append(label == done.world.alone(names[place(one["edit"])]))
        chances.append(1 / len(pool))
        for told, x in one["retain"]:
            lengths = done.world.lengths[told["language"]]
            alike.append(len(x["positions"]) == len(label))
            shares.append(lengths.count(len(label)) / len(lengths))
    by_chance(clause_id, known, chances, f"edits of a {what} that desire the known answer", run=name)
    by_chance(clause_id, alike, shares, f"retain inputs of a {what} that are as long as the label", run=name)


def _of_lengths(world: World, asked: Sequence[Asked]) -> dict[int, float]:
    expected: Counter[int] = Counter()
    for one in asked:
        for told, _ in one["retain"]:
            lengths = world.lengths[told["language"]]
            for length in lengths:
                expected[length] += 1 / len(lengths)  # type: ignore[assignment]
    return dict(expected)


@clause("U1")
@EDITOR["finetuning"]
def test_a_run_edits_the_last_three_layers(
    implementation: Implementation, worlds: dict[str, World], tmp_path: Path
) -> None:
    """Both MLP matrices of each, in a model of twelve layers: as a text "10" comes before "9"."""
    model, folder = tmp_path / "model", tmp_path / "run"
    folder.mkdir()
    write_model(model, WORDS, layers=12)
    changes = {**RUNS["finetuning"][2], "test_limit": 1}
    trace = implementation.run(worlds["facts"].data, model, "finetuning", None, 3, plan(**changes), folder)
    (one,) = trace["evaluations"]["en"]["edits"]
    edits = implementation.edit(trace["editor"], [one["request"]])
    names = list(implementation.dense(trace["editor"], edits, 0))
    layers = sorted(int(number) for name in names for number in re.findall(r"(?<![a-z])\d+", name)[:1])
    equal("U1", layers, [9, 9, 10, 10, 11, 11], "layers, counted from 0, of the matrices that an edit has", names=names)


# --- U4: what a training is given -------------------------------------------------------------------------------------


@clause("U4")
@of(*TRAINED, "draws")
def test_a_training_takes_examples_of_its_split_and_languages(
    implementation: Implementation, runs: Runs, name: str
) -> None:
    """x_e, x_u and x_r are of the training set, in English alone or in all languages, and said as the data say them."""
    done = runs(name)
    split, languages = "train", done.languages
    possible = done.world.examples(split, languages)
    asked = [one for step in done.trace["steps"] for one in step["asked"]]
    for number, one in enumerate(asked):
        holds(
            "U4",
            place(one["edit"]) in possible,
            "an edit of the training",
            expected=f"of {split} in {languages}",
            got=one["edit"],
            run=name,
        )
        check_sampling("U4", done.world, split, one, languages, (1, 1))
        if number < 80:
            check_inputs("U4", implementation, done.world, split, one)
    for role in ("edit", "update", "retain"):
        told = [one["edit"] if role == "edit" else one[role][0][0] for one in asked]  # type: ignore[literal-required]
        equal("U4", {one["language"] for one in told}, set(languages), f"languages of {role} inputs", run=name)


@clause("U4")
@of(*TRAINED, "draws")
def test_every_step_draws_afresh(runs: Runs, name: str) -> None:
    """No step has the edits of another, nor its gates."""
    steps = runs(name).trace["steps"]
    batches = [sorted((place(one["edit"]), one["request"]["labels"]) for one in step["asked"]) for step in steps]
    again = [n for n, batch in enumerate(batches) if batch in batches[:n]]
    equal("U4", again, [], "steps with the edits of an earlier one", run=name)
    seeds = [step["seed"] for step in steps]
    equal("U4", len(set(seeds)), len(seeds), "different seeds of the steps' gates", seeds=seeds)


@clause("S7", "U4")
@needs("E", "mend")
def test_a_run_of_another_seed_trains_on_other_edits(runs: Runs) -> None:
    """The runs that a row averages are no copies of one."""
    for role in ("edit", "retain"):
        first, second = (
            [_input(one, role) for step in runs(name).trace["steps"] for one in step["asked"]]
            for name in ("masks", "seed")
        )
        same = sum(one == other for one, other in zip(first, second, strict=False))
        told = f"{role} inputs that two runs of different seeds train on at the same place"
        holds("S7", same < len(second) / 2, told, expected=f"less than half of {len(second)}", got=same)


@clause("U4")
@of("draws")
def test_an_example_that_is_drawn_again_gets_another_label(runs: Runs, name: str) -> None:
    """What is drawn for an edit hangs on the edit, not on its example: labels, x_u, x_r and their lengths vary.

    Each varies over three edits of an example in seven of ten cases at least, and a length over two in 55 of a hundred.
    That it does so for a quarter of thirty examples or fewer (of eighty lengths) has a chance below one in a million.
    """
    asked = [one for step in runs(name).trace["steps"] for one in step["asked"]]
    often = drawn_often(asked, lambda one: place(one["edit"]), 3, 30)
    retained = drawn_often(asked, lambda one: place(one["retain"][0][0]), 2, 80)
    kinds: dict[str, tuple[list[list[Any]], Callable[[Any], Any]]] = {
        "desired label": (often, lambda one: tuple(one["request"]["labels"])),
        "x_u": (often, lambda one: one["update"][0][0]["language"]),
        "x_r": (often, lambda one: place(one["retain"][0][0])),
        "length as x_r": (retained, lambda one: len(one["retain"][0][1]["positions"])),
    }
    for what, (groups, of_one) in kinds.items():
        varied = sum(len({of_one(one) for one in found}) > 1 for found in groups)
        told = f"examples whose {what} varies over some edits"
        holds("U4", varied > len(groups) / 4, told, expected=f"more than a quarter of {len(groups)}", got=varied)


def drawn_often(asked: Sequence[Any], key: Callable[[Any], Any], times: int, least: int) -> list[list[Any]]:
    """The edits of each key that has so many `times` of them. With fewer than `least` such keys nothing is shown."""
    drawn: dict[Any, list[Any]] = {}
    for one in asked:
        drawn.setdefault(key(one), []).append(one)
    often = [found for found in drawn.values() if len(found) >= times]
    assume(len(often) >= least, f"only {len(often)} examples are drawn {times} times, so nothing is shown")
    return often


@clause("U4", "S6")
@of("draws")
def test_a_training_draws_its_examples_evenly(runs: Runs, name: str) -> None:
    """400 edits: examples, their parallels and what is unrelated, evenly; facts of one subject among the latter."""
    done = runs(name)
    asked = [one for step in done.trace["steps"] for one in step["asked"]]
    equal("U4", len(asked), done.plan["edits"], "edits of the training")
    examples = done.world.examples("train")
    told = Counter(said for _, said in examples)
    share = len(asked) / len(examples)
    distributed("U4", Counter(one["edit"]["language"] for one in asked), {s: share * n for s, n in told.items()}, "x_e")
    spoken = Counter(fact for fact, _ in examples)
    widths = Counter(spoken[fact] for fact, _ in examples)
    of_width = Counter(spoken[one["edit"]["fact"]] for one in asked)
    distributed("U4", of_width, {n: share * count for n, count in widths.items()}, "x_e by how many languages tell it")
    update: Counter[str] = Counter()
    itself: Counter[bool] = Counter()
    retain: Counter[Any] = Counter()
    for one in asked:
        fact = one["edit"]["fact"]
        inside = [said for other, said in examples if other == fact]
        for said in inside:
            update[said] += 1 / len(inside)  # type: ignore[assignment]
            itself[said == one["edit"]["language"]] += 1 / len(inside)  # type: ignore[assignment]
        outside = [other for other in examples if other[0] != fact]
        for other in outside:
            retain[_kind(fact, other[0]), other[1]] += 1 / len(outside)  # type: ignore[assignment]
    distributed("U4", Counter(one["update"][0][0]["language"] for one in asked), update, "languages of x_u")
    same = Counter(one["update"][0][0]["language"] == one["edit"]["language"] for one in asked)
    distributed("U4", same, itself, "x_u that is x_e itself, and that is not")
    drawn = [(_kind(one["edit"]["fact"], t["fact"]), t["language"]) for one in asked for t, _ in one["retain"]]
    distributed("U4", Counter(drawn), retain, "x_r by what it shares with x_e, and by language")
    english = {fact for fact, said in examples if said == "en"}
    untold = [fact for fact, _ in examples if fact not in english]
    for role in ("edit", "retain"):
        found = [_input(one, role)[0] not in english for one in asked]
        by_chance("U4", found, [len(untold) / len(examples)] * len(asked), f"{role} inputs that English does not tell")


@clause("U4", "S6")
@of("draws")
def test_a_training_retains_in_any_language(runs: Runs, name: str) -> None:
    """x_r is in the language of x_e, and in that of x_u, as often as chance has it."""
    done = runs(name)
    asked = [one for step in done.trace["steps"] for one in step["asked"]]
    examples = done.world.examples("train")
    for role in ("edit", "update"):
        agree, chances = [], []
        for one in asked:
            outside = [said for other, said in examples if other != one["edit"]["fact"]]
            language = _input(one, role)[1]
            agree.append(_input(one, "retain")[1] == language)
            chances.append(outside.count(language) / len(outside))
        by_chance("U4", agree, chances, f"x_r in the language of the {role} input")


@clause("U4", "S6")
@of("draws")
def test_edits_of_a_step_are_drawn_apart(runs: Runs, name: str) -> None:
    """Of two edits of a step, languages and relations agree by chance; few x_r are inputs of another edit nearby."""
    done = runs(name)
    steps = [step["asked"] for step in done.trace["steps"]]
    examples = done.world.examples("train")
    chances: dict[str, Counter[Any]] = {role: Counter() for role in ("edit", "update", "retain")}
    for edit in examples:
        inside = {one for one in examples if one[0] == edit[0]}
        for role, candidates in (("edit", {edit}), ("update", inside), ("retain", examples - inside)):
            for one in candidates:
                chances[role][one] += 1 / len(examples) / len(candidates)  # type: ignore[assignment]
    kinds: dict[str, Callable[[tuple[str, str]], str]] = {
        "language": lambda one: one[1],
        "relation": lambda one: one[0].split("/")[0],
    }
    pairs_ = [(a, b) for asked in steps for a, b in zip(asked[::2], asked[1::2], strict=False)]
    for role, (what, of_one) in itertools.product(chances, kinds.items()):
        share: Counter[str] = Counter()
        for one, chance in chances[role].items():
            share[of_one(one)] += chance
        same = [of_one(_input(a, role)) == of_one(_input(b, role)) for a, b in pairs_]
        agree = sum(chance**2 for chance in share.values())
        by_chance("U4", same, [agree] * len(same), f"pairs of {role} inputs of a step that share their {what}")
    for role in chances:
        lent = 0
        for number, asked in enumerate(steps):
            near = [one for other in steps[max(0, number - 1) : number + 2] for one in other]
            lent += sum(any(_input(b, role) == _input(a, "retain") for b in near if b is not a) for a in asked)
        told = f"x_r that are {role} inputs of another edit, of the step or of one beside it"
        # Some 36 of 400 by chance.
        holds("U4", lent < 100, told, expected="less than a quarter of 400", got=lent)


def _input(one: Any, role: str) -> tuple[str, str]:
    return place(one["edit"] if role == "edit" else one[role][0][0])


def _kind(fact: str, other: str) -> str:
    (relation, subject), (another, who) = fact.split("/"), other.split("/")
    return "its subject" if subject == who else "its relation" if relation == another else "neither"


@clause("U4", "D7")
@of("pairs")
def test_training_pairs_desire_any_class(runs: Runs, name: str) -> None:
    """Sixty edits of pairs: all three classes, whatever the gold one is; evaluation desires the gold class."""
    done = runs(name)
    asked = [one for step in done.trace["steps"] for one in step["asked"]]
    classes = Counter(one["request"]["labels"][0] for one in asked)
    distributed("U4", classes, dict.fromkeys(range(3), len(asked) / 3), "desired classes of a training")
    gold = [one["request"]["labels"][0] == done.world.gold("train", one["edit"]["fact"]) for one in asked]
    by_chance("U4", gold, [1 / 3] * len(gold), "edits of a training that desire the gold class")
    for which, evaluation in done.trace["evaluations"].items():
        for one in evaluation["edits"]:
            expected = [done.world.gold("test", one["edit"]["fact"])]
            equal(
                "U1", list(one["request"]["labels"]), expected, f"class desired from {which} to all", edit=one["edit"]
            )


@clause("U1", "U6", "D7")
@of("pairs")
def test_pairs_are_retained_whatever_the_raw_model_says(runs: Runs, name: str) -> None:
    """Retain inputs of an evaluation and of a validation: those that it gets wrong, as often as there are such."""
    done = runs(name)
    asked_of = {"test": done.trace["evaluations"]["all"]["edits"], "validation": done.trace["validations"][0]["asked"]}
    for clause_id, split in (("U1", "test"), ("U6", "validation")):
        wrong, examples = done.world.wrong(split), done.world.examples(split, done.languages)
        found, chances = [], []
        for one in asked_of[split]:
            outside = [other for other in examples if other[0] != one["edit"]["fact"]]
            share = sum(other in wrong for other in outside) / len(outside)
            found += [place(told) in wrong for told, _ in one["retain"]]
            chances += [share] * len(one["retain"])
        by_chance(clause_id, found, chances, f"retain inputs of the {split} set that the raw model gets wrong")


# --- U5, U6: playing a training again ---------------------------------------------------------------------------------


def played(implementation: Implementation, done: Done, name: str) -> dict[int, dict[str, torch.Tensor]]:
    """The parameters after each step, and before the first; what a step reports is compared on the way."""
    editor, found, validated = done.trace["start"], {}, []

    def copied() -> dict[str, torch.Tensor]:
        return {own: value.detach().clone() for own, value in implementation.parameters(editor).items()}

    found[0] = copied()
    for number, step in enumerate(done.trace["steps"]):
        equal("U5", step["edits"], (number + 1) * done.plan["batch"], f"edits after step {number + 1}", run=name)
        equal("U5", len(step["asked"]), done.plan["batch"], f"edits of step {number + 1}", run=name)
        parts = take_step(implementation, editor, as_triples(step["asked"]), seed=step["seed"])
        near = 2e-3 * (abs(parts["rel"]) + abs(parts["loc"])) + 2e-6 * abs(parts["total"])
        holds(
            "U5",
            abs(step["loss"] - parts["total"]) <= near,
            f"loss of step {number + 1}",
            expected=parts["total"],
            got=step["loss"],
            parts=dict(parts),
            run=name,
        )
        found[step["edits"]] = copied()
        validation = next((v for v in done.trace["validations"] if v["edits"] == step["edits"]), None)
        if validation is not None:
            answers = hits(implementation, done.world, editor, validation["asked"])
            validated.append((validation, [hit for _, hit in answers]))
    # After all losses: rates of an editor that was trained otherwise say nothing about the validation.
    for validation, answered in validated:
        _check_validation(implementation, validation, answered, name)
    return found


def _check_validation(implementation: Implementation, validation: Any, answered: list[Any], name: str) -> None:
    """acc, con and succ, or by declared ruling the mean of the edits' own, are those of the editor as it was then."""
    rows = outcomes(validation["asked"], answered)
    if rows is None:
        return
    expected = dict(oracles.metrics(rows))
    if implementation.ruling("stopping") == "edits":
        expected["succ"] = oracles.mean_of_edits(rows)
    for rate in ("acc", "con", "succ"):
        close(
            "U6",
            validation[rate],
            float(expected[rate]),
            f"{rate} of the validation after {validation['edits']} edits",
            1e-6,
            run=name,
        )


@clause("U5", "U6")
@of(*TRAINED, "seed")
def test_a_training_is_one_step_after_another(implementation: Implementation, runs: Runs, name: str) -> None:
    """Played again, each step reports the same loss, each validation the same rates, and the judged editor is the best.

    Losses are compared beside the penalty, which would hide them.
    """
    done = runs(name)
    states = played(implementation, done, name)
    wanted = states[done.trace["judged"]]
    judged = implementation.parameters(done.trace["editor"])
    equal("U6", set(judged), set(wanted), "parameters of the judged editor", run=name)
    for own, value in judged.items():
        lr = done.plan["lr"] or 1e-6
        far = (value.detach() - wanted[own]).abs() > 0.1 * lr * max(1, done.trace["judged"] // done.plan["batch"])
        share = float(far.float().mean())
        holds(
            "U6",
            share < 0.02,
            f"{own} of the judged editor",
            expected=f"its value after {done.trace['judged']} edits",
            got=f"{share:.0%} of its numbers are elsewhere",
            run=name,
        )
        # A rate moves by less than that; what is judged is still nearer to the best than to the last.
        off, moved = (
            float((x - wanted[own]).abs().sum()) for x in (value.detach(), states[done.trace["stopped"]][own])
        )
        told = f"{own} of the judged editor, which moved by {moved:g} after {done.trace['judged']} edits"
        holds("U6", off <= moved / 2 or done.trace["judged"] == done.trace["stopped"], told, expected=0.0, got=off)


@clause("U6", "R5")
@of(*TRAINED)
def test_validations_come_at_equal_intervals_and_decide_on_the_end(runs: Runs, name: str) -> None:
    """Counted in edits, like patience: the training ends, and what is judged was best, where R5 says so."""
    done = runs(name)
    every = done.plan["validate_every"]
    told = [validation["edits"] for validation in done.trace["validations"]]
    equal("U6", told, [every * (n + 1) for n in range(len(told))], "edits before each validation", run=name)
    succ = [validation["succ"] for validation in done.trace["validations"]]
    stopped, judged = oracles.stopping(succ, every, done.plan["patience"] // every)
    stopped = min(stopped, done.plan["edits"])
    equal(
        "U6",
        (done.trace["stopped"], done.trace["judged"]),
        (stopped, judged),
        "where it stopped, and what is judged",
        succ=succ,
        patience=done.plan["patience"],
        run=name,
    )
    equal("U6", done.trace["steps"][-1]["edits"], stopped, "edits of the last step", run=name)


@clause("U6")
@of(*TRAINED)
def test_validation_asks_its_own_split_in_the_training_languages(
    implementation: Implementation, runs: Runs, name: str
) -> None:
    """Edits, parallels and unrelated inputs of the validation set, in English alone where training is."""
    done = runs(name)
    counts = done.plan["n_update"], done.plan["n_retain"]
    possible = done.world.examples("validation", done.languages)
    if done.world.of_pairs:
        possible &= done.world.wrong("validation")
    for validation in done.trace["validations"]:
        asked = validation["asked"]
        edits = [place(one["edit"]) for one in asked]
        stray = [one for one in edits if one not in possible]
        equal("U6", stray, [], "validated edits from elsewhere", run=name)
        equal("U6", len(set(edits)), len(edits), "different edits of a validation", run=name)
        holds("U6", len(edits) > 0, "edits of a validation", expected="one or more", got=0, run=name)
        for one in asked:
            check_sampling("U6", done.world, "validation", one, done.languages, counts)
            check_inputs("U6", implementation, done.world, "validation", one)


@clause("U5", "E3")
@of("finetuning")
def test_finetuning_trains_nothing(runs: Runs, name: str) -> None:
    """A run of Finetuning has no step and no validation."""
    trace = runs(name).trace
    got = (trace["steps"], trace["validations"], trace["stopped"], trace["judged"])
    equal("U5", got, ([], [], 0, 0), "steps, validations, and where it stopped and what it kept")


# --- U7: resuming -----------------------------------------------------------------------------------------------------


@clause("U7")
@needs("E", "resumable")
@pytest.mark.parametrize(
    ("name", "interrupts"),
    [("masks", (30,)), ("masks", (40,)), ("masks", (30, 50)), ("English", (30, 50))],
    ids=["30", "40", "30-50", "English"],
)
@EDITOR["masks"]
def test_a_resumed_run_is_an_uninterrupted_one(
    implementation: Implementation, runs: Runs, tmp_path: Path, name: str, interrupts: tuple[int, ...]
) -> None:
    """The same steps from there on, the same validations, the same parameters bit for bit, and the same outcomes.

    After 40 edits of "masks" a validation is due. Of "English" the best validation lies before both interruptions, and
    patience ends the training behind them.
    """
    whole = runs(name)
    editor, training, _ = RUNS[name]
    asked = (whole.world.data, whole.world.model, editor, training, 3, whole.plan)
    folder = tmp_path
    for interrupt in interrupts:
        implementation.run(*asked, folder, interrupt=interrupt)
        # What a killed process left is found where it lies, by another one too.
        moved = tmp_path.with_name(f"{tmp_path.name}-after-{interrupt}")
        shutil.move(folder, moved)
        folder = moved
    again = implementation.run(*asked, folder)
    rest = {step["edits"]: step for step in whole.trace["steps"]}
    edits = [step["edits"] for step in again["steps"]]
    last = whole.trace["steps"][-1]["edits"]
    holds(
        "U7",
        0 < len(edits) < len(rest) and edits[-1] == last,
        "steps of a resumed run",
        expected=f"the last of {sorted(rest)}",
        got=edits,
    )
    for step in again["steps"]:
        wanted = rest[step["edits"]]
        equal("U7", as_triples(step["asked"]), as_triples(wanted["asked"]), f"edits of the step to {step['edits']}")
        equal("U7", (step["seed"], step["loss"]), (wanted["seed"], wanted["loss"]), f"seed and loss at {step['edits']}")
    for what in ("stopped", "judged"):
        equal("U7", again[what], whole.trace[what], what)
    rates = [[(v["edits"], v["succ"], v["acc"], v["con"]) for v in t["validations"]] for t in (again, whole.trace)]
    equal("U7", rates[0], rates[1][-len(rates[0]) :], "validations of a resumed run")
    wanted_values = implementation.parameters(whole.trace["editor"])
    for own, value in implementation.parameters(again["editor"]).items():
        same = torch.equal(value, wanted_values[own])
        holds("U7", same, f"{own} after a resumed run", expected=wanted_values[own], got=value)
    for which, evaluation in again["evaluations"].items():
        equal("U7", _outcomes(evaluation), _outcomes(whole.trace["evaluations"][which]), f"outcomes, {which} to all")


def _outcomes(evaluation: Any) -> Any:
    return [(place(one["edit"]), list(one["update_hits"]), list(one["retain_hits"])) for one in evaluation["edits"]]


@clause("U4", "S7")
@of("English")
def test_a_run_made_again_is_the_same(implementation: Implementation, runs: Runs, tmp_path: Path, name: str) -> None:
    """One seed is one run; another seed draws other edits, and its editor starts elsewhere."""
    first = runs(name)
    editor, training, _ = RUNS[name]
    asked = (first.world.data, first.world.model, editor, training)
    made = []
    for seed in (3, 4):
        folder = tmp_path / str(seed)
        folder.mkdir()
        made.append(implementation.run(*asked, seed, first.plan, folder))
    again, other = made
    drawn = [[as_triples(step["asked"]) for step in trace["steps"]] for trace in (first.trace, again, other)]
    equal("U4", drawn[1], drawn[0], "edits of a run of the same seed")
    holds("U4", drawn[2] != drawn[0], "edits of runs of two seeds", expected="edits that differ", got="the same edits")
    losses = [[step["loss"] for step in trace["steps"]] for trace in (first.trace, again)]
    equal("U4", losses[1], losses[0], "losses of a run of the same seed")
    equal("U4", *(_outcomes(trace["evaluations"]["all"]) for trace in (again, first.trace)), "outcomes of one seed")


# --- U8: Figure 5 -----------------------------------------------------------------------------------------------------


@clause("U8", "R6")
@needs("E")
@pytest.mark.parametrize("languages", [LANGUAGES, ("sw", "en", "zh", "de")], ids="-".join)
def test_figure_5_is_of_both_factors_of_all_matrices(
    implementation: Implementation, languages: tuple[str, ...]
) -> None:
    """R6's table of the log α of an editor, a language in each row, its masks of x and of δ side by side."""
    world = setting("bert")
    editor = make(implementation, "mend", world, "language", languages=languages)
    set_masks(implementation, editor)
    masks = implementation.mask_parameters(editor)
    with torch.no_grad():
        # Preferred dimensions lie in δ for one language, in x for another.
        masks[world.edited[0]]["delta"][0] += 6
        masks[world.edited[-1]]["x"][1] += 6
        # Two languages prefer the same dimensions, and each has numbers of its own there.
        top = masks[world.edited[0]]["delta"][0].topk(2).indices
        masks[world.edited[0]]["delta"][2, top] = masks[world.edited[0]]["delta"][0, top].flip(0) + 3
    parts = [masks[m][factor].detach().double().numpy() for m in world.edited for factor in ("x", "delta")]
    log_alpha = np.concatenate(parts, axis=1)
    # A hundredth of 160 dimensions is one or two, by how it is rounded.
    found_languages, found = implementation.preferences(editor)
    equal("U8", sorted(found_languages), sorted(languages), "languages of the figure")
    order = [list(found_languages).index(said) for said in languages]
    tables = [_similarity(log_alpha, count) for count in (1, 2)]
    got = np.asarray(found)[np.ix_(order, order)]
    near = [bool(np.allclose(got, one, atol=1e-6)) for one in tables]
    either = " or ".join(map(shown, tables))
    holds("U8", any(near), "cosines of Figure 5", expected=either, got=got, languages=languages)


def _similarity(log_alpha: Any, count: int) -> Any:
    """Cosines of every language with the row's, on the row's highest dimensions."""
    found = np.zeros((len(log_alpha), len(log_alpha)))
    for row, own in enumerate(log_alpha):
        top = np.argsort(-own)[:count]
        for other, values in enumerate(log_alpha):
            a, b = own[top], values[top]
            found[row, other] = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
    return found
