"""The names in options, files and tables. Plain data: this module imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from . import checks
from .errors import UserError

Role = Literal["update", "retain"]
Split = Literal["train", "validation", "test"]
Masks = Literal["none", "language", "shared"]
Precision = Literal["float32", "bf16"]

SPLITS: tuple[Split, ...] = get_args(Split)
JUDGED: tuple[Split, ...] = ("validation", "test")  # the splits that can be evaluated
#: The language of the paper's English-only trainings and English edits, and of the raw classifier's training pairs.
PIVOT = "en"
#: The version of the specification (spec_tests/SPEC.md) that this code implements; stored with each result.
SPECIFICATION = "2.6"

TASKS: Mapping[str, str] = {"facts": "Facts", "nli": "NLI"}

#: In the paper's order, then those that it only names (§5). "unedited" is the raw model, our addition: a baseline.
APPROACHES: Mapping[str, str] = {
    "unedited": "no edit",
    "finetuning": "Finetuning",
    "editable_training": "Editable Training",
    "knowledge_editor": "KnowledgeEditor",
    "mend": "MEND",
    "malmen": "MALMEN",
    "ultraedit": "UltraEdit",
    "slag": "SLAG",
    "rome": "ROME",
    "memit": "MEMIT",
}
#: The approaches of the paper's tables; the default.
PAPER_APPROACHES = ("finetuning", "editable_training", "knowledge_editor", "mend")


@dataclass(frozen=True, slots=True)
class Training:
    """How a learned editor is trained (§4.4): on which languages (None: all of the data), and with which masks."""

    title: str
    languages: tuple[str, ...] | None
    masks: Masks


#: "shared" is our control; the paper has none.
TRAININGS: Mapping[str, Training] = {
    "en": Training("English only", (PIVOT,), "none"),
    "all": Training("all languages", None, "none"),
    "lime": Training("all languages + LiME", None, "language"),
    "shared": Training("all languages + one shared mask", None, "shared"),
}

EN, ALL = "en → all", "all → all"
#: The editing languages of the paper's two evaluations (None: all). Update and retain inputs are in all languages.
EVALUATIONS: Mapping[str, tuple[str, ...] | None] = {EN: (PIVOT,), ALL: None}

Direction = Literal["paper", "released"]
Penalty = Literal["sum", "mean"]
Scaling = Literal["none", "learned"]
Subject = Literal["parallel", "edit-language"]
Positions = Literal["mask", "all"]
Condition = Literal["input+label", "input"]
Pool = Literal["all", "own"]
Optimiser = Literal["adam", "rmsprop"]
Rate = Literal["1e-4", "1e-2"]
Count = Literal["1", "4"]
Clipping = Literal["apart", "together"]
LogAlpha = Literal["free", "clamped"]
Stopping = Literal["averages", "edits"]


def _decides(about: str, values: Any) -> Any:
    """A field of `Rulings`; the text's value comes first, then the released code's."""
    return field(default=get_args(values)[0], metadata={"values": get_args(values), "about": about})


@dataclass(frozen=True, slots=True)
class Rulings:
    """Where the paper's text and its released code differ. The defaults are the text."""

    kl_direction: Direction = _decides("KL(edited ‖ raw) or KL(raw ‖ edited)", Direction)
    penalty: Penalty = _decides("normalisation of the mask penalty", Penalty)
    mask_scale: Scaling = _decides("whether a learned scale multiplies the gates", Scaling)
    subject: Subject = _decides("whose subject label an update input carries (facts)", Subject)
    con_positions: Positions = _decides("positions at which a retained prediction is compared (facts)", Positions)
    knowledge_editor_condition: Condition = _decides("what KnowledgeEditor reads", Condition)
    loc_positions: Positions = _decides("positions at which the locality loss is taken (facts)", Positions)
    label_pool: Pool = _decides("splits whose facts name the entities that may be desired (facts)", Pool)
    finetuning_optimiser: Optimiser = _decides("whose steps Finetuning takes", Optimiser)
    editable_training_inner_lr: Rate = _decides("where its inner rates start (scale paper)", Rate)
    retain_inputs: Count = _decides("retain inputs of an edit when an editor is judged (scale paper)", Count)
    clipping: Clipping = _decides("gradients clipped for editor and masks apart at 1, or together at 100", Clipping)
    log_alpha: LogAlpha = _decides("whether log α is clamped to ±log 100 before each edit", LogAlpha)
    stopping: Stopping = _decides("validated number: succ of the averages, or the mean of the edits' own", Stopping)

    def __post_init__(self) -> None:
        checks.refuse(UserError, checks.of_record(self), whose="the ruling ")


#: Ruling → its values and what it decides.
RULINGS: Mapping[str, tuple[tuple[str, ...], str]] = {
    one.name: (one.metadata["values"], one.metadata["about"]) for one in fields(Rulings)
}
PROTOCOLS: Mapping[str, Rulings] = {
    "paper": Rulings(),
    "released": Rulings(**dict[str, Any]({name: values[1] for name, (values, _) in RULINGS.items()})),
}
