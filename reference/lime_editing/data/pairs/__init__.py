"""Sentence pairs (XNLI, or a corpus of one's own): one input of two texts, whose class is predicted."""

from __future__ import annotations

from .. import Dataset
from .examine import examine
from .question import question
from .read import CONFIG, fingerprint, read
from .task import accuracy_of, errors, labelled, misfits, tasks

DATASET = Dataset(
    name="nli",
    title="NLI",
    classifies=True,
    patterns=(f"{CONFIG}/*",),
    read=read,
    fingerprint=fingerprint,
    tasks=tasks,
    remarks=lambda source, pairs: list(pairs.notes),
    misfits=misfits,
    errors=errors,
    labelled=labelled,
    accuracy=accuracy_of,
    question=question,
    examine=examine,
)
