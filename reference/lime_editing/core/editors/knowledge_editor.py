"""KnowledgeEditor (De Cao et al. 2021; clause E5): a network reads the edit and says how to bend its gradient.

A bidirectional LSTM reads x_e and y_e in the raw model's own frozen embeddings. From its last states a small network
makes, for each matrix, a scale and two rank-1 matrices a and b: ΔW = σ(s)·(∇W ⊙ a + b). Each is the outer product of a
softmax vector over the outputs and a free vector over the inputs, so ΔW stays low-rank: ∇W's factors, gated, and a row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.rnn import pack_padded_sequence

from ...names import Condition
from ..updates import Factors, Update

if TYPE_CHECKING:
    from . import Edits

NAME = "knowledge_editor"
TITLE = "KnowledgeEditor"
TRAINED = True
LSTM = "knowledge_editor.lstm."
_PARTS = ("in.weight", "in.bias", "out.weight", "out.bias")


@dataclass(frozen=True, slots=True)
class Settings:
    """Hyper-parameters; the paper's learning rate (§B.2) and De Cao et al.'s widths."""

    lr: float = 5e-5
    lstm: int = 512  # width of each direction
    hidden: int = 128  # width of the network between the LSTM and the gates
    max_scale: float = 1.0  # the bound of the scale
    #: "input" is as in the released code, which does not read y_e.
    condition: Condition = field(default="input+label", metadata={"ruling": "knowledge_editor_condition"})


class Gates(NamedTuple):
    """Per edit the scale (E,) and the vectors of a and b: softmax (E, m) and free (E, n)."""

    scale: Tensor
    a_softmax: Tensor
    a_free: Tensor
    b_softmax: Tensor
    b_free: Tensor


def init(raw: Mapping[str, Tensor], width: int, settings: Settings, seed: int) -> dict[str, Tensor]:
    """The LSTM's parameters, under torch's names, and per raw matrix {name: (m, n)} two linear maps.

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
    """One for all parameters."""
    return dict.fromkeys(parameters, settings.lr)


def update(parameters: Mapping[str, Tensor], settings: Settings, edits: Edits) -> Update:
    """The gated factors of each edit's gradient, and one row more for the offset b."""
    states = read(parameters, *edits.condition(settings.condition == "input+label"))
    return Update(gated(parameters, settings, states, edits.gradient().factors))


def gated(
    parameters: Mapping[str, Tensor], settings: Any, states: Tensor, factors: Factors
) -> dict[str, tuple[Tensor, Tensor]]:
    """Per matrix U (E, T + 1, n) and V (E, T + 1, m), for the LSTM's states (E, 2·lstm)."""
    result = {}
    for name, (x, delta) in factors.items():
        g = gates(parameters, settings, name, states, x.shape[-1], delta.shape[-1])
        u = torch.cat([x * g.a_free[:, None], g.b_free[:, None]], 1)
        v = torch.cat([delta * g.a_softmax[:, None], g.b_softmax[:, None]], 1)
        result[name] = (u, g.scale[:, None, None] * v)
    return result


def read(parameters: Mapping[str, Tensor], embedded: Tensor, lengths: Tensor) -> Tensor:
    """The LSTM's last states of both directions (E, 2·lstm), for embeddings (E, S, h) of these lengths (E,)."""
    own = {name.removeprefix(LSTM): p for name, p in parameters.items() if name.startswith(LSTM)}
    width = own["weight_hh_l0"].shape[-1]
    reader = nn.LSTM(embedded.shape[-1], width, batch_first=True, bidirectional=True, device="meta")
    packed = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
    # Not every CPU has an LSTM in bf16, and it is a small part of a step.
    with torch.autocast(embedded.device.type, enabled=False):
        _, (last, _) = functional_call(reader, own, (packed,))
    return torch.cat([last[0], last[1]], -1)


def gates(parameters: Mapping[str, Tensor], settings: Any, name: str, states: Tensor, n: int, m: int) -> Gates:
    """The gates of one matrix for the LSTM's states (E, 2·lstm)."""
    own = {part: parameters[f"knowledge_editor.{name}.{part}"] for part in _PARTS}
    hidden = torch.tanh(nn.functional.linear(states, own["in.weight"], own["in.bias"]))
    out = nn.functional.linear(hidden, own["out.weight"], own["out.bias"])
    scale, a_softmax, a_free, b_softmax, b_free = out.split([1, m, n, m, n], -1)
    bounded = settings.max_scale * scale[:, 0].sigmoid()
    return Gates(bounded, a_softmax.softmax(-1), a_free, b_softmax.softmax(-1), b_free)
