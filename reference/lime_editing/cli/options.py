"""Options as frozen typed records. Parsing, help and the command line are derived from the fields."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from .. import data
from ..borders import expanded
from ..names import APPROACHES, JUDGED, PIVOT, PROTOCOLS, RULINGS, TRAININGS, Precision, Split

Record = TypeVar("Record")
Names = tuple[str, ...]
Settings = tuple[tuple[str, str], ...]
WHAT, DATA, WHERE, KEPT = "what is run", "data and models", "where it runs", "results"


def option(
    about: str, default: Any = MISSING, group: str = "options", parse: Callable[[str], Any] = str, **more: Any
) -> Any:
    """A field that is an option; a default of False makes a flag.

    values      the values to choose from
    many        it may be repeated, and its values are collected
    keys        a function that gives (key, values or None, help) for each key of a mapping; each key is an option
    positional  it has no name on the command line
    """
    told = {"about": about, "group": group, "parse": parse, "values": None, "many": False, "keys": None}
    given = {"default_factory": dict} if "keys" in more else {"default": default}  # MISSING: no default
    return field(**given, metadata={**told, "positional": False, **more})


def count(text: str, least: int = 0) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number{' above 0' if least else ''}, got {text!r}")
    return int(text)


def positive(text: str) -> int:
    return count(text, 1)


def counts(text: str) -> tuple[int, ...]:
    return tuple(sorted(positive(part) for part in names(text)))


def layers(text: str) -> int | tuple[str, ...]:
    return positive(text) if text.isdecimal() else names(text)


def hours(text: str) -> float:
    with suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise argparse.ArgumentTypeError(f"expected a number of hours above 0, got {text!r}")


def names(text: str) -> tuple[str, ...]:
    found = tuple(name.strip() for name in text.split(","))
    if "" in found or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"expected different values, separated by commas, got {text!r}")
    return found


def setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return name, value


def trainings(text: str) -> tuple[str, ...]:
    chosen = names(text)
    for name in chosen:
        if name not in TRAININGS:
            raise argparse.ArgumentTypeError(f"unknown {name!r}; known: {', '.join(TRAININGS)}")
    return chosen


SCALES, WIDTHS, EXECUTORS = ("tiny", "small", "paper"), ("float32", "bf16"), ("processes", "local", "slurm")
KNOWN = f"{', '.join(name for name in APPROACHES if name != 'unedited')}, or plug-ins"  # the unedited is in every run
MANY = ("finetuning", "mend", "malmen", "ultraedit", "memit")
AGAIN = "may be given again"


def runs() -> Path:
    """The results folder, in LIME_HOME or the working directory."""
    return expanded(os.environ.get("LIME_HOME") or ".") / "runs"


@dataclass(frozen=True, kw_only=True)
class Debug:
    debug: bool = option("show where an error comes from", False)


@dataclass(frozen=True, kw_only=True)
class Common(Debug):
    """Options of every command that loads a model or data."""

    offline: bool = option("do not use the network; data and models are on this machine", False, DATA)
    plugin: Names = option(f"module or .py file with your own editor or data set; {AGAIN}", (), DATA, many=True)


@dataclass(frozen=True, kw_only=True)
class Sources(Common):
    """Data and model of a task; the defaults are the scale's."""

    data: Mapping[str, str] = option("", group=DATA, keys=lambda: [(n, None, data.about(n)) for n in data.titles()])
    model: str | None = option("encoder, folder or hub id: with MLM head for facts, fine-tuned for pairs", None, DATA)
    raw_model: str | None = option("classifier of pairs, folder or hub id, instead of fine-tuning", None, DATA)
    edited_layers: int | Names | None = option(
        "number of layers, or names of matrices (default: 3)", None, DATA, layers
    )
    device: str = option("cpu or a torch device such as cuda (default: cpu)", "cpu", WHERE)


