"""Many edits at once: composing and applying a thousand, and the least squares of MALMEN and MEMIT.

What is counted is matrix products, a Cholesky factorisation as n³/3 multiply-adds and its two triangular solves as n²
for each right-hand side; a product in float64 counts as two. Memory is that of a hundred edits beside four hundred.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from lime_editing.core.editing import edit
from lime_editing.core.sets import edit_all
from lime_editing.editors import least_squares
from lime_editing.updates import Update, compose
from perf import counting, setting
from perf.conftest import Machine
from perf.counting import FACTS, Size
from perf.test_memory import peak_of

EDITS, TOKENS, CHUNK = 1_000, FACTS[0].tokens, 50


def random_updates(size: Size, device: str) -> list[Update]:
    """A thousand edits of a fact in chunks, each of as many rows as the fact has tokens."""
    shapes = [(size.hidden, size.inner), (size.inner, size.hidden)] * size.edited

    def random(width: int) -> Tensor:
        return torch.randn(CHUNK, TOKENS, width, device=device)

    def factors() -> dict[str, tuple[Tensor, Tensor]]:
        return {str(i): (random(n), random(m)) for i, (n, m) in enumerate(shapes)}

    return [Update(factors()) for _ in range(EDITS // CHUNK)]


def test_compose(measure: Callable[..., None], machine: Machine, size_name: str) -> None:
    """Σ Vᵀ U of a thousand edits: one product per matrix and row."""
    size = setting.size_of(size_name)
    updates = random_updates(size, machine.device)
    whole = compose(updates)
    for name in ("0", "1"):
        u, v = (torch.cat([update.factors[name][i].flatten(0, 1) for update in updates]) for i in (0, 1))
        machine.close(whole.deltas[name][0], v.mT @ u)
    need = 2 * TOKENS * size.parameters
    measure(partial(compose, updates), f"compose {EDITS} edits, {size_name}", EDITS, need, seconds=0.2)


@pytest.mark.parametrize("way", ["composed", "factors"])
def test_apply(measure: Callable[..., None], machine: Machine, size_name: str, way: str) -> None:
    """Inputs under a thousand edits at once: composed, against the thousand kept as factors."""
    size = setting.size_of(size_name)
    backbone, inputs = machine.backbone(size), setting.random_triples(size, FACTS, 64)
    names = list(backbone.edited)
    updates = [
        Update({name: update.factors[str(i)] for i, name in enumerate(names)})
        for update in random_updates(size, machine.device)
    ]
    whole = compose(updates)

    def joined(name: str, side: int) -> Tensor:
        return torch.cat([update.factors[name][side].flatten(0, 1) for update in updates])[None]

    rows = {name: (joined(name, 0), joined(name, 1)) for name in names}
    update = whole if way == "composed" else Update(rows)
    with torch.no_grad(), machine.computing():
        states = backbone.trunk([one.update for one in inputs])
    seen = FACTS[1]
    per_row = 2 * size.hidden * size.inner
    need = counting.upper(size, seen) + 2 * per_row * (seen.tokens * (size.edited - 1) + seen.positions)
    run = torch.no_grad()(partial(backbone.upper, states, update))
    group = f"64 inputs under {EDITS} edits at once, {size_name}"
    measure(run, group, 64, need, way="reference" if way == "composed" else way, seconds=0.2)


class Chunks:
    """Rows of keys and value differences of one matrix shape, as an editor would ask for them."""

    def __init__(self, shapes: dict[str, tuple[int, int]], device: str) -> None:
        self.matrices = {name: torch.empty(m, n, device="meta") for name, (n, m) in shapes.items()}
        self.parts = [
            {
                name: (torch.randn(CHUNK, 1, n, device=device), torch.randn(CHUNK, 1, m, device=device))
                for name, (n, m) in shapes.items()
            }
            for _ in range(EDITS // CHUNK)
        ]

    def each(self) -> list[Any]:
        return [partial(_Chunk, self.matrices, part) for part in self.parts]


class _Chunk:
    def __init__(self, matrices: dict[str, Tensor], rows: dict[str, tuple[Tensor, Tensor]]) -> None:
        self.matrices, self.rows = matrices, rows


def solving(n: int, m: int, rows: int) -> float:
    """Kᵀ K and Dᵀ K of so many rows, and the solve in float64."""
    return 2 * rows * n * (n + m) + 2 * (2 * n**3 / 3 + 4 * n * n * m)


@pytest.mark.parametrize("editor", ["malmen", "memit"])
def test_least_squares(measure: Callable[..., None], machine: Machine, size_name: str, editor: str) -> None:
    """A thousand edits of one predicted position: all matrices by MALMEN, the MLPs' outputs by MEMIT with its C."""
    size = setting.size_of(size_name)
    up, down = (size.hidden, size.inner), (size.inner, size.hidden)
    shapes = {f"{i}{'ud'[side]}": pair for i in range(size.edited) for side, pair in enumerate((up, down))}
    shapes = {name: pair for name, pair in shapes.items() if editor == "malmen" or name.endswith("d")}
    made = Chunks(shapes, machine.device)
    ridges = {name: torch.eye(n, device=machine.device) * 3 for name, (n, _) in shapes.items()}

    def malmen() -> Update:
        return least_squares.together(lambda take: take().rows, made.each(), torch.tensor(3.0))  # type: ignore[attr-defined]

    def memit() -> Update:
        deltas = {}
        for name in shapes:
            sums: list[Tensor] = []
            for part in made.parts:
                sums = least_squares.add(sums, {name: part[name]})
            deltas[name] = least_squares.solve(sums[0], sums[1], ridges[name])[None]
        return Update(deltas=deltas)

    run = malmen if editor == "malmen" else memit
    name, (n, _) = next(iter(shapes.items()))
    k, d = (torch.cat([part[name][i].flatten(0, 1) for part in made.parts]).double() for i in (0, 1))
    dense = torch.linalg.solve(k.mT @ k + 3 * torch.eye(n, device=machine.device).double(), k.mT @ d).mT
    machine.close(run().deltas[name][0], dense)
    need = sum(solving(n, m, EDITS) for n, m in shapes.values()) / EDITS
    measure(
        run,
        f"least squares of {EDITS} edits, {size_name}",
        EDITS,
        need,
        way="reference" if editor == "malmen" else editor,
    )


def test_memory(measure: Callable[..., None], machine: Machine, size_name: str) -> None:
    """Four times the edits of MEND, composed chunk by chunk, take no more memory."""
    size = setting.size_of(size_name)
    editor = setting.editor_of("mend", size, machine.backbone(size))
    requests = [triple.edit for triple in setting.random_triples(size, FACTS, 100)]
    with machine.computing():
        peaks = [peak_of(machine, partial(edit_all, editor, requests * times, 25)) for times in (1, 4)]
        one = torch.no_grad()(edit)(editor, requests[:25])
        whole = edit_all(editor, requests[:25])
    for name, delta in whole.dense(0, editor.backbone.raw).items():
        machine.close(delta, sum(one.dense(i, editor.backbone.raw)[name] for i in range(25)))
    assert peaks[1] <= 1.1 * peaks[0]  # rows wait until they are worth a product
    about = f"peak {peaks[0] / 1e6:.1f} MB of 100 edits, {peaks[1] / 1e6:.1f} MB of 400"
    need = counting.single_edit("mend", size, FACTS[0]) + 2 * TOKENS * size.parameters
    memory = {"peak_bytes": peaks[1]}
    measure(
        partial(edit_all, editor, requests, 25),
        f"100 edits as one, MEND, {size_name}",
        100,
        need,
        notes=about,
        memory=memory,
    )
