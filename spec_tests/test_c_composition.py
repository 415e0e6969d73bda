"""Chapter C: several edits in one model, at once and in series."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from . import oracles, strategies as given_
from .assertions import close, distributed, equal, holds, near, same_bits, width
from .conformance import Implementation, clause, each_of, every_editor, needs
from .contract import Request, SeriesOutcome
from .editing import widest
from .tiny import (
    Setting,
    differences,
    logits_of,
    make_felt,
    make_input,
    make_request,
    perturb,
    raw_weights,
    set_masks,
    setting,
    shifts,
    snapshot,
    weight_places,
    with_update,
)

KINDS = ("bert", "classifier")
every_kind = pytest.mark.parametrize("kind", KINDS)
Update = Mapping[str, torch.Tensor]


def felt(implementation: Any, name: str, world: Setting, masks: str = "none") -> Any:
    """An editor whose edits are felt, with all of its parameters off their start."""
    editor = make_felt(implementation, name, world, masks)
    perturb(implementation, editor)
    set_masks(implementation, editor)
    return editor


def requests_of(kind: str, count: int, seed: int) -> list[Request]:
    rng = np.random.default_rng(seed)
    return [make_request(kind, rng) for _ in range(count)]


def dense_of(implementation: Any, editor: Any, edits: Any, index: int) -> dict[str, torch.Tensor]:
    return {matrix: delta.detach() for matrix, delta in implementation.dense(editor, edits, index).items()}


def summed(parts: Sequence[Update], shift: Update) -> dict[str, torch.Tensor]:
    """Σ ΔW, in which what training did to the model itself is once."""
    return {
        matrix: sum((part[matrix] for part in parts), torch.zeros_like(parts[0][matrix]))
        - (len(parts) - 1) * shift.get(matrix, torch.zeros_like(parts[0][matrix]))
        for matrix in parts[0]
    }


def agree(clause_id: str, found: Update, expected: Update, beside: Sequence[Update], what: str) -> None:
    """One ΔW is another, up to the rounding of what they are made of."""
    equal(clause_id, sorted(found), sorted(expected), f"{what}: the edited matrices")
    for matrix, delta in expected.items():
        near(
            clause_id,
            found[matrix],
            delta,
            f"{what}: another ΔW of {matrix}",
            of=[found[matrix]],
            beside=sizes(matrix, beside),
        )


def sizes(matrix: str, parts: Sequence[Update]) -> torch.Tensor:
    """The largest number of a matrix in each part that has it."""
    return torch.stack([part[matrix].abs().max().double() for part in parts if matrix in part])


# C1, C4


@clause("C1")
@needs("E")
@every_kind
@every_editor
def test_a_composition_is_the_sum_of_its_edits(implementation: Any, name: str, kind: str) -> None:
    """ΔW of the whole is Σ ΔW, and the edited model answers as with W + Σ ΔW."""
    world = setting(kind)
    editor = felt(implementation, name, world, widest(name))
    made = [implementation.edit(editor, part) for part in (requests_of(kind, 2, 1), requests_of(kind, 1, 2))]
    parts = [
        dense_of(implementation, editor, edits, i) for edits, n in zip(made, (2, 1), strict=True) for i in range(n)
    ]
    expected = summed(parts, shifts(implementation, editor, name, world))
    whole = implementation.compose_edits(editor, made)
    agree("C1", dense_of(implementation, editor, whole, 0), expected, [raw_weights(world), *parts], "three edits")
    inputs = [make_input(kind, np.random.default_rng(3)) for _ in range(3)]
    changed = with_update(world.model, expected)
    for one, logits in zip(inputs, implementation.edited_logits(editor, whole, 0, inputs), strict=True):
        near("C1", logits, logits_of(changed, one), "logits under three edits")


@clause("C1")
@needs("E")
@every_editor
def test_order_and_grouping_have_no_part_in_a_composition(implementation: Any, name: str) -> None:
    """The same edits in another order, or composed in groups first, have the same sum."""
    world = setting("bert")
    editor = felt(implementation, name, world, widest(name))
    made = [implementation.edit(editor, [request]) for request in requests_of("bert", 4, 4)]
    compose = implementation.compose_edits
    ways = {
        "in order": compose(editor, made),
        "reversed": compose(editor, made[::-1]),
        "in groups": compose(editor, [compose(editor, made[:3]), made[3]]),
        "of groups": compose(editor, [compose(editor, made[::2]), compose(editor, made[1::2])]),
    }
    parts = [dense_of(implementation, editor, edits, 0) for edits in made]
    expected = summed(parts, shifts(implementation, editor, name, world))
    for way, edits in ways.items():
        agree("C1", dense_of(implementation, editor, edits, 0), expected, [raw_weights(world), *parts], way)


@clause("C1")
@needs("E")
@every_editor
def test_a_batch_that_is_there_twice_is_added_twice(implementation: Any, name: str) -> None:
    """What `edit` returned, given two times: the sum has it two times."""
    world = setting("bert")
    editor = felt(implementation, name, world, widest(name))
    once, again = (implementation.edit(editor, requests_of("bert", 1, seed)) for seed in (13, 14))
    parts = [dense_of(implementation, editor, edits, 0) for edits in (once, again, once)]
    whole = implementation.compose_edits(editor, [once, again, once])
    expected = summed(parts, shifts(implementation, editor, name, world))
    agree("C1", dense_of(implementation, editor, whole, 0), expected, [raw_weights(world), *parts], "one batch twice")


@clause("C1")
@needs("E")
@pytest.mark.parametrize("kind", ["bert", "wide"])
@every_editor
def test_many_edits_compose_as_few_do(implementation: Any, name: str, kind: str) -> None:
    """Thirty edits: with far more rows than a small matrix has, and of a higher rank than is usual in a large one."""
    world = setting(kind)
    editor = felt(implementation, name, world)
    made = [implementation.edit(editor, requests_of(kind, 3, seed)) for seed in range(10)]
    parts = [dense_of(implementation, editor, edits, i) for edits in made for i in range(3)]
    whole = implementation.compose_edits(editor, made)
    expected = summed(parts, shifts(implementation, editor, name, world))
    agree("C1", dense_of(implementation, editor, whole, 0), expected, [raw_weights(world), *parts], "thirty edits")


@clause("C1")
@needs("E")
@every_editor
def test_the_edits_of_a_series_compose_as_others_do(implementation: Any, name: str) -> None:
    """An edit that was made after others is itself in a sum, and brings none of them along."""
    world = setting("bert")
    editor = felt(implementation, name, world, widest(name))
    first, *later = requests_of("bert", 3, 17)
    held = implementation.compose_edits(editor, [implementation.edit(editor, [first])])
    parts = [dense_of(implementation, editor, held, 0)]
    for request in later:
        made = implementation.edit_after(editor, held, [request])
        parts.append(dense_of(implementation, editor, made, 0))
        held = implementation.compose_edits(editor, [held, made])
    expected = summed(parts, shifts(implementation, editor, name, world))
    agree("C1", dense_of(implementation, editor, held, 0), expected, [raw_weights(world), *parts], "a series of three")


@clause("C1")
@needs("E")
@every_editor
def test_one_edit_composed_is_that_edit(implementation: Any, name: str) -> None:
    """A composition of one is the edit itself."""
    world = setting("bert")
    editor = felt(implementation, name, world)
    made = implementation.edit(editor, requests_of("bert", 1, 5))
    whole = implementation.compose_edits(editor, [made])
    alone = dense_of(implementation, editor, made, 0)
    agree("C1", dense_of(implementation, editor, whole, 0), alone, [raw_weights(world), alone], "one edit")


@clause("C4")
@needs("E")
@pytest.mark.parametrize("index", [0, 1, 3])
@every_editor
def test_without_an_edit_the_others_are_left(implementation: Any, name: str, index: int) -> None:
    """Dropping any one of four edits leaves the composition of the three others."""
    world = setting("bert")
    editor = felt(implementation, name, world, widest(name))
    made = implementation.edit(editor, requests_of("bert", 4, 6))
    parts = [dense_of(implementation, editor, made, i) for i in range(4) if i != index]
    rest = dense_of(implementation, editor, implementation.drop_edit(editor, made, index), 0)
    expected = summed(parts, shifts(implementation, editor, name, world))
    agree("C4", rest, expected, [raw_weights(world), *parts], f"without edit {index}")
    again = dense_of(implementation, editor, implementation.drop_edit(editor, made, index), 0)
    agree("C4", again, expected, [raw_weights(world), *parts], f"without edit {index}, asked a second time")


@clause("C4")
@needs("E")
@pytest.mark.parametrize("index", [0, 2])
@every_editor
def test_of_equal_edits_one_is_dropped(implementation: Any, name: str, index: int) -> None:
    """The same request twice is two edits: without one of them the other is left, beside an edit of something else."""
    world = setting("bert")
    editor = felt(implementation, name, world, widest(name))
    request, other = requests_of("bert", 2, 7)
    made = implementation.edit(editor, [request, other, request])
    parts = [dense_of(implementation, editor, made, i) for i in range(3) if i != index]
    rest = dense_of(implementation, editor, implementation.drop_edit(editor, made, index), 0)
    expected = summed(parts, shifts(implementation, editor, name, world))
    agree("C4", rest, expected, [raw_weights(world), *parts], f"without edit {index}, which has an equal one")


# C2


def moved(
    implementation: Any, editor: Any, name: str, world: Setting, masks: str, change: Update
) -> tuple[Any, Setting]:
    """An editor with the same parameters on a model with W + ΔW, where Editable Training's θ' has moved along."""
    there = Setting(world.kind, with_update(world.model, change), world.edited)
    other = make_felt(implementation, name, there, masks)
    values, own = implementation.parameters(editor), implementation.parameters(other)
    with torch.no_grad():
        for key, value in own.items():
            value.copy_(values[key])
        trained = implementation.trained_weights(editor) if name == "editable_training" else {}
        for matrix, (key, weight) in trained.items():
            index = weight_places(implementation, editor, world, matrix)
            kept, raw = values[key].detach().double().flatten()[index], raw_weights(world)[matrix]
            # A difference from the raw matrix stays as it is.
            if float((kept - weight).abs().max()) < float((kept - (weight - raw)).abs().max()):
                own[key].view(-1)[index.flatten()] += change[matrix].flatten().to(own[key].dtype)
    return other, there


@clause("C2")
@needs("E")
@every_kind
@every_editor
def test_the_next_edit_is_that_of_the_model_so_far(implementation: Any, name: str, kind: str) -> None:
    """After two edits, a third is the edit that an editor of the changed model makes: its own ΔW, and no more."""
    world = setting(kind)
    masks = widest(name)
    editor = felt(implementation, name, world, masks)
    shift = shifts(implementation, editor, name, world)
    asked = requests_of(kind, 4, 7)
    before = implementation.compose_edits(editor, [implementation.edit(editor, asked[:2])])
    held = dense_of(implementation, editor, before, 0)
    change = {matrix: delta - shift.get(matrix, torch.zeros_like(delta)) for matrix, delta in held.items()}
    other, there = moved(implementation, editor, name, world, masks, change)
    fresh = implementation.edit(other, asked[2:])
    own = shifts(implementation, other, name, there)
    implementation.edit(editor, asked[2:])  # the same requests, asked of the raw model before
    new = implementation.edit_after(editor, before, asked[2:])
    for matrix, delta in dense_of(implementation, editor, before, 0).items():
        same_bits("C2", delta, held[matrix], f"a next edit changed the edits so far: ΔW of {matrix}")
    for index in range(2):
        found, expected = dense_of(implementation, editor, new, index), dense_of(implementation, other, fresh, index)
        for matrix, delta in expected.items():
            step = delta - own.get(matrix, torch.zeros_like(delta))
            got, what = (
                found[matrix] - shift.get(matrix, torch.zeros_like(delta)),
                f"edit {index} after two: another ΔW of {matrix}",
            )
            beside = sizes(matrix, [raw_weights(there), shift, held, found])
            tolerance = "training" if name == "finetuning" else "model"
            near("C2", got, step, what, tolerance, of=[found[matrix]], beside=beside, by_norm=name == "finetuning")


@clause("C2")
@needs("E", "finetuning")
@every_kind
def test_no_step_is_taken_where_the_edits_so_far_suffice(implementation: Any, kind: str) -> None:
    """Finetuning, asked again for what an edit has reached, finds the desired prediction there already."""
    world = setting(kind)
    editor = make_felt(implementation, "finetuning", world)
    for request in requests_of(kind, 3, 8):
        before = implementation.compose_edits(editor, [implementation.edit(editor, [request])])
        (answered,) = implementation.edited_logits(editor, before, 0, [request])
        if answered.argmax(-1).tolist() != request["labels"]:
            continue
        again = dense_of(implementation, editor, implementation.edit_after(editor, before, [request]), 0)
        largest = max(float(delta.abs().max()) for delta in again.values())
        holds("C2", largest == 0, "a step beyond the desired prediction", expected=0.0, got=largest, request=request)


@clause("C2")
@needs("E")
@every_editor
def test_a_series_leaves_the_raw_model_as_it_was(implementation: Any, name: str) -> None:
    """Edits after edits, composed and asked: parameters, buffers and modes stay, bit for bit; so do raw predictions."""
    world = setting("bert")
    editor = felt(implementation, name, world)
    before, probe = snapshot(world.model), make_input("bert", np.random.default_rng(9))
    expected = logits_of(world.model, probe).detach().clone()
    held: Any = None
    for request in requests_of("bert", 3, 10):
        made = (
            implementation.edit(editor, [request])
            if held is None
            else implementation.edit_after(editor, held, [request])
        )
        held = implementation.compose_edits(editor, [made] if held is None else [held, made])
        implementation.edited_logits(editor, held, 0, [probe])
    changed = differences(before, snapshot(world.model))
    equal("C2", changed, [], "a series changed the raw model")
    (raw,) = implementation.raw_logits(editor, [probe])
    near("C2", raw, expected, "raw logits after a series")


@clause("T2")
@needs("C", "E")
@every_editor
def test_an_edit_after_a_series_starts_from_the_raw_parameters(implementation: Any, name: str) -> None:
    """Bit for bit what it was before the series."""
    world = setting("bert")
    editor = felt(implementation, name, world)
    first, second, request = requests_of("bert", 3, 15)
    alone = dense_of(implementation, editor, implementation.edit(editor, [request]), 0)
    held = implementation.compose_edits(editor, [implementation.edit(editor, [first])])
    implementation.edit_after(editor, held, [second])
    later = dense_of(implementation, editor, implementation.edit(editor, [request]), 0)
    for matrix, delta in alone.items():
        same_bits("T2", later[matrix], delta, f"an edit after a series: ΔW of {matrix}", request=request)


@clause("T2")
@needs("C", "E")
@every_editor
def test_compositions_and_saving_leave_the_raw_model_as_it_was(implementation: Any, name: str, tmp_path: Path) -> None:
    """However large an edit is, beside which the raw numbers would be rounded: they stay, bit for bit."""
    world = setting("bert")
    rates = {"finetuning": {"lr": 3.0}, "knowledge_editor": {}}.get(name, {"inner_lr": 50.0})
    editor = make_felt(implementation, name, world, **rates)
    perturb(implementation, editor)
    before, asked_ = snapshot(world.model), requests_of("bert", 3, 16)
    made = implementation.edit(editor, asked_[:2])
    held: dict[str, Any] = {}
    calls = {
        "compose_edits": lambda: held.update(all=implementation.compose_edits(editor, [made])),
        "edit_after": lambda: implementation.edit_after(editor, held["all"], asked_[2:]),
        "drop_edit": lambda: implementation.drop_edit(editor, made, 1),
        "save_edited": lambda: implementation.save_edited(editor, held["all"], 0, tmp_path / "saved"),
    }
    for function, call in calls.items():
        call()
        changed = differences(before, snapshot(world.model))
        equal("T2", changed, [], f"`{function}` left the raw model changed", editor=name)


# C3


@clause("C3")
@needs("E")
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        *((kind, dtype) for kind in ("bert", "classifier", "roberta") for dtype in (torch.float64, torch.float32)),
        ("deep", torch.float64),
    ],
    ids=lambda value: str(value).removeprefix("torch."),
)
@each_of("mend", "finetuning", "editable_training")
def test_a_saved_model_answers_as_under_the_edit(
    implementation: Any, name: str, dtype: torch.dtype, kind: str, tmp_path: Path
) -> None:
    """Loaded again: W + ΔW in their own width, all else bit for bit, and the same answers."""
    world = setting(kind, dtype)
    editor = felt(implementation, name, world)
    edits = implementation.edit(editor, requests_of(kind, 2, 11))
    implementation.save_edited(editor, edits, 1, tmp_path / "saved")
    again = type(world.model).from_pretrained(tmp_path / "saved", dtype="auto").eval()  # type: ignore[attr-defined]
    update, new = dense_of(implementation, editor, edits, 1), dict(again.named_parameters())
    # Where everything is computed in float32, so is what is saved.
    widths = {dtype, torch.float32} if width(*update.values()) == "float32" else {dtype}
    for key, raw in world.model.named_parameters():
        saved = new[key].detach()
        holds("C3", saved.dtype in widths, f"the width of {key}", expected=widths, got=saved.dtype)
        if key in update:
            exact = saved.dtype == torch.float64 and width(update[key]) == "float64"
            rounded = 1e-11 if exact else 1e-6
            wrong = float((saved - (raw.detach() + update[key])).abs().max())
            told = f"W + ΔW, to {rounded:g}"
            holds("C3", wrong <= rounded, f"the saved {key} is not W + ΔW", expected=told, got=f"off by {wrong:.1e}")
        else:
            same = torch.equal(saved, raw.to(saved.dtype))
            holds("C3", same, f"the saved {key} is not the raw model's", expected="equal bits", got="other bits")
    inputs = [make_input(kind, np.random.default_rng(12)) for _ in range(3)]
    for one, logits in zip(inputs, implementation.edited_logits(editor, edits, 1, inputs), strict=True):
        near("C3", logits_of(again, one), logits, "a loaded model's logits", of=[logits])


# C5


@st.composite
def asked(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of edit_series. Two facts are known in every language; there are more facts than edits."""
    corpus = draw(given_.corpora(min_facts=2))
    everywhere = [
        given_.example(fact, code) for fact in ("all0", "all1", "all2") for code in given_.languages_of(corpus)
    ]
    corpus = draw(st.permutations([*corpus, *everywhere]))
    facts = len({e["fact"] for e in corpus})
    return {
        "corpus": corpus,
        "edit_languages": draw(given_.some_languages(corpus)),
        "update_languages": draw(given_.some_languages(corpus)),
        "n_edits": draw(st.integers(1, facts - 2)),
        "n_update": draw(st.integers(1, 4)),
        "n_retain": draw(st.integers(1, 6)),
        "seed": draw(given_.seeds),
    }


