"""The paper's grid as data, one cell at a time: train, judge, store (§4.4, §4.5)."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import datasets
import torch
import transformers

from . import __version__, store
from .backbone import Backbone, fingerprint, load, load_encoder, load_tokenizer
from .config import PROTOCOLS, Evaluation, Preset, Rulings, Setup
from .data import Task, mlama, xnli
from .devices import ALONE, Precision, Processes, check_precision
from .editing import Editor, Objective, make_editor
from .errors import DataError, LanguageError, ModelError, UserError
from .evaluation import evaluate, validator
from .metrics import Scores, scores
from .sampling import evaluation_pairs
from .training import Report, State, train
from .types import Input, Masks, Outcome

Variant = Literal["en", "all", "lime", "shared"]

#: Training languages (None: all) and masks of each variant; "shared" is our control, the paper has none.
VARIANTS: Mapping[str, tuple[tuple[str, ...] | None, Masks]] = {
    "en": (("en",), "none"),
    "all": (None, "none"),
    "lime": (None, "language"),
    "shared": (None, "shared"),
}

#: Editing languages of the paper's two evaluations (None: all); updates and retains are over all languages in both.
EVALUATIONS: Mapping[str, tuple[str, ...] | None] = {"en → all": ("en",), "all → all": None}
EVALUATION_SEED = 0
JUDGED: tuple[mlama.Split, ...] = ("validation", "test")
TASKS = ("facts", "nli")
#: What is never trained, and so has no variant and no seed but the first; "unedited" is ours, what an edit has to beat.
UNTRAINED = ("unedited", "finetuning")
#: In the order of a run: the ends of the story first.
APPROACHES = ("finetuning", "mend", "editable_training", "knowledge_editor")


@dataclass(frozen=True, slots=True)
class Cell:
    """One approach, trained one way, with one seed."""

    task: str
    approach: str
    variant: Variant | None
    seed: int

    @property
    def name(self) -> str:
        return "-".join(filter(None, (self.task, self.approach, self.variant, f"seed{self.seed}")))


@dataclass(frozen=True, slots=True)
class Sources:
    """Where a task's data and raw model come from, in which languages, and what computes."""

    data: str
    model: str
    languages: tuple[str, ...] | None
    device: str = "cpu"
    precision: Precision = "float32"
    classes: tuple[str, ...] | None = None  # where the classifier is still to be fine-tuned from the model: for a plan


@dataclass(frozen=True)
class Experiment:
    """One task, ready to run: `record` is what its numbers depend on beside the cell (clause R3)."""

    task: str
    setup: Setup
    rulings: Rulings
    sources: Sources
    split: Literal["test", "validation"]  # what cells are judged on; validation is for tuning
    languages: tuple[str, ...]
    errors: Mapping[str, frozenset[str]]  # per split, what may be edited where that depends on the raw model
    record: Mapping[str, Any]
    remarks: tuple[str, ...] = ()  # where the data are not what they are known to be


@dataclass(frozen=True, slots=True)
class Progress:
    """What a running cell says of itself."""

    cell: str
    doing: str
    done: int
    total: int
    loss: float | None = None
    scores: Scores | None = None  # of the last validation; of a cell that is done, en → all
    all_scores: Scores | None = None  # of a cell that is done, all → all


Listener = Callable[[Progress], None]


def grid(
    tasks: Sequence[str], approaches: Sequence[str], variants: Sequence[Variant], seeds: Sequence[int]
) -> list[Cell]:
    """The cells of a reproduction, seed by seed: per task the unedited model, and each approach trained each way."""
    cells = [Cell(task, "unedited", None, 0) for task in tasks]
    for seed in seeds:
        for approach in approaches:
            trained: Sequence[Variant | None] = (None,) if approach in UNTRAINED else variants
            cells += [Cell(t, approach, v, seed) for t in tasks for v in trained if v is not None or seed == seeds[0]]
    return [replace(cell, seed=0) if cell.variant is None else cell for cell in cells]


