"""Mutants of good manners: what an editor leaves behind in the user's model and in the process."""

from __future__ import annotations

import os
import random
import tempfile
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..contract import Editors, Input, Losses, Request, Triple
from .base import mutant, named
from .editing import EditorMutation, NotedEdits


class MakingLeaves(EditorMutation):
    """Something is left behind when an editor is made."""

    def make_editor(self, *args: Any, **kwargs: Any) -> Any:
        editor = super().make_editor(*args, **kwargs)
        self.leave(self.made[id(editor)].model)
        return editor

    @abstractmethod
    def leave(self, model: Any) -> None:
        """What goes wrong."""


@mutant("model-frozen-for-good", "T8", "Making an editor switches `requires_grad` off for good.")
class FrozenForGood(MakingLeaves):
    def leave(self, model: Any) -> None:
        model.requires_grad_(False)


@mutant("model-thawed-for-good", "T8", "Making an editor switches `requires_grad` on for the edited matrices.")
class ThawedForGood(EditorMutation):
    def make_editor(self, *args: Any, **kwargs: Any) -> Any:
        editor = super().make_editor(*args, **kwargs)
        made = self.made[id(editor)]
        for matrix in made.edited:
            dict(made.model.named_parameters())[matrix].requires_grad_(True)
        return editor


@mutant("model-left-evaluating", "T8", "Making an editor leaves the model in evaluation mode.")
class LeftEvaluating(MakingLeaves):
    def leave(self, model: Any) -> None:
        model.eval()


@mutant("eager-attention-for-good", "T8", "The model's attention is switched to another implementation for good.")
class EagerForGood(MakingLeaves):
    def leave(self, model: Any) -> None:
        model.set_attn_implementation("eager")


@mutant("configuration-touched", "T8", "The model's configuration is changed on the way.")
class ConfigurationTouched(MakingLeaves):
    def leave(self, model: Any) -> None:
        model.config.use_cache = not getattr(model.config, "use_cache", True)


@mutant("hooks-left-behind", "T8", "Hooks of an edit stay on the model.")
class HooksLeft(EditorMutation):
    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        edits = self.base.edit(editor, requests)
        made = self.made[id(editor)]
        made.model.get_submodule(made.edited[0].removesuffix(".weight")).register_forward_hook(lambda *_: None)
        return edits


@mutant("hooks-swept-away", "T8", "All hooks are removed from the edited layers, the user's own among them.")
class HooksSwept(EditorMutation):
    def edited_logits(self, editor: Any, edits: Any, index: int, inputs: Sequence[Input]) -> list[torch.Tensor]:
        found = self.base.edited_logits(editor, edits, index, inputs)
        for module in self.made[id(editor)].model.modules():
            module._forward_hooks.clear()
        return found


@mutant("gradients-left-on-the-model", "T8", "An edit leaves its gradient in `.grad` of the model.")
class GradientsLeft(EditorMutation):
    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        edits = self.base.edit(editor, requests)
        made = self.made[id(editor)]
        weight = dict(made.model.named_parameters())[made.edited[-1]]
        weight.grad = torch.zeros_like(weight)
        return edits


@mutant("gradients-of-the-user-cleared", "T8", "A training step clears `.grad` of the model.")
class GradientsCleared(EditorMutation):
    def train_step(self, editor: Any, triples: Sequence[Triple], seed: int) -> Losses:
        parts = self.base.train_step(editor, triples, seed)
        self.made[id(editor)].model.zero_grad()
        return parts


@mutant("global-generator-reseeded", "T8", "A training step seeds the global generator.")
class Reseeded(EditorMutation):
    def train_step(self, editor: Any, triples: Sequence[Triple], seed: int) -> Losses:
        parts = self.base.train_step(editor, triples, seed)
        torch.manual_seed(seed)
        return parts


@mutant("global-generator-drawn-from", "T8", "Making an editor draws from the global generator.")
class DrawnFrom(MakingLeaves):
    def leave(self, model: Any) -> None:
        torch.rand(1)


