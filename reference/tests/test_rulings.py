"""Each ruling is followed, and the numbers that spec_tests/RULINGS.md prints are those that were measured."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import kl_div, log_softmax

from lime_editing.core.editing import Editor, Objective, batch_of, edit, make_editor, uniforms_of
from lime_editing.core.evaluation import evaluate, validator
from lime_editing.core.metrics import Scores, count, mean_of_edits, scores
from lime_editing.core.sampling import evaluation_pairs
from lime_editing.core.training import computed, descend, gradients
from lime_editing.names import PROTOCOLS, RULINGS, Rulings
from lime_editing.records import Outcome, Triple
from lime_editing.reproduce import run as runs
from lime_editing.reproduce.scales import SCALES
from reference.studies import rulings

from .miniature import CELL, finished, prepared
from .test_fast import LANGUAGES, backbone, editor, triples

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "spec_tests" / "RULINGS.md").read_text(encoding="utf-8")
STORED = json.loads(rulings.PUBLISHED.read_text(encoding="utf-8"))
#: What is said of a measurement: a point of a list, or a row of a table, that names it in brackets.
SAID = [
    pytest.param(name, text, id=f"{name}-{i}")
    for i, text in enumerate(re.findall(r"^(?:- |\| ).*(?:\n  .*)*", PAGE, flags=re.MULTILINE))
    for name in re.findall(r"\(`(\w+)`\)", text)
]
#: Of clauses, sections and code nothing was measured.
NOT_MEASURED = re.compile(r"`[^`]*`|\b[A-Z]\d+\b|§\S+")
NUMBER = re.compile(r"(?<![\w.,])\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")


def values(stored: Any) -> Iterator[float]:
    """All numbers of an entry."""
    if isinstance(stored, dict | list):
        for value in stored.values() if isinstance(stored, dict) else stored:
            yield from values(value)
    elif isinstance(stored, int | float):
        yield abs(stored)


def is_stored(number: str, stored: Any) -> bool:
    """Whether a printed number is one of these, rounded to what it shows."""
    plain = number.replace(",", "")
    if "e" in plain:
        return float(plain) in set(values(stored))
    digits = len(plain.partition(".")[2])
    return any(f"{value:.{digits}f}" == plain for value in values(stored))


@pytest.mark.parametrize(("name", "text"), SAID)
def test_every_printed_number_was_measured(name: str, text: str) -> None:
    """A number in an entry stands in the stored measurement that the entry names; before it is made there is none."""
    printed = NUMBER.findall(NOT_MEASURED.sub("", text))
    assert [number for number in printed if not is_stored(number, STORED["measurements"].get(name, {}))] == []


def test_every_measurement_is_told() -> None:
    """Nothing is measured and left out: what changes nothing is a result too."""
    told = {name for param in SAID for name in param.values[:1]}
    in_table = {name for _, _, name, _ in rulings.ROWS}
    assert set(STORED["measurements"]) - told - in_table == set()


def test_the_table_is_the_stored_one() -> None:
    """The table is printed by the script that measures."""
    (table,) = re.findall(r"<!-- table -->\n+(.*?)\n+<!-- /table -->", PAGE, flags=re.DOTALL)
    assert table == rulings.table(STORED["measurements"])


# --- Each alternative changes what it says, and nothing else ---------------------------------------------------------

CPU = torch.device("cpu")
PAPER, ALL = Objective(), Objective(loc_positions="all")


def exact_loc(made: Editor, triple: Triple) -> float:
    """KL(edited ‖ raw) at every token of x_r, mean over tokens, by the whole model and one input at a time."""
    x = replace(triple.retain, positions=tuple(range(len(triple.retain.ids))))
    states = made.backbone.trunk([x])
    with torch.no_grad():
        new, old = (made.backbone.upper(states, u) for u in (edit(made, [triple.edit]), None))
    each = kl_div(log_softmax(old, -1), log_softmax(new, -1), log_target=True, reduction="none").sum(-1)
    return each.mean().item()


def test_loc_positions_all_takes_every_token_and_no_padding() -> None:
    """L2: inputs of very different lengths; L_loc is the mean over each input's own tokens, L_rel is bit for bit."""
    made, batch = editor("mend", "bert", "none"), triples("bert", 5)
    printed, whole = (gradients(made, batch, 0, objective) for objective in (PAPER, ALL))
    assert whole["rel"] == printed["rel"]
    assert whole["loc"] != pytest.approx(printed["loc"], rel=1e-3)
    assert whole["loc"] == pytest.approx(np.mean([exact_loc(made, triple) for triple in batch]), rel=1e-4)


