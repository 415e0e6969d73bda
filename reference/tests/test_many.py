"""Many edits: composition, series, least squares, and the editors that merge, against slow dense computations."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification

from lime_editing.backbone import Backbone, wrap
from lime_editing.core.editing import Editor, Objective, edit, edit_batch, make_editor, training_losses, uniforms_of
from lime_editing.core.sets import Given, edit_all, fit
from lime_editing.core.training import adam, gradients, train_step
from lime_editing.editors import Chunk, Gradient, find, least_squares, mend, methods, rome
from lime_editing.errors import LanguageError, UserError
from lime_editing.records import EditRequest, Input, Triple
from lime_editing.updates import Update, compose, plus

N, M, VOCABULARY = 12, 16, 40
LANGUAGES = ("en", "de", "fr")
SETTINGS: dict[str, dict[str, Any]] = {
    "finetuning": {"lr": 0.02, "steps": 6},
    "editable_training": {"inner_lr": 0.05},
    "knowledge_editor": {"lstm": 8, "hidden": 8},
    "mend": {"rank": 8, "inner_lr": 0.01},
    "malmen": {"rank": 8, "inner_lr": 0.01},
    "ultraedit": {"lr": 0.01},
    "slag": {"lstm": 8, "hidden": 8, "steps": 3, "series": 3},
    "rome": {"steps": 5},
    "memit": {"steps": 5, "ridge": 2.0, "largest": 2.0},
}
TRAINED = [name for name in SETTINGS if find(name).TRAINED]
every_editor = pytest.mark.parametrize("name", SETTINGS)


def backbone(classifier: bool = False) -> Backbone:
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "hidden_size": N, "intermediate_size": M, "num_hidden_layers": 4}
    config = BertConfig(**sizes, num_attention_heads=2, max_position_embeddings=40, initializer_range=0.3, num_labels=3)
    model = BertForSequenceClassification(config) if classifier else BertForMaskedLM(config)
    return wrap(model.eval().double().requires_grad_(False), 2)


def requests(count: int, seed: int = 0, classifier: bool = False) -> list[EditRequest]:
    """Of one to three [MASK], or of a class, in all languages."""
    draw = torch.Generator().manual_seed(seed)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=draw))

    made = []
    for i in range(count):
        words = [number(5, VOCABULARY) for _ in range(number(3, 7))]
        masks = 1 if classifier else number(1, 4)
        ids = (2, *words[:2], *([4] * (0 if classifier else masks)), *words[2:], 3)
        places = (0,) if classifier else tuple(range(3, 3 + masks))
        labels = tuple(number(0, 3) if classifier else number(5, VOCABULARY) for _ in range(masks))
        made.append(EditRequest(Input(ids, places), labels, LANGUAGES[i % 3]))
    return made


def editor_of(name: str, model: Backbone | None = None, masks: Any = "none", **more: Any) -> Editor:
    """An editor off its start, fitted where it measures something."""
    model = backbone() if model is None else model
    made = make_editor(name, model, LANGUAGES, masks, 0, {**SETTINGS[name], **more})
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters.values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=draw, dtype=torch.float64))
    return fit(made, requests(40, 9, model.classifies)) if hasattr(made.method, "fit") else made


def triples(count: int, seed: int = 0) -> list[Triple]:
    asked, kept = requests(count, seed), requests(count, seed + 1)
    return [
        Triple(e, replace(e.input, ids=(*e.input.ids[:-1], 7, 3)), r.input) for e, r in zip(asked, kept, strict=True)
    ]


def close(found: Any, expected: Any, rtol: float = 1e-6, atol: float = 1e-9) -> None:
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


def logits(model: Backbone, asked: Sequence[EditRequest], update: Update | None = None) -> Tensor:
    with torch.no_grad():
        return model.upper(model.trunk([one.input for one in asked]), update)


# Composition

sizes = st.integers(1, 5)


@st.composite
def some_updates(draw: st.DrawFn) -> list[Update]:
    """Updates of any kind over two matrices, some with trained weights."""
    seed = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=seed, dtype=torch.float64)

    trained = {"b": random(M, N)} if draw(st.booleans()) else {}
    made = []
    for _ in range(draw(st.integers(1, 6))):
        edits, rows = draw(sizes), draw(sizes)
        pair = {name: (random(edits, rows, N), random(edits, rows, M)) for name in draw(st.sets(st.sampled_from("ab")))}
        dense = {name: random(edits, M, N) for name in draw(st.sets(st.sampled_from("ab")))}
        made.append(Update(pair, dense, trained if pair or dense else {}))
    return made


RAW = {"a": torch.zeros(M, N, dtype=torch.float64), "b": torch.full((M, N), 0.5, dtype=torch.float64)}


def own_parts(update: Update) -> dict[str, Tensor]:
    """Σ ΔW over an update's edits, without its trained weights."""
    total: dict[str, Tensor] = {}
    for i in range(update.edits):
        for name, delta in replace(update, weights={}).dense(i).items():
            total[name] = total.get(name, 0) + delta
    return total


