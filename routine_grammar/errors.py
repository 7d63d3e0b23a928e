"""Every error this package raises on purpose, one class per stage, and its warnings.

A message says what was found, what was expected, and where: the routine, step and field, the JSON pointer, the rule, or the
request's parameter. Nothing here knows any other module.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


class RoutineGrammarError(Exception):
    """Base of all errors raised on purpose by routine_grammar."""


class RoutineError(RoutineGrammarError):
    """A Routine is malformed, or does not fit its tools.

    `problems` holds one readable line per finding, each naming routine, step and field.
    """

    def __init__(self, message: str, problems: tuple[str, ...] = ()) -> None:
        super().__init__("\n".join((message, *problems)))
        self.problems = problems


class SchemaError(RoutineGrammarError):
    """A JSON Schema is invalid or allows nothing."""

    def __init__(self, message: str, *, pointer: str = "") -> None:
        super().__init__(f"{message} (at JSON pointer {pointer or '/'!r})")
        self.told = message
        self.pointer = pointer


class UnsupportedSchemaError(SchemaError):
    """A JSON Schema keyword that cannot be enforced exactly; it is never dropped silently."""

    def __init__(self, message: str, *, pointer: str, keyword: str) -> None:
        super().__init__(message, pointer=pointer)
        self.keyword = keyword


class GrammarError(RoutineGrammarError):
    """A grammar is malformed, ambiguous beyond what the automaton can hold, or empty."""


class GrammarTooLargeError(GrammarError):
    """A grammar passes one of the documented bounds; the message names the bound. `rule` is the one that does, if one does."""

    def __init__(self, message: str, *, rule: str | None = None) -> None:
        super().__init__(message)
        self.rule = rule


class VocabularyError(RoutineGrammarError):
    """A tokenizer can't be turned into tokens of bytes, or a token id is outside the vocabulary."""


class EngineError(RoutineGrammarError):
    """The inference engine is of an unsupported version, or refuses what it was given."""


class ToolError(RoutineGrammarError):
    """A tool is unknown, its server can't be reached, or its description is malformed."""


class ToolChangedError(ToolError):
    """A tool is no longer offered as it was listed: it is gone, or its schemas are others."""


class LostCallError(ToolError):
    """A tool was called and gave no result: its server or the time is gone, and the call may have had its effect."""


class MemoryKeyError(RoutineGrammarError):
    """A memory key is malformed, is not live, or holds no value of the needed type."""


class RunError(RoutineGrammarError):
    """A run of a Routine can't go on."""


class JournalError(RoutineGrammarError):
    """The database of runs can't be used, or has no such run; or the run is not in a state in which this can be done."""


class LeaseLostError(JournalError):
    """A run is carried out by another worker by now: this one may do nothing more in it."""


class SchemaWarning(UserWarning):
    """A tool's schema is not quite JSON Schema, and was read as what it must mean."""


@contextmanager
def plain_warnings() -> Iterator[None]:
    """For a command: show our warnings in one line each on standard error, without the line of Python that found them."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, SchemaWarning):
                print(f"warning: {' '.join(str(message).split())}", file=file or sys.stderr)
            else:
                usual(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield
