"""An edit is a value: an editor and edit requests in, an update out; and the objective that trains an editor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from ..names import Direction, Masks, Penalty, Scaling
from . import masks as lime
from .backbone import Backbone, States, capture, padded
from .editors import Gradient, Merging, Method, find
from .losses import loc_loss, rel_loss, total_loss
from .records import EditRequest, Triple
from .updates import Factors, Update, compose, plus

ABSENT = -1e4  # the logit of an answer that is left out of a divergence


@dataclass(frozen=True)
class Editor:
    """A method with its settings and trainable parameters, bound to a raw model and the languages it may edit in."""

    backbone: Backbone
    method: Method
    settings: Any
    languages: tuple[str, ...]
    masks: Masks
    mask_lr: float
    parameters: dict[str, Tensor]

    def learning_rates(self) -> dict[str, float]:
        """The learning rate of each parameter, masks included."""
        rates = self.method.learning_rates(self.own_parameters(), self.settings)
        return rates | dict.fromkeys(self.mask_parameters(), self.mask_lr)

    def own_parameters(self) -> dict[str, Tensor]:
        """The parameters of the method itself."""
        return {name: p for name, p in self.parameters.items() if not name.startswith(lime.PREFIX)}

    def mask_parameters(self) -> dict[str, Tensor]:
        """The parameters of the masks; empty without masks."""
        return {name: p for name, p in self.parameters.items() if name.startswith(lime.PREFIX)}


@dataclass(frozen=True, slots=True)
class EditBatch:
    """editors.Edits: E requests, the states of their inputs, and the draws of their gates (None: those of test time).

    Each request has k inputs side by side, its own and its parallels. `at` holds the edits before, as one or as E.
    """

    editor: Editor
    requests: tuple[EditRequest, ...]
    states: States
    draws: Mapping[str, Tensor] | None = None
    at: Update | None = None

    @property
    def k(self) -> int:
        return len(self.states.lengths) // len(self.requests)

    @property
    def matrices(self) -> Mapping[str, Tensor]:
        raw = self.editor.backbone.raw
        return raw if self.at is None else {**raw, **self.at.edited(raw)}

    @property
    def languages(self) -> list[int]:
        return [self.editor.languages.index(request.language) for request in self.requests]

    def gradient(
        self, at: Update | None = None, differentiable: bool = False, keep: tuple[float, Tensor] | None = None
    ) -> Gradient:
        under, e = at if self.at is None else plus(self.at, at or Update()), len(self.requests)
        each = [request for request in self.requests for _ in range(self.k)]
        found = desired_gradient(self.editor.backbone, each, self.states, under, differentiable, keep)
        x, delta = ({n: f[i].reshape(e, -1, f[i].shape[-1]) for n, f in found.factors.items()} for i in (0, 1))
        rows, spoken = {name: (x[name], delta[name]) for name in x}, [request.language for request in self.requests]
        masked = mask_edit_factors(self.editor, rows, spoken, self.draws)
        return Gradient(masked, found.correct.view(e, -1).all(1), x, found.logits)

    def answering(self, rows: Tensor) -> Tensor:
        tokens, own = rows.shape[1] // self.k, self.states.positions
        if tokens < self.states.hidden.shape[1]:  # of the last layer, which has the predicted positions alone
            own = tuple(tuple(range(len(places))) for places in own)
        each = [[p + tokens * j for j in range(self.k) for p in own[e + j]] for e in range(0, len(own), self.k)]
        index, there = (padded(part, 0).to(rows.device)[..., None] for part in (each, [[1] * len(one) for one in each]))
        return rows.gather(1, index.expand(-1, -1, rows.shape[-1])) * there

    def condition(self, labels: bool) -> tuple[Tensor, Tensor]:
        return self.editor.backbone.condition(self.requests, labels)

    def take(self, chosen: Tensor) -> EditBatch:
        kept = chosen.tolist()
        requests = tuple(self.requests[i] for i in kept)
        draws = None if self.draws is None else {name: u[chosen] for name, u in self.draws.items()}
        at = self.at if self.at is None or self.at.edits < 2 else self.at.take(chosen)
        states = self.states.take([self.k * i + j for i in kept for j in range(self.k)])
        return EditBatch(self.editor, requests, states, draws, at)


@dataclass(frozen=True, slots=True)
class Objective:
    """The weights of the training objective and its rulings; the defaults are the paper's (§B.2, clauses L1-L3)."""

    lambda_rel: float = 0.1
    lambda_loc: float = 1.0
    lambda_mask: float = 1.0
    kl_direction: Direction = "paper"
    penalty: Penalty = "sum"


