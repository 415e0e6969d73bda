"""The page beside the JSON of `python -m perf.gpu`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

Row = dict[str, Any]


def page(content: Row) -> str:
    """Markdown: the machine, and a section for each part that has run."""
    machine, parts = content["machine"], content["parts"]
    about = "; ".join(f"{key}: {_plain(value)}" for key, value in machine.items())
    text = [f"# {machine['device']}", "", f"{about}.", ""]
    flops = {row["precision"]: row["flops"] for row in _rows(parts, "2") if "flops" in row}
    sections: dict[str, Callable[[list[Row]], list[str]]] = {
        "1": _against_cpu,
        "7": _recorded,
        "2": _peaks,
        "3": lambda rows: _speed(rows, flops),
        "6": lambda rows: _profiles(rows, flops),
        "5": _grid,
    }
    for number, section in sections.items():
        if number not in parts:
            continue
        part = parts[number]
        text += [f"## {number}. {part['name'][0].upper()}{part['name'][1:]}", ""]
        text += [f"`{part['command']}`, code {part['code']}: {part['status']} after {part['seconds']:.0f} s.", ""]
        text += section([row for row in part["rows"] if "error" not in row])
        text += [f"- failed: {_about(row)}: {row['error']}" for row in part["rows"] if "error" in row]
        text += [f"- {note}" for note in part["notes"]] + [""]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(text)).rstrip() + "\n"


def _rows(parts: Row, number: str) -> list[Row]:
    rows: list[Row] = parts.get(number, {}).get("rows", [])
    return rows


def _about(row: Row) -> str:
    return ", ".join(str(v) for k, v in row.items() if k not in {"error", "took"})


def _against_cpu(rows: list[Row]) -> list[str]:
    quantities = ("losses", "logits", "gradient", "ΔW", "training")
    body = [
        [
            *(row[key] for key in ("editor", "task", "masks", "precision")),
            *(f"{row['errors'][q]:.1e}" if q in row["errors"] else "" for q in quantities),
            "pass" if row["passed"] else "FAIL",
        ]
        for row in rows
    ]
    lines = ["Largest relative error against the CPU in float32; gradients and ΔW tensor by tensor.", ""]
    return lines + table(("editor", "task", "masks", "precision", *quantities, ""), body)


def _recorded(rows: list[Row]) -> list[str]:
    quantities = ("losses", "gradient", "parameters", "training", "again")
    body = [
        [
            *(row[key] for key in ("editor", "task", "masks", "precision")),
            *(f"{row['errors'][q]:.1e}" if q in row["errors"] else "" for q in quantities),
            row["graphs"],
            "pass" if row["passed"] else "FAIL",
            "; ".join(row["said"]),
        ]
        for row in rows
    ]
    lines = ["Largest relative error of captured steps; `again` compares a second training with the first.", ""]
    return lines + table(("editor", "task", "masks", "precision", *quantities, "graphs", "", ""), body)


def _peaks(rows: list[Row]) -> list[str]:
    body = []
    for row in rows:
        if row["what"] == "product":
            body.append([f"product of {row['n']}², {row['precision']}", f"{row['flops'] / 1e12:.3g} TFLOP/s"])
        elif row["what"] == "copy":
            body.append(["copy, read and written", f"{row['bytes_per_second'] / 1e9:.4g} GB/s"])
        else:
            body.append(["one small operation", f"{row['seconds'] * 1e6:.2f} µs"])
    return table(("what", "median"), body)


def _speed(rows: list[Row], flops: dict[str, float]) -> list[str]:
    body = []
    for row in rows:
        rate, peak = row["edits_per_second"], flops.get(row["precision"])
        body.append(
            [
                *(row[key] for key in ("what", "editor", "task", "batch", "precision", "masks", "way")),
                _seconds(row["seconds"]),
                f"{rate:.4g}",
                f"{rate * row['gflop_per_edit'] * 1e9 / peak:.1%}" if peak else "",
                f"{row['hours']:.2f}" if "hours" in row else "",
                f"{row['peak_bytes'] / 2**30:.2f}" if "peak_bytes" in row else "",
            ]
        )
    head = ("what", "editor", "task", "batch", "precision", "masks", "way", "a call", "edits/s", "of the peak")
    lines = ["Inputs are random and tokenised beforehand. Hours are those of 500,000 edits, validation left out.", ""]
    return lines + table((*head, "hours", "peak GiB"), body)


def _profiles(rows: list[Row], flops: dict[str, float]) -> list[str]:
    body, phases = [], []
    for row in rows:
        named = [row[key] for key in ("editor", "task", "batch", "way")]
        body.append(
            [
                *named,
                _seconds(row["seconds"]),
                _seconds(row["busy_seconds"]) if "busy_seconds" in row else "",
                f"{row['busy']:.0%}" if "busy" in row else "",
                f"{row['traced_host']['waiting_share']:.0%}" if "traced_host" in row else "",
                *(f"{row[key]:.0f}" if key in row else "" for key in ("kernels", "copies", "synchronisations")),
                row["operations"],
            ]
        )
        cells = [
            f"{row['host_by_phase'].get(p, 0) * 1e3:.2f} ms, {row['operations_by_phase'].get(p, 0)}" for p in PHASES
        ]
        phases.append([*named, *cells])
    head = ("editor", "task", "batch", "way")
    lines = [
        "Busy is the time in which the GPU works, of a step without the profiler; waiting is the host's, under the",
        "profiler, which slows the host down.",
        "",
        *table((*head, "a step", "busy", "of a step", "waiting", "kernels", "copies", "syncs", "operations"), body),
        "",
        "Host time and dispatched operations by phase:",
        "",
        *table((*head, *PHASES), phases),
        "",
    ]
    for row in rows:
        if row.get("longest_kernels"):
            longest = "; ".join(
                f"{_seconds(k['seconds'])} in {k['times']:g} × `{k['name']}`" for k in row["longest_kernels"][:5]
            )
            lines.append(f"- {row['editor']}, {row['task']}, {row['batch']}: {longest}")
        if row.get("synchronised_at"):
            places = ", ".join(f"{place} ({times})" for place, times in row["synchronised_at"].items())
            lines.append(f"- {row['editor']}, {row['task']}, {row['batch']} waits at {places}")
    return lines


PHASES = (
    "prepare inputs",
    "trunk",
    "edit gradient",
    "masks",
    "method update",
    "losses",
    "backward",
    "optimiser",
    "rest",
)


def _grid(rows: list[Row]) -> list[str]:
    body = []
    for row in rows:
        for one in row["rows"]:
            cells = [f"{one[m]['here']:.3f} / {one[m]['published']:.3f}" for m in ("acc", "con", "succ")]
            body.append([one["approach"], one["training"], one["evaluation"], *cells])
    took = " and ".join(f"{row['seconds']:.0f} s" for row in rows)
    lines = [f"Seed 0 here / the mean of the published seeds, which were computed on a CPU. All cells took {took}.", ""]
    return lines + table(("approach", "training", "evaluation", "acc", "con", "succ"), body) if body else []


def table(head: Sequence[str], body: Sequence[Sequence[Any]]) -> list[str]:
    rows = ["| " + " | ".join(str(cell) for cell in line) + " |" for line in (head, *body)]
    return [rows[0], "|" + "---|" * len(head), *rows[1:], ""]


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 1 else f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.3g} µs"


def _plain(value: Any) -> str:
    return f"{value / 2**30:.1f} GiB" if isinstance(value, int) and value > 2**30 else str(value)
