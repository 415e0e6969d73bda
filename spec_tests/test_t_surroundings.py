"""Chapter T, surroundings: what an editor leaves behind in the user's model and in the process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from . import probes
from .assertions import equal, holds
from .border import Crash, SuiteError
from .conformance import Implementation, clause, every_editor, every_learned, needs
from .editing import updates, widest
from .stepping import batch
from .test_b_budget import watching_tensors
from .tiny import Setting, make, make_felt, make_input, make_request, make_triple, setting


def lend(world: Any) -> None:
    """A model as users have theirs: some parameters frozen, one with a gradient, parts in two modes, a hook."""
    named = dict(world.model.named_parameters())
    for place, value in enumerate(named.values()):
        value.requires_grad_(place % 3 != 0)
    bias = world.edited[0].removesuffix("weight") + "bias"
    named[bias].requires_grad_(True)
    named[bias].grad = torch.full_like(named[bias], 0.5)
    world.model.train()
    world.model.base_model.embeddings.eval()
    world.model.get_submodule(world.edited[0].removesuffix(".weight")).register_forward_hook(lambda *_: None)


def unchanged(before: dict[str, Any], after: dict[str, Any], function: str, editor: str) -> None:
    for what, old in before.items():
        now = after[what]
        if what == "what modules are set to":  # what is written on them beside that is free
            now = {name: value for name, value in now.items() if name in old}
        if now != old:
            shown = old, now
            if isinstance(old, dict):
                names = [name for name in old if now.get(name) != old[name]] or sorted(set(now) - set(old))
                shown = tuple({name: one.get(name) for name in names[:3]} for one in shown)
            holds("T8", False, f"`{function}` changed: {what}", expected=shown[0], got=shown[1], editor=editor)


@clause("T8")
@needs("E")
@pytest.mark.parametrize("kind", ["bert", "classifier"])
@every_editor
def test_nothing_is_left_behind(implementation: Implementation, name: str, kind: str) -> None:
    """After each function the model and the process are as they were: flags, gradients, modes, hooks, generators."""
    world = setting(kind)
    lend(world)
    learned, rng = name != "finetuning", np.random.default_rng(120)
    requests, inputs = [make_request(kind, rng) for _ in range(2)], [make_input(kind, rng) for _ in range(2)]
    triples = batch(kind, 121, 2)
    held: dict[str, Any] = {}

    def making() -> None:
        held["editor"] = make_felt(implementation, name, world, widest(name))

    def editing() -> None:
        held["edits"] = implementation.edit(held["editor"], requests)

    calls: dict[str, Callable[[], Any]] = {
        "make_editor": making,
        "capture": lambda: implementation.capture(held["editor"], requests[0]),
        "edit": editing,
        "dense": lambda: implementation.dense(held["editor"], held["edits"], 0),
        "raw_logits": lambda: implementation.raw_logits(held["editor"], inputs),
        "edited_logits": lambda: implementation.edited_logits(held["editor"], held["edits"], 1, inputs),
    }
    if learned:
        calls["losses"] = lambda: implementation.losses(held["editor"], triples, seed=3)
        calls["train_step"] = lambda: implementation.train_step(held["editor"], triples, seed=3)
        calls["edit, after training"] = editing
    with probes.kept_process(implementation):
        model, shared = probes.surroundings(implementation, world.model), probes.process_state(implementation)
        for function, call in calls.items():
            call()
            unchanged(shared, probes.process_state(implementation), function, name)
            unchanged(model, probes.surroundings(implementation, world.model), function, name)


@contextlib.contextmanager
def _refused() -> Iterator[None]:
    """Whatever error a call ends in: which ones are asked for is the matter of other clauses."""
    try:
        yield
    except (SuiteError, Crash):
        raise
    except Exception:
        pass


@clause("T8")
@needs("E")
@every_editor
def test_what_is_refused_leaves_nothing_behind(implementation: Implementation, name: str) -> None:
    """A call that ends in an error: the model and the process are as they were, whatever was begun before it."""
    world = setting("bert")
    lend(world)
    rng = np.random.default_rng(125)
    known, unknown = make_request("bert", rng, "en"), make_request("bert", rng, "xx")
    triples = [make_triple("bert", rng, language) for language in ("en", "xx")]
    missing = (*world.edited, "no.such.weight")
    calls: dict[str, Callable[[], Any]] = {
        "make_editor, of an unknown editor": lambda: make(implementation, "no such editor", world),
        "make_editor, of an unknown parameter": lambda: make(
            implementation, name, Setting("bert", world.model, missing), widest(name)
        ),
    }
    with probes.kept_process(implementation):
        if name == "finetuning":
            calls["make_editor, of finetuning with masks"] = lambda: make(implementation, name, world, "language")
        else:
            editor = make_felt(implementation, name, world, "language")
            calls["edit, in an unknown language"] = lambda: implementation.edit(editor, [known, unknown])
            calls["losses, in an unknown language"] = lambda: implementation.losses(editor, triples, seed=3)
            calls["train_step, in an unknown language"] = lambda: implementation.train_step(editor, triples, seed=3)
        model, shared = probes.surroundings(implementation, world.model), probes.process_state(implementation)
        for function, call in calls.items():
            with _refused():
                call()
            unchanged(shared, probes.process_state(implementation), function, name)
            unchanged(model, probes.surroundings(implementation, world.model), function, name)


@clause("T8")
@needs("E")
@every_editor
def test_an_edit_needs_no_grad_mode_of_the_caller(implementation: Implementation, name: str) -> None:
    """With gradients switched off by the caller an edit is the same; and the switch stays where it was."""
    world = setting("bert")
    editor = make_felt(implementation, name, world)
    request = make_request("bert", np.random.default_rng(122), language="en")
    (expected,) = updates(implementation, editor, [request])
    with torch.no_grad():
        (found,) = updates(implementation, editor, [request])
        equal("T8", torch.is_grad_enabled(), False, "grad mode after an edit under no_grad", editor=name)
    for matrix, one in found.items():
        near = torch.allclose(one, expected[matrix], rtol=1e-9, atol=0)
        holds("T8", near, f"the edit of {matrix} under no_grad", expected=expected[matrix], got=one, editor=name)


@clause("B4")
@needs("E", "factored")
@pytest.mark.parametrize(("masks", "count"), [("none", 3), ("language", 3), ("none", 17)])
@every_learned
def test_running_an_edited_model_makes_nothing_of_the_size_of_a_matrix(
    implementation: Implementation, name: str, masks: str, count: int
) -> None:
    """While an edited model predicts, no operation makes a tensor of n·m elements; θ' may be formed once a matrix."""
    world = setting("wide", torch.float32)
    editor = make(implementation, name, world, masks)
    requests = [make_request("wide", np.random.default_rng(seed), words=3, positions=1) for seed in (123, 124)]
    inputs = [make_input("wide", np.random.default_rng(seed), positions=1, words=3) for seed in range(count)]
    edits = implementation.edit(editor, requests)
    implementation.edited_logits(editor, edits, 0, inputs)
    n, m = world.shapes[world.edited[0]]
    with watching_tensors(implementation, n * m) as made:
        implementation.edited_logits(editor, edits, 1, inputs)
    allowed = len(world.edited) if name == "editable_training" else 0
    holds(
        "B4",
        len(made.found) <= allowed,
        f"tensors of n·m = {n * m} elements and more",
        expected=f"{allowed} at most",
        got=made.found[:4],
        editor=name,
    )