@dataclass(frozen=True, kw_only=True)
class Study(Sources):
    """What is trained and judged, and how."""

    scale: str = option("hyper-parameters and sizes (default: tiny)", "tiny", WHAT, values=SCALES)
    task: Names = option("facts, nli, or a plug-in's (default: facts,nli)", ("facts", "nli"), WHAT, names)
    approach: Names | None = option(f"{KNOWN} (default: the paper's)", None, WHAT, names)
    training: Names | None = option(f"{', '.join(TRAININGS)} (default: en,all,lime)", None, WHAT, trainings)
    control: bool = option("also train with one mask shared by all languages (training shared)", False, WHAT)
    seeds: int | None = option("seeds of each approach and training (default: the scale's)", None, WHAT, positive)
    languages: Names | None = option("separated by commas (default: all of the data)", None, WHAT, names)
    protocol: str = option("the paper's text, or the released code", "paper", WHAT, values=(*PROTOCOLS, "both"))
    ruling: Mapping[str, str] = option("", group=WHAT, keys=lambda: [(name, *told) for name, told in RULINGS.items()])
    split: Split = option("evaluated split; use validation for tuning (default: test)", "test", WHAT, values=JUDGED)
    set: Settings = option(f"change the scale, such as settings.mend.lr=1e-3; {AGAIN}", (), WHAT, setting, many=True)
    jobs: int | None = option("cells at a time (default: one per CPU core or GPU)", None, WHERE, positive)
    precision: Precision = option("precision of matrix products (default: float32)", "float32", WHERE, values=WIDTHS)
    results: Path = option("folder for cells and the report (default: runs)", runs(), KEPT, expanded)


@dataclass(frozen=True, kw_only=True)
class Reproduce(Study):
    """`reproduce`: train and judge editors, and write the report."""

    executor: str = option("run cells in worker processes (default), or as jobs", "processes", WHERE, values=EXECUTORS)
    partition: str | None = option("Slurm partition (default: the cluster's)", None, WHERE)
    hours: float | None = option("time limit of a job; a longer one is queued again (default: 24)", None, WHERE, hours)
    slurm: Settings = option(f"NAME=VALUE for sbatch, such as mem=32G; {AGAIN}", (), WHERE, setting, many=True)
    cell: str | None = option("run only this cell, on this machine, as a job does", None, WHERE)
    dry_run: bool = option("time one step of each approach, print the plan, and run nothing", False, KEPT)
    json: bool = option("print the plan of --dry-run as JSON", False, KEPT)


@dataclass(frozen=True, kw_only=True)
class Many(Study):
    """`many`: judge editors over many edits in one model."""

    task: Names = option("facts, or a plug-in's (default: facts)", ("facts",), WHAT, names)
    approach: Names | None = option(f"{KNOWN} (default: {','.join(MANY)})", MANY, WHAT, names)
    training: Names | None = option("editors' trainings (default: all,lime)", ("all", "lime"), WHAT, trainings)
    protocol: str = option("the paper's text, or the released code", "paper", WHAT, values=tuple(PROTOCOLS))
    edits: tuple[int, ...] = option("edits in one model (default: 1,10,100,1000)", (1, 10, 100, 1000), WHAT, counts)


@dataclass(frozen=True, kw_only=True)
class Edit(Sources):
    """`edit`: change one answer, and show it before and after."""

    sentence: str | None = option("what to edit: a sentence with [MASK] for the answer", None, positional=True)
    fact: str | None = option("a fact of the corpus instead: RELATION/SUBJECT, the subject by id or name", None)
    pair: str | None = option("a sentence pair of the corpus instead: SPLIT/ROW", None)
    premise: str | None = option("your own sentence pair instead, with --hypothesis", None)
    hypothesis: str | None = option("its second sentence", None)
    to: str | None = option("the desired answer: words, or a class such as entailment", None)
    file: Path | None = option("a table of edits instead, with --save (see below)", None, parse=expanded)
    save: Path | None = option("folder for the edits of --file", None, parse=expanded)
    as_: str = option("what to save: the model, a LoRA adapter, or edits", "model", values=("model", "lora", "update"))
    rank: int | None = option("rank of the LoRA adapter (default: the rows of factors, or 64)", None, parse=positive)
    series: bool = option("each edit of the file starts from those before it", False)
    skip_bad: bool = option("skip wrong rows of the file", False)
    task: str | None = option("the task of the file (default: facts)", None)
    language: str = option("the language in which the edit is made (default: en)", PIVOT)
    checkpoint: Path | None = option("folder of a finished cell: use its editor", None, parse=expanded)
    approach: str | None = option("the editor (default: the best stored one of the model, or finetuning)", None)
    results: Path = option("folder with stored editors (default: runs)", runs(), parse=expanded)
    scale: str = option("scale of an untrained editor's settings (default: tiny)", "tiny", values=SCALES)
    look: Names = option(f"a further input to show; a pair as 'PREMISE | HYPOTHESIS'; {AGAIN}", (), many=True)
    unrelated: int = option("number of unrelated inputs to show (default: 6)", 6, parse=count)
    languages: Names | None = option("languages to show, separated by commas (default: all)", None, parse=names)
    json: bool = option("print as JSON", False)


@dataclass(frozen=True, kw_only=True)
class Edits(Debug):
    """`edits`: list a file of edits, or drop some."""

    path: Path = option("update.safetensors of `edit --as update`, or its folder", parse=expanded, positional=True)
    drop: tuple[int, ...] = option(f"drop the edit with this number; {AGAIN}", (), parse=positive, many=True)
    json: bool = option("print as JSON", False)


