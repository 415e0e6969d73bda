"""The paper's grid as data (§4.4, §4.5): its cells, what each depends on, and its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from .. import data, plugins, results
from ..core.metrics import Scores
from ..data import Errors
from ..editors import find
from ..names import ALL, EN, EVALUATIONS, PROTOCOLS, TRAININGS, Masks, Precision, Rulings, Split, Training
from .scales import TaskScale


@dataclass(frozen=True, slots=True)
class Cell:
    """One approach with one training (None: not trained) and one seed."""

    task: str
    approach: str
    training: str | None
    seed: int

    @property
    def name(self) -> str:
        return "-".join(filter(None, (self.task, self.approach, self.training, f"seed{self.seed}")))

    @property
    def trained(self) -> Training | None:
        return None if self.training is None else TRAININGS[self.training]

    @property
    def masks(self) -> Masks:
        return "none" if self.trained is None else self.trained.masks


@dataclass(frozen=True, slots=True)
class Sources:
    """A task's data, raw model and languages, and the device and precision."""

    data: str
    model: str
    languages: tuple[str, ...] | None
    device: str = "cpu"
    precision: Precision = "float32"
    classes: tuple[str, ...] | None = None  # for a plan, if the classifier is not fine-tuned yet


@dataclass(frozen=True, slots=True)
class Many:
    """The numbers of edits to evaluate. Series of at most `short` edits are taken from the first `short` edits."""

    counts: tuple[int, ...] = (1, 10, 100, 1_000)
    short: int = 100
    n_update: int = 4
    n_retain: int = 1_000


@dataclass(frozen=True)
class Experiment:
    """One task, ready to run. `record` holds what its numbers depend on, without the cell (clause R3)."""

    dataset: str
    base: TaskScale
    rulings: Rulings
    sources: Sources
    split: Split  # the evaluated split; validation is for tuning
    languages: tuple[str, ...]
    errors: Errors  # per split the editable ids, if they depend on the raw model
    record: Mapping[str, Any]
    remarks: tuple[str, ...] = ()  # differences of the data from the published ones
    plugins: tuple[str, ...] = ()  # a worker imports them first
    many: Many | None = None  # set: trained cells are evaluated over many edits, and not trained

    @property
    def scale(self) -> TaskScale:
        return self.base.under(self.rulings)


@dataclass(frozen=True, slots=True)
class Status:
    cell: str
    doing: str
    done: int
    total: int
    loss: float | None = None
    scores: Scores | None = None  # of the last validation; of a finished cell, en → all
    all_scores: Scores | None = None  # of a finished cell, all → all


def grid(tasks: Sequence[str], approaches: Sequence[str], trainings: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """The cells seed by seed: the unedited model, and each approach with each training; an untrained one has seed 0."""
    cells = [Cell(task, "unedited", None, 0) for task in tasks]
    for seed in seeds:
        for approach in approaches:
            ways: Sequence[str | None] = trainings if find(approach).TRAINED else (None,)
            cells += [Cell(task, approach, way, seed if way else 0) for task in tasks for way in ways]
    return list(dict.fromkeys(cells))


def settings_of(cell: Cell, experiment: Experiment) -> Any:
    """The hyper-parameters of a cell's editor: the scale's, or its defaults, under the rulings."""
    method, given = find(cell.approach), experiment.scale.settings.get(cell.approach)
    return ruled(method.Settings() if given is None else given, experiment.rulings)


def ruled(settings: Any, rulings: Rulings) -> Any:
    """An editor's settings, with the values of their rulings."""
    named = {f.name: f.metadata["ruling"] for f in fields(settings) if "ruling" in f.metadata}
    return replace(settings, **{name: getattr(rulings, ruling) for name, ruling in named.items()})


def protocol(rulings: Rulings) -> dict[str, Any]:
    """The rulings for a record, with the protocol's name if they have one."""
    name = next((name for name, known in PROTOCOLS.items() if known == rulings), "custom")
    return {"protocol": name, "rulings": asdict(rulings)}


def under(experiment: Experiment, rulings: Rulings) -> Experiment:
    return replace(experiment, rulings=rulings, record={**experiment.record, **protocol(rulings)})


def cell_record(cell: Cell, experiment: Experiment) -> dict[str, Any]:
    """All that a cell's numbers depend on: the record of `prepare`, and the scale's values that the cell uses."""
    scale, trained = experiment.scale, cell.trained
    used: dict[str, Any] = {"edited_layers": scale.edited_layers, "test": asdict(scale.test)}
    if cell.approach != "unedited":
        used["settings"] = asdict(settings_of(cell, experiment))
    if trained is not None:
        used |= {
            "trained_on": trained.languages and list(trained.languages),
            "masks": trained.masks,
            "schedule": asdict(scale.schedule(trained)),
            "validation": asdict(scale.validation),
            "lambda_rel": scale.lambda_rel,
            "lambda_loc": scale.lambda_loc,
        }
        if trained.masks != "none":
            used |= {"mask_lr": scale.mask_lr, "lambda_mask": scale.lambda_mask[experiment.rulings.penalty]}
    if experiment.many is not None:
        used["many"] = {**asdict(experiment.many), "code": results.code_of([Path(__file__).with_name("many.py")])}
    files = plugins.files(data.find(cell.task), *(find(name) for name in (cell.approach,) if name != "unedited"))
    record = {**experiment.record, **({"plugins": results.code_of(files)} if files else {})}
    return {"cell": asdict(cell), **record, "scale": {**record["scale"], **used}}


def described(cell: Cell, experiment: Experiment) -> dict[str, Any]:
    settings = None if cell.approach == "unedited" else settings_of(cell, experiment)
    approach = "no edit" if settings is None else find(cell.approach).TITLE
    sees = " (sees the other languages)" if getattr(settings, "parallels", False) else ""
    titles = {"task": data.find(cell.task).title, "approach": approach + sees}
    return {**cell_record(cell, experiment), "titles": titles}


def cell_folder(cell: Cell, experiment: Experiment, root: Path) -> Path:
    """The folder of a cell. Different records have different folders, so that no results are mixed."""
    record = {key: value for key, value in cell_record(cell, experiment).items() if key not in results.DESCRIBING}
    return (root / "many" if experiment.many else root) / f"{cell.name}-{results.digest(record)[:8]}"


def evaluations(languages: Sequence[str]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(edited or languages) for name, edited in EVALUATIONS.items()}


def status_at_the_end(cell: Cell, folder: Path, how: str) -> Status:
    found = results.read_metrics(folder)
    return Status(cell.name, how, 1, 1, None, found.get(EN), found.get(ALL))
