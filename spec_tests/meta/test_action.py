"""The action of the repository calls the command as it is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from .. import cli

ROOT = Path(__file__).parents[2]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS = {step.get("id", f"step {place}"): step for place, step in enumerate(ACTION["runs"]["steps"])}
#: A program in the place of lime-spec: it notes how it was called, and writes what was asked of it.
STUB = """#!/usr/bin/env python3
import json, os, sys
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
for path in sys.argv:
    if path.endswith((".json", ".md", ".html", ".svg")):
        open(path, "a").write("made\\n")
sys.exit(int(os.environ["CODE"]) if sys.argv[1] != "badge" else 0)
"""
NO_BASH = pytest.mark.skipif(os.name == "nt" or shutil.which("bash") is None, reason="the steps are for bash")


def judged(folder: Path, **given: str) -> tuple[int, list[list[str]], str]:
    """Exit code, calls and outputs of the step that judges."""
    programs = folder / "lime-spec" / "bin"
    programs.mkdir(parents=True)
    (programs / "lime-spec").write_text(STUB)
    (programs / "lime-spec").chmod(0o755)
    inputs = {name: str(one.get("default", "")) for name, one in ACTION["inputs"].items()} | {"implementation": "mine"}
    wanted = STEPS["judge"]["env"].items()
    environment = {name: inputs.get(_of(value), "/their/python") for name, value in wanted} | given
    files = {name: folder / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "CALLS")}
    for file in files.values():
        file.touch()
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", STEPS["judge"]["run"]],
        cwd=folder,
        env=os.environ | {"RUNNER_TEMP": str(folder), **{k: str(v) for k, v in files.items()}, **environment},
        check=False,
    )
    calls = [json.loads(line) for line in files["CALLS"].read_text().splitlines()]
    return done.returncode, calls, files["GITHUB_OUTPUT"].read_text()


def _of(value: str) -> str:
    return value.replace("${{", "").replace("}}", "").strip().removeprefix("inputs.")


@NO_BASH
@pytest.mark.parametrize("code", [0, 1, 2])
def test_it_judges_and_reports(tmp_path: Path, code: int) -> None:
    """The command's exit code is the step's, whatever it is, and the reports and the badge are written."""
    returned, calls, outputs = judged(tmp_path, CODE=str(code), CHAPTERS="M,S", ARGUMENTS="--leave-out E10")
    assert returned == code
    assert outputs == f"code={code}\n"
    judging, badge = calls
    assert judging[:6] == ["--implementation", "mine", "--python", "/their/python", "--chapters", "M,S"]
    assert judging[-2:] == ["--leave-out", "E10"]
    assert badge == ["badge", "lime-spec-report.json", "lime-spec-report.svg"]
    assert (tmp_path / "lime-spec-report.html").exists()


@NO_BASH
def test_what_is_not_given_is_not_passed_on(tmp_path: Path) -> None:
    """No empty option reaches the command, which knows each that does."""
    _, calls, _ = judged(tmp_path, CODE="0")
    options = [part for part in calls[0] if part.startswith("--")]
    assert options == ["--implementation", "--python", "--report", "--report", "--report"]
    assert all(option in (cli.__doc__ or "") for option in [*options, "--chapters", "--xfails", "--leave-out"])
    assert "" not in calls[0]


@NO_BASH
@pytest.mark.parametrize("step", [name for name, step in STEPS.items() if "run" in step])
def test_every_step_is_a_script(step: str) -> None:
    """As bash reads it."""
    subprocess.run(["bash", "-n", "-c", STEPS[step]["run"]], check=True)
