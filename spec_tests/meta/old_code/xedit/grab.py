"""What passes through the edited layers, in one global place."""

import torch
import torch.nn.functional as F

GRAB = {"on": False, "x": {}, "delta": {}}
#: What is added to each weight; empty for the raw model.
DW = {}


def watch(name, layer):
    """Grab input and gradient of a layer while GRAB is on, and add its ΔW."""

    def hook(module, args, output):
        if name in DW:
            output = output + F.linear(args[0], DW[name].to(args[0].dtype))
        if GRAB["on"]:
            if not output.requires_grad:
                output = output.detach().requires_grad_()
            GRAB["x"][name] = args[0].detach().float()
            output.register_hook(lambda slope: GRAB["delta"].update({name: slope.detach().float()}))
        return output

    return layer.register_forward_hook(hook)


def grab(loss):
    """{name: (x, delta)} of one pass: `loss` runs the model."""
    GRAB.update(on=True, x={}, delta={})
    try:
        with torch.enable_grad():
            loss().backward()
    finally:
        GRAB["on"] = False
    return {name: (GRAB["x"][name], GRAB["delta"][name]) for name in GRAB["x"]}
