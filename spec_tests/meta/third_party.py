"""A released research code base in small, for WALKTHROUGH.md: MEND with a mask for each language.

Written here, in the habits of the field: a configuration dictionary, dictionaries of padded tensors with labels of
-100 wherever nothing is predicted, state that hooks hang on the weights, gates drawn from torch's global generator, a
model that is edited in place and restored, one edit at a time. It has one defect of released code, which the page is
about.
"""

import torch
import torch.nn.functional as F
from torch import nn

CONFIG = {
    "edited": [],  # names of the matrices
    "languages": [],  # rows of the masks
    "masks": "none",  # or "language" or "shared"
    "rank": 1920,
    "lr": 1e-6,
    "edit_lr": 1e-4,  # where the inner learning rates start
    "lr_lr": 1e-4,
    "mask_lr": 1e-3,
    "c_edit": 0.1,
    "c_loc": 1.0,
    "c_mask": 1.0,
}


def align(records):
    """{fact: {language: id}} of (id, fact, language) records."""
    table = {}
    for record, fact, language in records:
        if language in table.setdefault(fact, {}):
            raise ValueError(f"{fact} twice in {language}: {table[fact][language]} and {record}")
        table[fact][language] = record
    return table


def collate(examples, pad):
    """Examples {"input_ids", "labels"} as a dictionary of padded tensors."""
    width = max(len(example["input_ids"]) for example in examples)

    def padded(rows, filler):
        return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows])

    ids = [example["input_ids"] for example in examples]
    return {
        "input_ids": padded(ids, pad),
        "attention_mask": padded([[1] * len(row) for row in ids], 0),
        "labels": padded([example["labels"] for example in examples], -100),
    }


def predict(model, batch):
    """Logits (B, T, V); those of a classifier, (B, 1, C), stand at the first token."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return logits if logits.dim() == 3 else logits[:, None]


def edit_loss(logits, labels):
    """Cross entropy, the mean over all labels of the batch."""
    return F.cross_entropy(logits.flatten(0, 1), labels[:, : logits.shape[1]].flatten(), ignore_index=-100)


def loc_loss(raw, edited, labels):
    """KL(raw ‖ edited), the mean over all labels of the batch."""
    at = labels[:, : raw.shape[1]] != -100
    return F.kl_div(edited[at].log_softmax(-1), raw[at].log_softmax(-1), log_target=True, reduction="batchmean")


def hang(module):
    """At each pass, hang a module's input on its weight as `__x__`, and the gradient of its output as `__delta__`."""

    def forward(module, args, output):
        module.weight.__x__ = args[0].detach()
        if output.requires_grad:
            output.register_hook(lambda slope: setattr(module.weight, "__delta__", slope.detach()))

    module.register_forward_hook(forward)


def gates(log_alpha, sample):
    """Hard concrete gates: drawn from torch's global generator in training, deterministic at test time."""
    if sample:
        u = torch.rand_like(log_alpha)
        log_alpha = (u.log() - (1 - u).log() + log_alpha) / (2 / 3)
    return (torch.sigmoid(log_alpha) * 1.2 - 0.1).clamp(0, 1)


def normalised(rows):
    """LayerNorm of rows that are brought to size one first: gradients are far smaller than its eps."""
    return F.layer_norm(rows / rows.abs().amax(-1, keepdim=True), rows.shape[-1:])


class Transform(nn.Module):
    """A residual MLP on the rows (x, delta) of one shape, with a scale and a shift for each matrix that has it."""

    def __init__(self, n, m, matrices, rank):
        super().__init__()
        self.sizes = [n, m]
        self.v = nn.Parameter(torch.randn(n + m, rank) / (n + m) ** 0.5)
        self.u = nn.Parameter(torch.zeros(rank, n + m))
        self.scale = nn.Parameter(torch.ones(matrices, n + m))
        self.shift = nn.Parameter(torch.zeros(matrices, n + m))

    def forward(self, x, delta, index):
        z = torch.cat([normalised(x), normalised(delta)], -1)
        z = z + self.scale[index] * (F.gelu(z @ self.v) @ self.u) + self.shift[index]
        return z.split(self.sizes, -1)