@pytest.mark.parametrize("name", ["mend", "editable_training", "knowledge_editor"])
def test_loc_positions_all_has_a_fixed_shape_too(name: str) -> None:
    """Losses and gradients of the fixed-shape step are those of the plain one."""
    made, batch = editor(name, "bert"), triples("bert", 4)
    drawn = uniforms_of(made, 4, 0)
    exact, fixed = (computed(made, ALL, batch_of(made, batch, drawn, fixed, "all").on(CPU)) for fixed in (False, True))
    for ours, theirs in zip(fixed, exact, strict=True):
        assert ours is not None
        torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=1e-6)


def test_loc_positions_concern_sentences_alone() -> None:
    """A classifier has one prediction."""
    made, batch = editor("mend", "bert-classes"), triples("bert-classes", 3)
    assert gradients(made, batch, 0, ALL) == gradients(made, batch, 0, PAPER)


@pytest.mark.parametrize("clipping", ["apart", "together"])
def test_clipping(clipping: Any) -> None:
    """Editor and masks have each a largest norm of their own, or one together; directions stay."""
    made = editor("mend", "bert")
    for p in made.parameters.values():
        p.grad = torch.full_like(p, 0.5)
    before = {name: p.detach().clone() for name, p in made.parameters.items()}
    descend(made, torch.optim.SGD(made.parameters.values(), lr=1.0), 2.0, clipping)
    kinds = (made.own_parameters(), made.mask_parameters())
    moved = [torch.cat([(before[n] - p.detach()).flatten() for n, p in kind.items()]) for kind in kinds]
    norms = [step.norm().item() for step in moved]
    expected = [2.0, 2.0] if clipping == "apart" else [2 * (len(s) / sum(map(len, moved))) ** 0.5 for s in moved]
    assert norms == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("log_alpha", ["free", "clamped"])
def test_log_alpha_is_clamped_after_the_step(log_alpha: Any) -> None:
    """log α alone, to ±log 100, so that no edit sees more; scales and the editor's own parameters are free."""
    made = make_editor("mend", backbone("bert"), LANGUAGES, "language", mask_scale="learned")
    with torch.no_grad():
        for p in made.parameters.values():
            p.fill_(-7.0)
    for p in made.parameters.values():
        p.grad = torch.ones_like(p)
    descend(made, torch.optim.SGD(made.parameters.values(), lr=1.0), 1e9, "apart", log_alpha)
    for name, p in made.parameters.items():
        held = log_alpha == "clamped" and name.startswith("mask.") and not name.endswith("_scale")
        assert p.unique().tolist() == pytest.approx([-math.log(100) if held else -8.0]), name


def test_the_number_that_stops_a_training() -> None:
    """R5: two edits that are right once each have succ 2/3 as printed and 1/3 as released; acc and con are the same."""
    hits = {"a": (True, False), "b": (False, True), "c": (True, True)}
    rows = [
        Outcome(name, "en", role, "en", hit)
        for name, both in hits.items()
        for role, hit in zip(("update", "retain"), both, strict=True)
    ]
    assert scores(count(rows)).succ == pytest.approx(2 / 3)
    assert mean_of_edits(count(rows)) == pytest.approx(1 / 3)
    # An edit that was asked nothing of one role has no harmonic mean.
    assert mean_of_edits(count([*rows, Outcome("d", "en", "retain", "en", True)])) == pytest.approx(1 / 3)


