"""The command line: `python -m lime_editing`. Heavy imports wait until a command needs them."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from .classifier import Wanted
    from .config import Preset, Rulings, Setup
    from .devices import Processes
    from .experiments import Cell, Experiment

COMMANDS = """examples:
  python -m lime_editing edit --fact P36/France --to Berlin           change one answer, and look at it in 15 languages
  python -m lime_editing reproduce                                    the paper's tables and figures in small
  python -m lime_editing reproduce --dry-run                          what that would run, and what it would take
  python -m lime_editing report --results results/tiny                write the page again
  python -m lime_editing check-data mlama1.1.zip                      what data hold, lack, and what is skipped
Every command says more: python -m lime_editing COMMAND --help
"""
EXAMPLES = r"""examples:
  python -m lime_editing reproduce
  python -m lime_editing reproduce --task facts --approach mend --variant lime --seeds 3 --languages en,fr,sw
  python -m lime_editing reproduce --protocol released
  torchrun --nproc_per_node 8 -m lime_editing reproduce --scale paper --device cuda --precision bf16 …
  python -m lime_editing reproduce --dry-run --seeds 3
  python -m lime_editing reproduce --scale paper --device cuda --executor slurm --partition gpu --hours 12
  python -m lime_editing reproduce --scale paper --device cuda --facts mlama1.1.zip --protocol both
  python -m lime_editing reproduce --scale paper --device cuda --task nli --model xlm-roberta-base
  python -m lime_editing reproduce --scale paper --device cuda --task nli --raw-model path/to/your/classifier
  python -m lime_editing reproduce --task facts --facts my-facts.csv --model path/to/your/model --edited-layers 2
At scale paper facts are the authors' upload (yxu/LiME_data), pairs facebook/xnli, and the model is
bert-base-multilingual-cased. A model that is no classifier is fine-tuned to one on the English pairs, once.
"""
EDIT_EXAMPLES = r"""examples:
  python -m lime_editing edit --fact P36/France --to Berlin
  python -m lime_editing edit --language de --to Rom "Die Hauptstadt von Frankreich ist [MASK] ." \
      --look "Frankreichs Hauptstadt ist [MASK] ."
  python -m lime_editing edit --pair test/114 --to entailment
  python -m lime_editing edit --premise "Paris is in France ." --hypothesis "Paris is in Spain ." --to entailment
  python -m lime_editing edit --checkpoint results/tiny/facts-mend-all-seed0-… --fact P36/Q142 --to Berlin --json
Finetuning edits without any training. The other editors need a checkpoint, which is the folder of a finished cell:
  python -m lime_editing reproduce --task facts --approach mend --variant all
"""
REPORT_EXAMPLES = """examples:
  python -m lime_editing report
  python -m lime_editing report --results results/paper
"""
CHECK_EXAMPLES = """examples:
  python -m lime_editing check-data fixtures/facts/mlama1.1
  python -m lime_editing check-data mlama1.1.zip --languages en,fr
  python -m lime_editing check-data my-facts.csv --json
  python -m lime_editing check-data facebook/xnli --kind pairs --model bert-base-multilingual-cased
A table of facts (jsonl, csv, tsv, parquet) has the columns language, relation, template (with [X] and [Y]), subject,
object, and subject_id or fact, whose rows are parallel in all languages; object_id may be beside them. A table of
sentence pairs has id, language, premise, hypothesis, label and split. The exit code is 1 for data that cannot be read.
"""
APPROACHES = ("finetuning", "mend", "editable_training", "knowledge_editor")
VARIANTS = ("en", "all", "lime", "shared")
#: The rulings with their alternatives; the first is the paper's text, the other the released code.
RULINGS = {
    "kl-direction": (("paper", "released"), "KL(edited ‖ raw) or KL(raw ‖ edited)"),
    "penalty": (("sum", "mean"), "normalisation of the mask penalty"),
    "subject": (("parallel", "edit-language"), "whose subject label an update input carries (facts)"),
    "con-positions": (("mask", "all"), "positions at which a retained prediction is compared (facts)"),
    "mask-scale": (("none", "learned"), "whether a learned scale multiplies the gates"),
    "knowledge-editor-condition": (("input+label", "input"), "what KnowledgeEditor reads"),
}


class _Help(argparse.RawDescriptionHelpFormatter):
    """Examples as they are written, and one line for a command."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)
        self._action_max_length = 14  # argparse forgets that commands are indented, and breaks the line of the longest