def make_editor(
    method: str,
    backbone: Backbone,
    languages: Sequence[str],
    masks: Masks = "none",
    seed: int = 0,
    settings: Any = None,
    mask_lr: float = 1e-3,
    mask_scale: Scaling = "none",
) -> Editor:
    """An untrained editor. `settings` are the method's own record, or a mapping of some of its values.

    UserError: an unknown method or setting, named with the known ones; masks without any parameters.
    """
    found = find(method)
    if settings is None or isinstance(settings, Mapping):
        try:
            settings = found.Settings(**(settings or {}))
        except TypeError as error:
            raise UserError(f"unknown settings of {method}: {error}; it has {found.Settings()}") from error
    parameters = found.init(backbone.raw, backbone.width, settings, seed)
    if masks != "none":
        if not found.TRAINED:
            raise UserError(f"{method} trains nothing, so it has no masks either (§4.2)")
        rows = 1 if masks == "shared" else len(languages)
        parameters |= lime.init_masks(backbone.shapes, rows, mask_scale, backbone.like)
    for parameter in parameters.values() if found.TRAINED else ():
        parameter.requires_grad_()
    return Editor(backbone, found, settings, tuple(languages), masks, mask_lr, parameters)


@torch.no_grad()
def edit(editor: Editor, requests: Sequence[EditRequest], seed: int | None = None, at: Update | None = None) -> Update:
    """One independent edit for each request, computed in one batch (§3.3, clause E8); the raw model is only read.

    With a seed the gates are sampled, as in training; without, they are the deterministic ones of test time.
    `at` are the edits before, in a series: gradients and predictions are those of θ + at, and the result is the new
    part alone (chapter C); `compose([at, new])` is what holds then.
    LanguageError: an editing language that the editor was not made for.
    """
    draws = None if seed is None else lime.draw_uniforms(editor.parameters, len(requests), seed)
    before = None if at is None else compose([at], dense=True)
    edits = batch_of(editor, requests, None, draws, before)
    return editor.method.update(editor.parameters, editor.settings, edits)


def batch_of(
    editor: Editor,
    requests: Sequence[EditRequest],
    states: States | None = None,
    draws: Mapping[str, Tensor] | None = None,
    at: Update | None = None,
) -> EditBatch:
    """Requests as an editor sees them; `states` are those of the edit inputs. LanguageError: as of `edit`."""
    lime.mask_rows([request.language for request in requests], editor.languages, editor.masks)
    k = max((len(request.parallels) for request in requests), default=0)
    if states is None or k:
        # An edit with fewer parallels than another has its own input again.
        rows = [(r.input, *r.parallels, *[r.input] * (k - len(r.parallels))) for r in requests]
        states = editor.backbone.trunk([i for row in rows for i in row])
    return EditBatch(editor, tuple(requests), states, draws, at)


def edit_from(
    editor: Editor, requests: Sequence[EditRequest], states: States, draws: Mapping[str, Tensor] | None = None
) -> Update:
    """`edit`, given the trunk states of the edit inputs and the draws of their gates."""
    return editor.method.update(editor.parameters, editor.settings, batch_of(editor, requests, states, draws))


def edit_factors(editor: Editor, requests: Sequence[EditRequest]) -> Factors:
    """x and δ of the edited matrices at the raw parameters, without masks (clause E1)."""
    states = editor.backbone.trunk([request.input for request in requests])
    return desired_gradient(editor.backbone, requests, states).factors


