"""`make-classifier`: fine-tune a raw classifier of sentence pairs."""

from __future__ import annotations

import sys

from rich.console import Console

from .. import data
from ..reproduce import classifier, processes
from ..reproduce.cells import Sources
from .options import MakeClassifier
from .reproduce import make_classifier as make
from .sources import here, scale_of


def make_classifier(options: MakeClassifier) -> None:
    """The command; it prints the folder of the classifier last. UserError: as of `classifier.find` and `make`."""
    dataset, scale = data.find("nli"), scale_of(options.scale, options.set)
    source = here(options.nli or scale.data[dataset.name], options.offline, hub=False)
    processes.quiet()
    console = Console(width=None if sys.stdout.isatty() else 120)
    sources = Sources(source, options.model, None, options.device, options.precision)
    wanted = classifier.find(dataset, scale.task(dataset), sources, options.results / scale.name)
    make(console, wanted)
    print(wanted.folder)
