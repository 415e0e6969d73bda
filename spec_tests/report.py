"""The conformance report as plain data, and as JSON (report.schema.json), Markdown and one self-contained HTML page."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from .comparison import short
from .conformance import HERE, Implementation, SuiteError, chapter_titles, clauses, details, version
from .contract import RULINGS
from .fixtures import digest
from .verdicts import (
    SILENT,
    Result,
    causes,
    examples_by_clause,
    judged,
    lacking,
    seconds_by_clause,
    shown_in,
    verdict,
    verdicts,
)

Judgement = dict[str, Any]
IN_REPOSITORY = (HERE.parent / "noxfile.py").is_file()


def command(result: Result, implementation: Implementation) -> str:
    """The command that runs this test again: in the repository's root, or anywhere where the suite is installed."""
    parts = ["nox", "-s", "spec", "--", result.nodeid] if IN_REPOSITORY else ["lime-spec", short(result.nodeid)]
    parts += ["--implementation", implementation.spelling or "..."]
    if implementation.python is not None:
        parts += ["--python", implementation.python]
    if result.seed is not None:
        parts += ["--hypothesis-seed", str(result.seed)]
    if result.dtype:
        parts += ["--dtype", result.dtype]
    return shlex.join(parts)


def judgement(
    implementation: Implementation,
    results: Sequence[Result],
    chapters: Sequence[str],
    *,
    exit_code: int,
    whole: bool,
    part: str = "",
    dtype: str = "float64",
    seeds: Sequence[int] = (),
    stale: Sequence[str] = (),
) -> Judgement:
    """Everything that the report says. `whole`: all tests of the chapters were run, to their end; else `part` says."""
    results = judged(results)
    deviations = implementation.deviations()
    return {
        "version": 2,
        "specification": {"version": version(), "digest": digest()},
        "implementation": {
            "name": implementation.label,
            "claims": sorted(implementation.claims),
            "editors": list(implementation.editors) if "E" in implementation.claims else [],
            "deviations": [
                {"ruling": name, "declared": value, "required": RULINGS[name][0]} for name, value in deviations.items()
            ],
            "lacking": lacking(results),
            "environment": implementation.environment,
        },
        "run": {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "chapters": list(chapters),
            "whole": whole,
            "part": part,
            "not_run": [
                {"test": result.nodeid, "clauses": list(result.clauses), "why": result.message or result.outcome}
                for result in results
                if result.outcome in SILENT
            ],
            "dtype": dtype,
            "seeds": list(seeds),
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}",
            "packages": {name: _installed(name) for name in PACKAGES},
        },
        "exit_code": exit_code,
        "verdict": verdict(results, chapters, code=exit_code, part=part, stale=stale),
        "tests": {short(result.nodeid): result.outcome for result in results},
        "causes": [
            {
                "clause": cause.clause,
                "outcome": cause.outcome,
                "what": cause.what,
                "editors": list(cause.editors),
                "tests": cause.tests,
            }
            for cause in causes(results)
        ],
        "warnings": [
            {"function": function, "category": category, "message": message, "count": count}
            for (function, category, message), count in sorted(implementation.journal.warnings.items())
        ],
        "stale_known_failures": list(stale),
        "clauses": _clauses(implementation, results, chapters, deviations),
    }


#: What a report names the versions of.
PACKAGES = ("hypothesis", "numpy", "pytest", "torch", "transformers")


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _clauses(
    implementation: Implementation, results: Sequence[Result], chapters: Sequence[str], deviations: Mapping[str, str]
) -> list[dict[str, Any]]:
    examples, seconds = examples_by_clause(results), seconds_by_clause(results)
    return [
        {
            "id": name,
            "section": clauses()[name].section,
            "since": clauses()[name].since,
            "changed": clauses()[name].changed,
            "sentence": clauses()[name].sentence,
            "outcome": found.outcome,
            "why": found.why or None,
            "deviation": ", ".join(deviations[one] for one in clauses()[name].rulings if one in deviations) or None,
            "tests": sum(name in result.clauses for result in results),
            "examples": examples[name],
            "seconds": round(seconds[name], 2),
            "failures": [
                _failure(result, implementation)
                for result in results
                if name in result.blamed and result.outcome not in ("passed", *SILENT) and not result.after
            ],
        }
        for name, found in verdicts(results, chapters).items()
    ]