@settings(max_examples=60, deadline=None)
@given(some_updates(), st.booleans(), st.randoms())
def test_composition_is_the_sum_in_any_order(updates: list[Update], dense: bool, random: Any) -> None:
    expected: dict[str, Tensor] = {}
    for update in updates:
        for name, delta in own_parts(update).items():
            expected[name] = expected.get(name, 0) + delta
    shuffled = random.sample(updates, len(updates))
    for order in (updates, shuffled, [compose(updates[:2]), *updates[2:]]):
        found = compose(order, dense)
        assert found.edits <= 1
        assert not dense or not found.factors
        for name, (u, v) in found.factors.items():
            assert u.shape[1] * (N + M) <= N * M, "factors that cost more than a ΔW"
            assert name not in found.deltas, "two forms where one would do"
            assert v.shape[1] == u.shape[1]
        parts = own_parts(found)
        assert parts.keys() == expected.keys()
        close(parts, expected)


@settings(max_examples=30, deadline=None)
@given(some_updates())
def test_trained_weights_are_in_a_sum_once(updates: list[Update]) -> None:
    trained = [update.weights["b"] for update in updates if update.weights]
    found = compose(updates)
    assert [*found.weights.values()] == trained[:1]
    if trained:
        own = own_parts(found).get("b", 0)
        close(found.dense(0, RAW)["b"], own + trained[0] - RAW["b"])


def test_edits_from_different_trained_weights_have_no_sum() -> None:
    parts = [Update(weights={"w": torch.full((M, N), float(i))}) for i in range(2)]
    compose([parts[0], Update(weights={"w": torch.zeros(M, N)})])
    with pytest.raises(UserError, match="trained weights of w"):
        compose(parts)


def test_edits_add_up_edit_by_edit_and_one_holds_for_all() -> None:
    draw = torch.Generator().manual_seed(0)
    one, three, dense = (
        Update({"w": (torch.randn(e, t, N, generator=draw), torch.randn(e, t, M, generator=draw))})
        for e, t in ((1, 2), (3, 4), (3, 1))
    )
    dense = replace(dense, deltas={"w": torch.randn(3, M, N, generator=draw)})
    for first, second in ((one, three), (three, one), (three, dense), (dense, one)):
        total = plus(first, second)
        for i in range(3):
            parts = [update.dense(i if update.edits == 3 else 0)["w"] for update in (first, second)]
            close(total.dense(i)["w"], parts[0] + parts[1], 1e-5, 1e-5)


@every_editor
def test_a_composed_update_answers_as_the_changed_model_does(name: str) -> None:
    editor, asked = editor_of(name), requests(6)
    parts = [edit(editor, asked[:4]), edit(editor, asked[4:])]
    total = compose(parts)
    copied = copy.deepcopy(editor.backbone.model)
    for matrix, delta in total.dense(0, editor.backbone.raw).items():
        dict(copied.named_parameters())[matrix].data += delta
    close(logits(editor.backbone, asked, total), logits(wrap(copied, 2), asked), 1e-6, 1e-8)