@mutant("numpys-generator-reseeded", "T8", "`losses` seeds NumPy's and Python's global generators.")
class NumpyReseeded(EditorMutation):
    def losses(self, editor: Any, triples: Sequence[Triple], seed: int) -> Any:
        found = self.base.losses(editor, triples, seed)
        np.random.seed(seed)
        random.seed(seed)
        return found


@mutant("default-dtype-changed", "T8", "Editing leaves another default dtype behind.")
class DefaultDtype(EditorMutation):
    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        edits = self.base.edit(editor, requests)
        torch.set_default_dtype(torch.float64)
        return edits


@mutant("gradients-off-for-good", "T8", "Predicting switches gradients off for good.")
class GradientsOff(EditorMutation):
    def raw_logits(self, editor: Any, inputs: Sequence[Input]) -> list[torch.Tensor]:
        found = self.base.raw_logits(editor, inputs)
        torch.set_grad_enabled(False)
        return found


@mutant("deterministic-for-good", "T8", "A training step switches the process to deterministic algorithms.")
class Deterministic(EditorMutation):
    def train_step(self, editor: Any, triples: Sequence[Triple], seed: int) -> Losses:
        parts = self.base.train_step(editor, triples, seed)
        torch.use_deterministic_algorithms(True)
        return parts


@mutant("a-buffer-touched", "T8", "Editing rolls a buffer of the model.")
class BufferTouched(EditorMutation):
    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        edits = self.base.edit(editor, requests)
        for _, buffer in self.made[id(editor)].model.named_buffers():
            buffer.copy_(buffer.roll(1, -1))
        return edits


@mutant("weights-are-other-objects", "T8", "The edited weights are other objects after training, with equal numbers.")
class OtherObjects(EditorMutation):
    def train_step(self, editor: Any, triples: Sequence[Triple], seed: int) -> Losses:
        parts = self.base.train_step(editor, triples, seed)
        made = self.made[id(editor)]
        linear: Any = made.model.get_submodule(made.edited[0].removesuffix(".weight"))
        linear.weight = torch.nn.Parameter(linear.weight.detach().clone(), linear.weight.requires_grad)
        return parts


@mutant("gradients-needed-to-edit", "T8", "Where the caller has switched gradients off, an edit is empty.")
class NeedsGradients(NotedEdits):
    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        return self.base.edit(editor, requests), torch.is_grad_enabled()

    def dense(self, editor: Any, edits: Any, index: int) -> Any:
        return {m: d * edits[1] for m, d in self.base.dense(editor, edits[0], index).items()}


@mutant("factors-multiplied-out-to-predict", "B4", "ΔW is multiplied out whenever the edited model runs.", "factored")
class MultipliedOut(EditorMutation):
    def edited_logits(self, editor: Any, edits: Any, index: int, inputs: Sequence[Input]) -> list[torch.Tensor]:
        for u, v in self.base.factors(editor, edits, index).values():
            _ = v.T @ u
        return self.base.edited_logits(editor, edits, index, inputs)


@mutant("weights-copied-to-predict", "B4", "Every prediction of an edited model copies the edited weights.", "factored")
class WeightsCopied(EditorMutation):
    def edited_logits(self, editor: Any, edits: Any, index: int, inputs: Sequence[Input]) -> list[torch.Tensor]:
        made = self.made[id(editor)]
        for _ in inputs:
            for matrix in made.edited:
                _ = dict(made.model.named_parameters())[matrix].detach().clone()
        return self.base.edited_logits(editor, edits, index, inputs)


@mutant("anomalies-watched-for-good", "T8", "Training switches PyTorch's detection of anomalies on for good.")
class AnomaliesWatched(EditorMutation):
    def train_step(self, editor: Any, triples: Sequence[Triple], seed: int) -> Losses:
        torch.autograd.set_detect_anomaly(True)
        return self.base.train_step(editor, triples, seed)


@mutant("products-less-precise-for-good", "T8", "Training lowers the precision of float32 products for good.")
class LessPrecise(EditorMutation):
    def train_step(self, editor: Any, triples: Sequence[Triple], seed: int) -> Losses:
        torch.set_float32_matmul_precision("medium")
        return self.base.train_step(editor, triples, seed)