@pytest.mark.parametrize("positions", ["mask", "all"])
def test_validation_follows_its_rulings(facts: Path, model: Path, positions: Any) -> None:
    """What validation says is what an evaluation of the same pairs says, at the same positions."""
    made, splits = runs.assemble(CELL, prepared(facts, model))
    assert isinstance(made, Editor)
    task = splits["validation"]
    languages = task.corpus.languages
    pairs = evaluation_pairs(task.corpus, languages, languages, 2, 2, 0, 12)
    found = count(evaluate(made, task, pairs, 0, con_positions=positions))
    printed = scores(found)
    assert validator(task, pairs, 0, con_positions=positions)(made) == printed
    released = replace(printed, succ=mean_of_edits(found))
    assert validator(task, pairs, 0, con_positions=positions, stopping="edits")(made) == released


class Reached(Exception):
    """A training would begin."""


@pytest.mark.parametrize("name", [f.name for f in fields(Objective) if f.name in RULINGS] + ["stopping"])
def test_a_run_trains_as_the_ruling_says(
    facts: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Turned alone, a ruling turns its own part of what the training is given."""

    def told(*_: Any, **rest: Any) -> Any:
        raise Reached(_, rest)

    def given(ruled: Rulings) -> tuple[Objective, tuple[Any, ...], float]:
        asked: list[Any] = []
        monkeypatch.setattr(runs, "train", told)
        monkeypatch.setattr(runs, "validator", lambda *args: asked.append(args[4:]))
        with pytest.raises(Reached) as seen:
            finished(CELL, prepared(facts, model, rulings=ruled), tmp_path)
        _, _, _, schedule, objective, *_ = seen.value.args[0]
        return objective, asked[0], schedule.clip

    values, _ = RULINGS[name]
    objective, asked, clip = given(Rulings())
    assert (asked, clip) == (("mask", "averages"), 1.0)
    assert objective == replace(objective, **{f.name: f.default for f in fields(Objective) if f.name in RULINGS})
    turned, other, largest = given(replace(Rulings(), **{name: values[1]}))  # type: ignore[arg-type]
    assert turned == (objective if name == "stopping" else replace(turned, **{name: values[1]}))
    same = {f.name for f in fields(Objective)} - {name} - ({"lambda_mask"} if name == "penalty" else set())
    assert all(getattr(turned, one) == getattr(objective, one) for one in same)
    assert other == ("mask", "edits" if name == "stopping" else "averages")
    assert largest == (100.0 if name == "clipping" else 1.0)


def test_validation_judges_con_where_the_protocol_does(
    facts: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under `released` the best is chosen by con at all positions and by the mean of the edits."""
    asked: list[Any] = []

    def judged(*args: Any) -> Any:
        asked.append(args[4:])
        return lambda _: Scores(0.5, 0.5, 0.5)

    monkeypatch.setattr(runs, "validator", judged)
    finished(CELL, prepared(facts, model, rulings=PROTOCOLS["released"]), tmp_path)
    assert asked == [("all", "edits")]


def test_the_released_values_of_a_scale() -> None:
    """Clipping at every scale; rates and numbers of inputs, which are of mBERT, at the paper's alone."""
    for scale in SCALES.values():
        for task in scale.tasks.values():
            released = task.under(PROTOCOLS["released"])
            assert task.under(PROTOCOLS["paper"]) == task
            assert (task.all_languages.clip, released.all_languages.clip, released.english_only.clip) == (1, 100, 100)
            paper = scale.name == "paper"
            assert (released.test.n_retain == 4) == paper or task.test.n_retain == 4
            assert (released.settings["editable_training"].inner_lr == 1e-2) == paper
