"""What an edit holds and what making it takes, beside its dense ΔW."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lime_editing.core.editing import Objective, edit, training_losses
from lime_editing.updates import Update
from perf import counting, setting
from perf.conftest import Machine
from perf.counting import FACTS

pytestmark = pytest.mark.filterwarnings("ignore:RNN module weights:UserWarning")


class Live(TorchDispatchMode):
    """The bytes of all storages that were made inside and still live, and the most there were at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_storage(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and _storage(tensor) not in given | self._seen:
                self._add(tensor.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def peak_of(machine: Machine, run: Callable[[], object]) -> int:
    """The most bytes that live at a time beyond what was there before."""
    if machine.device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated() - before
    with Live() as live:
        run()
    return live.peak


def held(update: Update) -> int:
    """The bytes of an update's factors, which may share one storage; what all edits share is the editor's."""
    storages = {_storage(part): part.untyped_storage().nbytes() for pair in update.factors.values() for part in pair}
    return sum(storages.values())


def test_live_counts_what_lives() -> None:
    """A view holds nothing of its own, and what is dropped is not counted on."""
    with Live() as live:
        first = torch.zeros(100, dtype=torch.float32) + 1
        kept = first[10:].reshape(9, 10)
        assert live.now == 400
        torch.cat([kept, kept])
        assert (live.now, live.peak) == (400, 400 + 720)
        del first, kept
        assert live.now == 0


@pytest.mark.parametrize("size_name", ["mbert"])
@pytest.mark.parametrize("editor", setting.LEARNED)
def test_edit(measure: Callable[..., None], machine: Machine, size_name: str, editor: str) -> None:
    """One edit of a fact holds a twentieth of its dense ΔW at most, and is that ΔW."""
    size = setting.size_of(size_name)
    backbone = machine.backbone(size)
    made = setting.editor_of(editor, size, backbone)
    requests = [triple.edit for triple in setting.random_triples(size, FACTS, 1)]
    run = torch.no_grad()(partial(edit, made, requests))
    with machine.computing():
        update = run()
        deltas = update.dense(0, backbone.raw)
        under = torch.no_grad()(backbone.upper)(backbone.trunk([requests[0].input]), update)
    machine.close(under, setting.dense_logits(backbone, requests[0].input, deltas))
    dense, peak = 4 * size.parameters, peak_of(machine, run)
    assert 20 * held(update) <= dense
    about = f"holds {held(update) / 1e6:.2f} MB, 1/{dense / held(update):.0f} of its ΔW; peak {peak / 1e6:.1f} MB"
    need = counting.single_edit(editor, size, FACTS[0])
    sizes = {"held_bytes": held(update), "dense_bytes": dense, "peak_bytes": peak}
    measure(run, f"memory of an edit: {editor}, facts, {size_name}", 1, need, notes=about, memory=sizes)


@pytest.mark.parametrize("masks", [pytest.param("none", marks=pytest.mark.whole), "language"])
@pytest.mark.parametrize("editor", setting.LEARNED)
def test_training(measure: Callable[..., None], machine: Machine, size_name: str, editor: str, masks: Any) -> None:
    """Objective and gradient of ten edits, gradients of the editor included."""
    size = setting.size_of(size_name)
    made = setting.editor_of(editor, size, machine.backbone(size), masks)
    triples, live = setting.random_triples(size, FACTS, 10), list(made.parameters.values())

    def run() -> None:
        torch.autograd.grad(training_losses(made, triples, 0, Objective())["total"], live, allow_unused=True)

    peak, own = peak_of(machine, run), sum(4 * parameter.numel() for parameter in live)
    about = f"peak {peak / 1e6:.1f} MB, of which the gradients have {own / 1e6:.1f} MB; ten dense ΔW would have"
    about += f" {40 * size.parameters / 1e6:.1f} MB"
    need = counting.training(editor, size, FACTS)
    group = f"memory of a training step: {editor}, {size_name}, masks {masks}, batch of 10"
    measure(run, group, 10, need, notes=about, memory={"peak_bytes": peak, "gradient_bytes": own}, seconds=0.1)
