"""Right implementations that differ from the adapters in what the specification leaves free.

Each is a plain adapter with one thing done otherwise, as code of this field does it. All have to conform.
"""

from __future__ import annotations

import importlib.util
import math
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..adapters import numpy_core, textbook
from ..contract import NAMES, OF_EDITOR

BOUND = math.log(100)
_OF_E = {name for names in (NAMES["E"], NAMES["L"], *OF_EDITOR.values()) for name in names}
_OF_E |= {name for name in NAMES["C"] if hasattr(textbook, name)}


def again(module: ModuleType) -> Any:
    """A second copy of an adapter, to be changed without changing the first."""
    spec = module.__spec__
    assert spec is not None
    name = f"{module.__name__}_{len(sys.modules)}"
    made = importlib.util.spec_from_file_location(name, module.__file__)
    assert made is not None
    assert made.loader is not None
    copy = importlib.util.module_from_spec(made)
    copy.__package__ = module.__package__
    # Dataclasses look their module up by its name.
    sys.modules[name] = copy
    made.loader.exec_module(copy)
    return copy


def changed(module: Any, names: set[str] | None = None, **changes: Any) -> SimpleNamespace:
    """The functions of a module, some of them others."""
    kept = {name: value for name, value in vars(module).items() if names is None or name in names}
    return SimpleNamespace(**kept | changes)


# MEND, made otherwise


def mend(depth: int, activation: Callable[[Tensor], Tensor], per_layer: str) -> SimpleNamespace:
    """MEND of another depth and activation; a layer's scale and shift are vectors, numbers, or absent."""
    book = again(textbook)

    def new_transform(weights: dict[str, Tensor], generator: torch.Generator, most: int) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for matrix, weight in weights.items():
            m, n = weight.shape
            for block in range(depth):
                key, rank = f"{n}x{m}.{block}", min(most, n, m)
                if f"{key}.v" not in found:
                    v = torch.randn(rank, n + m, generator=generator, dtype=weight.dtype) / math.sqrt(n + m)
                    found |= {f"{key}.v": v, f"{key}.u": weight.new_zeros(n + m, rank)}
                if per_layer == "vector":
                    found[f"{key}.scale.{matrix}"] = weight.new_ones(n + m)
                    found[f"{key}.shift.{matrix}"] = weight.new_zeros(n + m)
                elif per_layer == "number":
                    found[f"{key}.scale.{matrix}"] = weight.new_ones(())
        return found

    def transform(editor: Any, matrix: str, x: Tensor, delta: Tensor, language: str, generator: Any) -> Any:
        x, delta = (
            book._normalise(book._mask(editor, matrix, side, rows, language, generator))
            for side, rows in (("x", x), ("delta", delta))
        )
        n, m = x.shape[-1], delta.shape[-1]
        z = torch.cat([x, delta], -1)
        for block in range(depth):
            key = f"{n}x{m}.{block}"
            step = activation(z @ editor.values[f"{key}.v"].T) @ editor.values[f"{key}.u"].T
            z = z + step * editor.values.get(f"{key}.scale.{matrix}", 1) + editor.values.get(f"{key}.shift.{matrix}", 0)
        return z[..., :n], z[..., n:]

    book._new_transform, book._transform = new_transform, transform
    return changed(book, EDITORS=("mend",), CLAIMS={"E", "T", "A", "L"}, parallel=numpy_core.parallel)


# Masks, held otherwise


def flat_masks() -> SimpleNamespace:
    """The masks of all matrices and both factors in one table, (L, Σ (n + m))."""
    book = again(textbook)
    make = book.make_editor

    def make_editor(*args: Any, **kwargs: Any) -> Any:
        editor = make(*args, **kwargs)
        tables = [name for name in editor.values if name.startswith("masks.")]
        if tables:
            table = torch.cat([editor.values.pop(name).detach() for name in tables], 1).requires_grad_()
            editor.columns, start = {}, 0
            for name in tables:
                matrix, side = name.removeprefix("masks.").rsplit(".", 1)
                shape = dict(editor.model.named_parameters())[matrix].shape
                width = shape[1] if side == "x" else shape[0]
                editor.columns[name] = slice(start, start + width)
                start += width
            editor.values["masks"] = table
            editor.groups = [group for group in editor.groups if not group[0].startswith("masks.")] + [["masks"]]
            rates = [group["lr"] for group in editor.optimizer.param_groups]
            editor.optimizer = torch.optim.Adam(
                [
                    {"params": [editor.values[name] for name in names], "lr": rate}
                    for names, rate in zip(editor.groups, rates, strict=True)
                ]
            )
        return editor

    def columns(editor: Any, name: str) -> Tensor:
        return editor.values["masks"][:, editor.columns[name]]

    def mask(editor: Any, matrix: str, factor: str, rows: Tensor, language: str, generator: Any) -> Tensor:
        if editor.masks == "none":
            return rows
        row = editor.languages.index(language) if editor.masks == "language" else 0
        return rows + book._gates(columns(editor, f"masks.{matrix}.{factor}")[row], generator) * rows

    def mask_parameters(editor: Any) -> dict[str, dict[str, Tensor]]:
        if editor.masks == "none":
            return {}
        return {
            matrix: {factor: columns(editor, f"masks.{matrix}.{factor}") for factor in ("x", "delta")}
            for matrix in editor.edited
        }

    book._mask, book.mask_parameters, book.make_editor = mask, mask_parameters, make_editor
    return changed(book, CLAIMS={"E", "T", "A", "L"}, parallel=numpy_core.parallel)


