"""`check-data`: what data hold, what they lack in which language, and what a run would skip and why."""

from __future__ import annotations

import json
from pathlib import Path

from .. import data
from ..data import Reader, files
from ..data.examination import Examination
from .options import CheckData
from .sources import here


def check_data(options: CheckData) -> None:
    """The command. DataError, LanguageError, ModelError: as a run would."""
    path = here(options.path, options.offline, hub=options.task == "facts")
    dataset = data.find(options.task or task_of(path))
    assert dataset.examine is not None
    found = dataset.examine(path, options.languages, _reader(options.model) if options.model else None)
    print(json.dumps(found.as_dict(), indent=2, ensure_ascii=False) if options.json else text(found))


def _reader(model: str) -> Reader:
    from ..core.backbone import load_tokenizer, max_tokens  # noqa: PLC0415  torch takes seconds to import

    return Reader(load_tokenizer(model), max_tokens(model))


def task_of(source: str) -> str:
    """Facts or pairs, by the names of files and columns. DataError: a table that cannot be read."""
    path = Path(source)
    if path.is_dir():
        if any(next(path.glob(f"{depth}*/templates.jsonl"), None) for depth in ("", "*/", "*/*/")):
            return "facts"
        found = files.of_folder(path, "**/*")
    elif path.is_file():
        found = files.of_folder(path.parent, path.name)
    else:
        return "facts"
    tables = [name for name in found.openers if name.lower().endswith(files.TABLES)]
    return "nli" if tables and "premise" in files.columns_of(found, tables[0]) else "facts"


def text(found: Examination) -> str:
    """The report as lines for a person."""
    lines = [f"{found.source}: {found.task}, fingerprint {found.fingerprint}"]
    lines += [", ".join(f"{name} {count:,}" for name, count in found.counts.items())]
    for name, numbers in found.splits.items():
        lines.append(f"  {name:<12}" + ", ".join(f"{what} {count:,}" for what, count in numbers.items()))
    lines += ["", f"  {'language':<12}{'has':>10}{'lacks':>10}" + "".join(f"{split:>12}" for split in found.splits)]
    for code, language in found.languages.items():
        row = f"  {code:<12}{language.has:>10,}{language.lacks:>10,}"
        row += "".join(f"{count:>12,}" for count in language.splits.values())
        lacks = language.lacking_relations
        lines.append(row + (f"  no facts of {', '.join(lacks)}" if lacks else ""))
    lines += ["", "skipped: nothing"] if not found.skipped else ["", "skipped:"]
    lines += [f"  {count:>10,}  {reason}" for reason, count in found.skipped.items()]
    lines += ["", "remarks:", *(f"  {remark}" for remark in found.remarks)] if found.remarks else []
    return "\n".join(lines)