def prepare(
    task: str,
    cells: Sequence[Cell],
    preset: Preset,
    rulings: Rulings,
    sources: Sources,
    split: Literal["test", "validation"] = "test",
    elsewhere: bool = False,
) -> Experiment:
    """Find what would stop the run before it starts, and say what its numbers depend on.

    Where cells are to run `elsewhere`, each of them looks at its device, and at what the raw model gets wrong, itself.
    UserError: an unusable device, data that cannot be read or lack a language in a split, a model that does not fit.
    """
    here = replace(sources, device="cpu", precision="float32") if elsewhere else sources
    check_device(here.device, here.precision)
    setup = preset.tasks[task]
    data: mlama.Facts | xnli.Pairs
    remarks: list[str] = []
    if task == "facts":
        data = mlama.read(sources.data, sources.languages)
        print_of, items = mlama.fingerprint(data), len(data.facts)
        remarks = [] if sources.languages else mlama.disagreements(sources.data, data)
    else:
        data = xnli.read(sources.data, sources.languages)
        print_of, items = xnli.fingerprint(data), len(data)
    tokenizer, backbone = load_tokenizer(sources.model), _load(task, setup, here)
    if not isinstance(setup.edited_layers, int):
        setup = replace(setup, edited_layers=backbone.edited)  # in the model's order, so that one choice is one cell
    if len(tokenizer) > backbone.model.config.vocab_size:
        raise ModelError(
            f"{sources.model}: the tokenizer has {len(tokenizer)} entries and the model "
            f"{backbone.model.config.vocab_size}; they do not belong together"
        )
    experiment = Experiment(task, setup, rulings, sources, split, data.languages, {}, {}, tuple(remarks))
    model = fingerprint(backbone, tokenizer)
    if isinstance(data, xnli.Pairs) and not elsewhere:
        key = partial(prediction_key, model, print_of, sources.device, sources.precision)
        experiment = replace(experiment, errors=_errors(data, tokenizer, backbone, None if sources.classes else key))
    _check_languages(cells, experiment, _tasks(experiment, tokenizer, backbone))
    about = {
        "languages": list(data.languages),
        "items": items,
        "split": split,
        "parameters": sum(p.numel() for p in backbone.model.parameters()),
        "data": print_of,
        "model": model,
    }
    there = {"device": sources.device, "precision": sources.precision}
    return replace(experiment, record={**_circumstances(preset, rulings, here), **about, **there})


def check_device(device: str, precision: Precision) -> None:
    """UserError: no such device here, or one that does not compute so."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from error
    check_precision(device, precision)


def under(experiment: Experiment, rulings: Rulings) -> Experiment:
    """The same data and model, under other rulings."""
    return replace(experiment, rulings=rulings, record={**experiment.record, **_protocol(rulings)})


def _check_languages(cells: Sequence[Cell], experiment: Experiment, tasks: Mapping[mlama.Split, Task]) -> None:
    """LanguageError: one that a cell needs was not chosen. DataError: one that has nothing to train or to edit."""
    sources, languages = experiment.sources, experiment.languages
    needed = {language for edited in EVALUATIONS.values() for language in edited or ()}
    needed |= {language for cell in cells if cell.variant for language in VARIANTS[cell.variant][0] or ()}
    for language in sorted(needed - set(languages)):
        raise LanguageError(language, languages, "among the chosen ones; training or judging needs it")
    for part, task in tasks.items():
        for language in languages:
            if language not in task.corpus.languages:
                raise DataError(f"{sources.data}: no {part} items in language {language!r}; leave it out")
            if task.editable is not None and not any(i.endswith(f"/{language}") for i in task.editable):
                raise DataError(f"{sources.model}: makes no {part} error in language {language!r} that could be edited")


def _protocol(rulings: Rulings) -> dict[str, Any]:
    name = next((name for name, known in PROTOCOLS.items() if known == rulings), "custom")
    return {"protocol": name, "rulings": asdict(rulings)}


def _circumstances(preset: Preset, rulings: Rulings, sources: Sources) -> dict[str, Any]:
    """Of the record, what belongs to no data and no model."""
    cpu, device = f"{os.cpu_count()}-core {platform.machine()} CPU", sources.device
    return {
        "preset": {"name": preset.name, "about": preset.about},
        **_protocol(rulings),
        "code": {
            "lime_editing": __version__,
            "digest": store.code_digest(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "datasets": datasets.__version__,
        },
        "device": device,
        "precision": sources.precision,
        "machine": cpu if device == "cpu" else torch.cuda.get_device_name(device),
    }


def cell_record(cell: Cell, experiment: Experiment) -> dict[str, Any]:
    """All that a cell's numbers depend on: what `prepare` recorded, and of the setup what this cell uses."""
    setup = experiment.setup
    used: dict[str, Any] = {"edited_layers": setup.edited_layers, "test": asdict(setup.test)}
    if cell.approach != "unedited":
        used["settings"] = asdict(_settings(cell, experiment))
    if cell.variant is not None:
        trained_on, masks = VARIANTS[cell.variant]
        used |= {
            "schedule": asdict(setup.all_languages if trained_on is None else setup.english_only),
            "validation": asdict(setup.validation),
            "lambda_rel": setup.lambda_rel,
            "lambda_loc": setup.lambda_loc,
        }
        if masks != "none":
            used |= {"mask_lr": setup.mask_lr, "lambda_mask": setup.lambda_mask[experiment.rulings.penalty]}
    record = dict(experiment.record)
    return {"cell": asdict(cell), **record, "preset": {**record["preset"], **used}}


