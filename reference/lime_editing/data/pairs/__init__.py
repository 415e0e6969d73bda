"""Sentence pairs (XNLI, or a corpus of one's own): one input of two texts, whose class is predicted."""

from __future__ import annotations

from .. import Dataset
from .examine import examine
from .question import question
from .read import fingerprint, read
from .task import accuracy_of, errors, labelled, tasks

DATASET = Dataset(
    name="nli",
    title="NLI",
    classifies=True,
    read=read,
    fingerprint=fingerprint,
    tasks=tasks,
    errors=errors,
    labelled=labelled,
    accuracy=accuracy_of,
    question=question,
    examine=examine,
)
