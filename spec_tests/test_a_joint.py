"""Chapter A, gates together: those of two edits, two factors, two matrices and two seeds tell nothing of each other.

In training a gate that is drawn shut or fully open passes no gradient. So the gradient of the masks shows, for each
edit in a language of its own, which gates were drawn between 0 and 1.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from .assertions import distributed, equal, holds
from .conformance import Implementation, clause, every_learned, needs
from .contract import Triple
from .stepping import felt
from .test_a_masks import BETA, GAMMA, ZETA, seen_masks, table
from .tiny import LANGUAGES, Setting, make_request, make_triple, setting

#: Batches that are looked at, each with an edit in every language.
SEEDS = range(8)
#: log α = 0: a gate is between 0 and 1 where s is between -γ/(ζ - γ) and (1 - γ)/(ζ - γ).
_EDGE = -GAMMA / (ZETA - GAMMA)
BETWEEN = 1 - 2 / (1 + math.exp(-BETA * math.log(_EDGE / (1 - _EDGE))))

Pattern = dict[tuple[str, str, int], torch.Tensor]


def triples(kind: str, languages: Sequence[str]) -> tuple[list[Triple], list[Triple]]:
    """One request in each language, word for word the same, with three positions; and two sets of other inputs."""
    request = make_request(kind, np.random.default_rng(90), language="en", positions=3, words=6)
    found = []
    for seed in (91, 92):
        rng = np.random.default_rng(seed)
        batch: list[Triple] = []
        for language in languages:
            other = make_triple(kind, rng, language)
            update = make_request(kind, rng, positions=3, words=5)
            seen = {"input_ids": update["input_ids"], "positions": update["positions"]}
            batch.append({"edit": {**request, "language": language}, "update": seen, "retain": other["retain"]})  # type: ignore[typeddict-item]
        found.append(batch)
    return found[0], found[1]


def patterns(
    implementation: Implementation, world: Setting, editor: Any, languages: Sequence[str], seed: int
) -> Pattern:
    """Per matrix, factor and row the gates that pass a gradient, of edits in these languages under one seed.

    What two batches of the same edits have in common, the penalty's gradient, is taken off; what is left, edits made.
    """
    first, second = (implementation.losses(editor, batch, seed=seed)[1] for batch in triples(world.kind, languages))
    live = implementation.parameters(editor)
    apart = {}
    for own, value in live.items():
        one, other = first[own], second[own]
        apart[value.data_ptr()] = None if one is None or other is None else one - other
    found = {}
    for matrix, arrays in implementation.mask_parameters(editor).items():
        for factor in ("x", "delta"):
            slope = apart.get(arrays[factor].data_ptr())
            if slope is None or slope.shape != arrays[factor].shape:
                pytest.skip("not claimed: the gradient of a mask cannot be told from that of others")
            for row in range(len(slope)):
                size = slope[row].abs()
                found[matrix, factor, row] = size > 1e-9 * max(float(size.max()), 1e-300)
    return found


def independent(pairs: Iterable[tuple[torch.Tensor, torch.Tensor]], what: str, **inputs: Any) -> None:
    """Two patterns agree no more often than chance has it."""
    counts: Counter[tuple[bool, bool]] = Counter()
    for one, other in pairs:
        counts.update(zip(one.tolist(), other.tolist(), strict=True))
    total = counts.total()
    first = sum(count for (a, _), count in counts.items() if a) / total
    second = sum(count for (_, b), count in counts.items() if b) / total
    share = {(a, b): (first if a else 1 - first) * (second if b else 1 - second) for a in (0, 1) for b in (0, 1)}
    expected = {(bool(a), bool(b)): total * value for (a, b), value in share.items()}
    distributed("A3", counts, expected, what, **inputs)


@clause("A3", "S10")
@needs("E")
@every_learned
def test_gates_in_training_are_drawn_for_each_edit_factor_and_matrix(implementation: Implementation, name: str) -> None:
    """Some 1,000 gates of eight batches: a gate says nothing of another edit's, factor's, matrix's or seed's."""
    world = setting("square")
    editor = felt(implementation, name, world, "language", log_alpha=(0.0, 0.0))
    seen = {seed: patterns(implementation, world, editor, LANGUAGES, seed) for seed in SEEDS}
    matrices, rows = world.edited, range(len(LANGUAGES))
    of_edits = [
        (p[m, f, 0], p[m, f, row]) for p in seen.values() for m in matrices for f in ("x", "delta") for row in rows[1:]
    ]
    independent(of_edits, "gates of two edits of a batch", editor=name)
    factors = [(p[m, "x", row], p[m, "delta", row]) for p in seen.values() for m in matrices for row in rows]
    independent(factors, "gates of x and of δ of one matrix", editor=name)
    apart = [
        (p[one, f, row], p[other, f, row])
        for p in seen.values()
        for one, other in itertools.pairwise(matrices)
        for f in ("x", "delta")
        for row in rows
    ]
    independent(apart, "gates of two matrices", editor=name)
    steps = [(seen[s][key], seen[s + 1][key]) for s in SEEDS[:-1] for key in seen[s]]
    independent(steps, "gates of two seeds", editor=name)


@clause("A3")
@needs("E")
@every_learned
def test_no_two_places_of_a_large_batch_share_a_draw(implementation: Implementation, name: str) -> None:
    """Forty equal edits, each in its own language: no two have the same gates of x, or of δ."""
    world, languages = setting("square"), (*LANGUAGES, *(f"l{place}" for place in range(3, 40)))
    editor = felt(implementation, name, world, "language", log_alpha=(0.0, 0.0), languages=languages)
    found = patterns(implementation, world, editor, languages, seed=6)
    for factor in ("x", "delta"):
        rows = [torch.cat([found[m, factor, row] for m in world.edited]).tolist() for row in range(len(languages))]
        pairs = itertools.combinations(range(len(rows)), 2)
        shared = [(one, other) for one, other in pairs if rows[one] == rows[other]]
        equal("A3", shared, [], f"places of a batch that share the gates of {factor}", editor=name)


@clause("A3", "S10")
@needs("E")
@every_learned
def test_each_edit_of_a_language_draws_its_own_gates(implementation: Implementation, name: str) -> None:
    """Of two edits in one language, a gate is shut or fully open for both as often as for two draws; of one, for one.

    Gates that the tokens of an edit drew for themselves would hardly ever all be so.
    """
    world = setting("square")
    editor = felt(implementation, name, world, "language", log_alpha=(0.0, 0.0))
    for languages, passing in ((("en",), BETWEEN), (("en", "en"), 1 - (1 - BETWEEN) ** 2)):
        shown: Counter[bool] = Counter()
        for seed in SEEDS:
            found = patterns(implementation, world, editor, languages, seed)
            for matrix in world.edited:
                for factor in ("x", "delta"):
                    shown.update(found[matrix, factor, 0].tolist())
        total = shown.total()
        expected = {True: total * passing, False: total * (1 - passing)}
        distributed("A3", shown, expected, f"gates that pass a gradient to {len(languages)} edits", editor=name)


@clause("A3", "S10")
def test_gates_of_x_and_of_delta_and_of_two_seeds_are_drawn_apart(implementation: Implementation) -> None:
    """4,000 places: whether a gate of x is above a half tells nothing of δ's at that place, nor of the next seed's."""
    width = 4000
    parameters = table(implementation, np.zeros((1, width)), np.zeros((1, width)))
    drawn = {seed: seen_masks(implementation, parameters, seed) for seed in (3, 4, 1_000_000)}
    high = {
        (seed, side): torch.from_numpy(mask > 0.5) for seed, pair in drawn.items() for side, mask in enumerate(pair)
    }
    independent([(high[3, 0], high[3, 1])], "gates of x and of δ")
    independent([(high[4, 0], high[4, 1])], "gates of x and of δ")
    independent([(high[3, side], high[4, side]) for side in (0, 1)], "gates of seeds 3 and 4")
    independent([(high[3, side], high[1_000_000, side]) for side in (0, 1)], "gates of two distant seeds")
    same = sum(int((drawn[3][side] == drawn[4][side]).sum()) for side in (0, 1))
    # Shut or fully open gates are equal by chance; a sixth of all are each.
    holds(
        "A3",
        same < 0.1 * 2 * width,
        "gates that are equal under two seeds",
        expected=f"a sixteenth of {2 * width}",
        got=same,
    )
    neighbours = [(high[3, 0][:-1], high[3, 0][1:]), (high[3, 1][:-1], high[3, 1][1:])]
    independent(neighbours, "gates side by side")


@clause("A3")
@needs("E")
@every_learned
def test_the_shared_mask_is_drawn_for_each_edit_too(implementation: Implementation, name: str) -> None:
    """Under the shared control the same two edits, and one of them twice, have objectives of their own."""
    world = setting("square")
    editor = felt(implementation, name, world, "shared", log_alpha=(0.0, 0.0))
    (batch, _), values = triples("square", ("en", "en")), []
    for seed in (1, 2, 3):
        both = implementation.losses(editor, batch, seed=seed)[0]["rel"]
        alone = implementation.losses(editor, batch[:1], seed=seed)[0]["rel"]
        values.append((both, alone))
    equal("A3", len({value for pair in values for value in pair}), 6, "different values of L_rel", values=values)
