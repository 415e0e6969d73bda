"""Mutants of chapter B, the budget."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..contract import Array, Request
from .a_masks import FactorMutation
from .base import Mutation, mutant
from .editing import EditorMutation

Shapes = Mapping[str, tuple[int, int]]


@mutant("full-size-masks", "B1", "A language has a mask for every element of a matrix.")
class FullSizeMasks(Mutation):
    def initial_masks(self, shapes: Shapes, languages: Sequence[str]) -> dict[str, dict[str, Array]]:
        made = self.base.initial_masks(shapes, languages)
        return {key: {**made[key], "full": np.zeros((len(languages), n, m))} for key, (n, m) in shapes.items()}


@mutant("one-mask-for-all", "B1", "Masks do not grow with the number of languages.")
class OneMaskForAll(Mutation):
    def initial_masks(self, shapes: Shapes, languages: Sequence[str]) -> dict[str, dict[str, Array]]:
        return self.base.initial_masks(shapes, languages[:1])


@mutant("a-mask-for-a-code-before-its-hyphen", "B1", "A language has the mask of what stands before its code's hyphen.")
class MaskBeforeTheHyphen(Mutation):
    def initial_masks(self, shapes: Shapes, languages: Sequence[str]) -> dict[str, dict[str, Array]]:
        return self.base.initial_masks(shapes, list(dict.fromkeys(name.partition("-")[0] for name in languages)))


class ShapesMutation(Mutation):
    def editor_shapes(self, shapes: Shapes, languages: Sequence[str], masks: Any) -> dict[str, tuple[int, ...]]:
        return {**self.base.editor_shapes(shapes, languages, masks), **self.further(shapes, languages)}

    @abstractmethod
    def further(self, shapes: Shapes, languages: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """What goes wrong."""


@mutant("gradient-to-gradient-layer", "B2", "A dense layer maps all elements of a gradient to all elements.")
class GradientToGradient(ShapesMutation):
    def further(self, shapes: Shapes, languages: Sequence[str]) -> dict[str, tuple[int, ...]]:
        return {f"{key}.layer": (n * m, n * m) for key, (n, m) in shapes.items()}


@mutant("update-buffer-per-language", "B2", "A buffer keeps one full-size update per language.")
class BufferPerLanguage(ShapesMutation):
    def further(self, shapes: Shapes, languages: Sequence[str]) -> dict[str, tuple[int, ...]]:
        return {f"{key}.kept": (len(languages), m, n) for key, (n, m) in shapes.items()}


@mutant("a-matrix-per-language-on-the-way", "B2", "An edit makes a full mask for every language and uses one.", "E")
class MatrixPerLanguage(Mutation):
    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        for factors in self.base.mask_parameters(editor).values():
            factors["delta"][:, :, None] * factors["x"][:, None, :]
        return self.base.edit(editor, requests)


@mutant("mask-multiplied-out", "B3", "The full mask is multiplied out before it is applied.")
class MaskMultipliedOut(FactorMutation):
    def wrong(self, call: dict[str, Any]) -> tuple[Array, Array]:
        x, delta = self.base.mask_factors(**call)
        full = np.ones((x.shape[-1], delta.shape[-1]))
        return x * full[:, 0], delta * full[0]


@mutant("update-materialised", "B4", "An edit multiplies its factors out.", "factored")
class UpdateMaterialised(EditorMutation):
    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        edits = self.base.edit(editor, requests)
        for index in range(len(requests)):
            for u, v in self.base.factors(editor, edits, index).values():
                v.T @ u
        return edits


@mutant("factors-of-the-first", "B4", "All edits of a batch have the factors of the first.", "factored")
class FactorsOfTheFirst(EditorMutation):
    def factors(self, editor: Any, edits: Any, index: int) -> Any:
        return self.base.factors(editor, edits, 0)


@mutant("rank-of-the-size-of-a-matrix", "B2", "Of large matrices the rank of MEND's blocks grows like n·m.")
class RankOfTheSize(ShapesMutation):
    def further(self, shapes: Shapes, languages: Sequence[str]) -> dict[str, tuple[int, ...]]:
        return {f"{key}.more": (n + m, max(0, (n + m) ** 2 // 4096 - 1920)) for key, (n, m) in shapes.items()}


@mutant("many-edits-multiplied-out", "B4", "More than eight edits at once are multiplied out.", "E", "factored")
class ManyEditsMultipliedOut(EditorMutation):
    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        edits = self.base.edit(editor, requests)
        for index in range(len(requests)) if len(requests) > 8 else ():
            for u, v in self.base.factors(editor, edits, index).values():
                v.T @ u
        return edits