@clause("C5")
@needs("S")
@given(asked())
def test_a_series_edits_each_fact_once(implementation: Implementation, call: dict[str, Any]) -> None:
    """As many edits as asked, each of another fact, all in the editing languages."""
    made = implementation.edit_series(**call)
    known = {e["id"]: e for e in call["corpus"]}
    edits = [edit["edit"] for edit in made["edits"]]
    there = {e["fact"] for e in call["corpus"] if e["language"] in call["edit_languages"]}
    equal("C5", len(edits), min(call["n_edits"], len(there)), "how many edits", **call)
    facts = [known[edit]["fact"] for edit in edits]
    equal("C5", len(set(facts)), len(facts), f"facts are edited twice: {facts}", **call)
    strange = [edit for edit in edits if known[edit]["language"] not in call["edit_languages"]]
    equal("C5", strange, [], "edits in other languages", **call)


@clause("C5")
@needs("S")
@given(asked())
def test_retain_inputs_of_a_series_are_parallel_to_none_of_its_edits(
    implementation: Implementation, call: dict[str, Any]
) -> None:
    """No parallel of the first, the last or any other edit is asked for the raw model's answer."""
    made = implementation.edit_series(**call)
    known = {e["id"]: e for e in call["corpus"]}
    edited = {known[edit["edit"]]["fact"] for edit in made["edits"]}
    leaked = [one for one in made["retain"] if known[one]["fact"] in edited]
    equal("C5", leaked, [], "retained parallels of edits", **call)
    strange = [one for one in made["retain"] if known[one]["language"] not in call["update_languages"]]
    equal("C5", strange, [], "retain inputs in other languages", **call)
    rest = {e["id"] for e in call["corpus"] if e["fact"] not in edited and e["language"] in call["update_languages"]}
    holds(
        "C5",
        not rest or len(made["retain"]) in (call["n_retain"], len(rest)),
        "how many retain inputs",
        expected=min(call["n_retain"], len(rest)),
        got=len(made["retain"]),
        **call,
    )


