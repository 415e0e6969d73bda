"""The command line: `python -m lime_editing`. Heavy imports wait until a command needs them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

EXAMPLES = """examples:
  python -m lime_editing reproduce
  python -m lime_editing reproduce --languages en,de,sw --variants en,all
  python -m lime_editing reproduce --facts mlama1.1 --model bert-base-multilingual-cased --preset paper
"""


def parser() -> argparse.ArgumentParser:
    """All commands and options, one line each."""
    result = argparse.ArgumentParser("lime_editing", description="Cross-lingual model editing.")
    commands = result.add_subparsers(dest="command", metavar="COMMAND")
    reproduce = commands.add_parser(
        "reproduce",
        help="train and judge editors, and print the table",
        description="Train MEND on English, on all languages and with LiME, judge each on test facts, print a table.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = reproduce.add_argument
    add("--preset", choices=("tiny", "paper"), default="tiny", help="hyper-parameters and scale (default: tiny)")
    add("--facts", default="fixtures/facts/mlama1.1", help="folder in mLAMA's layout (default: the fixture)")
    add("--model", default="fixtures/raw_model", help="folder or hub id of the raw model (default: the fixture)")
    add("--languages", type=_names, default=None, help="comma-separated languages (default: all of the folder)")
    add("--approaches", type=_choices("mend"), default=("mend",), help="comma-separated editors (default: mend)")
    variants = _choices("en", "all", "lime", "shared")
    add(
        "--variants",
        type=variants,
        default=("en", "all", "lime"),
        help="of en, all, lime, shared (default: en,all,lime)",
    )
    add("--seeds", type=_positive, default=None, help="number of runs per cell (default: the preset's)")
    add("--subject", choices=("parallel", "edit-language"), default="parallel", help="whose subject label x_u carries")
    add("--device", default="cpu", help="cpu or a torch device such as cuda (default: cpu)")
    add("--jobs", type=_positive, default=None, help="cells side by side (default: one per CPU core, one on a GPU)")
    add("--results", type=Path, default=Path("results"), help="where cells are stored (default: results)")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """0 done, 2 something that the user can mend, 130 interrupted."""
    options = parser().parse_args(argv)
    if options.command is None:
        parser().print_help()
        return 0
    from .errors import UserError

    try:
        _reproduce(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; finished cells are kept, and the same command continues", file=sys.stderr)
        return 130
    return 0


def _reproduce(options: argparse.Namespace) -> None:
    from rich.console import Console

    from . import experiments, report
    from .config import PRESETS
    from .terminal import Watch

    preset = PRESETS[options.preset]
    seeds = range(preset.seeds if options.seeds is None else options.seeds)
    sources = experiments.Sources(options.facts, options.model, options.languages, options.subject, options.device)
    cells = experiments.grid(options.approaches, options.variants, seeds)
    experiments.quiet()
    record = experiments.prepare(cells, preset, sources)
    jobs = options.jobs or ((os.cpu_count() or 1) if options.device == "cpu" else 1)
    results = options.results / preset.name
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(f"Editing facts {preset.about}: {len(cells)} cells, {jobs} at a time, kept in {results}")
    with Watch(console) as watch:
        folders = experiments.run_grid(cells, preset, sources, record, results, jobs, watch)
    console.print(report.table(folders, preset, record))


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
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
