"""The error tree. What a user can fix is a UserError: one sentence that says what, where and what to do.

UserError
├── DataError          a corpus that cannot be read: names file, line and field
├── ModelError         a model or tokenizer that cannot be used: names what was looked for
└── LanguageError      an unknown language: lists the known ones (also a LookupError)
"""

from __future__ import annotations

from collections.abc import Sequence


class UserError(ValueError):
    """Something that the user can fix. The command line prints it without a traceback and exits with 2."""


class DataError(UserError):
    """Bad data: the message names the file, the line, the field and what was expected."""


class ModelError(UserError):
    """A model, tokenizer or checkpoint that does not fit."""


class LanguageError(UserError, LookupError):
    """A language that is not there."""

    def __init__(self, language: str, known: Sequence[str], where: str = "here") -> None:
        super().__init__(f"unknown language {language!r}; known {where}: {', '.join(known) or 'none'}")
