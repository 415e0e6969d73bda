"""Facts (mLAMA, or a corpus of one's own): masked sentences whose answer is an entity's name."""

from __future__ import annotations

from .. import Dataset
from .examine import examine, remarks
from .question import question
from .read import read
from .task import fingerprint, misfits, tasks

DATASET = Dataset(
    name="facts",
    title="Facts",
    classifies=False,
    read=read,
    fingerprint=fingerprint,
    tasks=tasks,
    remarks=remarks,
    misfits=misfits,
    question=question,
    examine=examine,
)
