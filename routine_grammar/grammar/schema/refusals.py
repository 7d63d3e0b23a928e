"""Why a schema is not compiled, before it is known where: errors that callers turn into ones with a pointer."""

from __future__ import annotations

from routine_grammar.errors import SchemaError


class Undecided(Exception):
    """What can't be told or written exactly."""


class UnderWay(Undecided):
    """What is only known when a schema around it is: it can't be asked for yet."""


class Circle(Undecided):
    """References that lead to each other and to nothing else."""


class NothingAllowed(SchemaError):
    """A shape that turned out to have no value."""
