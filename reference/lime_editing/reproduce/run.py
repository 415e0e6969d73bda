"""Running a cell: prepare, train, judge, store. With core and data, this file determines all numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers

from .. import __version__, checks, data, plugins, results
from ..backbone import Backbone, fingerprint, load, load_encoder, load_tokenizer
from ..borders import beside
from ..core.editing import Editor, Objective, make_editor
from ..core.evaluation import gathered, judged, predict, validator
from ..core.metrics import Scores, count, scores
from ..core.sampling import evaluation_pairs
from ..core.sets import fit
from ..core.task import Task
from ..core.training import State, Validated, batch_of_triples, train
from ..data import Dataset, Errors, Reader
from ..editors import Measuring
from ..errors import DataError, LanguageError, ModelError
from ..hardware import ALONE, Processes, check_device, name_of
from ..names import EVALUATIONS, SPECIFICATION, SPLITS, Rulings, Split, Training
from ..records import Input, Outcome
from . import store
from .cells import (
    Cell,
    Experiment,
    Sources,
    Status,
    cell_folder,
    cell_record,
    described,
    evaluations,
    protocol,
    settings_of,
)
from .scales import Scale, TaskScale

#: The seed of evaluations, independent of the cell's: every editor and every run gets the same requests and inputs.
EVALUATION_SEED = 0
FITTED_ON = 1_000  # edits of the training split that an editor is fitted to


def prepare(
    task: str,
    cells: Sequence[Cell],
    scale: Scale,
    rulings: Rulings,
    sources: Sources,
    split: Split = "test",
    elsewhere: bool = False,
) -> Experiment:
    """Check everything that could stop the run, and record what its numbers depend on.

    With `elsewhere` the cells run on other machines, where each checks its device and runs the raw model itself.
    """
    here = replace(sources, device="cpu", precision="float32") if elsewhere else sources
    check_device(sources.device, sources.precision, elsewhere)
    dataset = data.find(task)
    wanted = scale.task(dataset)
    content = dataset.read(sources.data, sources.languages)
    checks.refuse(DataError, checks.of_reading(content, sources.languages), at=sources.data)
    whole = sources.languages is None
    remarks = list(dataset.remarks(sources.data, content) if whole else getattr(content, "notes", ()))
    tokenizer, backbone = load_tokenizer(sources.model), _load(dataset, wanted, here)
    if not isinstance(wanted.edited_layers, int):
        # In the model's order, so that equal choices give the same cell.
        wanted = replace(wanted, edited_layers=backbone.edited)
    reader = reader_of(tokenizer, backbone)
    model, print_of = fingerprint(backbone, tokenizer), dataset.fingerprint(content)
    checks.refuse(DataError, checks.of_texts(fingerprint=print_of), at=task)
    errors: Errors = {}
    ask, key = None if sources.classes or elsewhere else partial(classes_of, backbone), ""
    if not elsewhere:
        key = prediction_key(dataset, model, print_of, sources)
        errors = dataset.errors(content, reader, ask, key)
    remarks += [*dataset.misfits(content, reader, ask, key), *beside(sources.model)]
    experiment = Experiment(task, wanted, rulings, sources, split, content.languages, errors, {}, tuple(remarks))
    _check_languages(cells, experiment, dataset.tasks(content, reader, rulings, errors))
    record = {
        "scale": {"name": scale.name, "about": scale.about},
        **protocol(rulings),
        "code": {**versions(torch, transformers, datasets), "digest": results.code_digest()},
        "device": sources.device,
        "precision": sources.precision,
        "machine": name_of(here.device),
        "languages": list(content.languages),
        "items": len(content),
        "split": split,
        "parameters": sum(p.numel() for p in backbone.model.parameters()),
        "data": print_of,
        "model": model,
    }
    return replace(experiment, record={**record, "remarks": remarks} if remarks else record)


def versions(*packages: Any) -> dict[str, str]:
    return {"lime_editing": __version__, **{package.__name__: package.__version__ for package in packages}}


def reader_of(tokenizer: Any, backbone: Backbone) -> Reader:
    """The raw model's reader. ModelError: tokenizer and model do not fit, or the classes are contradictory."""
    model, classes = backbone.model, class_ids(backbone.model.config) if backbone.classifies else None
    check_fit(tokenizer, model.get_input_embeddings().num_embeddings, model.name_or_path, masked=classes is None)
    return Reader(tokenizer, backbone.max_tokens, classes)