@clause("C5")
@needs("S")
@pytest.mark.parametrize("edits", [12, 40])
def test_retain_inputs_of_a_long_series_are_parallel_to_none_of_its_edits(
    implementation: Implementation, edits: int
) -> None:
    """Nearly every fact is edited, so that what is forgotten of the edits is soon drawn."""
    corpus = [given_.example(f"f{i}", code) for i in range(edits + 3) for code in ("en", "de")]
    known = {e["id"]: e["fact"] for e in corpus}
    for seed in range(20):
        made = implementation.edit_series(corpus, ["en"], ["en", "de"], edits, 1, 4, seed)
        edited = {known[edit["edit"]] for edit in made["edits"]}
        equal("C5", len(edited), edits, "facts that are edited", seed=seed)
        leaked = [one for one in made["retain"] if known[one] in edited]
        equal("C5", leaked, [], "retained parallels of edits", seed=seed, edits=edits)


@clause("C5")
@needs("S")
@given(asked())
def test_update_inputs_of_a_series_are_parallel_to_their_own_edit(
    implementation: Implementation, call: dict[str, Any]
) -> None:
    """Each edit has its own sampled parallels, in the updating languages."""
    for edit in implementation.edit_series(**call)["edits"]:
        inside = oracles.parallel(call["corpus"], edit["edit"], call["update_languages"])
        wrong = [one for one in edit["update"] if one not in inside]
        equal("C5", wrong, [], f"update inputs of {edit['edit']}", **call)
        asked_for = (min(call["n_update"], len(inside)), call["n_update"] if inside else 0)
        holds("C5", len(edit["update"]) in asked_for, "how many", expected=asked_for, got=len(edit["update"]), **call)


