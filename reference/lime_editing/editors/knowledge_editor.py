"""KnowledgeEditor (De Cao et al. 2021; clause E5): a network reads the edit and transforms its gradient.

A bidirectional LSTM reads x_e and y_e in the raw model's frozen embeddings. From its last states a small network
computes, for each matrix, a scale and two rank-1 matrices a and b: ΔW = σ(s)·(∇W ⊙ a + b). Each of a and b is the outer
product of a softmax vector over the outputs and a free vector over the inputs. So ΔW stays low-rank: ∇W's gated
factors, and one row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..names import Condition
from ..updates import Factors, Update

if TYPE_CHECKING:
    from . import Edits

NAME = "knowledge_editor"
TITLE = "KnowledgeEditor"
TRAINED = True
LSTM = "knowledge_editor.lstm."
_PARTS = ("in.weight", "in.bias", "out.weight", "out.bias")
_WEIGHTS = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


@dataclass(frozen=True, slots=True)
class Settings:
    """Hyper-parameters; the paper's learning rate (§B.2) and De Cao et al.'s widths."""

    lr: float = 5e-5
    lstm: int = 512  # width of each direction
    hidden: int = 128  # width of the network between the LSTM and the gates
    max_scale: float = 1.0  # the bound of the scale
    #: "input" is the released code's: it does not read y_e.
    condition: Condition = field(default="input+label", metadata={"ruling": "knowledge_editor_condition"})


class Gates(NamedTuple):
    """For each edit the scale (E, 1, 1), and the vectors of a and b: softmax (E, 1, m) and free (E, 1, n)."""

    scale: Tensor
    a_softmax: Tensor
    a_free: Tensor
    b_softmax: Tensor
    b_free: Tensor


def init(raw: Mapping[str, Tensor], width: int, settings: Settings, seed: int) -> dict[str, Tensor]:
    """The LSTM's parameters, with torch's names, and two linear maps for each raw matrix {name: (m, n)}.

    "knowledge_editor.<matrix>.in.weight" (hidden, 2·lstm) and "…out.weight" (2(n + m) + 1, hidden), with biases.
    """
    generator, like = torch.Generator().manual_seed(seed), next(iter(raw.values()))

    def uniform(*shape: int, fan: int) -> Tensor:
        draws = torch.rand(*shape, generator=generator, dtype=torch.float64)
        return ((2 * draws - 1) / math.sqrt(fan)).to(like)

    reader = nn.LSTM(width, settings.lstm, bidirectional=True, device="meta")
    parameters = {f"{LSTM}{name}": uniform(*p.shape, fan=settings.lstm) for name, p in reader.named_parameters()}
    for name, (m, n) in ((name, w.shape) for name, w in raw.items()):
        prefix = f"knowledge_editor.{name}"
        parameters[f"{prefix}.in.weight"] = uniform(settings.hidden, 2 * settings.lstm, fan=2 * settings.lstm)
        parameters[f"{prefix}.in.bias"] = like.new_zeros(settings.hidden)
        parameters[f"{prefix}.out.weight"] = uniform(2 * (n + m) + 1, settings.hidden, fan=settings.hidden)
        parameters[f"{prefix}.out.bias"] = like.new_zeros(2 * (n + m) + 1)
    return parameters


def learning_rates(parameters: Mapping[str, Tensor], settings: Settings) -> dict[str, float]:
    """One learning rate for all parameters."""
    return dict.fromkeys(parameters, settings.lr)


def update(parameters: Mapping[str, Tensor], settings: Settings, edits: Edits) -> Update:
    """The gated factors of each edit's gradient, with one more row for the offset b."""
    states = read(parameters, *edits.condition(settings.condition == "input+label"))
    return Update(gated(parameters, settings, states, edits.gradient().factors))


def gated(parameters: Mapping[str, Tensor], settings: Any, states: Tensor, factors: Factors) -> Factors:
    """For each matrix U (E, T + 1, n) and V (E, T + 1, m), given the LSTM's states (E, 2·lstm)."""
    made = gates(parameters, settings, {name: (x.shape[-1], d.shape[-1]) for name, (x, d) in factors.items()}, states)
    result = {}
    for (name, (x, delta)), g in zip(factors.items(), made, strict=True):
        v = torch.cat([delta * (g.scale * g.a_softmax), g.scale * g.b_softmax], 1)
        result[name] = (torch.cat([x * g.a_free, g.b_free], 1), v)
    return result


def read(parameters: Mapping[str, Tensor], embedded: Tensor, lengths: Tensor) -> Tensor:
    """The last states (E, 2·lstm) of embeddings (E, S, h): both directions read the padding, so no length is read."""
    last = lengths[:, None, None] - 1
    places = torch.arange(embedded.shape[1], device=embedded.device)[:, None]
    turned = embedded.gather(1, (last - places).clamp(min=0).expand_as(embedded))
    states = []
    # Not every CPU has an LSTM in bf16, and it is a small part of a step.
    with torch.autocast(embedded.device.type, enabled=False):
        for direction, words in (("", embedded), ("_reverse", turned)):
            weights = [parameters[f"{LSTM}{name}{direction}"] for name in _WEIGHTS]
            start = words.new_zeros(1, len(words), weights[1].shape[-1])
            out, _, _ = torch.lstm(words, (start, start), weights, True, 1, 0.0, torch.is_grad_enabled(), False, True)
            states.append(out.gather(1, last.expand(-1, -1, out.shape[-1]))[:, 0])
    return torch.cat(states, -1)


def gates(
    parameters: Mapping[str, Tensor], settings: Any, shapes: Mapping[str, tuple[int, int]], states: Tensor
) -> list[Gates]:
    """The gates of matrices {name: (n, m)} for the LSTM's states (E, 2·lstm)."""
    made = []
    for name, (n, m) in shapes.items():
        own = {part: parameters[f"knowledge_editor.{name}.{part}"] for part in _PARTS}
        hidden = F.linear(states, own["in.weight"], own["in.bias"]).tanh()
        out = F.linear(hidden, own["out.weight"], own["out.bias"])
        scale, a_softmax, a_free, b_softmax, b_free = out[:, None].split([1, m, n, m, n], -1)
        bounded = settings.max_scale * scale.sigmoid()
        made.append(Gates(bounded, a_softmax.softmax(-1), a_free, b_softmax.softmax(-1), b_free))
    return made
