"""`check-data`: the content of data, gaps by language, and what a run would skip and why."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from .. import data
from ..data import Dataset, Reader, files
from ..data.download import OF_FACTS
from ..data.examination import Examination
from ..errors import UserError
from ..report.template import render
from .options import CheckData
from .output import console, doing, here, print_json


def check_data(options: CheckData) -> None:
    path = here(options.path, options.offline, data.find(options.task).patterns if options.task else OF_FACTS)
    dataset = data.find(options.task or task_of(path))
    if dataset.examine is None:
        raise UserError(f"check-data cannot look at data of the task {dataset.name}: its data set has no `examine`")
    if dataset.classifies or options.model:
        from ..reproduce.processes import quiet  # noqa: PLC0415  (torch)

        quiet()
    with doing(console(stderr=True), f"reading {path}", at_once=False):
        model = _model(options.model, dataset) if options.model else (None, None, "")
        found = dataset.examine(path, options.languages, *model)
    print_json(found.as_dict()) if options.json else print(text(found))


def _model(model: str, dataset: Dataset) -> tuple[Reader, Any, str]:
    from ..backbone import configuration, fingerprint, load, load_tokenizer, max_tokens  # noqa: PLC0415  (torch)
    from ..reproduce.run import check_fit, classes_of, reader_of  # noqa: PLC0415

    tokenizer, config = load_tokenizer(model), configuration(model)
    classifier = any(name.endswith("ForSequenceClassification") for name in config.architectures or ())
    if dataset.classifies and classifier:
        backbone = load(model, 1, classifier=True)
        return reader_of(tokenizer, backbone), partial(classes_of, backbone), fingerprint(backbone, tokenizer)
    check_fit(tokenizer, config.vocab_size, model, masked=not dataset.classifies)
    return Reader(tokenizer, max_tokens(model)), None, ""


def task_of(source: str) -> str:
    """Facts or pairs, from the names of files and columns. DataError: an unreadable table."""
    with files.opened(Path(source)) as found:
        if any(name.endswith("/templates.jsonl") for name in found.openers) or not found.tables:
            return "facts"
        columns = set(files.columns_of(found, found.tables[0]))
        return "nli" if columns & {"premise", "hypothesis", "sentence1"} else "facts"


def text(found: Examination) -> str:
    return render("examination.txt.jinja", found=found)
