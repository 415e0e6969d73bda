"""Facts (mLAMA, or a corpus of one's own): masked sentences whose answer is an entity's name."""

from __future__ import annotations

from .. import Dataset
from .examine import examine
from .question import question
from .read import read
from .task import disagreements, fingerprint, tasks

DATASET = Dataset(
    name="facts",
    title="Facts",
    classifies=False,
    read=read,
    fingerprint=fingerprint,
    tasks=tasks,
    remarks=disagreements,
    question=question,
    examine=examine,
)