# Series


@every_editor
@pytest.mark.parametrize("classifier", [False, True], ids=["sentences", "classes"])
def test_a_series_goes_on_where_it_is(name: str, classifier: bool) -> None:
    """The next edit is the edit that the changed model would get; the raw model stays, bit for bit."""
    editor, asked = editor_of(name, backbone(classifier)), requests(5, 0, classifier)
    before = {n: p.clone() for n, p in editor.backbone.model.named_parameters()}
    held = edit_all(editor, asked[:3])
    new = edit(editor, asked[3:], at=held)
    copied = copy.deepcopy(editor.backbone.model)
    start = compose([replace(held, weights={})], dense=True)
    for matrix, delta in start.deltas.items():
        dict(copied.named_parameters())[matrix].data += delta[0]
    there = make_editor(name, wrap(copied, 2), LANGUAGES, settings=editor.settings)
    there = replace(there, parameters={n: p.detach().clone() for n, p in editor.parameters.items()})
    for parameter_name, parameter in there.parameters.items():
        matrix = parameter_name.removeprefix("editable_training.weight.")
        if matrix in start.deltas:
            parameter.add_(start.deltas[matrix][0])
    expected = edit(there, asked[3:])
    for i in range(2):
        found, wanted = (replace(u, weights={}).dense(i) for u in (new, expected))
        assert found.keys() == wanted.keys()
        for matrix, delta in wanted.items():
            close(found[matrix], delta, 1e-5, 1e-8)
    for n, p in editor.backbone.model.named_parameters():
        assert torch.equal(p, before[n])


@every_editor
def test_many_edits_do_not_depend_on_how_they_are_cut(name: str) -> None:
    editor, asked, seen = editor_of(name), requests(11), list[int]()
    whole = edit_all(editor, asked, 11)
    for chunk in (1, 4):
        seen.clear()
        part = edit_all(editor, asked, chunk, progress=seen.append)
        assert seen[-1] == 11
        for matrix, delta in whole.dense(0, editor.backbone.raw).items():
            close(part.dense(0, editor.backbone.raw)[matrix], delta, 1e-5, 1e-8)


def test_what_cannot_be_merged_is_refused() -> None:
    editor = editor_of("mend")
    with pytest.raises(UserError, match="no requests"):
        edit_all(editor, [])
    with pytest.raises(LanguageError, match="xx"):
        edit_all(editor, [replace(requests(1)[0], language="xx")])
    with pytest.raises(UserError, match="mend measures nothing"):
        fit(editor, requests(2))
    for name in ("ultraedit", "rome", "memit"):
        unfitted = make_editor(name, backbone(), LANGUAGES, settings=SETTINGS[name])
        for attempt in (edit, edit_all):
            with pytest.raises(UserError, match=r"lime_editing\.fit"):
                attempt(unfitted, requests(1))
    first = requests(1)[0]
    one = replace(first, input=replace(first.input, positions=first.input.positions[:1]), labels=first.labels[:1])
    for statistics, few in (("pooled", [one]), ("language", requests(2))):
        editor = make_editor("ultraedit", backbone(), LANGUAGES, settings={"statistics": statistics})
        with pytest.raises(UserError, match="needs at least two rows"):
            fit(editor, few)


# Least squares


