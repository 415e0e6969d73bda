"""The conformance report as plain data, and as JSON (report.schema.json), Markdown and one self-contained HTML page."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from .conformance import (
    CONFORMS,
    NONCONFORMING,
    Implementation,
    Result,
    SuiteError,
    by_clause,
    clauses,
    counted,
    examples_by_clause,
)
from .contract import RULINGS

CHAPTERS = {
    "T": "The task",
    "M": "Metrics",
    "S": "Sampling",
    "A": "Masks",
    "B": "Budget",
    "E": "Editors",
    "L": "Objectives",
    "D": "Data",
    "R": "Reproduction",
}
Judgement = dict[str, Any]


def command(result: Result, implementation: Implementation) -> str:
    """The command, in the repository's root, that runs this test again."""
    parts = ["nox", "-s", "spec", "--", result.nodeid, "--implementation", implementation.spelling or "..."]
    if result.seed is not None:
        parts += ["--hypothesis-seed", str(result.seed)]
    return shlex.join(parts)


def judgement(
    implementation: Implementation,
    results: Sequence[Result],
    chapters: Sequence[str],
    *,
    exit_code: int,
    whole: bool,
    seeds: Sequence[int] = (),
    stale: Sequence[str] = (),
) -> Judgement:
    """Everything that the report says. `whole`: all tests of the chapters were run, to their end."""
    outcomes, examples = by_clause(results, chapters), examples_by_clause(results)
    deviations = implementation.deviations()
    return {
        "version": 1,
        "implementation": {
            "name": implementation.label,
            "claims": sorted(implementation.claims),
            "editors": list(implementation.editors) if "E" in implementation.claims else [],
            "deviations": [
                {"ruling": name, "declared": value, "required": RULINGS[name][0]} for name, value in deviations.items()
            ],
        },
        "run": {
            "chapters": list(chapters),
            "whole": whole,
            "seeds": list(seeds),
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}",
            "packages": {name: importlib.metadata.version(name) for name in ("hypothesis", "numpy", "pytest", "torch")},
        },
        "exit_code": exit_code,
        "verdict": verdict(exit_code, outcomes, whole, stale),
        "stale_known_failures": list(stale),
        "clauses": [
            {
                "id": name,
                "section": clauses()[name].section,
                "sentence": clauses()[name].sentence,
                "outcome": outcome,
                "deviation": deviations.get(clauses()[name].ruling or ""),
                "tests": sum(name in result.clauses for result in results),
                "examples": examples[name],
                "failures": [
                    _failure(result, implementation)
                    for result in results
                    if name in result.clauses and result.outcome not in ("passed", "not claimed")
                ],
            }
            for name, outcome in outcomes.items()
        ],
    }


def verdict(exit_code: int, outcomes: Mapping[str, str], whole: bool, stale: Sequence[str]) -> str:
    """One sentence."""
    known = sum(outcome == "known failure" for outcome in outcomes.values())
    if exit_code == CONFORMS:
        said = "conforms in all that it claims" + (f", but for {known} clauses with known failures" if known else "")
    elif exit_code == NONCONFORMING:
        said = "does not conform"
    else:
        said = "could not be judged" + (": the list of known failures is not true" if stale else "")
    return f"{said}; {counted(outcomes)}" + ("" if whole else "; only some of the tests were run")


def _failure(result: Result, implementation: Implementation) -> dict[str, Any]:
    violation = result.violation
    return {
        "test": result.nodeid,
        "outcome": result.outcome,
        "what": violation.what if violation else result.message,
        "inputs": dict(violation.inputs) if violation else {},
        "expected": violation.expected if violation else None,
        "got": violation.got if violation else None,
        "smallest_example": result.example or None,
        "known": result.reason or None,
        "command": command(result, implementation),
    }


def as_json(made: Judgement) -> str:
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def as_markdown(made: Judgement) -> str:
    lines = [f"# Conformance of {_md(made['implementation']['name'])}", "", f"**{_md(made['verdict'])}**", ""]
    lines += [f"- {_md(name)}: {_md(value)}" for name, value in facts(made)]
    for chapter, rows in _by_chapter(made):
        lines += ["", f"## {chapter}", "", "| clause | outcome | tests | examples | source | sentence |"]
        lines += ["|---|---|---:|---:|---|---|"]
        for row in rows:
            sentence = row["sentence"].replace("|", "\\|")
            cells = (row["id"], outcome(row), row["tests"], f"{row['examples']:,}", row["section"], sentence)
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    for row in made["clauses"]:
        for failure in row["failures"]:
            lines += ["", f"### {row['id']} {failure['outcome']}: {_md(failure['test'].rpartition('::')[2])}", ""]
            lines += _fenced(explained(failure))
            lines += ["", "Repeat it:", "", *_fenced(failure["command"])]
    return "\n".join(lines) + "\n"


def _md(text: str) -> str:
    return re.sub(r"([\\*_<>\[\]`|])", r"\\\1", text)


def _fenced(text: str) -> list[str]:
    fence = "`" * (max([2, *(len(run) for run in re.findall("`+", text))]) + 1)
    return [fence, *text.splitlines(), fence]


def outcome(row: Mapping[str, Any]) -> str:
    """A clause's outcome, with the alternative that it was tested against."""
    return row["outcome"] + (f" under the declared {row['deviation']!r}" if row["deviation"] else "")


def explained(failure: Mapping[str, Any]) -> str:
    """A failure in lines: what, on which inputs, expected and got."""
    lines = [f"known failure: {failure['known']}"] if failure["known"] else []
    lines.append(failure["what"])
    lines += [f"{name} = {value}" for name, value in failure["inputs"].items()]
    if failure["expected"] is not None:
        lines += [f"expected: {failure['expected']}", f"got:      {failure['got']}"]
    if failure["smallest_example"]:
        lines.append(failure["smallest_example"])
    return "\n".join(lines)


