"""The error tree. A user can fix a UserError: its message is one sentence with what, where and what to do.

UserError
├── DataError          unreadable data: names file, line and field
├── ModelError         an unusable model or tokenizer: names what was expected
└── LanguageError      an unknown language: lists the known ones (also a LookupError)
"""

from __future__ import annotations

from collections.abc import Sequence


class UserError(ValueError):
    """An error that the user can fix. The command line prints it without a traceback and exits with 2."""


class DataError(UserError):
    """Bad data: the message names the file, the line, the field and what was expected."""


class ModelError(UserError):
    """A model, tokenizer or checkpoint that does not fit."""


class LanguageError(UserError, LookupError):
    """An unknown language."""

    def __init__(self, language: str, known: Sequence[str], where: str = "here", remedy: str = "") -> None:
        super().__init__(f"unknown language {language!r}; known {where}: {', '.join(known) or 'none'}{remedy}")
