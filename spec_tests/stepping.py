"""Training as the suite sees it from outside: batches, editors whose every tensor is felt, and the steps of Adam."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from .assertions import holds
from .conformance import Implementation
from .contract import Triple
from .tiny import (
    LANGUAGES,
    Setting,
    inner_rates,
    make,
    make_triple,
    mask_places,
    perturb,
    step as take_step,
)

#: A trainer that steps after every ten single edits steps once over so many.
EDITS = 10
#: Under these the gradients of L_rel and of L_loc are of one size.
FELT: dict[str, dict[str, float]] = {
    "mend": {"inner_lr": 0.1},
    "editable_training": {"inner_lr": 0.1},
    "knowledge_editor": {},
}
#: As many numbers of a tensor are looked at: others would say no more.
LOOKED_AT = 600
#: A gradient that clipping leaves above this is far from Adam's 1e-8.
FLOOR = 1e-5
#: What weight decay and rounding may do to a step, as a share of the learning rate.
SLACK = 0.06
#: The share of the numbers of a tensor that have to agree, those with a gradient that stands out.
MOST = 0.95

Tensors = dict[str, torch.Tensor]


def batch(kind: str, seed: int, count: int = EDITS, languages: Sequence[str] = LANGUAGES) -> list[Triple]:
    """Triples that edit in each language in turn."""
    rng = np.random.default_rng(seed)
    return [make_triple(kind, rng, languages[place % len(languages)]) for place in range(count)]


def felt(
    implementation: Any, name: str, world: Setting, masks: str, log_alpha: tuple[float, float] = (-4, 4), **options: Any
) -> Any:
    """An editor off its start in every tensor, with log α spread evenly between two values."""
    editor = make(implementation, name, world, masks, **{**FELT[name], **options})
    perturb(implementation, editor)
    if name == "knowledge_editor":
        _until_felt(implementation, editor, world)
    generator, (low, high) = torch.Generator().manual_seed(2), log_alpha
    with torch.no_grad():
        for _, arrays in sorted(implementation.mask_parameters(editor).items()):
            for factor in ("x", "delta"):
                shape = arrays[factor].shape
                drawn = low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)
                arrays[factor].copy_(drawn.to(arrays[factor].dtype))
    return editor


def _until_felt(implementation: Any, editor: Any, world: Setting) -> None:
    """Move KnowledgeEditor on until its edits cost some locality: how far that is, its widths decide."""
    key = str(implementation), world.kind
    if key not in _FAR:
        _FAR[key] = 0
        triples = batch(world.kind, 60, 2)
        while _FAR[key] < 12 and _is_local(implementation, editor, triples):
            _move_on(implementation, editor, _FAR[key])
            _FAR[key] += 1
        return
    for number in range(_FAR[key]):
        _move_on(implementation, editor, number)


#: How many moves that takes, by implementation and kind of model.
_FAR: dict[tuple[str, str], int] = {}


def _is_local(implementation: Any, editor: Any, triples: Sequence[Triple]) -> bool:
    parts, _ = implementation.losses(editor, triples, seed=0)
    return bool(parts["loc"] <= parts["rel"] / 3)


def _move_on(implementation: Any, editor: Any, number: int) -> None:
    perturb(implementation, editor, seed=20 + number, scale=0.1 + 0.02 * number)


def copied(implementation: Any, editor: Any) -> Tensors:
    """The values of all parameters."""
    return {name: value.detach().clone() for name, value in implementation.parameters(editor).items()}


class Pieces:
    """The parameters of an editor as flat pieces: masks and inner rates apart, whatever tensors they lie in."""

    def __init__(self, implementation: Any, editor: Any) -> None:
        self.masks: set[str] = set()
        self.rates: set[str] = set()
        self._parts: dict[str, tuple[str, torch.Tensor]] = {}
        live = implementation.parameters(editor)
        few = {name: torch.ones(value.shape, dtype=torch.bool) for name, value in live.items() if is_rate(value)}
        masks: Tensors = {}
        for name, index in mask_places(implementation, editor).values():
            chosen = masks.setdefault(name, torch.zeros(live[name].shape, dtype=torch.bool))
            chosen.view(-1)[index.flatten()] = True
        for name, value in live.items():
            rest = torch.ones(value.shape, dtype=torch.bool)
            for kind, found in (("masks", masks), ("rates", inner_rates(implementation, editor) or few)):
                chosen = found.get(name, torch.zeros_like(rest)) & rest
                if chosen.any():
                    rest &= ~chosen
                    piece = f"{kind} in {name}" if rest.any() else name
                    self._parts[piece] = name, chosen
                    getattr(self, kind).add(piece)
            if rest.any():
                self._parts[name] = name, rest

    def of(self, values: Mapping[str, torch.Tensor | None]) -> dict[str, torch.Tensor | None]:
        """What goes by the names of the parameters, such as a gradient, by piece."""
        found = {piece: (values[name], chosen) for piece, (name, chosen) in self._parts.items()}
        return {piece: None if value is None else value.detach()[chosen] for piece, (value, chosen) in found.items()}

    def copied(self, implementation: Any, editor: Any) -> Tensors:
        """The values of all parameters, by piece."""
        return {piece: value for piece, value in self.of(copied(implementation, editor)).items() if value is not None}

    def put_rates_back(self, implementation: Any, editor: Any, values: Tensors) -> None:
        """Inner rates as they were: how fast they learn is free, and gradients follow them."""
        live = implementation.parameters(editor)
        for piece in self.rates:
            name, chosen = self._parts[piece]
            live[name].detach().masked_scatter_(chosen, values[piece])


def is_rate(value: torch.Tensor) -> bool:
    """Inner learning rates are few; a tiny model has nothing else that is so small."""
    return value.numel() <= 8


def norm(gradient: Mapping[str, torch.Tensor | None]) -> float:
    return sum(float(one.double().square().sum()) for one in gradient.values() if one is not None) ** 0.5


def stands_out(gradient: torch.Tensor, of_all: float) -> torch.Tensor:
    """Where a gradient is a hundredth of its tensor's largest, and far from Adam's 1e-8 even if clipped at 1."""
    size = gradient.abs()
    return (size >= 0.01 * size.max()) & (size * min(1.0, 1.0 / of_all) > FLOOR)


def some(chosen: torch.Tensor) -> torch.Tensor:
    """Of the numbers that are chosen at most LOOKED_AT, spread evenly over the tensor."""
    places = chosen.flatten().nonzero()[:, 0]
    if len(places) <= LOOKED_AT:
        return chosen
    kept = torch.zeros_like(chosen).flatten()
    kept[places[torch.linspace(0, len(places) - 1, LOOKED_AT).long()]] = True
    return kept.view_as(chosen)


def agree(
    clause_id: str,
    found: torch.Tensor,
    expected: torch.Tensor | float,
    what: str,
    slack: float = SLACK,
    **inputs: Any,
) -> None:
    """All but a twentieth of some steps, in units of the learning rate, are as expected."""
    wrong = ~((found - expected).abs() <= slack)
    share = 1 - float(wrong.float().mean())
    if share < MOST:
        wanted = expected[wrong][:6] if isinstance(expected, torch.Tensor) else expected
        holds(
            clause_id,
            False,
            f"{what}: {share:.0%} of {len(found)} steps agree",
            expected=f"{wanted} of its learning rate",
            got=found[wrong][:6],
            **inputs,
        )


def second_step(ratio: torch.Tensor, towards: torch.Tensor) -> torch.Tensor:
    """Adam's second step over the learning rate, down, for g2 = `ratio` · g1 and the sign of g1."""
    first = (0.09 + 0.1 * ratio) / 0.19
    second = (0.999e-3 + 1e-3 * ratio.square()) / 1.999e-3
    return towards * first / second.sqrt()


