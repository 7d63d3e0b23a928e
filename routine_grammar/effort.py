"""A bound on the work of one compile, counted where grammars may ask for much of it: the same everywhere, unlike time."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from routine_grammar.errors import GrammarTooLargeError

MAX_EFFORT = 800_000  # a unit is about a microsecond, and less where a machine is left alone
# What some pieces of work take.
A_PLACE, A_PATTERN, CELLS_A_UNIT = 4, 1500, 20  # of a pattern's automaton: a point, the whole, cells of its table
AN_ATOM, A_WAY = 5, 7  # of a regular expression: read, written
A_PAIR, OF_OBJECTS = 12, 50  # of shapes that meet
A_SCHEMA, A_REFERENCE, A_COMPOUND = 45, 90, 40  # of a schema: read, referred to, an array or object laid out
A_VALUE, A_NUMBER = 22, 28  # of it, too: a value or a name that is written out, what a number takes more
A_PART = 90  # properties by what several schemas say of them
A_NODE, A_PIECE = 2, 25  # of a grammar: a node, a piece of its Lark text


class _Collecting:
    """Garbage collection waits while any thread is within; then it goes on, if it was on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._within = 0
        self._was_on = False

    def __enter__(self) -> None:
        with self._lock:
            if not self._within:
                self._was_on = gc.isenabled()
                gc.disable()
            self._within += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._within -= 1
            if not self._within and self._was_on:
                gc.enable()


_collecting = _Collecting()
_left: ContextVar[list[int] | None] = ContextVar("left", default=None)


@contextmanager
def bounded(most: int = MAX_EFFORT) -> Iterator[None]:
    """Bound what is done within by so many units, where no bound holds yet: then `spend` raises past it.

    Meanwhile there is no garbage collection: compiling makes many small objects and no circles of them, and of a large grammar
    half the time went into looking at them again and again.
    """
    if _left.get() is not None:
        yield
        return
    token = _left.set([most])
    try:
        with _collecting:
            yield
    finally:
        _left.reset(token)


def spend(units: int) -> None:
    """Count work; raises `GrammarTooLargeError` where there was too much of it within the bound that holds, if one does."""
    left = _left.get()
    if left is not None:
        left[0] -= units
        if left[0] < 0:
            raise GrammarTooLargeError("it takes more than about a second to compile, the bound")
