"""The paper's grid as data, one cell at a time: train, judge, store (§4.4, §4.5)."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from queue import Empty
from typing import Any, Literal

import torch
import transformers
from transformers import logging

from . import __version__, store
from .backbone import Backbone, fingerprint, load, load_tokenizer
from .config import Preset
from .data import mlama
from .editing import Editor, make_editor
from .errors import DataError, LanguageError, ModelError, UserError
from .evaluation import evaluate
from .metrics import Scores, scores
from .sampling import evaluation_pairs
from .training import Report, train
from .types import Masks, Outcome

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
UNEDITED = "unedited"


@dataclass(frozen=True, slots=True)
class Cell:
    """One approach, trained one way, with one seed; the unedited model has no variant and is not trained."""

    task: str
    approach: str
    variant: Variant | None
    seed: int

    @property
    def name(self) -> str:
        return "-".join(filter(None, (self.task, self.approach, self.variant, f"seed{self.seed}")))


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the data and the raw model come from, and what of it is used."""

    facts: str
    model: str
    languages: tuple[str, ...] | None
    subject: mlama.Subject = "parallel"
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class Progress:
    """What a running cell says of itself."""

    cell: str
    doing: str
    done: int
    total: int
    loss: float | None = None
    scores: Scores | None = None


Listener = Callable[[Progress], None]


def grid(approaches: Sequence[str], variants: Sequence[Variant], seeds: Sequence[int]) -> list[Cell]:
    """The cells of a reproduction, the unedited model first: it shows what an edit has to beat."""
    cells = [Cell("facts", UNEDITED, None, seeds[0])]
    return cells + [Cell("facts", a, v, seed) for seed in seeds for a in approaches for v in variants]


