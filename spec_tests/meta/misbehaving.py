"""Implementations that misbehave in a process of their own. They need NumPy alone, or torch where they say so."""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from types import SimpleNamespace

import numpy as np

CLAIMS = {"M"}


class Strange(ValueError):
    """An error that only the implementation knows."""


class Refusal(BaseException):
    """What is no error, as pytest.skip or SystemExit."""


def succ(acc, con):
    """The harmonic mean; `acc` chooses what else happens."""
    what = {2: _prints, 3: _warns, 4: _raises, 5: _refuses, 6: _sleeps, 7: _is_killed, 8: _exits, 9: _forks}.get(acc)
    if what is not None:
        what()
    return 2 * acc * con / (acc + con) if acc + con else 0.0


def _prints():
    print("a line of the implementation")
    os.write(1, b"\xff a line past Python\n{}\n")
    sys.stderr.write("a complaint\n")


def _warns():
    for _ in range(3):
        warnings.warn("this will go away", FutureWarning, stacklevel=1)


def _raises():
    raise Strange("no such thing: ü")


def _refuses():
    raise Refusal("not today")


def _sleeps():
    while True:
        try:
            time.sleep(60)
        except BaseException:
            continue


def _is_killed():
    os.kill(os.getpid(), signal.SIGKILL)


def _exits():
    sys.stderr.write("out of luck\n")
    sys.stderr.flush()
    os._exit(3)


def _forks():
    """A child keeps the pipes open when the process itself is gone."""
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)
    os._exit(4)


def hit(predicted, expected, is_mask, role):
    return np.bool_(np.array_equal(np.array(predicted)[is_mask], np.array(expected)[is_mask]))


def metrics(outcomes, languages=None):
    """What came is given back: whether it survives the way."""
    return outcomes


def breakdown(outcomes, by):
    """The process that it runs in."""
    return {"process": os.getpid(), "arguments": sys.argv[1:], "input": sys.stdin.read(), "hash": hash("a")}


def aggregate(runs):
    return runs(np.float32(0.5), text="ü")


# Editors without any model: numbers in torch tensors


def _torch():
    import torch  # noqa: PLC0415

    return torch


def make_editor(name, model, edited, languages, masks="none", seed=0, inner_lr=None, lr=None):
    """All parameters are views of one vector; a mask is a part of a table that is one of them."""
    torch = _torch()
    flat = torch.arange(30, dtype=torch.float64)
    editor = SimpleNamespace(flat=flat, a=flat[:6].view(2, 3), table=flat[10:].view(4, 5), model=model)
    editor.own = torch.nn.Parameter(torch.zeros(2))
    return editor


def parameters(editor):
    return {"flat": editor.flat, "own": editor.own}


def mask_parameters(editor):
    return {"w": {"x": editor.table[:, :2], "delta": editor.table[:, 2:]}}


def optimizer_groups(editor):
    return [[float(editor.a.sum())], [float(editor.table.sum())], [float(editor.own.detach().sum())]]


def train_step(editor, triples, seed):
    """In place, and once by giving a parameter other memory."""
    torch = _torch()
    editor.flat += 1
    editor.own.data = editor.own.data + torch.ones(2)
    return {"rel": torch.tensor(1.0), "loc": np.float32(2), "mask": 0, "total": 3.0}


def edit(editor, requests):
    """What is asked is done to the raw model."""
    torch = _torch()
    weight = next(editor.model.parameters())
    for request in requests:
        if request == "train":
            editor.model.train()
        if request == "write":
            weight.data[0, 0] += 1
        if request == "hook":
            editor.hook = editor.model.register_forward_hook(_louder)
        if request == "unhook":
            editor.hook.remove()
        if request == "gradient":
            weight.grad = torch.ones_like(weight)
        if request == "clear":
            weight.grad = None
    return list(requests)


def compose_edits(editor, edits):
    """Edits that are plain data."""
    return [request for part in edits for request in part]


def edit_after(editor, before, requests):
    return [*before, *requests]


def drop_edit(editor, edits, index):
    return edits[:index] + edits[index + 1 :]


def save_edited(editor, edits, index, folder):
    """Its text is that of the edit."""
    folder.mkdir()
    (folder / "edit.txt").write_text(edits[index], encoding="utf-8")


def run(data, model, editor, training, seed, plan, folder, interrupt=None):
    """Editors that are plain data."""
    return {"steps": [{"loss": np.float64(1.5)}], "start": {"a": 1}, "editor": [2]}


def preferences(editor):
    """What is asked: whether the caller has gradients on, and the process when it is told to change."""
    torch = _torch()
    if editor == "leave gradients off":
        torch.set_grad_enabled(False)
    if editor == "draw":
        torch.rand(1)
    return torch.is_grad_enabled()


def raw_logits(editor, inputs):
    return [editor]


def _louder(module, args, output):
    output.logits = output.logits * 1.5
    return output


def dense(editor, edits, index):
    return {"first": edits[index]}
