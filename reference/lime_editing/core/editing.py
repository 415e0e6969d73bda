"""From an editor and edit requests to an update, and the objective that trains an editor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .. import checks
from ..backbone.arrays import NO_LABEL, Array, Bucket, Places, Rows, Sent, filled, padded, places_of
from ..backbone.model import Backbone, States, capture, states_at
from ..editors import Gradient, Merging, Method, find
from ..errors import UserError
from ..names import Clipping, Direction, LogAlpha, Masks, Penalty, Positions, Rulings, Scaling
from ..records import EditRequest, Input, Triple
from ..updates import Factors, Update, compose, plus
from . import masks as lime
from .losses import loc_loss, rel_loss, total_loss

ABSENT = -1e4  # the logit of an answer that a divergence excludes


@dataclass(frozen=True)
class Editor:
    """A method with its settings and trainable parameters, for one raw model and its editing languages."""

    backbone: Backbone
    method: Method
    settings: Any
    languages: tuple[str, ...]
    masks: Masks
    mask_lr: float
    parameters: dict[str, Tensor]

    def learning_rates(self) -> dict[str, float]:
        """The learning rate of each parameter, masks included. UserError: one is missing or given twice (E9)."""
        own = self.own_parameters()
        rates = self.method.learning_rates(own, self.settings)
        checks.refuse(UserError, checks.of_rates(rates), at=self.method.NAME)
        if rates.keys() != own.keys():
            names = ", ".join(sorted(rates.keys() ^ own.keys()))
            raise UserError(f"{self.method.NAME}: each parameter needs one learning rate; too many or missing: {names}")
        return rates | dict.fromkeys(self.mask_parameters(), self.mask_lr)

    def own_parameters(self) -> dict[str, Tensor]:
        """The parameters of the method itself."""
        return {name: p for name, p in self.parameters.items() if not name.startswith(lime.PREFIX)}

    def mask_parameters(self) -> dict[str, Tensor]:
        """The parameters of the masks; empty without masks."""
        return {name: p for name, p in self.parameters.items() if name.startswith(lime.PREFIX)}


class Asked(NamedTuple):
    """E requests with N labels: labels, example (the label's request) and shares (1 / the request's labels), each (N,).

    masks (E,) are mask rows; words (E, S) are the tokens of x_e, then y_e; lengths (E, 2) count those of x_e, and of
    both.
    """

    labels: Array
    example: Array
    shares: Array
    masks: Array
    words: Array
    lengths: Array


@dataclass(frozen=True, slots=True)
class EditBatch:
    """Implements editors.Edits: E requests, the states of their inputs, and their masks (E, gates), if any.

    Each request has k adjacent inputs, its own and its parallels; `asked` repeats the request k times. `at` holds
    earlier edits, as one edit or as E. `take` needs `requests`.
    """

    editor: Editor
    asked: Asked
    states: States
    masks: Tensor | None = None
    requests: tuple[EditRequest, ...] = ()
    k: int = 1
    at: Update | None = None

    @property
    def matrices(self) -> Mapping[str, Tensor]:
        raw = self.editor.backbone.raw
        return raw if self.at is None else {**raw, **self.at.edited(raw)}

    @property
    def languages(self) -> Tensor:
        rows: Tensor = self.asked.masks[:: self.k]
        return rows

    def gradient(
        self, at: Update | None = None, differentiable: bool = False, keep: tuple[float, Tensor] | None = None
    ) -> Gradient:
        asked, k = self.asked, self.k

        def loss(out: Tensor) -> Tensor:
            desired = rel_loss(out, asked.labels, asked.shares)
            if keep is None:
                return desired
            edited, before = (logits.scatter(1, asked.labels[:, None], ABSENT) for logits in (out, keep[1]))
            return desired + keep[0] * loc_loss(edited, before, asked.shares)

        under = at if self.at is None else plus(self.at, at or Update())
        found, logits = capture(self.editor.backbone, self.states, loss, under, differentiable)
        factors = (
            {name: (_together(x, k), _together(delta, k)) for name, (x, delta) in found.items()} if k > 1 else found
        )
        masked = factors if self.masks is None else lime.masked(factors, self.masks)

        def correct() -> Tensor:
            misses = ((logits.argmax(-1) != asked.labels) & (asked.labels != NO_LABEL)).long()
            missed: Tensor = misses.new_zeros(len(asked.masks)).index_add(0, asked.example, misses)
            return missed.view(-1, k).sum(1) == 0

        return Gradient(masked, correct, {name: x for name, (x, _) in factors.items()}, logits.detach())

    def answering(self, rows: Tensor) -> Tensor:
        slots, tokens, (b, s, _) = self.states.places.slots, rows.shape[1] // self.k, self.states.hidden.shape
        inputs = torch.arange(b, device=rows.device)[:, None]
        # The last layer has only the predicted positions.
        column = slots - s * inputs if tokens == s else torch.arange(tokens, device=rows.device).expand_as(slots)
        there = rows.new_zeros(slots.numel()).index_fill(0, self.states.places.predicted, 1).view(len(rows), -1, 1)
        index = (column + tokens * (inputs % self.k)).view(len(rows), -1, 1)
        return rows.gather(1, index.expand(-1, -1, rows.shape[-1])) * there

    def condition(self, labels: bool) -> tuple[Tensor, Tensor]:
        asked, backbone = self.asked, self.editor.backbone
        lengths = asked.lengths[:: self.k, int(labels)]
        classes = asked.labels[:: self.k] if labels and backbone.classifies else None
        return backbone.embedded(asked.words[:: self.k], lengths, classes), lengths

    def take(self, chosen: Tensor) -> EditBatch:
        kept = chosen.tolist()
        requests = [self.requests[i] for i in kept]
        rows = [self.k * i + j for i in kept for j in range(self.k)]
        states = self.editor.backbone.taken(self.states, rows, inputs_of(requests, self.k))
        at = self.at if self.at is None or self.at.edits < 2 else self.at.take(chosen)
        masks = None if self.masks is None else self.masks[chosen]
        return EditBatch(self.editor, _sent(self.editor, requests, self.k), states, masks, tuple(requests), self.k, at)


def _together(rows: Tensor, k: int) -> Tensor:
    """(E·k, T, w) as (E, k·T, w): an edit's inputs are concatenated."""
    return rows.reshape(len(rows) // k, -1, rows.shape[-1])


@dataclass(frozen=True, slots=True)
class Objective:
    """The weights of the training objective, and the rulings on it and on the optimiser's step.

    The defaults are the paper's (§B.2, clauses L1-L3).
    """

    lambda_rel: float = 0.1
    lambda_loc: float = 1.0
    lambda_mask: float = 1.0
    kl_direction: Direction = "paper"
    penalty: Penalty = "sum"
    loc_positions: Positions = "mask"
    clipping: Clipping = "apart"
    log_alpha: LogAlpha = "free"

    @classmethod
    def under(cls, rulings: Rulings, *weights: float) -> Objective:
        """An objective with these weights of rel, loc and mask, under these rulings."""
        own = [f.name for f in fields(cls)]
        values: dict[str, Any] = dict(zip(own, weights, strict=False))
        return cls(**values, **{name: getattr(rulings, name) for name in own if hasattr(rulings, name)})


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
    """An untrained editor. `settings` is the method's Settings, or a mapping of some of its fields.

    It may edit in `languages`. `masks` is "language" (one mask for each of them), "shared" (one for all) or "none".

    UserError: an unknown method or setting (the known ones are listed), a setting that is no number or choice of its
    kind, or masks on a method without parameters.
    """
    # Eight parameters: each is a choice of its own.
    checks.refuse(UserError, checks.of_arguments(make_editor, locals(), "languages"), checks.of_mode())
    found = find(method)
    if settings is None or isinstance(settings, Mapping):
        try:
            settings = found.Settings(**(settings or {}))
        except TypeError as error:
            raise UserError(f"unknown settings of {method} ({error}); it has {found.Settings()}") from error
    if not isinstance(settings, type(found.Settings())):
        raise UserError(f"settings of {method} must be a mapping, or {found.Settings()}; got {settings!r}")
    checks.refuse(UserError, checks.of_record(settings), at=f"settings of {method}")
    parameters = found.init(backbone.raw, backbone.width, settings, seed)
    checks.refuse(UserError, checks.of_parameters(parameters), at=method)
    if masks != "none":
        if not found.TRAINED:
            raise UserError(f'{method} is not trained, so it has no masks (§4.2); leave masks at "none"')
        rows = 1 if masks == "shared" else len(languages)
        parameters |= lime.init_masks(backbone.shapes, rows, mask_scale, backbone.like)
    for parameter in parameters.values() if found.TRAINED else ():
        parameter.requires_grad_()
    return Editor(backbone, found, settings, tuple(languages), masks, mask_lr, parameters)


@torch.no_grad()
def edit(editor: Editor, requests: Sequence[EditRequest], seed: int | None = None, at: Update | None = None) -> Update:
    """One independent edit for each request, in one batch (§3.3, clause E8). The raw model does not change.

    With a seed the gates are sampled, as in training; without it they are deterministic, as at test time. `at` holds
    the earlier edits of a series: gradients and predictions are computed at θ + at. The result is the new edit alone
    (chapter C); `compose([at, new])` gives both. LanguageError: the editor does not have this editing language.
    """
    checks.refuse(UserError, checks.of_arguments(edit, locals(), "requests"))
    if editor.backbone.precision != "bf16" and torch.is_autocast_enabled(editor.backbone.like.device.type):
        raise UserError("torch.autocast is on, and the model is in float32; leave it, or load with precision='bf16'")
    drawn = None if seed is None else uniforms_of(editor, len(requests), seed)
    before = None if at is None else compose([at], dense=True)
    return editor.method.update(editor.parameters, editor.settings, edit_batch(editor, requests, None, drawn, before))


def edit_from(editor: Editor, requests: Sequence[EditRequest], states: States) -> Update:
    """`edit`, given the trunk states of the edit inputs."""
    return editor.method.update(editor.parameters, editor.settings, edit_batch(editor, requests, states))


def edit_batch(
    editor: Editor,
    requests: Sequence[EditRequest],
    states: States | None = None,
    uniforms: Tensor | None = None,
    at: Update | None = None,
) -> EditBatch:
    """The requests as the editor sees them. `states`: of the edit inputs. LanguageError: as of `edit`."""
    k, backbone = 1 + max((len(request.parallels) for request in requests), default=0), editor.backbone
    asked = _sent(editor, requests, k)
    if states is None or len(states.hidden) < k * len(requests):
        states = backbone.trunk(inputs_of(requests, k))
    drawn = None if uniforms is None else uniforms.to(states.hidden.device)
    masks = masks_of(editor, asked.masks[::k], drawn) if editor.masks != "none" else None
    return EditBatch(editor, asked, states, masks, tuple(requests), k, at)


def _sent(editor: Editor, requests: Sequence[EditRequest], k: int) -> Asked:
    like = editor.backbone.like
    return Sent.of(asked_of(editor, [request for request in requests for _ in range(k)]), like).on(like.device)


def inputs_of(requests: Sequence[EditRequest], k: int) -> list[Input]:
    """k inputs for each request: its own and its parallels. If it has too few parallels, its own is repeated."""
    rows = [(r.input, *r.parallels, *[r.input] * (k - 1 - len(r.parallels))) for r in requests]
    return [i for row in rows for i in row]


def masks_of(editor: Editor, rows: Tensor, uniforms: Tensor | None, log_alphas: Tensor | None = None) -> Tensor:
    """The masks (E, gates) at these rows (E,); sampled if `uniforms` are given (clauses A3, A6)."""
    own = editor.parameters
    chosen = lime.side_by_side(own, rows) if log_alphas is None else F.embedding(rows, log_alphas)
    m = lime.gate(chosen, uniforms)
    return m * lime.side_by_side(own, rows, "_scale") if any(name.endswith("_scale") for name in own) else m


def edit_factors(editor: Editor, requests: Sequence[EditRequest]) -> Factors:
    """x and δ of the edited matrices at the raw parameters, without masks (clause E1)."""
    bare = replace(editor, masks="none")
    states = editor.backbone.trunk([request.input for request in requests])
    return edit_batch(bare, requests, states).gradient().factors


def asked_of(editor: Editor, requests: Sequence[EditRequest], bucket: Bucket | None = None) -> Asked:
    """The requests as arrays. LanguageError: the editor does not have an editing language."""
    checks.refuse(UserError, checks.of_requests(requests, editor.backbone))
    counts = [len(request.labels) for request in requests]
    labels = np.array([label for request in requests for label in request.labels])
    example, shares = np.repeat(np.arange(len(requests)), counts), shares_of(counts)
    if bucket is not None:
        size = bucket.predicted
        labels, example, shares = filled(labels, size, NO_LABEL), filled(example, size, 0), filled(shares, size, 0)
    # A class has no token: 0 reserves its column, which later gets the class's row.
    said = [(*r.input.ids, *((0,) if editor.backbone.classifies else r.labels)) for r in requests]
    words = padded(said, 0, None if bucket is None else bucket.tokens + bucket.positions).numpy()
    lengths = np.array([(len(r.input.ids), len(row)) for r, row in zip(requests, said, strict=True)])
    masks = lime.mask_rows([request.language for request in requests], editor.languages, editor.masks)
    return Asked(labels, example, shares, np.array(masks), words, lengths)


def shares_of(counts: Sequence[int]) -> NDArray[np.float64]:
    """The weight of each predicted position: 1 / the number of positions of its input."""
    return np.repeat(1 / np.array(counts), counts)


def uniforms_of(editor: Editor, edits: int, seed: int) -> Tensor | None:
    """The uniforms (E, gates) for the gates of `edits` edits, on the host; None without masks."""
    return None if editor.masks == "none" else lime.draw_uniforms(editor.parameters, edits, seed)


class Batch(NamedTuple):
    """E triples: all inputs in rows; the places of x_e, of x_u and x_r (alternating), and of x_r; and the requests.

    shares (N,) are the weights of the predicted positions of x_r; uniforms (E, gates) sample the gates.
    """

    rows: Rows
    edits: Places
    pairs: Places
    retains: Places
    asked: Asked
    shares: Array
    uniforms: Array | None


def batch_of(
    editor: Editor,
    triples: Sequence[Triple],
    uniforms: Tensor | None,
    fixed: bool = False,
    loc_positions: Positions = "mask",
) -> Sent[Batch]:
    """Triples as arrays; with `fixed`, of a shape that many batches share.

    "all" computes L_loc at every token of a masked sentence, without padding (clause L2).
    """
    if any(len(t.update.positions) != len(t.edit.labels) for t in triples) and not editor.backbone.classifies:
        raise UserError("an update input needs one predicted position for each label of its edit request")
    backbone, requests = editor.backbone, [triple.edit for triple in triples]
    if loc_positions == "all" and not backbone.classifies:
        whole = [replace(t.retain, positions=tuple(range(len(t.retain.ids)))) for t in triples]
        triples = [replace(triple, retain=retain) for triple, retain in zip(triples, whole, strict=True)]
    edits = backbone.predicted([request.input for request in requests])
    pairs = backbone.predicted([i for triple in triples for i in (triple.update, triple.retain)])
    retains = pairs[1::2]
    bucket = Bucket.of([edits, pairs[::2], retains]) if fixed else None
    # One trunk pass for all inputs: below the edited layers an edit changes nothing.
    rows, starts = backbone.rows(edits + pairs, bucket)
    of_edits, of_pairs = starts[: len(edits)], starts[len(edits) :]
    shares = shares_of([len(i.positions) for i in retains])
    record = Batch(
        rows,
        places_of(edits, of_edits, 1, bucket),
        # x_u and x_r of an edit are adjacent: they share one pass through the edited layers.
        places_of(pairs, of_pairs, 2, bucket),
        places_of(retains, of_pairs[1::2], 1, bucket),
        asked_of(editor, requests, bucket),
        shares if bucket is None else filled(shares, bucket.predicted, 0),
        None if uniforms is None else uniforms.numpy(),
    )
    return Sent.of(record, backbone.like)


def training_losses(
    editor: Editor, triples: Sequence[Triple], seed: int, objective: Objective, given: Update | None = None
) -> dict[str, Tensor]:
    """{"rel", "loc", "mask", "total"} of a batch (§3.2, clause L3). The seed samples gates; `given`: `losses_of`."""
    uniforms = uniforms_of(editor, len(triples), seed)
    batch = batch_of(editor, triples, uniforms, loc_positions=objective.loc_positions)
    return losses_of(editor, batch.on(editor.backbone.like.device), objective, given)


def losses_of(editor: Editor, batch: Batch, objective: Objective, given: Update | None = None) -> dict[str, Tensor]:
    """`training_losses` of a batch on the device, without synchronising with it.

    `given`, of an editor trained on sets or series: the set as one update, or for each edit the sum of those before it.
    """
    backbone, output, method = editor.backbone, editor.backbone.read(batch.rows), editor.method
    asked, masks, penalty = batch.asked, None, output.new_zeros(())
    if editor.masks != "none":
        # The penalty needs all rows, so the edits' rows are gathered from them.
        log_alphas = lime.side_by_side(editor.parameters)
        masks = masks_of(editor, asked.masks, batch.uniforms, log_alphas)
        penalty = lime.penalty(log_alphas, objective.penalty)
    if isinstance(method, Merging):
        edits = EditBatch(editor, asked, states_at(output, batch.edits), masks)
        update = given or method.merge(editor.parameters, editor.settings, [lambda: edits])
    else:
        edits = EditBatch(editor, asked, states_at(output, batch.edits), masks, at=given)
        new = method.update(editor.parameters, editor.settings, edits)
        checks.refuse(UserError, checks.of_made(new, len(asked.masks)), at=method.NAME)
        update = new if given is None else plus(given, new)
    with torch.no_grad():
        raw = backbone.upper(states_at(output, batch.retains))
    edited = backbone.upper(states_at(output, batch.pairs), update)
    updated, retained = edited.split([len(edited) - len(raw), len(raw)])
    rel = rel_loss(updated, asked.labels, asked.shares) / len(asked.masks)
    loc = loc_loss(retained, raw, batch.shares, objective.kl_direction) / len(asked.masks)
    return total_loss(rel, loc, penalty, objective.lambda_rel, objective.lambda_loc, objective.lambda_mask)