def clamped() -> SimpleNamespace:
    """log α is held within ±log 100 wherever it is used, and put back there after each step."""
    book, core = again(textbook), again(numpy_core)
    gates, step, gate, chance = book._gates, book.train_step, core.gate, core.gate_probability
    book._gates = lambda log_alpha, generator: gates(log_alpha.clamp(-BOUND, BOUND), generator)
    core.gate = lambda log_alpha, *args, **kwargs: gate(np.clip(log_alpha, -BOUND, BOUND), *args, **kwargs)
    core.gate_probability = lambda log_alpha, *args: chance(np.clip(log_alpha, -BOUND, BOUND), *args)

    def train_step(editor: Any, triples: Any, seed: int) -> Any:
        parts = step(editor, triples, seed)
        with torch.no_grad():
            for factors in book.mask_parameters(editor).values():
                for value in factors.values():
                    value.clamp_(-BOUND, BOUND)
        return parts

    book.train_step = train_step
    return both(book, core)


def both(book: Any, core: Any, **changes: Any) -> SimpleNamespace:
    """The textbook's functions for chapters E, L and C, and the other adapter's for the rest but U."""
    chapters = frozenset(NAMES) - {"U"}
    names = {name for chapter in chapters for name in NAMES[chapter]} | _OF_E
    found = {name: getattr(book if name in _OF_E else core, name) for name in names}
    return SimpleNamespace(**found | {"CLAIMS": chapters, "EDITORS": textbook.EDITORS} | changes)


# Numbers of another width or kind