def check_fit(tokenizer: Any, embeddings: int, model: str, masked: bool) -> None:
    """ModelError: a tokenizer entry has no embedding, or (if `masked`) there is no mask token."""
    entries = max(tokenizer.get_vocab().values()) + 1
    if entries > embeddings:
        raise ModelError(
            f"{model}: {entries} tokens and {embeddings} embeddings do not belong together; use resize_token_embeddings"
        )
    if masked and tokenizer.mask_token_id is None:
        raise ModelError(f"{model}: the tokenizer has no mask token; facts need a masked language model's tokenizer")


def class_ids(config: Any) -> dict[str, int]:
    ids = {str(name): int(i) for i, name in config.id2label.items()}
    stated = {str(name): int(i) for name, i in (config.label2id or ids).items()}
    if stated != ids or sorted(ids.values()) != list(range(len(config.id2label))):
        raise ModelError(f"config.json: id2label is {config.id2label}, label2id {stated}; number both alike, from 0")
    return ids


def classes_of(backbone: Backbone, inputs: Sequence[Input]) -> list[int]:
    return [label for (label,) in predict(backbone, inputs)]


def prediction_key(dataset: Dataset, model: str, content: str, sources: Sources) -> str:
    """The cache key of the raw model's classes: a digest of all that they depend on."""
    code = (results.code_digest(plugins.files(dataset)), torch.__version__)
    return results.digest([model, content, sources.device, sources.precision, *code])


def _check_languages(cells: Sequence[Cell], experiment: Experiment, tasks: Mapping[Split, Task]) -> None:
    sources, languages = experiment.sources, experiment.languages
    if not isinstance(tasks, Mapping) or not all(hasattr(tasks.get(name), "corpus") for name in SPLITS):
        raise DataError(
            f"{experiment.dataset}: `tasks` must give the splits {', '.join(SPLITS)}; got {checks.shown(tasks)}"
        )
    needed = {language for edited in EVALUATIONS.values() for language in edited or ()}
    needed |= {language for cell in cells if cell.trained for language in cell.trained.languages or ()}
    for language in sorted(needed - set(languages)):
        raise LanguageError(language, languages, "to this run", "; trainings and evaluations edit in it: add it")
    for part, task in tasks.items():
        checks.refuse(DataError, not task.corpus.languages and f"{sources.data}: no {part} items; give data with them")
        for language in languages:
            if language not in task.corpus.languages:
                raise DataError(f"{sources.data}: no {part} items in language {language!r}; leave it out")
            if task.editable is not None and not any(i.endswith(f"/{language}") for i in task.editable):
                raise DataError(f"{sources.model}: makes no {part} error to edit in {language!r}; leave it out")


def run_cell(cell: Cell, experiment: Experiment, root: Path, processes: Processes = ALONE) -> Iterator[Status]:
    """Train and judge one cell, as its statuses are read. A finished cell is not run again.

    An interrupted cell is resumed. With several processes, only the first one writes.
    """
    folder = cell_folder(cell, experiment, root)
    if processes.first:
        results.clean(folder)
    done = results.is_done(folder)
    processes.wait()  # all must have checked the folder before one of them finishes the cell
    if done:
        return
    if processes.first:
        record, together = described(cell, experiment), f"{processes.count} × " if processes.count > 1 else ""
        record |= {"machine": together + record["machine"], "specification": SPECIFICATION}
        results.write_json(folder / "cell.json", record)
    subject, tasks = assemble(cell, experiment)
    if isinstance(subject, Editor) and cell.trained is not None:
        yield from _train(cell, cell.trained, experiment, subject, tasks, folder, processes)
    if isinstance(subject, Editor) and isinstance(subject.method, Measuring):
        subject = fitted(subject, tasks["train"], cell.seed)
        if processes.first:
            _save(cell, subject, folder)
    outcomes: dict[str, list[Outcome]] = {}
    yield from _judge(cell, experiment, subject, tasks[experiment.split], processes, outcomes)
    if processes.first:
        keep(folder, outcomes)
        (folder / results.STATE).unlink(missing_ok=True)
    processes.wait()


def keep(folder: Path, outcomes: Mapping[str, Sequence[Outcome]]) -> None:
    results.write_rows(folder / "rows.parquet", outcomes)
    found = {name: scores(count(rows)).as_dict() for name, rows in outcomes.items()}
    results.write_json(folder / "metrics.json", found)


def assemble(cell: Cell, experiment: Experiment) -> tuple[Editor | Backbone, Mapping[Split, Task]]:
    backbone = _load(data.find(experiment.dataset), experiment.scale, experiment.sources)
    tasks = tasks_of(experiment, backbone)
    if cell.approach == "unedited":
        return backbone, tasks
    about = (cell.approach, backbone, experiment.languages, cell.masks, cell.seed, settings_of(cell, experiment))
    return make_editor(*about, experiment.scale.mask_lr, experiment.rulings.mask_scale), tasks


