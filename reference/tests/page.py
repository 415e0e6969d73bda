"""The code blocks of CONTRIBUTING.md, which tests execute."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "CONTRIBUTING.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    """The code blocks in a language, in the order of the page."""
    return [text for kind, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")) if kind == language]


def example(name: str) -> str:
    """The Python block whose first line is a comment with this name."""
    (found,) = (text for text in blocks("python") if text.startswith(f"# {name}\n"))
    return found


def write_example(folder: Path, name: str) -> Path:
    """An example as a file."""
    path = folder / name
    path.write_text(example(name), encoding="utf-8")
    return path


def commands() -> Iterator[list[str]]:
    """The command lines of the page, as words; comments are left out."""
    for text in blocks("sh"):
        for line in text.splitlines():
            words = shlex.split(line, comments=True)
            while "&&" in words:
                at = words.index("&&")
                yield words[:at]
                words = words[at + 1 :]
            if words:
                yield words


def command_with(word: str) -> list[str]:
    """The arguments of `python -m lime_editing` in the command that has this word."""
    (found,) = (words for words in commands() if word in words and words[:3] == ["python", "-m", "lime_editing"])
    return found[3:]