def facts(made: Judgement) -> list[tuple[str, str]]:
    """What was judged and how, for the head of a page."""
    who, run = made["implementation"], made["run"]
    lines = [("claims", ", ".join(who["claims"]) or "nothing"), ("chapters judged", ", ".join(run["chapters"]))]
    if who["editors"]:
        lines.append(("editors", ", ".join(who["editors"])))
    for deviation in who["deviations"]:
        required = f"{deviation['declared']} (required: {deviation['required']})"
        lines.append((f"declared deviation: {deviation['ruling']}", required))
    if run["seeds"]:
        lines.append(("Hypothesis seeds", f"{run['seeds'][0]} to {run['seeds'][-1]}"))
    packages = ", ".join(f"{name} {version}" for name, version in run["packages"].items())
    lines.append(("run with", f"Python {run['python']} on {run['machine']}, {packages}"))
    lines += [("known failures", line) for line in made["stale_known_failures"]]
    return lines


def _by_chapter(made: Judgement) -> Iterable[tuple[str, list[dict[str, Any]]]]:
    for chapter in made["run"]["chapters"]:
        rows = [row for row in made["clauses"] if row["id"][0] == chapter]
        if rows:
            yield f"{chapter}. {CHAPTERS[chapter]}", rows


STYLE = """
:root { color-scheme: light dark; --ink: #1c2126; --soft: #5a646c; --line: #d7dcdf; --page: #fff; --panel: #f4f6f7;
  --good: #00664a; --bad: #a6260f; --odd: #7a5400; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e7e9; --soft: #a2acb3; --line: #39434a; --page: #14191d;
  --panel: #1d2429; --good: #55cfa4; --bad: #ff9a85; --odd: #e7bd62; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, "Noto Sans", sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .4rem; }
.verdict { border-left: 5px solid var(--odd); background: var(--panel); padding: .7rem 1rem; font-weight: 600; }
.verdict.exit0 { border-color: var(--good); } .verdict.exit1 { border-color: var(--bad); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; font-size: .9rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.box { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--soft); } th[scope=row] { color: var(--ink); }
td.n, th.n { text-align: right; } td.o, td.s { white-space: nowrap; } td:last-child { min-width: 18rem; }
.passed { color: var(--good); } .failed, .crashed { color: var(--bad); font-weight: 700; }
.error, .known { color: var(--odd); font-weight: 700; } .not { color: var(--soft); }
details { margin: .5rem 0 0; } summary { cursor: pointer; overflow-wrap: anywhere; }
pre { background: var(--panel); padding: .6rem .8rem; overflow-x: auto; white-space: pre-wrap;
  overflow-wrap: anywhere; font-size: .8rem; margin: .4rem 0; }
code { font-size: .9em; }
@media (max-width: 40rem) { main { padding: 1rem .8rem 3rem; } dl { grid-template-columns: 1fr; }
  dd { margin: 0 0 .4rem; } }
"""


def as_html(made: Judgement) -> str:
    name = escape(made["implementation"]["name"])
    parts = [
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>Conformance of {name}</title>',
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}</style>\n</head>',
        f"<body>\n<main>\n<h1>Conformance of {name}</h1>",
        f'<p class="verdict exit{made["exit_code"]}">{escape(made["verdict"])}</p>\n<dl>',
        *(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in facts(made)),
        "</dl>",
    ]
    for chapter, rows in _by_chapter(made):
        parts.append(
            f'<h2>{escape(chapter)}</h2>\n<div class="box"><table>\n<thead><tr><th>clause</th><th>outcome</th>'
        )
        parts.append('<th class="n">tests</th><th class="n">examples</th><th>source</th><th>sentence</th></tr></thead>')
        parts.append("<tbody>")
        parts += map(_html_row, rows)
        parts.append("</tbody></table></div>")
    return "\n".join([*parts, "</main>\n</body>\n</html>\n"])


def _html_row(row: Mapping[str, Any]) -> str:
    sentence = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(row["sentence"]))
    folded = "".join(
        f"<details{'' if failure['known'] else ' open'}><summary>{escape(failure['outcome'])}: "
        f"{escape(failure['test'].rpartition('::')[2])}</summary>"
        f"<pre>{escape(explained(failure))}</pre><pre>{escape(failure['command'])}</pre></details>"
        for failure in row["failures"]
    )
    return (
        f'<tr id="{row["id"]}"><th scope="row">{row["id"]}</th>'
        f'<td class="o {row["outcome"].split()[0]}">{escape(outcome(row))}</td><td class="n">{row["tests"]}</td>'
        f'<td class="n">{row["examples"]:,}</td><td class="s">{escape(row["section"])}</td>'
        f"<td>{sentence}{folded}</td></tr>"
    )


WRITERS: Mapping[str, Callable[[Judgement], str]] = {".html": as_html, ".md": as_markdown, ".json": as_json}


def check(paths: Iterable[Path]) -> None:
    """Errors: SuiteError for a file that could not be written, before an hour was spent on what it would say."""
    for path in paths:
        if path.suffix not in WRITERS:
            raise SuiteError(f"--report {path}: expected a name that ends in {', '.join(WRITERS)}")
        if not path.absolute().parent.is_dir():
            raise SuiteError(f"--report {path}: there is no folder {path.absolute().parent}")


def write(made: Judgement, path: Path) -> None:
    """Write the report in the form that the file's ending names, all or nothing."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(WRITERS[path.suffix](made), encoding="utf-8")
    unfinished.replace(path)
