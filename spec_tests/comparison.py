"""Says what changed between two reports of one implementation, or between two implementations."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .conformance import SuiteError

Report = Mapping[str, Any]
#: What is read of a report's parts.
NEEDED = {
    "specification": ("version", "digest"),
    "implementation": ("name", "claims", "editors", "deviations"),
    "run": ("date", "chapters", "whole", "part", "dtype", "python", "machine", "packages"),
}


def read(path: Path) -> Report:
    """A report that was written as JSON. Errors: SuiteError where it is none, or of another form."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read: {error.strerror}; expected what --report out.json writes") from error
    except ValueError as error:
        raise SuiteError(f"{path} is not JSON ({error}); expected what --report out.json writes") from error
    if not isinstance(found, dict) or not {"version", "clauses", "run", "specification"} <= set(found):
        raise SuiteError(f"{path} is no conformance report; expected what --report out.json writes")
    if found["version"] != 2:
        raise SuiteError(f"{path} has form {found['version']} of the report; this program reads form 2")
    lacking = [f"{part}.{name}" for part, names in NEEDED.items() for name in names if name not in _part(found, part)]
    lacking += [name for name in ("exit_code", "verdict", "tests") if name not in found]
    if lacking:
        raise SuiteError(f"{path} lacks {', '.join(lacking)}; was it changed by hand?")
    rows = found["clauses"] if isinstance(found["clauses"], list) else [None]
    if not all(isinstance(row, dict) and {"id", "outcome", "why", "sentence"} <= set(row) for row in rows):
        raise SuiteError(f"{path} has clauses without id, outcome, why or sentence; was it changed by hand?")
    return found


def _part(report: Report, name: str) -> Mapping[str, Any]:
    found = report.get(name)
    return found if isinstance(found, dict) else {}


def compare(before: Report, after: Report) -> list[str]:
    """What changed, in lines: the specification, the surroundings, each clause, each test."""
    lines = [f"before: {_head(before)}", f"after:  {_head(after)}", ""]
    told = [
        *_specification(before, after),
        *_surroundings(before, after),
        *_clauses(before, after),
        *_tests(before, after),
    ]
    return [*lines, *(told or ["nothing changed"])]


def _head(report: Report) -> str:
    return f"{report['implementation']['name']}, {report['run']['date']}: {report['verdict']}"


def _specification(before: Report, after: Report) -> list[str]:
    old, new = before["specification"], after["specification"]
    if old == new:
        return []
    if old["version"] == new["version"]:
        return [f"specification {new['version']} with another suite or fixtures: {old['digest']} → {new['digest']}"]
    return [f"specification: {old['version']} ({old['digest']}) → {new['version']} ({new['digest']})"]


def _surroundings(before: Report, after: Report) -> list[str]:
    """Versions, declared alternatives, what is claimed, in which width and which chapters."""

    def told(report: Report) -> dict[str, str]:
        who, run = report["implementation"], report["run"]
        where = who.get("environment") or run
        found = {"Python": where["python"], "machine": where["machine"], "width": run["dtype"]}
        found |= {name: version or "none" for name, version in where["packages"].items()}
        found |= {f"ruling {one['ruling']}": one["declared"] for one in who["deviations"]}
        found |= {"claims": ", ".join(who["claims"]), "editors": ", ".join(who["editors"]) or "none"}
        return {**found, "chapters": ", ".join(run["chapters"]), "tests": run["part"] or "all"}

    old, new = told(before), told(after)
    names = [name for name in (old | new) if old.get(name, "as required") != new.get(name, "as required")]
    return [f"{name}: {old.get(name, 'as required')} → {new.get(name, 'as required')}" for name in names]


def _clauses(before: Report, after: Report) -> list[str]:
    old, new = ({row["id"]: row for row in report["clauses"]} for report in (before, after))
    lines = []
    for name in old | new:
        if name not in new:
            lines.append(f"{name}: gone; it was {_outcome(old[name])}")
        elif name not in old:
            lines.append(f"{name}: new; it is {_outcome(new[name])}")
        else:
            if old[name]["sentence"] != new[name]["sentence"]:
                lines.append(f"{name}: asks for something else: {new[name]['sentence']}")
            if _outcome(old[name]) != _outcome(new[name]):
                lines.append(f"{name}: {_outcome(old[name])} → {_outcome(new[name])}")
    return lines


def _outcome(row: Mapping[str, Any]) -> str:
    return row["outcome"] + (f" ({row['why']})" if row["why"] else "")


def _tests(before: Report, after: Report) -> list[str]:
    """Tests that are new or gone, and those that came out otherwise, by names that do not depend on a folder."""
    old, new = ({short(name): outcome for name, outcome in report["tests"].items()} for report in (before, after))
    lines = [f"test gone: {name}" for name in old if name not in new]
    lines += [f"test new: {name} ({new[name]})" for name in new if name not in old]
    both = [name for name in old if name in new and old[name] != new[name]]
    return [*lines, *(f"test {name}: {old[name]} → {new[name]}" for name in both)]


def short(nodeid: str) -> str:
    """A test's id without the folder that the suite lies in."""
    return re.sub(r"^[^:]*?(?=test_\w+\.py)", "", nodeid)
