"""The editor, and all that is done with it."""

import torch
import torch.nn.functional as F
from torch import nn

from .args import ARGS
from .grab import DW, grab, watch
from .masks import MaskTable


def normalize(rows):
    """To size one first: gradients are far smaller than the eps of LayerNorm."""
    return F.layer_norm(rows / rows.abs().max(-1, keepdim=True)[0].clamp(min=1e-30), rows.shape[-1:])


class Net(nn.Module):
    """The transform of the matrices of one shape: a residual MLP, with scale and shift for each of them."""

    def __init__(self, m, n, count):
        super().__init__()
        rank = min(ARGS.rank, m, n)
        self.down = nn.Linear(n + m, rank)
        self.up = nn.Linear(rank, n + m, bias=False)
        nn.init.zeros_(self.up.weight)
        self.scale = nn.Parameter(torch.ones(count, n + m))
        self.shift = nn.Parameter(torch.zeros(count, n + m))

    def forward(self, x, delta, index):
        z = torch.cat([normalize(x), normalize(delta)], -1)
        return z + self.scale[index] * self.up(torch.tanh(self.down(z))) + self.shift[index]


class Nets(nn.Module):
    """All that is trained."""

    def __init__(self, shapes):
        super().__init__()
        groups = {}
        for name, shape in shapes.items():
            groups.setdefault(tuple(shape), []).append(name)
        named = {"{}x{}".format(*shape): (shape, names) for shape, names in groups.items()}
        self.place = {name: (key, i) for key, (_, names) in named.items() for i, name in enumerate(names)}
        self.nets = nn.ModuleDict({key: Net(*shape, len(names)) for key, (shape, names) in named.items()})
        self.edit_lrs = nn.Parameter(torch.full((len(shapes),), ARGS.edit_lr))
        if ARGS.masks != "none":
            self.masks = MaskTable(shapes)

    def transform(self, name, x, delta, lang, draw=False):
        x, delta = x.float(), delta.float()
        if ARGS.masks != "none":
            x, delta = self.masks(name, x, delta, lang, draw)
        net, index = self.place[name]
        return self.nets[net](x, delta, index).split([x.shape[-1], delta.shape[-1]], -1)


def rel_loss(logits, labels):
    """The mean over examples of the mean over their labels; -100 is no label."""
    kept = labels != -100
    losses = F.cross_entropy(logits.float().transpose(1, 2), labels, ignore_index=-100, reduction="none")
    return ((losses * kept).sum(1) / kept.sum(1)).mean()


def loc_loss(edited, raw, kept):
    """KL(edited || raw), averaged in the same way."""
    p, q = edited.float().log_softmax(-1), raw.float().log_softmax(-1)
    return (((p.exp() * (p - q)).sum(-1) * kept).sum(1) / kept.sum(1)).mean()


class EditTrainer:
    def __init__(self, model):
        self.model = model
        weights = dict(model.named_parameters())
        self.shapes = {name: tuple(weights[name].shape) for name in ARGS.layers}
        self.nets = Nets(self.shapes)
        groups = [{"params": self.nets.nets.parameters(), "lr": ARGS.lr}]
        groups.append({"params": [self.nets.edit_lrs], "lr": ARGS.lr_lr})
        if ARGS.masks != "none":
            groups.append({"params": self.nets.masks.parameters(), "lr": ARGS.mask_lr})
        self.opt = torch.optim.Adam(groups)

    def attach(self):
        """Hook and freeze the model; nothing works before."""
        self.flags = [value.requires_grad for value in self.model.parameters()]
        self.model.requires_grad_(False)
        layers = dict(self.model.named_modules())
        self.hooks = [watch(name, layers[name[: -len(".weight")]]) for name in self.shapes]

    def detach(self):
        for hook in self.hooks:
            hook.remove()
        for value, flag in zip(self.model.parameters(), self.flags):
            value.requires_grad_(flag)

    def logits(self, batch):
        """(B, T, V); a classifier's are at the first token."""
        logits = self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return logits if logits.dim() == 3 else logits[:, None]

    def loss(self, batch):
        logits = self.logits(batch)
        return rel_loss(logits, batch["labels"][:, : logits.shape[1]])

    def capture(self, batch):
        return {name: (x[0], delta[0]) for name, (x, delta) in grab(lambda: self.loss(batch)).items()}

    def edit(self, batch, draw=False):
        """{name: ΔW} of a batch of one example."""
        dw = {}
        for (name, (x, delta)), lr in self._pairs(self.capture(batch)):
            alive = delta.abs().sum(-1) > 0
            x, delta = self.nets.transform(name, x[alive], delta[alive], batch["lang"], draw)  # noqa: PLW2901
            dw[name] = -lr * delta.t() @ x
        return dw

    def _pairs(self, captured):
        return [((name, captured[name]), self.nets.edit_lrs[i]) for i, name in enumerate(self.shapes)]

    def apply(self, dw):
        DW.update(dw)

    def restore(self):
        DW.clear()

    def backward(self, triples):
        """Adds the gradient of the objective of (edit, update, retain) batches."""
        info = {"edit": 0.0, "loc": 0.0, "mask": 0.0}
        for edit, update, retain in triples:
            with torch.no_grad():
                raw = self.logits(retain)
            self.apply(self.edit(edit, draw=True))
            l_edit = ARGS.cedit * self.loss(update)
            edited = self.logits(retain)
            l_loc = ARGS.cloc * loc_loss(edited, raw, (retain["labels"] != -100)[:, : edited.shape[1]])
            self.restore()
            ((l_edit + l_loc) / len(triples)).backward()
            info["edit"] += l_edit.item() / len(triples)
            info["loc"] += l_loc.item() / len(triples)
        if ARGS.masks != "none":
            penalty = ARGS.cmask * self.nets.masks.penalty()
            penalty.backward()
            info["mask"] = penalty.item()
        return info

    def step(self, triples):
        self.opt.zero_grad()
        info = self.backward(triples)
        self.opt.step()
        self.opt.zero_grad()
        return info