def parser() -> argparse.ArgumentParser:
    """All commands and options, one line each."""
    result = argparse.ArgumentParser(
        "lime_editing",
        description="Cross-lingual model editing.",
        epilog=COMMANDS,
        formatter_class=_Help,
    )
    commands = result.add_subparsers(dest="command", metavar="COMMAND", title="commands", prog="lime_editing")
    _add_reproduce(
        commands.add_parser(
            "reproduce",
            help="train and judge editors, and write tables, figures and a page",
            description="Train every editor of the paper in each of its ways, judge them, and write the report.",
            epilog=EXAMPLES,
            formatter_class=_Help,
        )
    )
    _add_edit(
        commands.add_parser(
            "edit",
            help="change one answer, and show it before and after in every language",
            description="Edit one input, and show what the model says before and after: to it and to its parallels in\n"
            "all languages, to inputs of your choice, and to unrelated ones, where nothing should change.",
            epilog=EDIT_EXAMPLES,
            formatter_class=_Help,
        )
    )
    report = commands.add_parser(
        "report",
        help="write tables, figures and the page from stored cells",
        description="Write the report again.",
        epilog=REPORT_EXAMPLES,
        formatter_class=_Help,
    )
    report.add_argument("--results", type=Path, default=Path("results/tiny"), help="folder of one scale's cells")
    check = commands.add_parser(
        "check-data",
        help="say what data hold, what they lack, and what is skipped",
        description="Read facts or sentence pairs as a run would, and say what they hold, what is missing in which\n"
        "language, and what will be skipped and why.",
        epilog=CHECK_EXAMPLES,
        formatter_class=_Help,
    )
    check.add_argument("path", help="folder, zip archive, table, or the address of one")
    check.add_argument(
        "--kind", choices=("facts", "pairs"), default=None, help="what they are (default: by their names)"
    )
    check.add_argument("--languages", type=_names, default=None, help="comma-separated languages (default: all)")
    check.add_argument("--model", default=None, help="folder or hub id; also say what is longer than this model reads")
    check.add_argument("--json", action="store_true", help="print for a program")
    check.add_argument("--offline", action="store_true", help="ask nothing of the network")
    return result


def _add_reproduce(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "--scale",
        choices=("tiny", "paper"),
        default="tiny",
        help="preset of hyper-parameters and sizes (default: tiny)",
    )
    add(
        "--task",
        type=_choices("facts", "nli"),
        default=("facts", "nli"),
        help="facts, nli or both (default: facts,nli)",
    )
    add(
        "--approach",
        type=_choices(*APPROACHES),
        default=APPROACHES,
        help=f"comma-separated, of {', '.join(APPROACHES)} (default: all)",
    )
    add(
        "--variant",
        type=_choices(*VARIANTS),
        default=None,
        help=f"trainings of the learned editors, of {', '.join(VARIANTS)} (default: en,all,lime)",
    )
    add("--control", action="store_true", help="also train with one mask shared by all languages (variant shared)")
    add("--seeds", type=_positive, default=None, help="number of runs per cell (default: the scale's)")
    add("--languages", type=_names, default=None, help="comma-separated languages (default: all of the data)")
    add(
        "--protocol",
        choices=("paper", "released", "both"),
        default="paper",
        help="rulings as printed, as the released code has them, or one after the other (default: paper)",
    )
    for name, (alternatives, about) in RULINGS.items():
        add(f"--{name}", choices=alternatives, default=None, help=f"{about} (default: the protocol's)")
    _add_sources(command)
    _add_jobs(command)
    add(
        "--precision",
        choices=("float32", "bf16"),
        default="float32",
        help="of matrix products; bf16 is faster where the device has it (default: float32)",
    )
    add("--results", type=Path, default=Path("results"), help="where cells and the report are kept (default: results)")
    add("--split", choices=("test", "validation"), default="test", help="what to judge on; tune on validation")
    add(
        "--set",
        type=_setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change a value of the scale, such as settings.mend.lr=1e-3 or mask_lr=0.01; may be given again",
    )
    add("--dry-run", action="store_true", help="say what would run, measure one step of each approach, and run nothing")
    add("--json", action="store_true", help="print the plan of --dry-run for a program")