def desired_gradient(
    backbone: Backbone,
    requests: Sequence[EditRequest],
    states: States,
    at: Update | None = None,
    differentiable: bool = False,
    keep: tuple[float, Tensor] | None = None,
) -> Gradient:
    """editors.Edits.gradient without masks, given the trunk states of the edit inputs."""
    labels, example, count = labels_of(requests, states), states.example, len(requests)

    def loss(out: Tensor) -> Tensor:
        desired = rel_loss(out, labels, example, count)
        if keep is None:
            return desired
        edited, before = (logits.scatter(1, labels[:, None], ABSENT) for logits in (out, keep[1]))
        return desired + keep[0] * loc_loss(edited, before, example, examples=count)

    factors, logits = capture(backbone, states, loss, at, differentiable)
    misses = (logits.argmax(-1) != labels).long()
    correct = misses.new_zeros(count).index_add(0, example, misses) == 0
    return Gradient(factors, correct, {name: x for name, (x, _) in factors.items()}, logits.detach())


def mask_edit_factors(
    editor: Editor, factors: Factors, languages: Sequence[str], draws: Mapping[str, Tensor] | None = None
) -> Factors:
    """The factors under the masks of each edit's language; the same factors for an editor without masks (clause A7)."""
    if editor.masks == "none":
        return factors
    rows = lime.mask_rows(languages, editor.languages, editor.masks)
    return {
        name: (
            lime.masked(editor.parameters, f"{lime.PREFIX}{name}.x", rows, x, draws),
            lime.masked(editor.parameters, f"{lime.PREFIX}{name}.delta", rows, delta, draws),
        )
        for name, (x, delta) in factors.items()
    }


def training_losses(
    editor: Editor,
    triples: Sequence[Triple],
    seed: int,
    objective: Objective,
    first: int = 0,
    of: int | None = None,
    given: Update | None = None,
) -> dict[str, Tensor]:
    """{"rel", "loc", "mask", "total"} of a batch (§3.2, clause L3); the seed draws the gates.

    Of a batch of `of` edits that is computed in parts, these are those from number `first` on: each keeps its gates.
    `given` is of an editor that is trained on sets or series (sets.py): the set as one update, or of each edit of the
    batch those before it.
    """
    backbone, method = editor.backbone, editor.method
    requests = [triple.edit for triple in triples]
    merged = given if isinstance(method, Merging) else None
    own = [] if merged else [request.input for request in requests]
    inputs = own + [i for triple in triples for i in (triple.update, triple.retain)]
    # One pass through the trunk serves all: below the edited layers an edit's own input is like any other.
    everything = backbone.trunk(inputs)
    draws = lime.draw_uniforms(editor.parameters, of or len(triples), seed)
    draws = {name: u[first : first + len(triples)] for name, u in draws.items()}
    if merged:
        update = merged
    else:
        before = None if given is None else given.take(slice(first, first + len(triples)))
        edits = batch_of(editor, requests, everything.take(range(len(requests))), draws, before)
        if isinstance(method, Merging):
            update = method.merge(editor.parameters, editor.settings, [lambda: edits])
        else:
            new = method.update(editor.parameters, editor.settings, edits)
            update = new if before is None else plus(before, new)
    # x_u and x_r of one edit lie side by side: one pass through the edited layers serves both.
    states = everything.take(range(len(own), len(inputs)))
    retains = states.take(range(1, 2 * len(triples), 2))
    with torch.no_grad():
        raw = backbone.upper(retains)
    edited = backbone.upper(states, update)
    # A classifier has one row per example and no positions; both count examples in the same order.
    of_update, of_retain = states.rows(range(0, 2 * len(triples), 2)), states.rows(range(1, 2 * len(triples), 2))
    updated = states.example[of_update] // 2
    rel = rel_loss(edited[of_update], labels_of(requests, states), updated, len(triples))
    loc = loc_loss(edited[of_retain], raw, retains.example, objective.kl_direction, len(triples))
    masks = editor.mask_parameters()
    mask = lime.penalty(masks, objective.penalty) if masks else rel.new_zeros(())
    return total_loss(rel, loc, mask, objective.lambda_rel, objective.lambda_loc, objective.lambda_mask)


def labels_of(requests: Sequence[EditRequest], states: States) -> Tensor:
    """The desired labels of all requests in a row (N,), in the order of the predicted positions."""
    labels = torch.tensor([label for request in requests for label in request.labels])
    return labels.to(states.example.device, non_blocking=True)