def later_step(ratio: torch.Tensor, towards: torch.Tensor, before: int = 30, after: range = range(21, 31)) -> Any:
    """Adam's step over the learning rate, down: after so many steps of g1, the mean of some steps of `ratio` · g1."""
    found = torch.zeros_like(ratio)
    for count in after:
        first = 0.9**count * (1 - 0.9**before) + (1 - 0.9**count) * ratio
        second = 0.999**count * (1 - 0.999**before) + (1 - 0.999**count) * ratio.square()
        total = before + count
        found += first / (1 - 0.9**total) / (second / (1 - 0.999**total)).sqrt()
    return towards * found / len(after)


def scaled_alike(
    first: torch.Tensor,
    second: torch.Tensor,
    step: torch.Tensor,
    expected: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = second_step,
) -> tuple[float, torch.Tensor]:
    """The scale between two gradients under which Adam's step is nearest to what was seen, and that step."""
    quotient, towards = second / first, first.sign()

    def best(scales: Sequence[float]) -> tuple[float, torch.Tensor]:
        tried = [(scale, expected(scale * quotient, towards)) for scale in scales]
        return min(tried, key=lambda pair: float((pair[1] - step).abs().quantile(0.9)))

    coarse, _ = best([1.0, *np.exp(np.linspace(-3.5, 3.5, 57)).tolist()])
    return best([1.0, *(coarse * np.exp(np.linspace(-0.13, 0.13, 27))).tolist()])


class AfterTraining:
    """An implementation whose editors have been trained for some steps when they are handed out.

    What the tests of other clauses say of an editor is asked of these, too.
    """

    STEPS = 2

    def __init__(self, implementation: Implementation, kind: str) -> None:
        self.implementation, self.kind = implementation, kind

    def __getattr__(self, name: str) -> Any:
        return getattr(self.implementation, name)

    def make_editor(self, name: str, model: Any, edited: Any, languages: Sequence[str], **options: Any) -> Any:
        if name != "finetuning" and options.get("lr") is None:
            options["lr"] = 3e-3
        editor = self.implementation.make_editor(name, model, edited, languages, **options)
        if name != "finetuning":
            for step, triples in enumerate(self.batches(languages)):
                take_step(self.implementation, editor, triples, seed=step)
        return editor

    def batches(self, languages: Sequence[str]) -> Iterator[list[Triple]]:
        return (batch(self.kind, 500 + step, 3, languages) for step in range(self.STEPS))
