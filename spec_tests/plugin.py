"""The plugin that pytest loads where this package is installed: it sums up what `lime_spec.clauses` found.

It does nothing in a run that has no such tests.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("lime-spec")
    group.addoption("--conformance-report", metavar="FILE", help="write the reports of `clauses` as JSON")


def pytest_configure(config: pytest.Config) -> None:
    for name in ("clause(*ids)", "needs(*names)"):
        config.addinivalue_line("markers", f"{name}: of the tests of lime-spec")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    made = sys.modules.get(f"{__package__}.own_suite")
    judged = [judgement for judgement in getattr(made, "MADE", ()) if judgement.report is not None]
    for number, judgement in enumerate(judged, 1):
        version = judgement.report["specification"]["version"]
        terminalreporter.section(f"specification {version}: {judgement.implementation}")
        terminalreporter.line(judgement.report["verdict"])
        if config.getoption("conformance_report"):
            path = Path(config.getoption("conformance_report"))
            path = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
            path.write_text(json.dumps(judgement.report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            terminalreporter.line(f"report: {path}")
