"""What no clause covers in the pure modules: messages, rulings beside the default, the draws of a seed, updates."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from lime_editing.core import losses, masks, metrics, sampling
from lime_editing.core.corpus import Example, FullCorpus, ParallelCorpus
from lime_editing.errors import DataError, LanguageError, UserError
from lime_editing.names import Scaling
from lime_editing.records import Outcome
from lime_editing.updates import Update, compose, plus

# Four facts in three languages; French lacks the last.
SAID = [(i, language) for i in range(4) for language in ("de", "en", "fr")][:-1]
EXAMPLES = [Example(f"f{i}", language, f"f{i}/{language}") for i, language in SAID]
CORPUS = ParallelCorpus.of(EXAMPLES)
ONLY = ParallelCorpus.of(EXAMPLES[:3])
ALL = FullCorpus("xnli/test", 11, ("de", "en"))
UPDATE_ONLY = [Outcome("e", "de", "update", "de", True)]
OUTCOMES = [*UPDATE_ONLY, Outcome("e", "de", "retain", "de", True)]

REFUSED: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "no-outcomes": (
        lambda: metrics.scores(metrics.count([])),
        metrics.NoOutcomes,
        "no outcomes to average: no input was judged",
    ),
    "no-retain-outcome": (
        lambda: metrics.scores(metrics.count(UPDATE_ONLY)),
        metrics.NoOutcomes,
        "no retain outcomes for editing language 'de'",
    ),
    "no-outcome-at-all": (
        lambda: metrics.scores(metrics.count([]), ["de"]),
        metrics.NoOutcomes,
        "no update outcomes for editing language 'de'",
    ),
    "no-outcome-in-a-language": (
        lambda: metrics.scores(metrics.count(OUTCOMES), ["de", "fr"]),
        metrics.NoOutcomes,
        "no update outcomes for editing language 'fr'",
    ),
    "nothing-to-break-down": (
        lambda: metrics.breakdown(metrics.count([]), "language"),
        metrics.NoOutcomes,
        "no outcomes to break down: no input was judged",
    ),
    "no-retain-outcome-to-break-down": (
        lambda: metrics.breakdown(metrics.count(UPDATE_ONLY), "edit_language"),
        metrics.NoOutcomes,
        "no retain outcomes for editing language 'de'",
    ),
    "no-outcome-of-inputs-in-a-language": (
        lambda: metrics.breakdown(metrics.count(UPDATE_ONLY), "language"),
        metrics.NoOutcomes,
        "no retain outcomes for language 'de'",
    ),
    "unknown-role": (
        lambda: metrics.count([Outcome("e", "de", "both", "de", True)]),  # type: ignore[arg-type]
        UserError,
        "an outcome has an unknown role; known: update, retain",
    ),
    "no-runs": (lambda: metrics.aggregate([]), metrics.NoOutcomes, "no runs to aggregate; give at least one"),
    "nothing-to-train-on": (
        lambda: sampling.training_triples(ParallelCorpus.of([]), 1, 0, 0),
        DataError,
        "the corpus has no examples to train on; give data that have some",
    ),
    **{
        name: (partial(sampling.evaluation_pairs, CORPUS, *arguments), UserError, said)
        for name, arguments, said in (
            ("no-editing-language", ([], ["en"], 1, 1, 0), "there are no edit_languages; give at least one"),
            ("no-updating-language", (["en"], [], 1, 1, 0), "there are no update_languages; give at least one"),
            *(
                (
                    f"fewer-than-no-{name}",
                    (["en"], ["en"], *numbers),
                    f"{name} must be a whole number of 0 or more; got -1",
                )
                for name, numbers in {"n_update": (-1, 1, 0), "n_retain": (1, -1, 0), "limit": (1, 1, 0, -1)}.items()
            ),
        )
    },
    "one-update-to-compose": (
        lambda: compose(Update()),  # type: ignore[arg-type]
        UserError,
        "compose adds a list of updates; for the edits of one update, give compose([update])",
    ),
    "a-number-to-compose": (
        lambda: compose([Update(), 3]),  # type: ignore[list-item]
        UserError,
        "compose adds a list of updates, and int is not one",
    ),
    "different-weights-to-compose": (
        lambda: compose([Update(weights={"w": torch.full((2, 2), value)}) for value in (0.0, 1.0)]),
        UserError,
        "edits that start from different trained weights of w have no sum",
    ),
    "weights-without-raw-ones": (
        lambda: Update(weights={"w": torch.zeros(2, 2)}).dense(0),
        UserError,
        "this update replaces the raw weights; give them, as in update.dense(0, backbone.raw)",
    ),
    "an-edit-after-the-last": (
        lambda: Update(deltas={"w": torch.zeros(1, 2, 2)})[1],
        IndexError,
        "there is no edit 1; the update has 1, counted from 0",
    ),
    "nothing-unrelated": (
        lambda: sampling.unrelated(ONLY, ONLY.examples[1], 1, sampling.derived_rng(0)),
        DataError,
        "no input is unrelated to 'f0/en', all are its parallels; give more facts or languages",
    ),
    "fact-twice": (
        lambda: ParallelCorpus.of([*EXAMPLES, Example("f1", "en", "again")]),
        DataError,
        "fact 'f1' has two examples in language 'en': 'again' and 'f1/en'",
    ),
    "id-twice": (
        lambda: ParallelCorpus.of([*EXAMPLES, Example("f9", "en", "f1/en")]),
        DataError,
        "two examples of the corpus have the same id; each needs its own",
    ),
    "language-outside-the-corpus": (
        lambda: CORPUS.within(["en", "xx"]),
        LanguageError,
        "unknown language 'xx'; known in the corpus: de, en, fr",
    ),
    "language-outside-the-full-corpus": (
        lambda: ALL.within(["en", "xx"]),
        LanguageError,
        "unknown language 'xx'; known in the corpus: de, en",
    ),
    "id-outside-the-full-corpus": (lambda: ALL["xnli/test/11/en"], KeyError, "'xnli/test/11/en'"),
    "place-outside-the-full-corpus": (lambda: ALL.examples[22], IndexError, "22"),
    "language-outside-the-editor": (
        lambda: masks.mask_rows(["en", "xx"], ("en", "fr"), "shared"),
        LanguageError,
        "unknown language 'xx'; known to this editor: en, fr",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_says_why(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()


def test_a_prediction_of_another_length_is_no_hit_and_no_miss() -> None:
    with pytest.raises(ValueError, match="longer"):
        metrics.hit([1, 2], [1, 2, 3])


def test_a_rate_may_be_that_of_the_inputs_in_the_language_of_the_edit() -> None:
    """As in Figure 3: here each edit has one input in its own language, and one in another."""
    told = [("e", "de", "de", True), ("e", "de", "en", False), ("f", "en", "de", True), ("f", "en", "en", False)]
    counts = metrics.count([Outcome(name, edit, "update", language, hit) for name, edit, language, hit in told])
    languages, of, values = metrics.rates(counts, lambda of_inputs, own: (of_inputs * own[:, None]).sum(2))
    assert (languages, of.tolist(), values[:, 0].tolist()) == (["de", "en"], [0, 1], [1.0, 0.0])
    assert np.isnan(values[:, 1]).all(), "nothing was asked of retain inputs"


def test_a_full_corpus_may_have_a_prefix_with_a_slash() -> None:
    last = Example("xnli/test/10", "en", "xnli/test/10/en")
    assert ALL[last.id] == last
    assert ALL.parallel(last.id) == (Example("xnli/test/10", "de", "xnli/test/10/de"), last)
    assert ALL.examples[-22] == ALL.examples[0] == Example("xnli/test/0", "de", "xnli/test/0/de")


@pytest.mark.parametrize("count", [1, 12, 120])
def test_a_corpus_of_rows_is_the_corpus_of_its_examples(count: int) -> None:
    """FullCorpus and ParallelCorpus are one to whoever asks."""
    languages = ("de", "en", "fr")
    full = FullCorpus("test", count, languages)
    listed = ParallelCorpus.of(full.example(i, code) for i in range(count) for code in languages)
    assert list(full.examples) == list(listed.examples)
    assert list(full.examples[2:7]) == list(listed.examples[2:7])
    assert full.examples[-1] == listed.examples[-1]
    for example in listed.examples:
        assert full[example.id] == example
        assert full.span(example.fact) == listed.span(example.fact)
        assert full.parallel(example.id, ["en", "fr"]) == listed.parallel(example.id, ["en", "fr"])
    part, expected = full.within(["fr", "de"]), listed.within(["fr", "de"])
    assert (list(part.examples), part.languages) == (list(expected.examples), expected.languages)
    assert len(full.span("test/0100")) == len(full.span("train/1")) == len(full.span(f"test/{count}")) == 0
    for unknown in ("test/0/xx", "test/00/de", "train/0/de", f"test/{count}/de", "nonsense"):
        with pytest.raises(KeyError):
            full[unknown]
    with pytest.raises(IndexError):
        full.examples[len(listed.examples)]


# Stored results were made with these very draws: who changes them means to.


def test_a_place_has_its_own_generator() -> None:
    drawn = sampling.derived_rng(7, "train", 3).bit_generator.random_raw(2)
    assert drawn.tolist() == [699240064572543602, 707091192623644135]


def test_the_training_triples_of_a_seed_are_known() -> None:
    drawn = [sampling.training_triples(CORPUS, 2, seed=7, step=step) for step in (0, 1)]
    ids = [[(t.edit.id, t.update.id, t.retain.id) for t in triples] for triples in drawn]
    assert ids == [
        [("f0/fr", "f0/en", "f2/fr"), ("f1/de", "f1/fr", "f2/fr")],
        [("f1/de", "f1/de", "f3/en"), ("f2/fr", "f2/fr", "f1/fr")],
    ]


def test_the_evaluation_pairs_of_a_seed_are_known() -> None:
    pairs = sampling.evaluation_pairs(CORPUS, ["en", "fr"], ["de", "en", "fr"], 2, 2, seed=7, limit=3)
    ids = [(p.edit.id, [x.id for x in p.update], [x.id for x in p.retain]) for p in pairs]
    assert ids == [
        ("f0/en", ["f0/de", "f0/fr"], ["f1/de", "f1/fr"]),
        ("f3/en", ["f3/de", "f3/en"], ["f2/de", "f0/fr"]),
        ("f1/fr", ["f1/de", "f1/en"], ["f0/en", "f2/en"]),
    ]


@pytest.mark.parametrize("count", [3, 8, 9])
def test_unrelated_inputs_are_drawn_without_replacement_where_there_are_enough(count: int) -> None:
    for seed in range(20):
        drawn = sampling.unrelated(CORPUS, CORPUS["f0/en"], count, sampling.derived_rng(seed))
        assert len(drawn) == count
        assert len(set(drawn)) == count or count == 9


def test_nothing_is_left_out_for_a_fact_that_the_corpus_lacks() -> None:
    assert not CORPUS.span("f9")
    stranger = Example("f9", "en", "f9/en")
    assert sorted(sampling.unrelated(CORPUS, stranger, 11, sampling.derived_rng(0))) == list(CORPUS.examples)


def test_only_editable_examples_are_edited() -> None:
    wrong = frozenset({"f0/fr", "f2/en", "f2/de"})
    pairs = sampling.evaluation_pairs(CORPUS, ["en", "fr"], ["en"], 1, 1, seed=7, editable=wrong)
    assert [p.edit.id for p in pairs] == ["f2/en", "f0/fr"]


# Masks

ROWS = {
    "mask.up.x": torch.tensor([[-9.0, 0.0, 9.0]]),
    "mask.up.delta": torch.tensor([[-9.0]]),
    "mask.up.x_scale": torch.ones(1, 3),
    "mend.3x1.u.scale": torch.full((1, 7), 9.0),
}


def test_the_penalty_may_be_the_mean_over_the_gates() -> None:
    gates = masks.gate_probability(torch.tensor([-9.0, 0.0, 9.0, -9.0]))
    log_alphas = masks.side_by_side(ROWS)
    assert masks.penalty(log_alphas).item() == pytest.approx(gates.sum().item())
    assert masks.penalty(log_alphas, "mean").item() == pytest.approx(gates.mean().item())


def test_the_open_share_counts_gates_that_are_not_zero() -> None:
    assert masks.open_share(ROWS) == 0.5


@pytest.mark.parametrize(("scale", "parts"), [("none", {}), ("learned", {"x_scale": 1.0, "delta_scale": 1.0})])
def test_fresh_masks_are_half_open_and_scaled_by_one(scale: Scaling, parts: dict[str, float]) -> None:
    made = masks.init_masks({"up": (3, 2), "down": (2, 5)}, 4, scale, torch.zeros(1, dtype=torch.float64))
    widths = {"up": {"x": 3, "delta": 2}, "down": {"x": 2, "delta": 5}}
    expected = {
        f"mask.{name}.{part}": torch.full((4, widths[name][part.removesuffix("_scale")]), value, dtype=torch.float64)
        for name in widths
        for part, value in ({"x": 0.0, "delta": 0.0} | parts).items()
    }
    assert made.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(made[name], values, rtol=0, atol=0)


def test_a_shared_mask_is_the_first_row_of_every_language() -> None:
    assert masks.mask_rows(["fr", "en", "fr"], ("en", "fr"), "shared") == [0, 0, 0]
    assert masks.mask_rows(["fr", "en", "fr"], ("en", "fr"), "language") == [1, 0, 1]


def test_every_edit_and_gate_has_its_draw() -> None:
    drawn = masks.draw_uniforms(ROWS, 2, seed=3)
    assert (drawn.shape, drawn.dtype) == ((2, 4), torch.float32), "x and delta side by side, of the parameters' dtype"
    assert drawn[0, [0, 3]].tolist() == pytest.approx([0.03410819545388222, 0.19872714579105377])


def test_the_gates_of_each_matrix_have_draws_of_their_own() -> None:
    """The draws are made matrix by matrix, and stored edit by edit."""
    widths = {"mask.down.x": 1, "mask.down.delta": 2, "mask.up.x": 3, "mask.up.delta": 1}
    parameters = {name: torch.zeros(1, width, dtype=torch.float64) for name, width in widths.items()}
    drawn = masks.draw_uniforms(parameters, 2, seed=3)
    said = torch.rand(14, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    parts = said.split([2 * width for width in widths.values()])
    torch.testing.assert_close(drawn, torch.cat([part.view(2, -1) for part in parts], 1), rtol=0, atol=0)


def test_no_draw_opens_or_closes_a_gate_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    parameters = {"mask.up.x": torch.zeros(1, 3, dtype=torch.float64)}
    with_delta = parameters | {"mask.up.delta": torch.zeros(1, 0)}
    assert masks.draw_uniforms(with_delta, 1, 0).tolist() == [[1e-6, 0.5, 1 - 1e-6]]


# Losses


def test_the_released_divergence_is_that_of_the_raw_model() -> None:
    edited, raw = torch.tensor([[0.0, 1.0], [2.0, 0.0]]), torch.tensor([[0.5, 0.0], [0.0, 1.0]])
    shares = torch.tensor([0.5, 1.0])
    forward = losses.loc_loss(edited, raw, shares)
    assert not torch.allclose(forward, losses.loc_loss(edited, raw, shares, "released"))
    torch.testing.assert_close(losses.loc_loss(raw, edited, shares, "released"), forward)


def test_no_loss_reads_a_value() -> None:
    """On the meta device there are no values: a loss that looks at one, for which a GPU would wait, fails there."""
    logits, labels = torch.empty(4, 5, device="meta"), torch.zeros(4, dtype=torch.long, device="meta")
    shares = torch.empty(4, device="meta")
    assert losses.rel_loss(logits, labels, shares).shape == ()
    assert losses.loc_loss(logits, logits, shares).shape == ()


# Updates

EDITS, TOKENS, N, M = 3, 2, 4, 5


def some_update() -> Update:
    """One matrix with factors, one with a delta, one with both, and one with factors on weights of its own."""
    draw = torch.Generator().manual_seed(1)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw)

    factors = {name: (random(EDITS, TOKENS, N), random(EDITS, TOKENS, M)) for name in ("factors", "both", "trained")}
    return Update(factors, {name: random(EDITS, M, N) for name in ("delta", "both")}, {"trained": random(M, N)})


RAW = {"trained": torch.full((M, N), 0.5)}


@pytest.mark.parametrize("index", range(EDITS))
def test_the_dense_change_is_that_of_the_edit_alone(index: int) -> None:
    update = some_update()
    products = {name: v[index].mT @ u[index] for name, (u, v) in update.factors.items()}
    expected = {
        "factors": products["factors"],
        "delta": update.deltas["delta"][index],
        "both": products["both"] + update.deltas["both"][index],
        "trained": products["trained"] + update.weights["trained"] - 0.5,
    }
    for one, place in ((update, index), (update[index], 0)):
        found = one.dense(place, RAW)
        assert found.keys() == expected.keys()
        for name, change in expected.items():
            torch.testing.assert_close(found[name], change)


@pytest.mark.parametrize("name", ["factors", "delta", "both"])
def test_an_update_applied_is_its_dense_change_times_the_input(name: str) -> None:
    update, inputs = some_update(), 2
    hidden = torch.randn(EDITS * inputs, 7, N, generator=torch.Generator().manual_seed(2))
    expected = [hidden[i] @ update.dense(i // inputs, RAW)[name].mT for i in range(EDITS * inputs)]
    before = torch.randn(EDITS * inputs, 7, M, generator=torch.Generator().manual_seed(3))
    applied = update.apply(name, hidden, before)
    torch.testing.assert_close(applied, before + torch.stack(expected), rtol=1e-5, atol=1e-5)


def test_a_matrix_that_is_not_edited_does_not_change() -> None:
    hidden = torch.ones(EDITS, 7, N, dtype=torch.float64)
    assert some_update().apply("elsewhere", hidden, hidden) is hidden


def dense(update: Update, name: str = "w") -> torch.Tensor:
    return update.dense(0)[name]


@pytest.mark.parametrize(("edits", "multiplied"), [(1, False), (2, False), (3, True)])
def test_factors_are_multiplied_out_where_they_hold_more_numbers_than_the_change(edits: int, multiplied: bool) -> None:
    """3 + 6 numbers for each of `edits` rows, and 3 x 6 of the change."""
    rows = Update({"w": (torch.ones(edits, 1, 3), torch.ones(edits, 1, 6))})
    for update in (compose([rows]), compose([rows[i] for i in range(edits)])):
        assert ("w" in update.deltas, "w" in update.factors) == (multiplied, not multiplied)
        torch.testing.assert_close(dense(update), torch.full((6, 3), float(edits)))
    assert "w" in compose([rows], dense=True).deltas


@pytest.mark.parametrize("autocast", [False, True])
def test_a_sum_has_the_width_of_float32_at_least(autocast: bool) -> None:
    """bf16 holds no odd number above 256: a sum in its width would lose all but the first edit."""
    edits, one = 257, torch.ones(257, 1, 1, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        for update in (Update({"w": (one, one)}), Update(deltas={"w": one})):
            total = compose([update], dense=True).deltas["w"]
            assert (total.dtype, total.item()) == (torch.float32, edits)
        exact = torch.ones(1, 1, 1, dtype=torch.float64)
        assert compose([Update({"w": (exact, exact)})], dense=True).deltas["w"].dtype == torch.float64


def test_the_sum_of_two_updates_is_the_sum_edit_by_edit() -> None:
    first, second = some_update(), some_update()
    second = Update({n: (u + 1, v) for n, (u, v) in second.factors.items()}, {"delta": second.deltas["delta"] + 1})
    both = plus(first, second)
    for index in range(EDITS):
        one, other = first.dense(index, RAW), second.dense(index)
        for name, change in both.dense(index, RAW).items():
            torch.testing.assert_close(change, one[name] + other.get(name, 0))
