"""The adapter of `xedit`. Its global settings are set anew in each call, for the editor that the call is about."""

import functools

import torch
from xedit import args, masks, trainer
from xedit.grab import DW

CLAIMS, EDITORS = {"T", "E", "L", "A", "B"}, ("mend",)


def parallel(corpus, example, languages=None):
    table = {}
    for e in corpus:
        said = table.setdefault(e["fact"], {})
        if said.setdefault(e["language"], e["id"]) != e["id"]:
            raise ValueError("{} is said twice in {}".format(e["fact"], e["language"]))
    facts = {e["id"]: e["fact"] for e in corpus}
    return [name for said, name in table[facts[example]].items() if languages is None or said in languages]


# Editors


def with_settings(function):
    """The model and torch's generator are on loan: both are given back as they were."""

    @functools.wraps(function)
    def call(editor, *rest, **named):
        args.use(editor.settings)
        DW.clear()
        editor.attach()
        try:
            with torch.random.fork_rng(devices=[]):
                return function(editor, *rest, **named)
        finally:
            editor.detach()

    return call


def make_editor(name, model, edited, languages, masks="none", seed=0, inner_lr=None, lr=None):
    if name != "mend":
        raise ValueError(f"no editor {name}")
    known = dict(model.named_parameters())
    missing = [matrix for matrix in edited if matrix not in known]
    if missing:
        raise KeyError(f"no parameter {missing}")
    given = {"layers": list(edited), "langs": list(languages), "masks": masks, "edit_lr": inner_lr, "lr": lr}
    settings = {key: value for key, value in given.items() if value is not None}
    args.use(settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        editor = trainer.EditTrainer(model)
    editor.settings = settings
    return editor


def parameters(editor):
    return dict(editor.nets.named_parameters())


@with_settings
def mask_parameters(editor):
    if args.ARGS.masks == "none":
        return {}
    table = editor.nets.masks
    return {name: {part: table.log_alpha[:, at] for part, at in c.items()} for name, c in table.columns.items()}


def optimizer_groups(editor):
    names = {id(value): name for name, value in parameters(editor).items()}
    return [[names[id(value)] for value in group["params"]] for group in editor.opt.param_groups]


def batch(row, labels=None):
    marked = torch.full((1, len(row["input_ids"])), -100, dtype=torch.long)
    marked[0, row["positions"]] = torch.tensor(labels or 0)
    ids = torch.tensor([row["input_ids"]])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": marked, "lang": row.get("language")}


@with_settings
def capture(editor, request):
    return editor.capture(batch(request, request["labels"]))


@with_settings
@torch.no_grad()
def transform(editor, matrix, x, delta, language):
    return tuple(editor.nets.transform(matrix, x, delta, language))


def known(requests):
    for request in requests:
        if request["language"] not in args.ARGS.langs:
            raise KeyError("no language {}; there are {}".format(request["language"], args.ARGS.langs))


@with_settings
@torch.enable_grad()
def edit(editor, requests):
    known(requests)
    edits = [editor.edit(batch(request, request["labels"])) for request in requests]
    return [{name: dw.detach() for name, dw in one.items()} for one in edits]


def dense(editor, edits, index):
    return edits[index]


@with_settings
@torch.no_grad()
def raw_logits(editor, inputs):
    return [editor.logits(batch(row))[0, row["positions"]] for row in inputs]


@with_settings
@torch.no_grad()
def edited_logits(editor, edits, index, inputs):
    editor.apply(edits[index])
    found = [editor.logits(batch(row))[0, row["positions"]] for row in inputs]
    editor.restore()
    return found


@with_settings
@torch.enable_grad()
def train_step(editor, triples, seed, run=trainer.EditTrainer.step):
    known([triple["edit"] for triple in triples])
    torch.manual_seed(seed)
    labels = [triple["edit"]["labels"] for triple in triples]
    made = [
        (batch(t["edit"], labels[i]), batch(t["update"], labels[i]), batch(t["retain"])) for i, t in enumerate(triples)
    ]
    info = run(editor, made)
    return {"rel": info["edit"], "loc": info["loc"], "mask": info["mask"], "total": sum(info.values())}


def losses(editor, triples, seed):
    editor.nets.zero_grad()
    parts = train_step(editor, triples, seed, run=trainer.EditTrainer.backward)
    gradients = {name: value.grad.clone() for name, value in parameters(editor).items()}
    editor.nets.zero_grad()
    return parts, gradients


def rel_loss(logits, labels, mask, weight):
    logits = logits.detach().requires_grad_()
    loss = weight * trainer.rel_loss(logits, labels.masked_fill(~mask, -100))
    return loss.item(), torch.autograd.grad(loss, [logits])[0]


def loc_loss(edited, raw, mask, weight):
    edited = edited.detach().requires_grad_()
    loss = weight * trainer.loc_loss(edited, raw, mask)
    return loss.item(), torch.autograd.grad(loss, [edited])[0], None


# Masks


def apply_mask(w, m):
    return masks.masked(torch.as_tensor(w), torch.as_tensor(m)).numpy()


def gate(log_alpha, uniforms=None, beta=2 / 3, gamma=-0.1, zeta=1.1):
    u = None if uniforms is None else torch.as_tensor(uniforms)
    return masks.gates(torch.as_tensor(log_alpha), u, beta, gamma, zeta).numpy()


def gate_probability(log_alpha, beta=2 / 3, gamma=-0.1, zeta=1.1):
    shift = beta * torch.tensor(-gamma / zeta, dtype=torch.float64).log()
    return torch.sigmoid(torch.as_tensor(log_alpha) - shift).numpy()


def table_of(log_alpha, languages):
    """A table with these values, x beside δ beside x of the next matrix."""
    args.use({"langs": list(languages), "masks": "language"})
    made = masks.MaskTable({name: (part["delta"].shape[1], part["x"].shape[1]) for name, part in log_alpha.items()})
    parts = [torch.as_tensor(part[key]) for part in log_alpha.values() for key in ("x", "delta")]
    made.log_alpha.data = torch.cat(parts, 1)
    return made


def parts_of(made):
    columns = made.columns.items()
    return {name: {key: made.log_alpha.grad[:, at].numpy() for key, at in parts.items()} for name, parts in columns}


def mask_penalty(log_alpha, weight):
    rows = next(iter(log_alpha.values()))["x"].shape[0]
    made = table_of(log_alpha, [f"l{row}" for row in range(rows)])
    value = weight * made.penalty()
    value.backward()
    return value.item(), parts_of(made)


def _masked(log_alpha, languages, language, x, delta, seed):
    if language not in languages:
        raise KeyError(f"no language {language}; there are {list(languages)}")
    made = table_of({"w": log_alpha}, languages)
    torch.manual_seed(0 if seed is None else seed)
    return made, made("w", torch.as_tensor(x), torch.as_tensor(delta), language, draw=seed is not None)


def mask_factors(log_alpha, languages, language, x, delta, seed=None):
    return tuple(rows.detach().numpy() for rows in _masked(log_alpha, languages, language, x, delta, seed)[1])


def mask_factors_gradient(log_alpha, languages, language, x, delta, grad_x, grad_delta, seed=None):
    made, (new_x, new_delta) = _masked(log_alpha, languages, language, x, delta, seed)
    ((torch.as_tensor(grad_x) * new_x).sum() + (torch.as_tensor(grad_delta) * new_delta).sum()).backward()
    return parts_of(made)["w"]


# Budget


def initial_masks(shapes, languages):
    args.use({"langs": list(languages), "masks": "language"})
    made = masks.MaskTable({name: (m, n) for name, (n, m) in shapes.items()})
    found = made.log_alpha.detach()
    return {name: {part: found[:, at].numpy() for part, at in c.items()} for name, c in made.columns.items()}


def editor_shapes(shapes, languages, masks):
    args.use({"langs": list(languages), "masks": masks})
    made = trainer.Nets({name: (m, n) for name, (n, m) in shapes.items()})
    return {name: tuple(value.shape) for name, value in made.state_dict().items()}