class Rows:
    """Chunks of given rows of two matrices."""

    def __init__(self, rows: int, chunks: int, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.matrices = {"a": torch.empty(M, N), "b": torch.empty(N, M)}
        self.parts = [
            {
                n: tuple(torch.randn(2, rows, w, generator=draw, dtype=torch.float64) for w in p)
                for n, p in WIDTHS.items()
            }
            for _ in range(chunks)
        ]
        self.scale = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)

    def chunks(self) -> list[Chunk]:
        return [lambda i=i: replace_rows(self, i) for i in range(len(self.parts))]  # type: ignore[misc]

    def rows_of(self, chunk: Chunk) -> dict[str, tuple[Tensor, Tensor]]:
        return {n: (k, self.scale * d) for n, (k, d) in chunk().rows.items()}  # type: ignore[attr-defined]

    def all(self, name: str) -> tuple[Tensor, Tensor]:
        k, d = (torch.cat([part[name][i].flatten(0, 1) for part in self.parts]) for i in (0, 1))
        return k, d


WIDTHS = {"a": (N, M), "b": (M, N)}


class replace_rows:
    def __init__(self, rows: Rows, i: int) -> None:
        self.matrices, self.rows = rows.matrices, rows.parts[i]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 4), st.floats(-4, 3), st.integers(0, 999))
def test_least_squares_are_torchs_from_either_side(rows: int, chunks: int, log_ridge: float, seed: int) -> None:
    """ΔW minimises ‖K ΔWᵀ - D‖² + λ‖ΔW‖²; gradients of what D depends on, and of λ, are autograd's."""
    made = Rows(rows, chunks, seed)
    ridge = torch.tensor([log_ridge, log_ridge + 1], dtype=torch.float64, requires_grad=True)
    found = least_squares.together(made.rows_of, made.chunks(), ridge.exp(), [made.scale])
    assert bool(found.factors) == (chunks == 1 and 2 * rows <= N)
    weight = {"a": torch.randn(M, N, dtype=torch.float64), "b": torch.randn(N, M, dtype=torch.float64)}
    loss, expected = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for i, name in enumerate(("a", "b")):
        k, d = made.all(name)
        lam = ridge[i].exp()
        stacked = torch.cat([k, lam.sqrt() * torch.eye(k.shape[1]).to(k)])
        wanted = torch.linalg.lstsq(
            stacked, torch.cat([made.scale * d, torch.zeros(k.shape[1], d.shape[1])])
        ).solution.mT
        close(found.dense(0)[name], wanted, 1e-6, 1e-8)
        loss, expected = loss + (weight[name] * found.dense(0)[name]).sum(), expected + (weight[name] * wanted).sum()
    close(
        torch.autograd.grad(loss, [ridge, made.scale]),
        torch.autograd.grad(expected, [ridge, made.scale]),
        1e-5,
        1e-6,
    )


def test_each_edit_is_solved_by_itself() -> None:
    made = Rows(3, 1, 0)
    found = least_squares.each(made.parts[0], torch.tensor(0.3))  # type: ignore[arg-type]
    for i in range(2):
        for name, (k, d) in made.parts[0].items():
            dense = d[i].mT @ k[i] @ torch.linalg.inv(k[i].mT @ k[i] + 0.3 * torch.eye(k.shape[-1]))
            close(found.dense(i)[name], dense)


# Training on sets and series


@pytest.mark.parametrize("masks", ["none", "language"])
@pytest.mark.parametrize("name", TRAINED)
def test_a_batch_in_parts_has_the_losses_and_gradients_of_the_whole(name: str, masks: Any) -> None:
    editor, batch = editor_of(name, masks=masks), triples(7)
    found = {}
    for at_a_time in (7, 3):
        losses = gradients(editor, batch, 5, Objective(), at_a_time=at_a_time)
        slopes = {n: p.grad.clone() for n, p in editor.parameters.items() if p.grad is not None}
        found[at_a_time] = (losses, slopes)
    close(found[3][0], found[7][0], 1e-6, 1e-8)
    close(found[3][1], found[7][1], 1e-5, 1e-8)
    assert found[7][1].keys() == editor.parameters.keys()