def _failure(result: Result, implementation: Implementation) -> dict[str, Any]:
    violation = result.violation
    return {
        "test": result.nodeid,
        "outcome": result.outcome,
        "what": violation.told if violation else result.message,
        "inputs": dict(violation.inputs) if violation else {"call": result.call} if result.call else {},
        "expected": violation.expected if violation else None,
        "got": violation.got if violation else None,
        "tolerance": violation.tolerance or None if violation else None,
        "smallest_example": result.example or None,
        "known": result.reason or None,
        "command": command(result, implementation),
    }


def as_json(made: Judgement) -> str:
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def as_markdown(made: Judgement) -> str:
    lines = [f"# Conformance of {_md(made['implementation']['name'])}", "", f"**{_md(made['verdict'])}**", ""]
    if made["causes"]:
        lines += [
            "What is wrong, each fault once:",
            "",
            *(f"- **{c['clause']}** {_md(cause(c))}" for c in made["causes"]),
            "",
        ]
    lines += [f"- {_md(name)}: {_md(value)}" for name, value in facts(made)]
    for chapter, rows in _by_chapter(made):
        lines += [
            "",
            f"## {chapter}",
            "",
            "| clause | outcome | tests | examples | seconds | source | since | sentence |",
        ]
        lines += ["|---|---|---:|---:|---:|---|---|---|"]
        for row in rows:
            sentence = row["sentence"].replace("|", "\\|")
            cells = (row["id"], outcome(row), row["tests"], f"{row['examples']:,}", seconds(row), row["section"])
            cells += (since(row), sentence)
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
    """A clause's outcome, why it is so where that is not plain, and the alternative that it was tested against."""
    why = f" ({row['why']})" if row["why"] else ""
    return row["outcome"] + why + (f" under the declared {row['deviation']!r}" if row["deviation"] else "")


def seconds(row: Mapping[str, Any]) -> str:
    """How long a clause's tests took, where it was a second or more."""
    return f"{row['seconds']:.1f}" if row["seconds"] >= 1 else ""


def since(row: Mapping[str, Any]) -> str:
    return row["since"] + (f", changed {row['changed']}" if row["changed"] else "")


def cause(one: Mapping[str, Any]) -> str:
    """A fault in a line, without its clause."""
    return f"{one['what']}{shown_in(one['editors'], one['tests'])}"


def explained(failure: Mapping[str, Any]) -> str:
    """A failure in lines: what, on which inputs, expected and got."""
    lines = [f"known failure: {failure['known']}"] if failure["known"] else []
    lines.append(failure["what"])
    lines += details(**{name: failure[name] for name in ("inputs", "what", "expected", "got", "tolerance")})
    if failure["smallest_example"]:
        lines.append(failure["smallest_example"])
    return "\n".join(lines)