def cell_folder(cell: Cell, experiment: Experiment, results: Path) -> Path:
    """Where a cell is kept; another record is another folder, so that no number is mixed up."""
    record = {key: value for key, value in cell_record(cell, experiment).items() if key != "machine"}
    return results / f"{cell.name}-{store.digest(record)[:8]}"


def run_cell(cell: Cell, experiment: Experiment, results: Path, listen: Listener, processes: Processes = ALONE) -> Path:
    """Train and judge one cell, go on where it was interrupted, or leave it alone where it is done; its folder.

    Several processes do it together, and the first of them writes.
    """
    folder = cell_folder(cell, experiment, results)
    if processes.first:
        store.clean(folder)
    done = store.is_done(folder)
    processes.wait()  # none may look again when another has finished
    if done:
        return folder
    if processes.first:
        record = cell_record(cell, experiment)
        together = f"{processes.count} × " if processes.count > 1 else ""
        store.write_json(folder / "cell.json", {**record, "machine": together + record["machine"]})
    subject, tasks = assemble(cell, experiment)
    if isinstance(subject, Editor) and cell.variant is not None:
        _train(cell, cell.variant, experiment, subject, tasks, folder, listen, processes)
    evaluations = _judge(cell, experiment, subject, tasks[experiment.split], listen, processes)
    if processes.first:
        store.write_rows(folder / "rows.parquet", evaluations)
        store.write_json(folder / "metrics.json", {name: scores(o).as_dict() for name, o in evaluations.items()})
        (folder / store.STATE).unlink(missing_ok=True)
    processes.wait()
    return folder


def assemble(cell: Cell, experiment: Experiment) -> tuple[Editor | Backbone, Mapping[mlama.Split, Task]]:
    """What a cell works with: its editor before any training, or the raw model alone, and the splits of its data."""
    backbone = _load(cell.task, experiment.setup, experiment.sources)
    tasks = _tasks(experiment, load_tokenizer(experiment.sources.model), backbone)
    return backbone if cell.approach == "unedited" else _editor(cell, experiment, backbone), tasks


def _load(task: str, setup: Setup, sources: Sources) -> Backbone:
    if sources.classes is not None:
        return load_encoder(sources.model, sources.classes, setup.edited_layers, sources.device, sources.precision)
    return load(sources.model, setup.edited_layers, sources.device, task == "nli", sources.precision)


def _tasks(experiment: Experiment, tokenizer: Any, backbone: Backbone) -> Mapping[mlama.Split, Task]:
    sources = experiment.sources
    if experiment.task == "facts":
        facts = mlama.read(sources.data, sources.languages)
        return mlama.tasks(facts, tokenizer, experiment.rulings.subject, backbone.max_tokens)
    pairs = xnli.read(sources.data, sources.languages)
    wrong = {split: experiment.errors[split] for split in xnli.SPLITS if split in experiment.errors}
    return xnli.tasks(pairs, tokenizer, backbone.model.config.label2id, wrong, backbone.max_tokens)


def _errors(
    pairs: xnli.Pairs, tokenizer: Any, backbone: Backbone, key: Callable[[str], str] | None
) -> dict[str, frozenset[str]]:
    """What the raw model gets wrong in validation and test: what evaluation edits (clause D7).

    Without a key the model is not to be asked: at most it gets all wrong.
    """
    tasks = xnli.tasks(pairs, tokenizer, backbone.model.config.label2id, {}, backbone.max_tokens)
    if key is None:
        return {split: frozenset(e.id for e in tasks[split].corpus.examples) for split in JUDGED}
    ask = partial(predict, backbone)
    return {split: xnli.errors(tasks[split], xnli.predicted(tasks[split], ask, key(split))) for split in JUDGED}


def prediction_key(model: str, data: str, device: str, precision: Precision, split: str) -> str:
    """What the raw model's classes depend on: the name under which they are kept."""
    return store.digest([model, data, device, precision, split, store.code_digest(), torch.__version__])