class MEND(nn.Module):
    """The editor: holds the model, edits it in place. Its own parameters are all but the model's."""

    def __init__(self, model, config):
        super().__init__()
        self.model, self.config = model, {**CONFIG, **config}
        everything = dict(model.named_parameters())
        model.requires_grad_(False)
        self.weights = {name: everything[name].requires_grad_() for name in self.config["edited"]}
        for name in self.weights:
            hang(model.get_submodule(name.removesuffix(".weight")))
        shapes = {}
        for name, weight in self.weights.items():
            shapes.setdefault(tuple(weight.shape), []).append(name)
        self.place = {name: (f"{m}x{n}", i) for (m, n), names in shapes.items() for i, name in enumerate(names)}
        rank = self.config["rank"]
        self.transforms = nn.ModuleDict(
            {f"{m}x{n}": Transform(n, m, len(names), min(rank, n, m)) for (m, n), names in shapes.items()}
        )
        self.edit_lrs = nn.Parameter(torch.full((len(self.weights),), self.config["edit_lr"]))
        rows = {"none": 0, "language": len(self.config["languages"]), "shared": 1}[self.config["masks"]]
        self.masks = nn.ParameterDict()
        for name, weight in self.weights.items() if rows else ():
            for factor, width in (("delta", weight.shape[0]), ("x", weight.shape[1])):
                # A ParameterDict takes no dots in its keys.
                self.masks[f"{name}.{factor}".replace(".", "#")] = nn.Parameter(torch.zeros(rows, width))
        parts = (self.transforms.parameters(), "lr"), ([self.edit_lrs], "lr_lr"), (self.masks.parameters(), "mask_lr")
        groups = [(list(parameters), self.config[lr]) for parameters, lr in parts]
        self.optimizers = [torch.optim.Adam(parameters, lr=lr) for parameters, lr in groups if parameters]

    def own_parameters(self):
        return {name: value for name, value in self.named_parameters() if not name.startswith("model.")}

    def masked(self, name, factor, rows, language, sample=False):
        if not self.masks:
            return rows
        row = self.config["languages"].index(language) if self.config["masks"] == "language" else 0
        return rows * (1 + gates(self.masks[f"{name}.{factor}".replace(".", "#")][row], sample))

    def transformed(self, name, x, delta, language, sample=False):
        shape, index = self.place[name]
        x, delta = (self.masked(name, key, rows, language, sample) for key, rows in (("x", x), ("delta", delta)))
        return self.transforms[shape](x, delta, index)

    def edit(self, batch, sample=False):
        """Edit the model in place by this one example; ΔW hangs on each weight as `__update__`, W as `__raw__`."""
        edit_loss(predict(self.model, batch), batch["labels"]).backward()
        for lr, (name, weight) in zip(self.edit_lrs, self.weights.items(), strict=True):
            alive = weight.__delta__.abs().sum(-1) > 0
            x, delta = self.transformed(name, weight.__x__[alive], weight.__delta__[alive], batch["language"], sample)
            weight.__update__ = lr * delta.T @ x
            weight.__raw__ = weight.data.clone()
            weight.data += weight.__update__.detach()
            weight.grad = None

    def restore(self):
        for weight in self.weights.values():
            weight.data.copy_(weight.__raw__)
            weight.grad = None

    def accumulate(self, triples):
        """Add the gradient of the objective of (edit, update, retain) batches to the editor's parameters."""
        info = {"edit": 0.0, "loc": 0.0, "mask": 0.0}
        for edit, update, retain in triples:
            with torch.no_grad():
                raw = predict(self.model, retain)
            self.edit(edit, sample=True)
            l_edit = self.config["c_edit"] * edit_loss(predict(self.model, update), update["labels"])
            l_loc = self.config["c_loc"] * loc_loss(raw, predict(self.model, retain), retain["labels"])
            ((l_edit + l_loc) / len(triples)).backward()
            # The gradient of the edited weight is that of its update, from where it goes on to the editor.
            weights = self.weights.values()
            torch.autograd.backward([w.__update__ for w in weights], [w.grad for w in weights])
            self.restore()
            info["edit"] += l_edit.item() / len(triples)
            info["loc"] += l_loc.item() / len(triples)
        for log_alpha in self.masks.values():
            # The chance that a gate is not zero: 1.6 is -2/3 log(0.1 / 1.1).
            penalty = self.config["c_mask"] * torch.sigmoid(log_alpha + 1.5985968).sum()
            penalty.backward()
            info["mask"] += penalty.item()
        return info

    def train_step(self, triples):
        info = self.accumulate(triples)
        for optimizer in self.optimizers:
            optimizer.step()
        self.zero_grad()
        return info