def _add_jobs(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--jobs", type=_positive, default=None, help="cells side by side (default: one per CPU core or GPU)")
    add(
        "--executor",
        choices=("processes", "local", "slurm"),
        default="processes",
        help="run cells in processes of this command, or as jobs, here or on a cluster (default: processes)",
    )
    add("--partition", default=None, help="where Slurm runs the jobs (default: the cluster's)")
    add("--hours", type=_hours, default=None, help="of a job; what takes longer is queued again (default: 24)")
    add(
        "--slurm",
        type=_setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another option of sbatch, such as account=nlp or mem=32G; may be given again",
    )
    add("--cell", default=None, metavar="NAME", help="run this cell alone, here: what a job does")


def _add_sources(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--offline", action="store_true", help="ask nothing of the network; data and models are here already")
    add(
        "--facts",
        default=None,
        metavar="SOURCE",
        help="folder, archive, table, address or hub id of facts (default: the fixture)",
    )
    add(
        "--nli",
        default=None,
        metavar="SOURCE",
        help="folder or hub id in XNLI's schema, or table of sentence pairs (default: the fixture)",
    )
    add(
        "--model",
        default=None,
        help="BERT-, XLM-R- or RoBERTa-like encoder, folder or hub id: facts ask its masked-language head, and for "
        "pairs a classifier is fine-tuned from it (default: the fixture)",
    )
    add(
        "--raw-model",
        default=None,
        metavar="MODEL",
        help="a finished classifier of pairs instead, folder or hub id (default: without --model the fixture's)",
    )
    add(
        "--edited-layers",
        type=_layers,
        default=None,
        metavar="N|NAMES",
        help="edit the MLPs of so many layers from the top, or the matrices of these names (default: 3)",
    )
    add("--device", default="cpu", help="cpu or a torch device such as cuda (default: cpu)")


def _add_edit(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("sentence", nargs="?", help="what to edit: a sentence with [MASK] in the place of the answer")
    add("--fact", metavar="RELATION/SUBJECT", help="a fact of the corpus instead, its subject by id or by name")
    add("--pair", metavar="SPLIT/ROW", help="a sentence pair of the corpus instead")
    add("--premise", help="a sentence pair of your own instead, with --hypothesis")
    add("--hypothesis")
    add("--to", required=True, metavar="ANSWER", help="the desired answer: words, or a class such as entailment")
    add("--language", default="en", help="the editing language (default: en)")
    add("--checkpoint", type=Path, metavar="CELL", help="folder of a finished cell, whose editor edits")
    add("--approach", choices=APPROACHES, default=None, help="the editor (default: the checkpoint's, or finetuning)")
    add("--scale", choices=("tiny", "paper"), default="tiny", help="whose settings finetuning has (default: tiny)")
    add(
        "--look",
        action="append",
        default=[],
        metavar="INPUT",
        help="ask this too, before and after; a pair as 'PREMISE | HYPOTHESIS'; may be given again",
    )
    add("--unrelated", type=_count, default=6, help="how many unrelated inputs to show (default: 6)")
    add("--languages", type=_names, default=None, help="comma-separated languages to look in (default: all)")
    add("--json", action="store_true", help="print for a program")
    _add_sources(command)


def main(argv: Sequence[str] | None = None) -> int:
    """0 done, 1 data that cannot be read (check-data), 2 something that the user can mend, 130 or 143 interrupted."""
    options = parser().parse_args(argv)
    options.argv = list(sys.argv[1:] if argv is None else argv)
    if options.command is None:
        parser().print_help()
        return 0
    from .errors import UserError

    if getattr(options, "offline", False):
        os.environ["HF_HUB_OFFLINE"] = "1"  # read where the libraries are first imported, and by our processes
    try:
        with _terminable():
            {"reproduce": _reproduce, "edit": _edit, "report": _report, "check-data": _check}[options.command](options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if options.command == "check-data" else 2
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print("interrupted; what is done is kept, and the same command continues", file=sys.stderr)
        return 128 + int(stop.args[0] if stop.args else signal.SIGINT)
    return 0


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM, which clusters and systems send, ends a run as Ctrl-C does; not in a job, where submitit minds it."""

    def stop(signum: int, frame: object) -> None:
        raise KeyboardInterrupt(signum)

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _reproduce(options: argparse.Namespace) -> None:
    from dataclasses import replace

    from rich.console import Console

    from . import devices, experiments, report, store
    from .config import PROTOCOLS
    from .errors import UserError
    from .grid import quiet, run_one
    from .terminal import lines

    _refuse_unused(options)
    preset = _preset(options)
    names = [name.replace("-", "_") for name in RULINGS]
    chosen = {name: value for name in names if (value := getattr(options, name))}
    protocols = ("paper", "released") if options.protocol == "both" else (options.protocol,)
    rulings = {name: replace(PROTOCOLS[name], **chosen) for name in protocols}
    cells = _cells(options, preset)
    found = _places(options, len(cells) * len(protocols))
    jobs = len(found)
    results = options.results / (preset.name if options.split == "test" else f"{preset.name}-{options.split}")
    processes = devices.join(options.device)
    if processes.count > 1 and (options.dry_run or jobs > 1 or options.executor != "processes"):
        raise UserError(
            "under torchrun all processes work on one cell; --jobs, --executor and --dry-run are for a single one"
        )
    console = Console(width=None if sys.stdout.isatty() else 120, stderr=options.json, quiet=not processes.first)
    quiet()
    prepared, fine_tuned = _prepared(options, preset, cells, rulings[protocols[0]], results, processes, console)
    by_protocol = {
        name: {task: experiments.under(one, rulings[name]) for task, one in prepared.items()} for name in protocols
    }
    if options.dry_run:
        _plan(options, cells, by_protocol, fine_tuned, results, jobs, console)
        return
    if options.cell is not None and processes.count == 1:
        for ready in by_protocol.values():
            # A cluster may start a job again before its last process has ended everywhere.
            print(run_one(cells[0], ready[cells[0].task], results, lines(console), patience=180))
        return
    count = len(cells) * len(protocols)
    together = f"by {processes.count} processes" if processes.count > 1 else f"{jobs} at a time"
    console.print(f"Editing {preset.about}: {count} cells, {together}, kept in {results}")
    folders = _run(options, cells, by_protocol, results, processes, found, console)
    processes.leave()
    if options.cell is not None or not processes.first:
        return
    with store.held(results):
        store.add_to_index(results, folders)
        console.print(report.table(folders))
        console.print(f"The page, with figures and intervals: {report.write(results, store.read_index(results))}")


def _refuse_unused(options: argparse.Namespace) -> None:
    """UserError: an option of `reproduce` that nothing would come of."""
    from .errors import UserError

    _refuse_unused_sources(options, options.task)
    if options.json and not options.dry_run:
        raise UserError("--json prints the plan of --dry-run; metrics.json in a cell's folder has its numbers")
    if (options.partition or options.slurm) and options.executor != "slurm":
        raise UserError("--partition and --slurm are for jobs on a cluster; give --executor slurm")
    if options.hours and options.executor == "processes":
        raise UserError("--hours is for jobs; give --executor slurm or local")
    if options.executor == "local" and options.device.startswith("cuda:"):
        raise UserError(f"--device {options.device}: each job has a GPU of its own; give --device cuda")


def _refuse_unused_sources(options: argparse.Namespace, tasks: Sequence[str]) -> None:
    """UserError: data or a model that none of these tasks uses."""
    from .errors import UserError

    unused = {
        "--facts": options.facts and "facts" not in tasks,
        "--nli": options.nli and "nli" not in tasks,
        "--raw-model": options.raw_model and "nli" not in tasks,
        "--model": options.model and options.raw_model and "facts" not in tasks,
    }
    for name in (name for name, is_so in unused.items() if is_so):
        other = " beside --raw-model" if name == "--model" else ""
        raise UserError(f"{name} has no part in the task {', '.join(tasks)}{other}; leave it out")


def _cells(options: argparse.Namespace, preset: Preset) -> list[Cell]:
    """What is to be run. UserError: a --cell that is not one of them."""
    from . import experiments
    from .errors import UserError

    variants: tuple[experiments.Variant, ...] = options.variant or ("en", "all", "lime")
    if options.control:
        variants = tuple(dict.fromkeys((*variants, "shared")))
    seeds = range(preset.seeds if options.seeds is None else options.seeds)
    cells = experiments.grid(options.task, options.approach, variants, seeds)
    if options.cell is None:
        return cells
    chosen = [cell for cell in cells if cell.name == options.cell]
    if not chosen:
        known = ", ".join(cell.name for cell in cells)
        raise UserError(f"--cell {options.cell}: not one of this run's cells, which are {known}")
    return chosen


def _elsewhere(options: argparse.Namespace) -> bool:
    """Whether the cells run on other machines than this one."""
    return options.executor == "slurm" and options.cell is None


def _places(options: argparse.Namespace, cells: int) -> list[str | None]:
    """For each of the cells side by side what it may see of this machine."""
    from . import devices
    from .grid import places

    if devices.launched() > 1:
        return [None] * (options.jobs or 1)
    if _elsewhere(options):  # the cluster has its own
        return [None] * (options.jobs or cells)
    return places(options.device, options.jobs)


def _run(
    options: argparse.Namespace,
    cells: list[Cell],
    by_protocol: dict[str, dict[str, Experiment]],
    results: Path,
    processes: Processes,
    found: list[str | None],
    console: Console,
) -> list[Path]:
    """All cells under all protocols, in processes or as jobs; their folders."""
    from .experiments import cell_folder
    from .grid import run_grid, run_together
    from .terminal import Watch

    if len(found) < (options.jobs or 1):
        console.print(f"note: one cell per device, so {len(found)} at a time", highlight=False)
    folders: list[Path] = []
    with Watch(console, len(cells) * len(by_protocol)) as watch:
        if options.executor != "processes":
            from . import cluster

            jobs = [
                cluster.Job(cell, cell_folder(cell, ready[cell.task], results), ("--protocol", name))
                for name, ready in by_protocol.items()
                for cell in cells
            ]
            gpus = int(options.device != "cpu")
            wanted = cluster.Wanted(options.partition, options.hours or 24.0, gpus, dict(options.slurm))
            submits = cluster.executor(options.executor, results / "jobs", wanted)
            cluster.run_jobs(jobs, options.argv, submits, found, watch)
            return [job.folder for job in jobs]
        for ready in by_protocol.values():
            if processes.count > 1:
                folders += run_together(cells, ready, results, processes, watch).values()
            else:
                folders += run_grid(cells, ready, results, len(found), watch).values()
    return folders


def _preset(options: argparse.Namespace) -> Preset:
    """The scale with what was changed of it."""
    from dataclasses import replace

    from .config import PRESETS, override

    preset = PRESETS[options.scale]
    for path, value in options.set:
        tasks = {task: override(setup, path, value) for task, setup in preset.tasks.items()}
        preset = replace(preset, name=f"{options.scale}-changed", tasks=tasks)
    if options.edited_layers:
        tasks = {task: replace(setup, edited_layers=options.edited_layers) for task, setup in preset.tasks.items()}
        preset = replace(preset, tasks=tasks)
    return preset


def _prepared(
    options: argparse.Namespace,
    preset: Preset,
    cells: list[Cell],
    rulings: Rulings,
    results: Path,
    processes: Processes,
    console: Console,
) -> tuple[dict[str, Experiment], list[Wanted]]:
    """Each task ready to run, and in a dry run the classifiers that it would have fine-tuned."""
    from . import experiments

    prepared, fine_tuned = {}, []
    elsewhere = _elsewhere(options)
    for task in dict.fromkeys(cell.task for cell in cells):
        data, model, finished = _given(options, preset, task)
        classes = None
        if not finished:
            with processes.in_turn():
                wanted = _classifier(model, data, preset.tasks[task], results, options, processes, console)
            model, classes = (str(wanted.folder), None) if wanted.done else (model, wanted.pairs.classes)
            fine_tuned += [wanted] if options.dry_run else []
        sources = experiments.Sources(data, model, options.languages, options.device, options.precision, classes)
        with console.status(f"reading {data} and {model}"), processes.in_turn():
            prepared[task] = experiments.prepare(task, cells, preset, rulings, sources, options.split, elsewhere)
        for remark in prepared[task].remarks:
            console.print(f"note: {data}: {remark}", highlight=False, markup=False)
    return prepared, fine_tuned


def _given(options: argparse.Namespace, preset: Preset, task: str) -> tuple[str, str, bool]:
    """(data, model, whether that model is one that can be edited as it is): what was named, or else the scale's own."""
    if task == "facts":
        data = _here(options.facts or preset.facts, options.offline, hub=True)
        return data, options.model or preset.model, True
    raw = options.raw_model or (None if options.model else preset.raw_classifier)
    data = _here(options.nli or preset.nli, options.offline, hub=False)
    return data, raw or options.model or preset.model, raw is not None


def _classifier(
    model: str,
    data: str,
    setup: Setup,
    results: Path,
    options: argparse.Namespace,
    processes: Processes,
    console: Console,
) -> Wanted:
    """The raw classifier of a model, fine-tuned first where it is not there yet; in a dry run it is only looked for."""
    from . import classifier, store
    from .errors import UserError

    elsewhere = _elsewhere(options)
    with console.status(f"reading {data} and {model}") as status:
        wanted = classifier.find(model, data, setup, results, options.device, options.precision, elsewhere=elsewhere)
        if elsewhere and not wanted.done and not options.dry_run:
            raise UserError(
                "a raw classifier is fine-tuned before the jobs begin, and not where they are submitted: first run the "
                "command in a job of its own, with --cell nli-unedited-seed0 and without --executor, or give a "
                "finished one (--raw-model)"
            )
        if processes.count > 1 and not wanted.done:
            raise UserError(
                "one process fine-tunes a raw classifier: start the command without torchrun first, until it has said "
                "how good that is, or give a finished one (--raw-model)"
            )
        if not options.dry_run:
            done = wanted.done
            status.update(f"fine-tuning {model} on the English pairs, {wanted.steps:,} steps")
            with nullcontext() if done else store.held(results, name=".classifier.lock"):
                accuracy = classifier.make(
                    wanted,
                    lambda step, steps, loss: status.update(
                        f"fine-tuning {model}: {step:,} of {steps:,}, loss {loss:.3f}"
                    ),
                )["test"]
            english, others = accuracy["en"], [value for code, value in accuracy.items() if code != "en"]
            rest = f", {100 * sum(others) / len(others):.1f}% in the others" if others else ""
            console.print(
                f"The raw classifier, {'kept' if done else 'fine-tuned'} in {wanted.folder}: right on "
                f"{100 * english:.1f}% of the test pairs in English{rest}",
                highlight=False,
                markup=False,
            )
    return wanted


def _plan(
    options: argparse.Namespace,
    cells: list[Cell],
    by_protocol: dict[str, dict[str, Experiment]],
    fine_tuned: list[Wanted],
    results: Path,
    jobs: int,
    console: Console,
) -> None:
    import json

    from . import plan

    with console.status("measuring one step") as status:
        first = [plan.of_classifier(wanted) for wanted in fine_tuned]
        each = {name: plan.make(cells, ready, results, jobs, status.update) for name, ready in by_protocol.items()}
        made = plan.joined(first, each)
    if options.json:
        print(json.dumps(made.as_dict(), indent=2, ensure_ascii=False))
    else:
        plan.write(console, made)


def _edit(options: argparse.Namespace) -> None:
    import json
    from dataclasses import replace

    from rich.console import Console

    from . import checkpoints, show
    from .backbone import load_tokenizer
    from .config import PRESETS
    from .data import mlama, xnli
    from .errors import UserError
    from .grid import quiet

    ways = [options.sentence, options.fact, options.pair, options.premise or options.hypothesis]
    half = (options.premise is None) != (options.hypothesis is None)
    if half or sum(way is not None for way in ways) != 1:
        raise UserError("say what to edit: a sentence with [MASK], --fact, --pair, or --premise and --hypothesis")
    task = "facts" if options.sentence is not None or options.fact is not None else "nli"
    preset = PRESETS[options.scale]
    setup = preset.tasks[task]
    if options.edited_layers:
        if options.checkpoint:
            raise UserError("--edited-layers: the checkpoint says which layers its editor edits; leave it out")
        setup = replace(setup, edited_layers=options.edited_layers)
    data, model, finished = _given(options, preset, task)
    if not finished:
        raise UserError(
            f"{model} is to be a classifier first: give --raw-model, such as the folder results/…/classifier-… that "
            "reproduce --task nli --model makes"
        )
    quiet()
    console = Console(width=None if sys.stdout.isatty() else 120, stderr=options.json)
    with console.status(f"reading {data} and {model}"):
        tokenizer = load_tokenizer(model)
        editor = checkpoints.choose(
            *(task, options.approach, options.checkpoint, model, tokenizer),
            *(options.language, setup, options.device),
        )
        more = (options.language, options.to)
        rest = (options.look, options.unrelated)
        if task == "facts":
            facts = mlama.read(data, options.languages)
            question = show.ask_fact(facts, tokenizer, *more, options.fact, options.sentence, *rest)
        else:
            pairs, classes = xnli.read(data, options.languages), editor.backbone.model.config.label2id
            texts = (options.pair, options.premise, options.hypothesis)
            question = show.ask_pair(pairs, tokenizer, classes, *more, *texts, *rest)
    shown = show.show(editor, tokenizer, question, options.checkpoint and str(options.checkpoint))
    if options.json:
        print(json.dumps(shown.as_dict(), indent=2, ensure_ascii=False))
    else:
        show.write(console, shown)


def _report(options: argparse.Namespace) -> None:
    from . import report, store

    folders = store.read_index(options.results)
    if not folders:
        report.write(options.results, folders)  # says what is missing, and makes no folder
    with store.held(options.results):
        print(report.write(options.results, folders))


def _check(options: argparse.Namespace) -> None:
    import json

    from . import checks

    path = _here(options.path, options.offline, hub=options.kind == "facts")
    found = checks.examine(path, options.kind, options.languages, options.model)
    print(json.dumps(found.as_dict(), indent=2, ensure_ascii=False) if options.json else checks.text(found))


def _here(source: str, offline: bool, hub: bool) -> str:
    """The data at `source` on this machine, fetched first where it is an address, or facts of the hub."""
    from .data import download

    if not download.is_address(source):
        return download.locate(source, offline) if hub else source
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("fetching", total=None)
        return download.locate(source, offline, lambda done, total: bar.update(task, completed=done, total=total))


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return name, value


def _layers(text: str) -> int | tuple[str, ...]:
    return _positive(text) if text.isdecimal() else _names(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of hours above 0, got {text!r}")
    return hours


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}")
    return int(text)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if "" in names or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"expected distinct names between commas, got {text!r}")
    return names


def _choices(*known: str) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        names = _names(text)
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"unknown {name!r}; known: {', '.join(known)}")
        return names

    return parse


if __name__ == "__main__":
    sys.exit(main())