@clause("C5", "S2")
@needs("S")
def test_update_inputs_of_a_series_may_be_the_edit_itself(implementation: Implementation) -> None:
    """Where its language is one of the updating ones: of two parallels each comes."""
    corpus = [given_.example(f"f{i}", code) for i in range(6) for code in ("en", "de")]
    made = [implementation.edit_series(corpus, ["en"], ["en", "de"], 3, 1, 1, seed) for seed in range(40)]
    same = Counter(edit["update"][0] == edit["edit"] for one in made for edit in one["edits"])
    equal("C5", set(same), {True, False}, "update inputs that are the edit itself", drawn=dict(same))


@clause("C5")
@needs("S")
def test_a_series_may_edit_any_fact_in_any_order(implementation: Implementation) -> None:
    """Over many seeds each of six facts is edited, and each is edited first."""
    corpus = [given_.example(f"f{i}", code) for i in range(6) for code in ("en", "de")]
    firsts, edited = set(), set()
    for seed in range(200):
        made = implementation.edit_series(corpus, ["en"], ["en", "de"], 3, 1, 2, seed)
        facts = [edit["edit"] for edit in made["edits"]]
        firsts.add(facts[0])
        edited |= set(facts)
    everyone = {f"f{i}/en" for i in range(6)}
    equal("C5", sorted(firsts), sorted(everyone), "facts that come first")
    equal("C5", sorted(edited), sorted(everyone), "facts that are edited")


