"""From pytest-benchmark's JSON a compact file of one machine, and a table beside it.

python -m perf.report RAW.json FOLDER "command that measured it"

<machine>.json   machine, versions, command, and per benchmark median, edits per second, share of the limit
<machine>.md     the same as a table, with the ratios within each group

Nothing of a host's name, a user's or a path is copied.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

#: What is copied of a benchmark beside its times.
NOTES = (
    *("edits", "precision", "peak_gflops", "needed_gflop", "needed_gbyte", "bandwidth_gbytes", "edits_per_second"),
    *("fraction_of_limit", "axes", "numbers", "masks_cost", "memory", "shares"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One benchmark: what was done, in which way, and how fast."""

    group: str
    name: str
    way: str
    seconds: float
    info: dict[str, Any]

    @classmethod
    def of(cls, benchmark: dict[str, Any]) -> Row:
        """One of pytest-benchmark's entries."""
        info = benchmark["extra_info"]
        return cls(benchmark["group"], benchmark["name"], info["way"], benchmark["stats"]["median"], info)

    @property
    def rate(self) -> float:
        """Edits per second."""
        return float(self.info["edits"] / self.seconds)

    @property
    def limit(self) -> str:
        """The share of the counted limit, and of that with the memory traffic that no product hides."""
        if "limit_seconds" not in self.info:
            return ""
        text = f"{self.info['limit_seconds'] / self.seconds:.0%}"
        if "traffic_seconds" in self.info:
            both = self.info["limit_seconds"] + self.info["traffic_seconds"]
            text += f" ({both / self.seconds:.0%})"
        return text

    @property
    def notes(self) -> str:
        """What the benchmark says of itself, and how long the paper's training would take at this rate (§B.3)."""
        notes = [self.info["notes"]] if "notes" in self.info else []
        if self.info.get("paper_edits"):
            notes.append(f"{self.info['paper_edits']:,} edits in {_duration(self.info['paper_edits'] / self.rate)}")
        return "; ".join(notes)

    def as_dict(self) -> dict[str, Any]:
        notes = {key: _rounded(self.info[key]) for key in NOTES if key in self.info}
        return {
            "group": self.group,
            "name": self.name,
            "way": self.way,
            "median_seconds": _rounded(self.seconds),
        } | notes


def ratios(row: Row, rows: Sequence[Row]) -> str:
    """How many times as fast per edit as the group's other ways the reference is."""
    others = [other for other in rows if other.group == row.group and other.way != row.way]
    return ", ".join(f"{row.rate / other.rate:.2f}× {other.way}" for other in others if row.way == "reference")


def slopes(rows: Sequence[Row]) -> list[str]:
    """Least squares of log seconds (and of log numbers) over the logarithms of the axes, group by group."""
    lines = []
    for group in dict.fromkeys(row.group for row in rows if row.info.get("axes")):
        points = [row for row in rows if row.group == group and row.info.get("axes")]
        axes = [axis for axis in points[0].info["axes"] if len({p.info["axes"][axis] for p in points}) > 1]
        if len(points) <= len(axes) + 1:
            continue
        logs = np.array([[1.0, *(math.log(p.info["axes"][axis]) for axis in axes)] for p in points])
        for what, values in (
            ("seconds", [p.seconds for p in points]),
            ("numbers", [p.info.get("numbers", 0) for p in points]),
        ):
            if min(values) > 0:
                fit = np.linalg.lstsq(logs, np.log(values), rcond=None)[0][1:]
                powers = " · ".join(f"{axis}^{power:.2f}" for axis, power in zip(axes, fit, strict=True))
                lines.append(f"{group}: {what} grow like {powers}")
    return lines


def cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Group, way, median, edits per second, share of the limit, ratio, notes."""
    return [
        (
            row.group + ("" if not row.info.get("axes") else f": {_axes(row.info['axes'])}"),
            row.way,
            _seconds(row.seconds),
            f"{row.rate:.3g}",
            row.limit,
            ratios(row, rows),
            row.notes,
        )
        for row in sorted(rows, key=lambda row: row.group)
    ]


HEAD = ("what", "way", "median", "edits/s", "of the limit", "as fast per edit as", "notes")


def lines(rows: Sequence[Row]) -> list[str]:
    """The table as plain text, and the fitted slopes."""
    table = [HEAD, *cells(rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(HEAD))]
    return ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in table] + slopes(rows)


def markdown(machine: dict[str, Any], rows: Sequence[Row]) -> str:
    """The page beside the JSON."""
    about = [f"{key}: {value}" for key, value in machine.items() if key != "command"]
    peaks = [row.info["peak_gflops"] for row in rows]
    text = [
        f"# {machine['machine']}",
        "",
        "; ".join(about) + f". GEMM rate in the same process: {min(peaks):.0f} to {max(peaks):.0f} GFLOP/s.",
        "",
        f"`{machine['command']}`",
        "",
        "The limit is the operations that the mathematics needs (`perf/counting.py`) over the GEMM rate, which is",
        "measured around each benchmark; in parentheses with the memory traffic of Adam, which no product hides.",
        "Weights and inputs are random. The textbook's own networks are smaller (MEND's rank is the smaller width),",
        "and with them its limit.",
        "",
        f"| {' | '.join(HEAD)} |",
        "|---|---|---:|---:|---:|---|---|",
        *(f"| {' | '.join(line)} |" for line in cells(rows)),
        "",
        *(f"- {line}" for line in slopes(rows)),
    ]
    return "\n".join(text).rstrip() + "\n"


def machine_of(rows: Sequence[Row], command: str) -> dict[str, Any]:
    """Kind of machine, versions and command."""
    on_gpu = any(row.info["device"] == "cuda" for row in rows)
    cpu = f"{platform.system().lower()}-{platform.machine()}-{os.cpu_count()}cores"
    about = {"machine": torch.cuda.get_device_name() if on_gpu else cpu, "threads": 1}
    if on_gpu:
        about["cuda"] = torch.version.cuda or ""
    about |= {"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__}
    return about | {"command": command}


def write(raw: Path, folder: Path, command: str) -> Path:
    """Write both files, each in one move, and return the first."""
    rows = [Row.of(b) for b in json.loads(raw.read_text(encoding="utf-8"))["benchmarks"] if "way" in b["extra_info"]]
    machine = machine_of(rows, command)
    name = re.sub(r"[^a-z0-9_]+", "-", machine["machine"].lower()).strip("-")
    name += "" if "--whole" in command else "-quick"
    content = {**machine, "benchmarks": [row.as_dict() for row in rows]}
    path = folder / f"{name}.json"
    _write(path.with_suffix(".md"), markdown(machine, rows))
    _write(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return path


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"


def _seconds(value: float) -> str:
    unit, factor = next((u, f) for u, f in (("s", 1), ("ms", 1e3), ("µs", 1e6)) if value * f >= 1 or u == "µs")
    return f"{value * factor:.3g} {unit}"


def _axes(axes: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in axes.items())


if __name__ == "__main__":
    print(write(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