def prepare(cells: Sequence[Cell], preset: Preset, sources: Sources) -> dict[str, Any]:
    """Find what would stop the run before it starts, and say what its numbers depend on beside the cell (clause R3).

    UserError: an unusable device, data that cannot be read or lack a language in a split, a model that does not fit.
    """
    try:
        torch.empty(0, device=sources.device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {sources.device!r} cannot be used: {str(error).splitlines()[0]}") from error
    facts = mlama.read(sources.facts, sources.languages)
    tokenizer, backbone = load_tokenizer(sources.model), load(sources.model, preset.edited_layers, sources.device)
    if len(tokenizer) > backbone.model.config.vocab_size:
        raise ModelError(
            f"{sources.model}: the tokenizer has {len(tokenizer)} entries and the model "
            f"{backbone.model.config.vocab_size}; they do not belong together"
        )
    needed = {language for edited in EVALUATIONS.values() for language in edited or ()}
    needed |= {language for cell in cells if cell.variant for language in VARIANTS[cell.variant][0] or ()}
    for language in sorted(needed - set(facts.languages)):
        raise LanguageError(language, facts.languages, "among the chosen ones; training or judging needs it")
    for split, task in mlama.tasks(facts, tokenizer, sources.subject).items():
        for language in facts.languages:
            if language not in task.corpus.languages:
                raise DataError(f"{sources.facts}: no {split} facts in language {language!r}; leave it out")
    return {
        "preset": asdict(preset),
        "rulings": {
            "kl_direction": preset.objective.kl_direction,
            "penalty": preset.objective.penalty,
            "mask_scale": preset.mask_scale,
            "subject": sources.subject,
            "con_positions": "mask",
        },
        "languages": list(facts.languages),
        "facts": len(facts.facts),
        "parameters": sum(p.numel() for p in backbone.model.parameters()),
        "data": mlama.fingerprint(facts),
        "model": fingerprint(backbone, tokenizer),
        "code": {
            "lime_editing": __version__,
            "digest": store.code_digest(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "device": sources.device,
    }


def run_cell(
    cell: Cell, preset: Preset, sources: Sources, record: Mapping[str, Any], results: Path, listen: Listener
) -> Path:
    """Train and judge one cell, or leave it alone where it is done already. Returns its folder.

    `record` is what `prepare` returned; another record means another folder, so that no number is mixed up.
    """
    folder = cell_folder(cell, record, results)
    if store.is_done(folder):
        return folder
    facts = mlama.read(sources.facts, sources.languages)
    backbone = load(sources.model, preset.edited_layers, sources.device)
    store.write_json(folder / "cell.json", {"cell": asdict(cell), **record})
    tasks = mlama.tasks(facts, load_tokenizer(sources.model), sources.subject)
    subject: Editor | Backbone = backbone
    if cell.variant is not None:
        subject = _train(cell, cell.variant, preset, backbone, facts.languages, tasks, folder, listen)
    evaluations = _judge(cell, preset, subject, facts.languages, tasks["test"], listen)
    store.write_rows(folder / "rows.parquet", evaluations)
    store.write_json(folder / "metrics.json", {name: scores(o).as_dict() for name, o in evaluations.items()})
    return folder


def cell_folder(cell: Cell, record: Mapping[str, Any], results: Path) -> Path:
    """Where a cell is kept under a record."""
    return results / f"{cell.name}-{store.digest(record)[:8]}"


def run_grid(
    cells: Sequence[Cell],
    preset: Preset,
    sources: Sources,
    record: Mapping[str, Any],
    results: Path,
    jobs: int,
    listen: Listener,
) -> dict[Cell, Path]:
    """All cells, `jobs` at a time in processes of one thread each. UserError: one of them failed; the others stop."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    waiting, running = list(cells), dict[Cell, Any]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.pop(0)
                arguments = (cell, preset, sources, record, results, queue)
                running[cell] = context.Process(target=_work, args=arguments, daemon=True)
                running[cell].start()
            _pass_on(queue, listen)
            for cell in [cell for cell, process in running.items() if not process.is_alive()]:
                _pass_on(queue, listen)
                code = running.pop(cell).exitcode
                if code != 0:
                    raise UserError(f"cell {cell.name} ended with exit code {code}; run the same command to continue")
                listen(Progress(cell.name, "done", 1, 1))
    finally:
        for process in running.values():
            process.terminate()
            process.join()
    return {cell: cell_folder(cell, record, results) for cell in cells}


def _work(cell: Cell, preset: Preset, sources: Sources, record: Mapping[str, Any], results: Path, queue: Any) -> None:
    """The body of a worker process; what the user can mend goes back as a message."""
    # Two one-thread processes beat one of two threads at this size.
    torch.set_num_threads(1)
    quiet()
    try:
        run_cell(cell, preset, sources, record, results, queue.put)
    except (UserError, OSError) as error:
        queue.put(f"{cell.name}: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(1)


def quiet() -> None:
    """Leave the terminal to our own bars and messages."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _pass_on(queue: Any, listen: Listener) -> None:
    """Hand on what the workers said; wait a moment where they are silent. UserError: what one of them failed with."""
    timeout = 0.2
    while True:
        try:
            message = queue.get(timeout=timeout)
        except Empty:
            return
        if isinstance(message, str):
            raise UserError(message)
        listen(message)
        timeout = 0.0


def _train(
    cell: Cell,
    variant: Variant,
    preset: Preset,
    backbone: Backbone,
    languages: Sequence[str],
    tasks: Mapping[mlama.Split, mlama.FactTask],
    folder: Path,
    listen: Listener,
) -> Editor:
    wanted, masks = VARIANTS[variant]
    trained_on = wanted or tuple(languages)
    schedule = preset.all_languages if wanted is None else preset.english_only
    editor = make_editor(
        cell.approach,
        backbone,
        languages,
        masks,
        cell.seed,
        preset.settings[cell.approach],
        preset.mask_lr,
        preset.mask_scale,
    )
    reports: list[Report] = []

    def on_step(step: int, loss: float) -> None:
        validated = reports[-1].scores if reports else None
        listen(Progress(cell.name, "train", step * schedule.batch, schedule.edits, loss, validated))

    def on_report(report: Report) -> None:
        reports.append(report)
        store.write_json(folder / "curve.json", [r.as_dict() for r in reports])

    validate = _validator(preset, tasks["validation"], trained_on, cell.seed)
    restricted = tasks["train"].within(trained_on)
    train(editor, restricted, validate, schedule, preset.objective, cell.seed, on_report, on_step)
    about = {"approach": cell.approach, "languages": list(editor.languages), "masks": masks}
    store.save_parameters(folder / "editor.safetensors", editor.parameters, about)
    return editor


def _validator(preset: Preset, task: mlama.FactTask, languages: Sequence[str], seed: int) -> Callable[[Editor], Scores]:
    """succ on validation facts, from and to the training languages: what an editor is allowed to know."""
    plan = preset.evaluation
    corpus = task.corpus.within(languages)
    pairs = evaluation_pairs(corpus, languages, languages, plan.n_update, plan.n_retain, seed, plan.validation_edits)
    return lambda editor: scores(evaluate(editor, task, pairs, seed))


def _judge(
    cell: Cell,
    preset: Preset,
    subject: Editor | Backbone,
    languages: Sequence[str],
    task: mlama.FactTask,
    listen: Listener,
) -> dict[str, list[Outcome]]:
    """The paper's two evaluations: from English (Table 1) and from every language (Table 2), to all languages."""
    plan = preset.evaluation
    evaluations = {}
    # The seed is not the cell's: every editor and every run is asked the same questions.
    for name, edited in EVALUATIONS.items():
        pairs = evaluation_pairs(
            task.corpus, edited or languages, languages, plan.n_update, plan.n_retain, EVALUATION_SEED, plan.test_edits
        )
        on_batch = partial(_say, listen, cell.name, f"test {name}", len(pairs))
        evaluations[name] = evaluate(subject, task, pairs, EVALUATION_SEED, progress=on_batch)
    return evaluations


def _say(listen: Listener, cell: str, doing: str, total: int, done: int) -> None:
    listen(Progress(cell, doing, done, total))