@clause("C5")
@needs("S")
def test_retain_inputs_of_a_series_are_uniform(implementation: Implementation) -> None:
    """As in an evaluation, 1,600 are any examples of the updating languages of which no fact is edited."""
    corpus = [given_.example(f"f{i}", code) for i in range(7) for code in ("en", "de", "zh") if code == "en" or i % 2]
    fact = {e["id"]: e["fact"] for e in corpus}
    drawn: Counter[str] = Counter()
    expected: Counter[str] = Counter()
    for seed in range(800):
        made = implementation.edit_series(corpus, ["en"], ["de", "en"], 3, 1, 2, seed)
        edited = {fact[edit["edit"]] for edit in made["edits"]}
        rest = [e["id"] for e in corpus if e["fact"] not in edited and e["language"] != "zh"]
        drawn.update(made["retain"])
        expected.update(dict.fromkeys(rest, len(made["retain"]) / len(rest)))  # type: ignore[arg-type]
    distributed("C5", drawn, expected, "retain inputs of a series are not uniform")


@clause("S7")
@needs("C")
def test_a_seed_fixes_a_series(implementation: Implementation) -> None:
    """Same seed, same edits in one order with the same inputs, however the corpus was read; another seed, others."""
    corpus = [given_.example(f"f{i}", code) for i in range(20) for code in ("en", "de")]
    said: list[Any] = []
    for seed, read in ((7, corpus), (7, corpus), (7, corpus[::-1]), (8, corpus)):
        made = implementation.edit_series(read, ["en", "de"], ["en", "de"], 10, 1, 5, seed)
        said.append([[[e["edit"], list(e["update"])] for e in made["edits"]], sorted(made["retain"])])
    equal("S7", said[1], said[0], "one seed gives two series")
    equal("S7", said[2], said[0], "the order of the corpus changes a series")
    for what, one, other in zip(("edits", "retain inputs"), said[0], said[3], strict=True):
        holds("S7", one != other, f"two seeds give one series: its {what}", expected="others", got="the same")