@mutant("working-directory-changed", "T8", "An edit changes the working directory for good.")
class DirectoryChanged(EditorMutation):
    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        os.chdir(tempfile.gettempdir())
        return self.base.edit(editor, requests)


@mutant("many-inputs-multiplied-out", "B4", "For more than four inputs an edit's ΔW is formed.", "E", "factored")
class ManyInputsMultipliedOut(EditorMutation):
    def edited_logits(self, editor: Any, edits: Any, index: int, inputs: Sequence[Input]) -> Any:
        if len(inputs) > 4:
            self.base.dense(editor, edits, index)
        return self.base.edited_logits(editor, edits, index, inputs)


@mutant("attention-switched-off-for-good", "T8", "Making an editor switches a way to compute attention off for good.")
class AttentionSwitchedOff(MakingLeaves):
    def leave(self, model: Any) -> None:
        torch.backends.cuda.enable_mem_efficient_sdp(False)


@mutant("flags-off-where-an-edit-fails", "T8", "An edit that is refused leaves `requires_grad` switched off.")
class FlagsOffWhereAnEditFails(EditorMutation):
    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        model = self.made[id(editor)].model
        flags = [value.requires_grad for value in model.parameters()]
        model.requires_grad_(False)
        edits = self.base.edit(editor, requests)
        for value, flag in zip(model.parameters(), flags, strict=True):
            value.requires_grad_(flag)
        return edits


@mutant("hooks-left-where-training-fails", "T8", "A training step that is refused leaves its hook on the model.")
class HooksLeftWhereTrainingFails(EditorMutation):
    def train_step(self, editor: Any, triples: Sequence[Triple], seed: int) -> Losses:
        made = self.made[id(editor)]
        linear = made.model.get_submodule(made.edited[0].removesuffix(".weight"))
        handle = linear.register_forward_hook(lambda *_: None)
        parts = self.base.train_step(editor, triples, seed)
        handle.remove()
        return parts


@mutant("modes-left-where-making-fails", "T8", "An editor that is refused leaves the model in evaluation mode.")
class ModesLeftWhereMakingFails(EditorMutation):
    def make_editor(self, *args: Any, **kwargs: Any) -> Any:
        model = named(Editors.make_editor, args, kwargs)["model"]
        modes = [module.training for module in model.modules()]
        model.eval()
        editor = super().make_editor(*args, **kwargs)
        for module, mode in zip(model.modules(), modes, strict=True):
            module.training = mode
        return editor


@mutant("variables-of-the-environment-set", "T8", "Making an editor sets variables of the process's environment.")
class VariablesSet(MakingLeaves):
    def leave(self, model: Any) -> None:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"


@mutant("cache-of-autocast-off-for-good", "T8", "Training switches autocast's cache off for good.")
class AutocastCacheOff(EditorMutation):
    def train_step(self, editor: Any, triples: Sequence[Triple], seed: int) -> Losses:
        torch.set_autocast_cache_enabled(False)
        return self.base.train_step(editor, triples, seed)


@mutant("small-numbers-flushed-for-good", "T8", "Editing rounds all numbers below the normal ones to 0 for good.")
class SmallNumbersFlushed(EditorMutation):
    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        torch.set_flush_denormal(True)
        return self.base.edit(editor, requests)


@mutant("checkpointing-for-good", "T8", "Training leaves gradient checkpointing switched on in the model's modules.")
class CheckpointingForGood(EditorMutation):
    def train_step(self, editor: Any, triples: Sequence[Triple], seed: int) -> Losses:
        parts = self.base.train_step(editor, triples, seed)
        for module in self.made[id(editor)].model.modules():
            if hasattr(module, "gradient_checkpointing"):
                module.gradient_checkpointing = True
        return parts


@mutant("dropout-in-place-for-good", "T8", "Making an editor changes what the model's dropout is set to.")
class DropoutInPlace(MakingLeaves):
    def leave(self, model: Any) -> None:
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.inplace = True
