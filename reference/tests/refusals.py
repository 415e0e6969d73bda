"""What a command prints where it refuses something."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from lime_editing.__main__ import main


def refused(capsys: pytest.CaptureFixture[str], argv: Sequence[str], expected: Sequence[str], code: int = 2) -> None:
    """The command ends with this exit code and one sentence that has these parts, and says else only what it began."""
    capsys.readouterr()  # the bars of what was made before
    assert main(argv) == code
    said = capsys.readouterr()
    assert all(line.endswith(" …") for line in said.out.splitlines())
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    for part in expected:
        assert part in said.err