def tasks_of(experiment: Experiment, backbone: Backbone) -> Mapping[Split, Task]:
    """The splits of the data, tokenised for the raw model."""
    sources, dataset = experiment.sources, data.find(experiment.dataset)
    content = dataset.read(sources.data, sources.languages)
    reader = reader_of(load_tokenizer(sources.model), backbone)
    return dataset.tasks(content, reader, experiment.rulings, experiment.errors)


def _load(dataset: Dataset, scale: TaskScale, sources: Sources) -> Backbone:
    edited, device, precision = scale.edited_layers, sources.device, sources.precision
    if sources.classes is not None:
        return load_encoder(sources.model, sources.classes, edited, device, precision)
    return load(sources.model, edited, device, dataset.classifies, precision)


def _train(
    cell: Cell,
    training: Training,
    experiment: Experiment,
    editor: Editor,
    tasks: Mapping[Split, Task],
    folder: Path,
    processes: Processes,
) -> Iterator[Status]:
    scale, rulings = experiment.scale, experiment.rulings
    languages, schedule = training.languages or experiment.languages, scale.schedule(training)
    record = cell_record(cell, experiment)
    weights = (scale.lambda_rel, scale.lambda_loc, scale.lambda_mask[rulings.penalty])
    # All processes must read the same state, before the first one writes the next.
    state = store.load_state(folder / results.STATE, record, editor.parameters)
    processes.wait()
    task, validation, plan = tasks["train"].within(languages), tasks["validation"], scale.validation
    if not {*task.corpus.languages} <= {*languages}:
        raise DataError(f"{experiment.dataset}: `within` must leave out all languages but {', '.join(languages)}")
    # Validation uses only items in the training languages.
    shape = (plan.n_update, plan.n_retain, cell.seed, plan.edits, validation.editable)
    pairs = evaluation_pairs(validation.corpus.within(languages), languages, languages, *shape)
    validate = validator(validation, pairs, cell.seed, processes, rulings.con_positions, rulings.stopping)
    objective = Objective.under(rulings, *weights)
    latest: Scores | None = None
    for event in train(editor, task, validate, schedule, objective, cell.seed, state, processes):
        if isinstance(event, Validated):
            latest = event.reports[-1].scores
            if processes.first:
                results.write_json(folder / "curve.json", [report.as_dict() for report in event.reports])
        elif isinstance(event, State):
            if processes.first:
                store.save_state(folder / results.STATE, record, event)
        else:
            few = event.at_a_time < schedule.batch
            doing = f"train, {event.at_a_time} edits at a time for lack of memory" if few else "train"
            yield Status(cell.name, doing, event.step * schedule.batch, schedule.edits, event.loss, latest)
    if processes.first:
        _save(cell, editor, folder)


def fitted(editor: Editor, task: Task, seed: int, edits: int = FITTED_ON) -> Editor:
    return fit(editor, [triple.edit for triple in batch_of_triples(task, edits, seed, 0)])


def _save(cell: Cell, editor: Editor, folder: Path) -> None:
    about = {"approach": cell.approach, "languages": list(editor.languages), "masks": editor.masks}
    store.save_parameters(folder / results.EDITOR, editor.parameters, about)


def _judge(
    cell: Cell,
    experiment: Experiment,
    subject: Editor | Backbone,
    task: Task,
    processes: Processes,
    outcomes: dict[str, list[Outcome]],
) -> Iterator[Status]:
    """Fill `outcomes` by evaluation: from English (Table 1) and from every language (Table 2), to all languages."""
    plan, languages = experiment.scale.test, experiment.languages
    device = (subject.backbone if isinstance(subject, Editor) else subject).like.device
    for name, edited in evaluations(languages).items():
        shape = (plan.n_update, plan.n_retain, EVALUATION_SEED, plan.edits, task.editable)
        pairs = evaluation_pairs(task.corpus, edited, languages, *shape)
        found, done, positions = list[Outcome](), 0, experiment.rulings.con_positions
        for batch in judged(subject, task, pairs, EVALUATION_SEED, con_positions=positions, processes=processes):
            found += batch
            done += len({(o.edit_language, o.edit) for o in batch}) * processes.count
            yield Status(cell.name, f"{experiment.split} {name}", min(done, len(pairs)), len(pairs))
        outcomes[name] = gathered(found, pairs, processes, device)