@dataclass(frozen=True, kw_only=True)
class Report(Debug):
    """`report`: write the report of stored cells again."""

    results: Path = option("folder of one scale's cells (default: runs/tiny)", runs() / "tiny", parse=expanded)
    to: Path | None = option("output folder, such as that of published results", None, parse=expanded)


@dataclass(frozen=True, kw_only=True)
class CheckData(Common):
    """`check-data`: report on data."""

    path: str = option("folder, zip archive, table, hub id, or address (URL)", positional=True)
    task: str | None = option("task of the data (default: from their names)", None)
    languages: Names | None = option("separated by commas (default: all)", None, parse=names)
    model: str | None = option("model, folder or hub id: show what it cannot read, or a classifier's accuracy", None)
    json: bool = option("print as JSON", False)


@dataclass(frozen=True, kw_only=True)
class MakeClassifier(Common):
    """`make-classifier`: fine-tune a raw classifier of sentence pairs."""

    model: str = option("encoder, folder or hub id")
    nli: str | None = option("folder or hub id in XNLI's schema, or table (default: the scale's)", None)
    scale: str = option("scale of the settings (default: tiny)", "tiny", values=SCALES)
    set: Settings = option(f"change a setting, such as classifier.lr=1e-5; {AGAIN}", (), parse=setting, many=True)
    device: str = option("cpu or a torch device such as cuda (default: cpu)", "cpu")
    precision: Precision = option("precision of matrix products (default: float32)", "float32", values=WIDTHS)
    results: Path = option("folder for the classifier (default: runs)", runs(), parse=expanded)


def add(parser: argparse.ArgumentParser, record: type) -> None:
    """Add an option to a parser for each field of a record. ArgumentError: a data set has an option's name."""
    groups: dict[str, Any] = {"options": parser}
    for one in fields(record):
        told, required = one.metadata, one.default is MISSING
        place = groups.get(told["group"]) or groups.setdefault(told["group"], parser.add_argument_group(told["group"]))
        if told["keys"]:
            for key, values, about in told["keys"]():
                more = {"choices": values} if values else {"metavar": "SOURCE"}
                place.add_argument(flag(key), dest=f"{one.name}.{key}", help=about.replace("%", "%%"), **more)
        elif told["positional"]:
            place.add_argument(one.name, nargs=None if required else "?", type=told["parse"], help=told["about"])
        elif one.default is False:
            place.add_argument(flag(one.name), action="store_true", help=told["about"])
        else:
            shape = {"choices": told["values"], "required": required, "type": told["parse"], "help": told["about"]}
            place.add_argument(flag(one.name), dest=one.name, action="append" if told["many"] else "store", **shape)


def read(record: type[Record], parsed: argparse.Namespace) -> Record:
    """The record of parsed options; missing ones have the field's default."""
    given, values = vars(parsed), dict[str, Any]()
    for one in fields(record):  # type: ignore[arg-type]  # a dataclass
        if one.metadata["keys"]:
            found = {key: given[f"{one.name}.{key}"] for key, _, _ in one.metadata["keys"]()}
            values[one.name] = {key: value for key, value in found.items() if value is not None}
        elif given.get(one.name) is not None:
            values[one.name] = tuple(given[one.name]) if one.metadata["many"] else given[one.name]
    return record(**values)


def command_line(command: str, record: Any) -> Names:
    """The arguments that give this record: those that differ from the defaults."""
    argv, last = [command], list[str]()
    for one in fields(record):
        value = getattr(record, one.name)
        if value == one.default:
            continue
        if one.metadata["positional"]:
            last = ["--", str(value)] if str(value).startswith("-") else [str(value)]
        elif value is True:
            argv.append(flag(one.name))
        elif one.metadata["keys"]:
            argv += [part for name, text in value.items() for part in _given(name, text)]
        else:
            for item in value if one.metadata["many"] else [value]:
                parts = item if isinstance(item, tuple) else [item]
                argv += _given(one.name, ("=" if one.metadata["many"] else ",").join(map(str, parts)))
    return (*argv, *last)


def _given(name: str, text: str) -> list[str]:
    # With "=": argparse takes a value that starts with a dash for an option.
    return [f"{flag(name)}={text}"] if text.startswith("-") else [flag(name), text]


def flag(name: str) -> str:
    return "--" + name.rstrip("_").replace("_", "-")


def plug_in(plugins: Sequence[str]) -> None:
    if plugins:
        from ..plugins import load_all  # noqa: PLC0415  torch takes seconds to import

        load_all(plugins)