@pytest.mark.parametrize("name", ["malmen", "slag"])
def test_sets_and_series_are_trained_down_the_objective(name: str) -> None:
    """The staged gradient is that of one graph for a set; an optimiser's steps bring the loss down."""
    editor, batch = editor_of(name, masks="language"), triples(6)
    given_ = Given(editor, [one.edit for one in batch], uniforms_of(editor, 6, 3), 2)
    given_.compute()
    whole = training_losses(editor, batch, 3, Objective(), given=None if name == "malmen" else given_.update)
    expected = torch.autograd.grad(whole["total"], list(editor.parameters.values()), allow_unused=True)
    losses = gradients(editor, batch, 3, Objective(), at_a_time=2)
    close(losses["total"], whole["total"].item(), 1e-6, 1e-8)
    for p, slope in zip(editor.parameters.values(), expected, strict=True):
        close(p.grad, torch.zeros_like(p) if slope is None else slope, 1e-5, 1e-8)
    optimiser = adam(editor)
    steps = [train_step(editor, optimiser, batch, 3, Objective(lambda_mask=0.0), 1.0)["total"] for _ in range(40)]
    assert steps[-1] < steps[0]


def test_a_series_sees_the_edits_before_it_and_no_other() -> None:
    """Of a batch of 7 in series of 3 the edits 0, 3 and 6 have none before them."""
    editor, asked = editor_of("slag"), requests(7)
    series = Given(editor, asked, uniforms_of(editor, 7, 0), 7)
    series.compute()
    found = series.next(7)
    assert found is not None
    for i in range(7):
        own = found.take(slice(i, i + 1))
        total = Update()
        for j in range(i - i % 3, i):
            one = edit_batch(editor, asked[j : j + 1], None, None, total if j % 3 else None)
            total = compose([total, editor.method.update(editor.parameters, editor.settings, one)], dense=True)
        for matrix in editor.backbone.edited:
            expected = total.dense(0)[matrix] if i % 3 else torch.zeros(1, dtype=torch.float64)
            close(own.dense(0)[matrix] + 0 * expected, expected + 0 * own.dense(0)[matrix], 1e-6, 1e-9)