# C6


@st.composite
def outcomes_of_a_series(draw: st.DrawFn) -> list[SeriesOutcome]:
    """One to five edits in some languages, asked after themselves, after the last, in between and beforehand."""
    count = draw(st.integers(1, 5))
    spoken = [draw(st.sampled_from(("en", "de", "zh"))) for _ in range(count)]
    rows: list[SeriesOutcome] = []

    def add(made: int, edit: int, inputs: int) -> None:
        for _ in range(inputs):
            role, language = ("update", spoken[edit - 1]) if edit else ("retain", "")
            said = draw(st.sampled_from(("en", "de", "zh")))
            row = {"made": made, "edit": edit, "edit_language": language, "role": role, "language": said}
            rows.append({**row, "hit": draw(st.booleans())})  # type: ignore[typeddict-item]

    for edit in range(1, count + 1):
        for made in sorted({edit, count}):
            add(made, edit, draw(st.integers(1, 3)))
        if edit + 1 < count and draw(st.booleans()):
            add(edit + 1, edit, 1)
        add(edit - 1, edit, draw(st.integers(0, 2)))
    add(count, 0, draw(st.integers(1, 5)))
    if count > 1:
        add(1, 0, draw(st.integers(0, 2)))
    return draw(st.permutations(rows))


@clause("C6")
@needs("M")
@given(outcomes_of_a_series())
def test_efficacy_retention_and_con_are_those_of_the_oracle(
    implementation: Implementation, outcomes: list[SeriesOutcome]
) -> None:
    """Right after the edit; after the last; and the original raw model's answers after the last."""
    last = max(o["made"] for o in outcomes)
    expected = {
        "efficacy": averaged([o for o in outcomes if o["edit"] and o["made"] == o["edit"]]),
        "retention": averaged([o for o in outcomes if o["edit"] and o["made"] == last]),
        "con": oracles.mean([Fraction(int(o["hit"])) for o in outcomes if not o["edit"] and o["made"] == last]),
    }
    got = implementation.series_metrics(outcomes)
    equal("C6", sorted(got), sorted(expected), "the metrics of a series")
    for name, value in expected.items():
        close("C6", got[name], float(value), name, outcomes=outcomes)


def averaged(outcomes: Sequence[SeriesOutcome]) -> Fraction:
    """Over an edit's inputs, over edits, over editing languages."""
    rates: dict[str, list[Fraction]] = {}
    for edit in sorted({o["edit"] for o in outcomes}):
        own = [o for o in outcomes if o["edit"] == edit]
        rate = oracles.mean([Fraction(int(o["hit"])) for o in own])
        rates.setdefault(own[0]["edit_language"], []).append(rate)
    return oracles.mean([oracles.mean(values) for values in rates.values()])
