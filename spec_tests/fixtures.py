"""Where the fixtures are, and the digest of all that a verdict depends on beside the implementation."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
#: In the repository beside the suite; in an installed package inside of it.
FIXTURES = next(
    (folder for folder in (HERE / "fixtures", HERE.parent / "fixtures") if folder.is_dir()), HERE / "fixtures"
)
#: The fixtures that tests read.
READ = ("golden/*.json", "raw_model/*", "facts/mlama1.1/*/*.jsonl")


@functools.cache
def digest() -> str:
    """Of the suite's files and the fixtures that it reads, by their names and contents."""
    found = hashlib.blake2b(digest_size=8)
    for name, path in sorted(_files()):
        found.update(f"{name}\0".encode())
        found.update(path.read_bytes().replace(b"\r\n", b"\n") if path.suffix != ".safetensors" else path.read_bytes())
    return found.hexdigest()


def _files() -> Iterator[tuple[str, Path]]:
    for pattern in ("*.py", "*.md", "*.json"):
        yield from ((f"suite/{path.name}", path) for path in HERE.glob(pattern))
    for pattern in READ:
        for path in FIXTURES.glob(pattern):
            yield f"fixtures/{path.relative_to(FIXTURES).as_posix()}", path