class Live(TorchDispatchMode):
    """The most bytes of storages made inside that live at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in self.seen:
                storage = tensor.untyped_storage()
                self.seen.add(storage._cdata)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.drop, storage._cdata, storage.nbytes())
        return out

    def drop(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size


@pytest.mark.parametrize("name", ["mend", "malmen", "ultraedit", "memit"])
def test_memory_does_not_grow_with_the_edits(name: str) -> None:
    """Four times the edits, in chunks of eight, take no more memory; MEMIT's values alone wait on the host."""
    editor, peaks = editor_of(name), []
    for count in (64, 256):
        asked = requests(8) * (count // 8)
        with Live() as live:
            edit_all(editor, asked, 8)
        peaks.append(live.peak)
    values = 192 * 3 * N * 8 if name == "memit" else 0
    assert peaks[1] <= 1.02 * peaks[0] + values


def test_memory_of_training_on_sets_does_not_grow_with_the_set() -> None:
    editor, peaks = editor_of("malmen", masks="language"), []
    for count in (64, 256):
        batch = triples(8) * (count // 8)
        gradients(editor, batch[:8], 0, Objective(), at_a_time=8)
        with Live() as live:
            gradients(editor, batch, 0, Objective(), at_a_time=8)
        peaks.append(live.peak)
    assert peaks[1] < 2 * peaks[0]  # inputs and gates of the whole batch lie on the host


# The editors' own formulas


def gradient_of(editor: Editor, one: EditRequest, at: Update | None = None) -> Gradient:
    return edit_batch(editor, [one], None, None, at).gradient()


@pytest.mark.parametrize("masks", ["none", "language"])
def test_malmen_solves_for_what_mends_network_asks(masks: Any) -> None:
    editor, asked = editor_of("malmen", masks=masks), requests(3)
    found, shapes = edit(editor, asked), editor.backbone.shapes
    for i, one in enumerate(asked):
        batch = edit_batch(editor, [one])
        gradient = batch.gradient()
        for j, name in enumerate(editor.backbone.edited):
            rate = editor.parameters["mend.log_inner_lr"][j].exp()
            keys, wanted = [], []
            places = (
                one.input.positions if gradient.keys[name].shape[1] == len(one.input.ids) else range(len(one.labels))
            )
            for t in places:
                x, delta = (part[0, t] for part in gradient.factors[name])
                x_tilde, delta_tilde = mend.transform(editor.parameters, mend.index_in_shape(shapes, name), x, delta)
                keys.append(gradient.keys[name][0, t])
                wanted.append(-rate * delta_tilde * (x_tilde @ keys[-1]))
            k, d = torch.stack(keys), torch.stack(wanted)
            lam = editor.parameters["malmen.log_ridge"][j].exp()
            dense = d.mT @ k @ torch.linalg.inv(k.mT @ k + lam * torch.eye(k.shape[1]))
            close(found.dense(i)[name], dense.detach(), 1e-6, 1e-9)


@pytest.mark.parametrize("kind", ["pooled", "language"])
def test_ultraedit_normalises_by_the_edits_seen(kind: str) -> None:
    editor, asked = editor_of("ultraedit", statistics=kind), requests(4)
    seen, found = requests(40, 9), edit(editor, asked)
    for name in editor.backbone.edited:
        rows: dict[str, list[Tensor]] = {}
        for one in seen:
            x, delta = (part[0] for part in gradient_of(editor, one).factors[name])
            both = torch.cat([x, delta], 1)[(delta != 0).any(1)]
            rows.setdefault(one.language if kind == "language" else "all", []).append(both)
        for i, one in enumerate(asked):
            own = torch.cat(rows[one.language if kind == "language" else "all"])
            x, delta = (part[0] for part in gradient_of(editor, one).factors[name])
            live = (delta != 0).any(1)
            hat = (torch.cat([x, delta], 1)[live] - own.mean(0)) / (own.std(0) + 1e-7)
            k, n = x[live], x.shape[1]
            wanted = -editor.settings.lr * (hat[:, :n] ** 2).sum(1, keepdim=True) * hat[:, n:]
            dense = wanted.mT @ k @ torch.linalg.inv(k.mT @ k + torch.eye(n))
            close(found.dense(i)[name], dense, 1e-5, 1e-8)


def test_slag_takes_knowledge_editors_steps_until_the_answer_is_given() -> None:
    editor, asked = editor_of("slag", steps=5), requests(6)
    found = edit(editor, asked)
    single = replace(editor, method=find("knowledge_editor"))
    counts = []
    for i, one in enumerate(asked):
        total, taken = Update(), 0
        for step in range(5):
            if step and gradient_of(editor, one, total).correct().all():
                break
            total, taken = compose([total, edit(single, [one], at=total if step else None)], dense=True), step + 1
        counts.append(taken)
        for name, delta in total.dense(0).items():
            close(found.dense(i)[name], delta, 1e-6, 1e-9)
    assert min(counts) >= 1


def test_rome_answers_its_keys_with_the_values_found() -> None:
    """ΔW k = r at each key, ΔW = r (C⁻¹k)ᵀ / (kᵀC⁻¹k) for one, and the desired loss falls."""
    editor, asked = editor_of("rome", smoothing=0.1), requests(8)
    name = editor.backbone.edited[-1]
    lower = editor.parameters[rome.LOWER + name].double()
    inverse = torch.linalg.inv(lower @ lower.mT)
    update = edit(editor, asked)
    assert set(update.factors) == {name}
    better = 0
    for i, one in enumerate(asked):
        batch = edit_batch(editor, [one])
        keys = batch.answering(batch.gradient().keys[name])[0]
        r, delta = update.factors[name][1][i][: len(keys)], update.dense(i)[name]
        close(keys @ delta.mT, r, 1e-3, 1e-6)
        if len(keys) == 1:
            direction = inverse @ keys[0]
            close(delta, torch.outer(r[0], direction) / (keys[0] @ direction), 1e-4, 1e-7)
        desired = torch.tensor(one.labels)
        before, after = (logits(editor.backbone, [one], u).log_softmax(-1) for u in (None, update[i]))
        better += int(after[range(len(desired)), desired].sum() > before[range(len(desired)), desired].sum())
    assert better == len(asked)


def test_memits_last_layer_is_its_formula_on_many_edits() -> None:
    """ΔW = R Kᵀ (λC + K Kᵀ)⁻¹ at the last layer, for keys and missing values under those below; alone as merged."""
    editor, asked = editor_of("memit"), requests(9)
    merged, names = edit_all(editor, asked, 4), [n for n in editor.backbone.edited if ".output." in n]
    below = Update(deltas={n: merged.deltas[n] for n in names[:-1]})
    batch, name = edit_batch(editor, asked), names[-1]
    first = batch.answering(batch.gradient().keys[name])
    found = rome.valued(editor.parameters, editor.settings, batch, name).factors[name][1]
    w = editor.backbone.raw[name]
    keys = batch.answering(batch.gradient(below).keys[name])
    there = (keys != 0).any(-1)
    k, r = keys[there], (first @ w.mT + found - keys @ w.mT)[there]
    lower = editor.parameters[rome.LOWER + name].double()
    expected = r.mT @ k @ torch.linalg.inv(editor.settings.ridge * lower @ lower.mT + k.mT @ k)
    close(merged.deltas[name][0], expected, 1e-5, 1e-8)
    for one in asked[:3]:
        alone, single = edit(editor, [one]).dense(0), edit_all(editor, [one]).dense(0)
        for n in names:
            close(alone[n], single[n], 1e-3, 1e-6)


def test_parallels_are_keys_of_the_same_edit() -> None:
    """An edit with a parallel answers both; without one, or where it is its own input again, it is as before."""
    editor, (one, other) = editor_of("rome"), requests(2, 3)
    labels = (7,) * len(one.input.positions)
    parallel = Input((2, 9, *([4] * len(labels)), 8, 3), tuple(range(2, 2 + len(labels))))
    asked = replace(one, labels=labels, parallels=(parallel,))
    batch = edit_batch(editor, [asked, other])
    name = editor.backbone.edited[-1]
    keys = batch.answering(batch.gradient().keys[name])
    for i, given_ in enumerate(((asked.input, parallel), (other.input, other.input))):
        rows = [edit_batch(editor, [EditRequest(x, (5,) * len(x.positions), "en")]) for x in given_]
        own = torch.cat([row.answering(row.gradient().keys[name])[0] for row in rows])
        close(keys[i][(keys[i] != 0).any(-1)], own, 1e-6, 1e-9)
    update = edit(editor, [asked])
    held = [EditRequest(x, labels, "en") for x in (asked.input, parallel)]
    desired = torch.tensor([label for request in held for label in request.labels])
    after, before = logits(editor.backbone, held, update), logits(editor.backbone, held)
    rows = torch.arange(len(desired))
    assert (after.log_softmax(-1)[rows, desired] > before.log_softmax(-1)[rows, desired]).all()


def test_an_editor_that_measures_has_no_masks() -> None:
    for name, method in methods().items():
        if not method.TRAINED:
            with pytest.raises(UserError, match="is not trained, so it has no masks"):
                make_editor(name, backbone(), LANGUAGES, "language")


def test_fitting_and_editing_leave_the_editor_as_it_was() -> None:
    for name in ("ultraedit", "rome", "memit"):
        editor = editor_of(name)
        before = {n: p.clone() for n, p in editor.parameters.items()}
        edit_all(editor, requests(5), 2)
        edit(editor, requests(3))
        assert all(torch.equal(p, before[n]) for n, p in editor.parameters.items())