@torch.no_grad()
def predict(backbone: Backbone, inputs: Sequence[Input], batch: int = 128) -> list[int]:
    """The raw model's class of each input; inputs of like length go together."""
    order = sorted(range(len(inputs)), key=lambda i: len(inputs[i].ids))
    classes = [0] * len(inputs)
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        with backbone.autocast():
            logits = backbone.upper(backbone.trunk([inputs[i] for i in chosen]))
        for i, label in zip(chosen, logits.argmax(-1).tolist(), strict=True):
            classes[i] = label
    return classes


def _settings(cell: Cell, experiment: Experiment) -> Any:
    settings = experiment.setup.settings[cell.approach]
    if cell.approach == "knowledge_editor":
        return replace(settings, condition=experiment.rulings.knowledge_editor_condition)
    return settings


def _editor(cell: Cell, experiment: Experiment, backbone: Backbone) -> Editor:
    return make_editor(
        cell.approach,
        backbone,
        experiment.languages,
        VARIANTS[cell.variant][1] if cell.variant else "none",
        cell.seed,
        _settings(cell, experiment),
        experiment.setup.mask_lr,
        experiment.rulings.mask_scale,
    )


def _train(
    cell: Cell,
    variant: Variant,
    experiment: Experiment,
    editor: Editor,
    tasks: Mapping[mlama.Split, Task],
    folder: Path,
    listen: Listener,
    processes: Processes,
) -> None:
    setup, rulings = experiment.setup, experiment.rulings
    wanted, masks = VARIANTS[variant]
    trained_on = wanted or experiment.languages
    schedule = setup.all_languages if wanted is None else setup.english_only
    record = cell_record(cell, experiment)
    weights = (setup.lambda_rel, setup.lambda_loc, setup.lambda_mask[rulings.penalty])
    validated: list[Scores] = []

    def on_step(step: int, loss: float, at_a_time: int) -> None:
        latest = validated[-1] if validated else None
        doing = "train" if at_a_time == schedule.batch else f"train, by lack of memory {at_a_time} edits at a time"
        listen(Progress(cell.name, doing, step * schedule.batch, schedule.edits, loss, latest))

    def on_report(reports: list[Report]) -> None:
        validated.append(reports[-1].scores)
        if processes.first:
            store.write_json(folder / "curve.json", [r.as_dict() for r in reports])

    def on_checkpoint(state: State) -> None:
        if processes.first:
            store.save_state(folder / store.STATE, record, state)

    # Whoever reads the state later than the first process goes on could find its next one.
    state = store.load_state(folder / store.STATE, record, editor.parameters)
    processes.wait()
    train(
        editor,
        tasks["train"].within(trained_on),
        _validator(cell, setup.validation, tasks["validation"], trained_on, processes),
        schedule,
        Objective(*weights, rulings.kl_direction, rulings.penalty),
        cell.seed,
        on_report,
        on_step,
        on_checkpoint,
        state,
        processes,
    )
    about = {"approach": cell.approach, "languages": list(editor.languages), "masks": masks}
    if processes.first:
        store.save_parameters(folder / "editor.safetensors", editor.parameters, about)


def _validator(
    cell: Cell, plan: Evaluation, task: Task, languages: Sequence[str], processes: Processes
) -> Callable[[Editor], Scores]:
    """succ on validation items, from and to the training languages: what an editor is allowed to know."""
    corpus = task.corpus.within(languages)
    pairs = evaluation_pairs(
        corpus, languages, languages, plan.n_update, plan.n_retain, cell.seed, plan.edits, task.editable
    )
    return validator(task, pairs, cell.seed, processes)


def _judge(
    cell: Cell,
    experiment: Experiment,
    subject: Editor | Backbone,
    task: Task,
    listen: Listener,
    processes: Processes,
) -> dict[str, list[Outcome]]:
    """The paper's two evaluations: from English (Table 1) and from every language (Table 2), to all languages."""
    plan, languages = experiment.setup.test, experiment.languages
    evaluations = {}
    # The seed is not the cell's: every editor and every run is asked the same questions.
    for name, edited in EVALUATIONS.items():
        pairs = evaluation_pairs(
            *(task.corpus, edited or languages, languages, plan.n_update, plan.n_retain),
            *(EVALUATION_SEED, plan.edits, task.editable),
        )
        on_batch = partial(_say, listen, cell.name, f"{experiment.split} {name}", len(pairs))
        positions = experiment.rulings.con_positions
        evaluations[name] = evaluate(
            subject, task, pairs, EVALUATION_SEED, con_positions=positions, progress=on_batch, processes=processes
        )
    return evaluations


def _say(listen: Listener, cell: str, doing: str, total: int, done: int) -> None:
    listen(Progress(cell, doing, done, total))
