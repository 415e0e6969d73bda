"""What a training step costs the host: dispatched operations and milliseconds, phase by phase.

python -m perf.test_host [FOLDER]     prints a table, and writes it to host-<machine>.json and .md (perf/local)

Ten edits of the fixtures' data with language-specific masks, on a random model of six layers that is so narrow that its
products take little time: most of the rest is what the host spends on a step, whatever the size of the model (of facts
the losses over 16,000 tokens take a few milliseconds). On a GPU a step of a few edits takes at least as long.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedTokenizerBase

from perf import setting, steps
from perf.gpu_page import table
from perf.gpu_parts import write_atomically

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
BATCH, STEPS = 10, 25
TASKS = ("facts", "nli")
#: As many tokens as the tokenizers of the fixtures know.
SIZES = {
    "facts": replace(setting.SIZES["tiny"], layers=6, vocabulary=16_000),
    "nli": replace(setting.SIZES["tiny"], layers=6, vocabulary=16_000, classes=3),
}


def real_step(name: str, task: str) -> tuple[steps.Editor, Callable[[], object]]:
    """An untrained editor, and a step of its training, on other examples at each call."""
    data, size = steps.real_data(task, FIXTURES), SIZES[task]
    editor = setting.editor_of(name, size, setting.backbone_of(size), "language", data.corpus.languages)
    return editor, steps.real_step(editor, data, BATCH)


def host(name: str, task: str, repeats: int = STEPS) -> dict[str, Any]:
    """Operations and median milliseconds of a step, phase by phase; each step has other examples, as in training."""
    editor, run = real_step(name, task)
    run()
    seen = [steps.phases_of(editor, run, dispatched=True).ordered() for _ in range(5)]
    timed = [steps.phases_of(editor, run, dispatched=False).ordered() for _ in range(repeats)]
    phases = [phase for phase in steps.ORDER if phase in timed[0]]
    with tokenising() as spent:
        alone = [seconds_of(spent, run) for _ in range(repeats)]
    return {
        "editor": name,
        "task": task,
        "operations": {p: statistics.median(one.get(p, 0) for one in seen) for p in phases},
        "milliseconds": {p: 1e3 * statistics.median(one.get(p, 0.0) for one in timed) for p in phases},
        "tokenizer_milliseconds": 1e3 * statistics.median(alone),
    }


@contextmanager
def tokenising() -> Iterator[list[float]]:
    """While open, the seconds of each call of a tokenizer: the part of "prepare inputs" that is not ours."""
    spent, call = list[float](), PreTrainedTokenizerBase.__call__

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return call(*args, **kwargs)
        finally:
            spent.append(time.perf_counter() - start)

    with patch.object(PreTrainedTokenizerBase, "__call__", timed):
        yield spent


def seconds_of(spent: list[float], run: Callable[[], object]) -> float:
    """What one run adds to `spent`."""
    before = len(spent)
    run()
    return sum(spent[before:])


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("editor", setting.LEARNED)
def test_step(measure: Callable[..., None], editor: str, task: str) -> None:
    """A whole step, with what each phase of it asks of the host."""
    found = host(editor, task, repeats=5)
    cells = [f"{p} {found['milliseconds'][p]:.2f} ms, {n:.0f}" for p, n in found["operations"].items()]
    _, run = real_step(editor, task)
    measure(
        run,
        f"host: {editor}, {task}, 6 narrow layers, batch of {BATCH}",
        BATCH,
        notes=f"{sum(found['operations'].values()):.0f} operations; {'; '.join(cells)}",
    )


@pytest.mark.parametrize("editor", setting.LEARNED)
def test_every_operation_belongs_to_one_phase(editor: str) -> None:
    """The phases add up to what another mode counts, forward and backward; afterwards no function is marked."""
    size = setting.size_of("tiny")
    made = setting.editor_of(editor, size, setting.backbone_of(size), "language")
    run = steps.step_of(made, setting.random_triples(size, setting.LENGTHS["facts"], 3))
    run()
    before = [getattr(owner, name) for _, owner, name in steps.PHASES]
    phases = steps.phases_of(made, run, dispatched=True)
    with Dispatched() as dispatched:
        run()
    assert sum(phases.taken.values()) == dispatched.total
    # Little is left over.
    assert set(phases.taken) == set(steps.ORDER)
    assert phases.taken["rest"] < 0.02 * dispatched.total
    assert [getattr(owner, name) for _, owner, name in steps.PHASES] == before


@pytest.mark.parametrize("task", TASKS)
def test_a_step_calls_the_tokenizer_once(task: str) -> None:
    """With all inputs of the batch that are new; it is timed while `tokenising` is open, and not afterwards."""
    _, run = real_step("mend", task)
    with tokenising() as spent:
        run()
    assert len(spent) == 1
    run()
    assert len(spent) == 1


class Dispatched(TorchDispatchMode):
    """Counts the operations."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.total += 1
        return func(*args, **(kwargs or {}))


def page(content: dict[str, Any]) -> str:
    about = "; ".join(f"{key}: {value}" for key, value in content.items() if key not in {"rows", "machine", "command"})
    body = []
    for row in content["rows"]:
        cells = [f"{row['milliseconds'].get(p, 0):.2f} ms, {row['operations'].get(p, 0):.0f}" for p in steps.ORDER]
        sums = f"{sum(row['milliseconds'].values()):.1f} ms, {sum(row['operations'].values()):.0f}"
        body.append([row["editor"], row["task"], sums, *cells, f"{row['tokenizer_milliseconds']:.2f} ms"])
    lines = [
        f"# Host time of a training step: {content['machine']}",
        "",
        f"{about}.",
        "",
        f"`{content['command']}`",
        "",
    ]
    lines += [
        f"Ten edits with language-specific masks, on a random model of 6 layers of width {SIZES['facts'].hidden}.",
        f"Medians of {STEPS} steps on other examples each, and of 5 for the dispatched operations. One thread.",
        "The last column is the part of “prepare inputs” that is spent in the tokenizer's library.",
        "",
    ]
    return "\n".join(lines + table(("editor", "task", "a step", *steps.ORDER, "tokenizer"), body)).rstrip() + "\n"


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "perf/local")
    torch.set_num_threads(1)
    name = f"{platform.system().lower()}-{platform.machine()}-{os.cpu_count()}cores"
    content: dict[str, Any] = {
        "machine": name,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "code": steps.code(),
        "command": "python -m perf.test_host",
        "rows": [host(editor, task) for task in TASKS for editor in setting.LEARNED],
    }
    text = page(content)
    print(text)
    write_atomically(folder / f"host-{name}.json", json.dumps(content, indent=1) + "\n")
    write_atomically(folder / f"host-{name}.md", text)


if __name__ == "__main__":
    main()