def _single(value: Any) -> Any:
    """Arrays and tensors of any floating width in float32, however deep they lie."""
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, np.ndarray):
        return value.astype(np.float32) if value.dtype.kind == "f" else value
    if isinstance(value, Mapping):
        return {key: _single(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_single(part) for part in value)
    return value


def float32() -> SimpleNamespace:
    """Everything is computed in float32, by name, as older code does it."""
    book, core = again(textbook), again(numpy_core)
    make = book.make_editor

    def make_editor(name: str, model: Any, *args: Any, **kwargs: Any) -> Any:
        import copy  # noqa: PLC0415

        return make(name, copy.deepcopy(model).float(), *args, **kwargs)

    book.make_editor = make_editor
    for name in ("transform", "rel_loss", "loc_loss"):
        setattr(book, name, _casting(getattr(book, name)))
    for name in (*NAMES["A"], "initial_masks", "mask_similarity", "succ", "metrics"):
        setattr(core, name, _casting(getattr(core, name)))
    return both(book, core)


def _casting(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        result = function(*_single(args), **_single(kwargs))
        if isinstance(result, float):
            return float(np.float32(result))
        if isinstance(result, dict) and all(isinstance(part, float) for part in result.values()):
            return {name: float(np.float32(part)) for name, part in result.items()}
        return _single(result)

    return call


def strange_numbers() -> SimpleNamespace:
    """Tuples for lists, NumPy's numbers for Python's, and losses as 0-d tensors."""
    book = again(textbook)

    def odd(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: odd(part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return tuple(odd(part) for part in value)
        if isinstance(value, bool):
            return np.bool_(value)
        return np.float64(value) if isinstance(value, float) else value

    def oddly(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: odd(function(*args, **kwargs))

    losses, step = book.losses, book.train_step
    book.losses = lambda *args, **kwargs: _tensors(*losses(*args, **kwargs))
    book.train_step = lambda *args, **kwargs: _tensors(step(*args, **kwargs))[0]
    plain = {name: oddly(getattr(numpy_core, name)) for name in (*NAMES["M"], *NAMES["S"], *NAMES["R"], *NAMES["D"])}
    return both(book, numpy_core, **plain)


def _tensors(parts: Mapping[str, float], *rest: Any) -> tuple[Any, ...]:
    return {name: torch.tensor(part, dtype=torch.float64) for name, part in parts.items()}, *rest


# Training, arranged otherwise


def one_group_each() -> SimpleNamespace:
    """An optimiser for each parameter, and other learning rates for the inner ones."""
    book = again(textbook)
    make = book.make_editor

    def make_editor(*args: Any, **kwargs: Any) -> Any:
        editor = make(*args, **kwargs)
        if editor.optimizer is not None:
            rates = {
                name: group["lr"]
                for names, group in zip(editor.groups, editor.optimizer.param_groups, strict=True)
                for name in names
            }
            steppers = [
                torch.optim.Adam([value], lr=1e-2 if "inner_lr" in name else rates[name])
                for name, value in editor.values.items()
            ]
            editor.groups = [[name] for name in editor.values]
            editor.optimizer = SimpleNamespace(
                zero_grad=lambda: [one.zero_grad() for one in steppers], step=lambda: [one.step() for one in steppers]
            )
        return editor

    book.make_editor = make_editor
    return changed(book, CLAIMS={"E", "T", "A", "L"}, parallel=numpy_core.parallel)


def accumulating(calls: int) -> SimpleNamespace:
    """The optimiser's step is taken with every fourth call of train_step, or so."""
    book = again(textbook)
    make = book.make_editor

    def make_editor(*args: Any, **kwargs: Any) -> Any:
        editor = make(*args, **kwargs)
        editor.called = 0
        return editor

    @torch.enable_grad()
    def train_step(editor: Any, triples: Any, seed: int) -> Any:
        parts, total = book._objective(editor, triples, seed)
        (total / calls).backward()
        editor.called += 1
        if editor.called % calls == 0:
            editor.optimizer.step()
            editor.optimizer.zero_grad()
        return parts

    book.make_editor, book.train_step = make_editor, train_step
    return changed(book, ACCUMULATES=calls, CLAIMS={"E", "T", "A", "L"}, parallel=numpy_core.parallel)


def slow_learner() -> SimpleNamespace:
    """Its learning rates are a thousand times too large for everybody else."""
    book = again(textbook)
    make = book.make_editor

    def make_editor(*args: Any, lr: float | None = None, **kwargs: Any) -> Any:
        return make(*args, lr=None if lr is None or args[0] == "finetuning" else 1000 * lr, **kwargs)

    book.make_editor = make_editor
    return changed(book, EDITORS=("mend", "editable_training"))


def one_vector() -> SimpleNamespace:
    """All parameters of an editor are one vector; what it computes with are views of it. Masks lie last."""
    book = again(textbook)
    make = book.make_editor

    def make_editor(*args: Any, **kwargs: Any) -> Any:
        editor = make(*args, **kwargs)
        editor.vector = None
        if editor.values:
            names = sorted(editor.values, key=lambda name: name.startswith("masks."))
            editor.vector = torch.cat([editor.values[name].detach().flatten() for name in names])
            start = 0
            for name in names:
                value = editor.values[name]
                value.data = editor.vector[start : start + value.numel()].view(value.shape)
                start += value.numel()
            editor.values = {name: editor.values[name] for name in names}
        return editor

    losses, trained = book.losses, book.trained_weights

    def flat_losses(editor: Any, triples: Any, seed: int) -> Any:
        parts, gradient = losses(editor, triples, seed)
        rows = [
            (torch.zeros_like(value) if gradient[name] is None else gradient[name]).flatten()
            for name, value in editor.values.items()
        ]
        return parts, {"everything": torch.cat(rows)}

    book.make_editor, book.losses = make_editor, flat_losses
    book.parameters = lambda editor: {} if editor.vector is None else {"everything": editor.vector}
    book.optimizer_groups = lambda editor: [] if editor.vector is None else [["everything"]]
    book.trained_weights = lambda editor: {
        matrix: ("everything", value.clone()) for matrix, (_, value) in trained(editor).items()
    }
    return changed(book, CLAIMS={"E", "T", "A", "L", "C"}, parallel=numpy_core.parallel)


def factored() -> SimpleNamespace:
    """Edits as factors; Editable Training forms θ' = θ + D once for all edits of a call."""
    book = again(textbook)

    def rows(editor: Any, request: Any, weights: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
        inputs: dict[str, Tensor] = {}
        probes: dict[str, Tensor] = {}

        def watch(matrix: str) -> Any:
            def hook(_: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
                inputs[matrix] = args[0][0].detach()
                probes[matrix] = torch.zeros_like(output, requires_grad=True)
                return output + probes[matrix]

            return editor.model.get_submodule(matrix.removesuffix(".weight")).register_forward_hook(hook)

        handles = [watch(matrix) for matrix in editor.edited]
        try:
            with torch.enable_grad():
                loss = book._cross_entropy(book._logits_under(editor, request, weights), request["labels"])
                deltas = torch.autograd.grad(loss, [probes[matrix] for matrix in editor.edited])
        finally:
            for handle in handles:
                handle.remove()
        return {matrix: (inputs[matrix], delta[0]) for matrix, delta in zip(editor.edited, deltas, strict=True)}

    @torch.no_grad()
    def edit(editor: Any, requests: Sequence[Any]) -> Any:
        for request in requests:
            if request["language"] not in editor.languages:
                raise KeyError(f"{request['language']} is none of {', '.join(editor.languages)}")
        raw = dict(editor.model.named_parameters())
        weights: dict[str, Tensor] = {}
        if editor.name == "editable_training":
            weights = {m: raw[m] + (editor.values[f"trained.{m}"].detach() - raw[m]) for m in editor.edited}
        made = []
        for request in requests:
            factors = {}
            for matrix, (x, delta) in rows(editor, request, weights).items():
                rate = editor.values[f"log_inner_lr.{matrix}"].detach().exp()
                if editor.name == "mend":
                    new = book._transform(editor, matrix, x, delta, request["language"], None)
                    alive = delta.abs().sum(-1, keepdim=True) > 0
                    u, v = new[0] * alive, new[1] * alive
                else:
                    u, v = (
                        book._mask(editor, matrix, side, value, request["language"], None)
                        for side, value in (("x", x), ("delta", delta))
                    )
                factors[matrix] = (u.detach(), -rate * v.detach())
            made.append(factors)
        return made

    def factors(editor: Any, edits: Any, index: int) -> Any:
        return edits[index]

    def dense(editor: Any, edits: Any, index: int) -> Any:
        raw = dict(editor.model.named_parameters())
        found = {}
        for matrix, (u, v) in edits[index].items():
            shift = editor.values[f"trained.{matrix}"].detach() - raw[matrix] if editor.name != "mend" else 0
            found[matrix] = v.T @ u + shift
        return found

    def edited_logits(editor: Any, edits: Any, index: int, inputs: Sequence[Any]) -> Any:
        with torch.no_grad():
            return [book._logits(editor, one, dense(editor, edits, index)) for one in inputs]

    names = ("mend", "editable_training")
    changes = {"edit": edit, "dense": dense, "factors": factors, "edited_logits": edited_logits}
    core = {name: getattr(numpy_core, name) for name in NAMES["B"]}
    return changed(book, EDITORS=names, CLAIMS={"E", "B", "factored", "batched"}, **changes, **core)


# Sampling, drawn otherwise


def with_replacement() -> SimpleNamespace:
    """Update and retain inputs of an evaluation are drawn with replacement."""

    def evaluation_pairs(
        corpus: Any,
        edit_languages: Any,
        update_languages: Any,
        n_update: int,
        n_retain: int,
        seed: int,
        limit: Any = None,
    ) -> Any:
        pairs = numpy_core.evaluation_pairs(corpus, edit_languages, update_languages, 1, 1, seed, limit)
        grid, rng = numpy_core.Grid(corpus), random.Random(f"replaced {seed}")
        pool = grid.of(update_languages)
        for pair in pairs:
            inside = grid.inside(pair["edit"], update_languages)
            parallels = set(grid.row(pair["edit"]).values())
            pair["update"] = [rng.choice(inside) for _ in range(n_update)] if inside else []
            outside: list[str] = []
            while len(outside) < n_retain and set(pool) - parallels:
                name = rng.choice(pool)
                outside += [name] * (name not in parallels)
            pair["retain"] = outside
        return pairs

    return changed(numpy_core, CLAIMS={"S"}, evaluation_pairs=evaluation_pairs)


def gelu_with_slope(z: Tensor) -> Tensor:
    return F.gelu(z)


#: By name, what makes each; and of which tests it is asked, by file and -k.
VARIATIONS: Mapping[str, Callable[[], Any]] = {
    "mend of one block": lambda: mend(1, torch.tanh, "vector"),
    "mend of eight blocks": lambda: mend(8, gelu_with_slope, "vector"),
    "mend with a number for a scale": lambda: mend(3, torch.tanh, "number"),
    "mend without scale and shift": lambda: mend(2, F.silu, "none"),
    "masks in one table": flat_masks,
    "log alpha held within log 100": clamped,
    "float32 throughout": float32,
    "NumPy's numbers and tuples": strange_numbers,
    "an optimiser for each parameter": one_group_each,
    "a step with every fourth call": lambda: accumulating(4),
    "another learning rate": slow_learner,
    "one vector of parameters": one_vector,
    "theta' formed once for a call": factored,
    "drawn with replacement": with_replacement,
}
