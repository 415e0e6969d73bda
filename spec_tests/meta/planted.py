"""Wrong implementations with one fault each, on which blame is tried: its own clause is red, and no other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import torch

from ..adapters import numpy_core, plain, textbook
from ..mutants import BY_ID
from .variations import again, both


def _mutant(name: str) -> Callable[[], Any]:
    return lambda: BY_ID[name].build(plain)


def locality_everywhere() -> SimpleNamespace:
    """L_loc is taken over all positions of the retain input, as released, in training."""
    book = again(textbook)
    objective = book._objective

    def everywhere(editor: Any, triples: Any, seed: int) -> Any:
        asked = [
            {**t, "retain": {**t["retain"], "positions": list(range(len(t["retain"]["input_ids"])))}} for t in triples
        ]
        return objective(editor, asked, seed)

    book._objective = everywhere
    return both(book, numpy_core)


def uphill() -> SimpleNamespace:
    """MEND and Editable Training add where they should subtract, in edits and in training alike."""
    book = again(textbook)
    mend, trained = book._mend, book._editable_training

    def turned(editor: Any, request: Any, generator: Any) -> Any:
        update = trained(editor, request, generator)
        raw = book._raw_weights(editor)
        shift = {matrix: editor.values[f"trained.{matrix}"] - raw[matrix] for matrix in update}
        return {matrix: 2 * shift[matrix] - delta for matrix, delta in update.items()}

    book._mend = lambda *args: {matrix: -delta for matrix, delta in mend(*args).items()}
    book._editable_training = turned
    return both(book, numpy_core)


def first_order() -> SimpleNamespace:
    """Editable Training is trained without the second order, in `losses` and in `train_step`."""
    book = again(textbook)
    gradient = book._masked_gradient

    def detached(*args: Any, **kwargs: Any) -> Any:
        return {matrix: slope.detach() for matrix, slope in gradient(*args, **kwargs).items()}

    book._masked_gradient = detached
    return both(book, numpy_core)


def unnormalised() -> SimpleNamespace:
    """An ordinary LayerNorm's eps swallows the gradient, wherever rows are transformed."""
    book = again(textbook)
    book._normalise = lambda rows: torch.nn.functional.layer_norm(rows, rows.shape[-1:])
    return both(book, numpy_core)


def penalty_of_used_rows() -> SimpleNamespace:
    """The penalty counts the masks of the editing languages of a batch alone."""
    book = again(textbook)
    objective = book._objective

    def used(editor: Any, triples: Any, seed: int) -> Any:
        if editor.masks != "language":
            return objective(editor, triples, seed)
        parts, total = objective(editor, triples, seed)
        rows = sorted({editor.languages.index(t["edit"]["language"]) for t in triples})
        shift = book.BETA * torch.log(torch.tensor(-book.GAMMA / book.ZETA, dtype=torch.float64))
        right = wrong = torch.zeros((), dtype=torch.float64)
        for factors in book.mask_parameters(editor).values():
            for log_alpha in factors.values():
                right = right + torch.sigmoid(log_alpha - shift).sum()
                wrong = wrong + torch.sigmoid(log_alpha[rows] - shift).sum()
        total = total - right + wrong
        return {**parts, "mask": wrong.item(), "total": total.item()}, total

    book._objective = used
    return both(book, numpy_core)


#: By name, the clause that each violates and what makes it.
PLANTED: Mapping[str, tuple[str, Callable[[], Any]]] = {
    "edits go uphill": ("E11", uphill),
    "inner rates have two owners": ("E9", _mutant("two-owners")),
    "L_loc at all positions": ("L2", locality_everywhere),
    "the first order alone": ("E4", first_order),
    "no effective normalisation": ("E6", unnormalised),
    "a penalty of the used rows": ("A5", penalty_of_used_rows),
    "succ is the arithmetic mean": ("M3", _mutant("arithmetic-mean")),
    "succ is averaged over edits": ("M6", _mutant("succ-per-step")),
    "the last edit is lost": ("S1", _mutant("edits-lost")),
    "a missing fact is replaced": ("S8", _mutant("missing-fact-replaced")),
    "edits add up": ("T2", _mutant("edits-on-top-of-each-other")),
    "a bias is edited too": ("T4", _mutant("bias-edited-too")),
    "gates are sampled at test time": ("A3", _mutant("sampled-at-test")),
}
