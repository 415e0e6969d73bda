"""`make-classifier`: fine-tune a raw classifier of sentence pairs."""

from __future__ import annotations

from .. import data, results
from ..reproduce import classifier, processes
from ..reproduce.cells import Sources
from .options import MakeClassifier
from .output import console, doing, here
from .reproduce import make_classifier as make
from .sources import scale_of


def make_classifier(options: MakeClassifier) -> None:
    """The command; it prints the folder of the classifier last. UserError: as of `classifier.find` and `make`."""
    dataset, scale = data.find("nli"), scale_of(options.scale, options.set)
    source = here(options.nli or scale.data[dataset.name], options.offline, dataset.patterns)
    processes.quiet()
    results.check_place(options.results / scale.name)
    out, sources = console(), Sources(source, options.model, None, options.device, options.precision)
    with doing(out, f"reading {source} and {options.model}"):
        wanted = classifier.find(dataset, scale.task(dataset), sources, options.results / scale.name)
    make(out, wanted)
    print(wanted.folder)