def facts(made: Judgement) -> list[tuple[str, str]]:
    """What was judged and how, for the head of a page."""
    who, run, specification = made["implementation"], made["run"], made["specification"]
    said = f"version {specification['version']}, suite and fixtures {specification['digest']}"
    lines = [("specification", said), ("date", run["date"])]
    lines += [("claims", ", ".join(who["claims"]) or "nothing"), ("chapters judged", ", ".join(run["chapters"]))]
    if who["editors"]:
        lines.append(("editors", ", ".join(who["editors"])))
    for deviation in who["deviations"]:
        required = f"{deviation['declared']} (required: {deviation['required']})"
        lines.append((f"declared deviation: {deviation['ruling']}", required))
    for owner, names in who["lacking"].items():
        lines.append((f"{owner} is claimed in part", f"lacks {', '.join(names)}"))
    if run["part"]:
        lines.append(("what was run", run["part"]))
    whys = Counter(one["why"] for one in run["not_run"])
    lines += [("tests that were not run", f"{count}: {why}") for why, count in whys.items()]
    broken: dict[str, list[str]] = {}
    for row in made["clauses"]:
        for what in dict.fromkeys(one["what"] for one in row["failures"] if one["outcome"] == "error"):
            broken.setdefault(what.partition("\n")[0], []).append(row["id"])
    lines += [("could not be judged", f"{', '.join(concerned)}: {what}") for what, concerned in broken.items()]
    if run["seeds"]:
        lines.append(("Hypothesis seeds", f"{run['seeds'][0]} to {run['seeds'][-1]}"))
    packages = ", ".join(f"{name} {version}" for name, version in run["packages"].items() if version)
    lines.append(("run with", f"Python {run['python']} on {run['machine']}, {packages}; handed out in {run['dtype']}"))
    if who["environment"]:
        lines.append(("judged in", f"{where(who['environment'])}, in a process of its own"))
    for one in made["warnings"]:
        lines.append((f"warnings in {one['function']}", f"{one['count']} × {one['category']}: {one['message']}"))
    lines += [("known failures", line) for line in made["stale_known_failures"]]
    return lines


def where(environment: Mapping[str, Any]) -> str:
    """The versions of another interpreter."""
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    return f"Python {environment['python']} on {environment['machine']}, {packages}"


def _by_chapter(made: Judgement) -> Iterable[tuple[str, list[dict[str, Any]]]]:
    for chapter in made["run"]["chapters"]:
        rows = [row for row in made["clauses"] if row["id"][0] == chapter]
        if rows:
            yield f"{chapter}. {chapter_titles()[chapter]}", rows


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
        f'<p class="verdict exit{made["exit_code"]}">{escape(made["verdict"])}</p>',
        *_html_causes(made["causes"]),
        "<dl>",
        *(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in facts(made)),
        "</dl>",
    ]
    for chapter, rows in _by_chapter(made):
        parts.append(
            f'<h2>{escape(chapter)}</h2>\n<div class="box"><table>\n<thead><tr><th>clause</th><th>outcome</th>'
        )
        parts.append('<th class="n">tests</th><th class="n">examples</th><th class="n">seconds</th><th>source</th>')
        parts.append("<th>since</th><th>sentence</th></tr></thead>\n<tbody>")
        parts += map(_html_row, rows)
        parts.append("</tbody></table></div>")
    return "\n".join([*parts, "</main>\n</body>\n</html>\n"])


def _html_causes(found: Sequence[Mapping[str, Any]]) -> list[str]:
    if not found:
        return []
    items = [f'<li><a href="#{one["clause"]}">{one["clause"]}</a> {escape(cause(one))}</li>' for one in found]
    return ["<p>What is wrong, each fault once:</p>", "<ul>", *items, "</ul>"]


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
        f'<td class="n">{row["examples"]:,}</td><td class="n">{seconds(row)}</td>'
        f'<td class="s">{escape(row["section"])}</td><td class="s">{escape(since(row))}</td>'
        f"<td>{sentence}{folded}</td></tr>"
    )


WRITERS: Mapping[str, Callable[[Judgement], str]] = {".html": as_html, ".md": as_markdown, ".json": as_json}


def check(paths: Iterable[Path]) -> None:
    """Errors: SuiteError for a file that could not be written, before an hour was spent on what it would say."""
    for path in paths:
        if path.suffix not in WRITERS:
            raise SuiteError(f"--report {path}: expected a name that ends in {', '.join(WRITERS)}")
        if not path.absolute().parent.is_dir():
            raise SuiteError(f"--report {path}: there is no folder {path.absolute().parent}; make it first")
        if path.is_dir():
            raise SuiteError(f"--report {path}: it is a folder; name a file")
        if not os.access(path.absolute().parent, os.W_OK):
            raise SuiteError(
                f"--report {path}: nothing can be written in {path.absolute().parent}; name another folder"
            )


def write(made: Judgement, path: Path) -> None:
    """Write the report in the form that the file's ending names, all or nothing."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(WRITERS[path.suffix](made), encoding="utf-8")
    unfinished.replace(path)
