"""The automaton of a grammar: configurations over bytes and symbols, expanded as they are reached.

In: a grammar and the markers that are symbols. Out: stepping, whether a text is accepted, what is forced, how far the end is.
It knows neither Lark nor vocabularies.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import numpy.typing as npt

from routine_grammar.automaton import marks
from routine_grammar.automaton import step as stepping
from routine_grammar.automaton.leaf import LeafLibrary
from routine_grammar.automaton.marks import Event
from routine_grammar.automaton.skeleton import Skeleton
from routine_grammar.automaton.step import COUNTED, DEAD, HEAD, NEED, OVERFLOW, STACK, Configuration
from routine_grammar.automaton.tables import Handle
from routine_grammar.errors import GrammarError
from routine_grammar.grammar.program import Program
from routine_grammar.grammar.tree import Grammar

Symbol = str
Piece = int | Symbol  # one byte, or one symbol


class Automaton:
    """A grammar ready to be stepped through. States are made when first needed; safe to share between sequences.

    `symbols` are the markers that count as one symbol each; other markers are their bytes.
    Where lists have to have no two equal elements (`is_distinct`), that is not its own to tell: `Watch` does.
    Raises `GrammarError` for an empty language or left recursion, `GrammarTooLargeError` past a bound.
    """

    def __init__(
        self, grammar: Grammar | Program, symbols: Collection[Symbol] = (), library: LeafLibrary | None = None
    ) -> None:
        program = grammar if isinstance(grammar, Program) else Program.of(grammar)
        self.library = library or LeafLibrary.shared()
        self.symbols: tuple[Symbol, ...] = tuple(sorted(marker for marker in program.markers if marker in symbols))
        self._numbers = {symbol: number for number, symbol in enumerate(self.symbols)}
        self.skeleton = Skeleton(program, self.library, self._numbers)
        self.handle = self.skeleton.handle
        self.farthest = self.skeleton.farthest
        self.is_distinct = len(program.distinct) > 0
        self.needs_several = bool((program.distinct > 1).any())
        if self.is_distinct:
            self.skeleton.require_marks()
        self._scratch = np.zeros(HEAD + STACK, np.int32)

    @property
    def nbytes(self) -> int:
        """The bytes of its states by now; its leaves are the library's."""
        return self.skeleton.nbytes

    def require_clear(self) -> None:
        """Raise `GrammarTooLargeError` where recursive rules can be read in too many ways: now, not as a text comes to it."""
        self.skeleton.require_clear()

    def run(self, kernel: Callable[[Handle], int]) -> int:
        """Call `kernel` with the handle, expanding the state it asks for until it asks for none; returns its answer.

        The kernel must start afresh at each call. Raises `GrammarTooLargeError` past the bound on states.
        """
        while (answer := kernel(self.handle)) <= NEED:
            self.skeleton.expand(NEED - answer)
        return answer

    def start(self) -> Configuration:
        """The configuration before any byte."""
        row = np.zeros(HEAD + STACK, np.int32)

        def settle(t: Handle) -> int:
            row[:] = 0
            return stepping.settle(t, row, self.skeleton.start)

        row[0] = self.run(settle)
        return row

    def after(self, row: Configuration, data: bytes) -> Configuration | None:
        """The configuration after some bytes; None where they are not allowed.

        Raises `GrammarError` where they nest deeper than the return stack.
        """
        taken = row.copy()
        array = np.frombuffer(data, np.uint8)

        def take(t: Handle) -> int:
            taken[:] = row
            return stepping.take_bytes(t, taken, array)

        return self._checked(taken, self.run(take))

    def after_with_events(self, row: Configuration, data: bytes) -> tuple[Configuration | None, list[Event]]:
        """As `after`, with what lists of distinct elements, and their elements, begin and end in between."""
        taken, before = row.copy(), np.empty_like(row)
        array = np.frombuffer(data, np.uint8)
        events, count = np.zeros((2 * STACK * (len(data) + 1), 2), np.int32), np.zeros(1, np.int32)

        def take(t: Handle) -> int:
            taken[:] = row
            return marks.take_noting(t, taken, before, array, events, count)

        after = self._checked(taken, self.run(take))
        return after, [(offset, what) for offset, what in events[: count[0]].tolist()]

    def room(self, row: Configuration) -> int:
        """How many texts the string at hand can become at least, each of another length; 0 where that is not known."""
        if row[0] >= COUNTED or not self.library.grows(int(row[0])):
            return 0
        return stepping.NO_BOUNDS if not row[3] else self.library.lengths_left(int(row[0]), int(row[2]), int(row[3]))

    def growth(self, row: Configuration) -> int:
        """Bytes, or more, within which the string at hand, if one is, can become longer by one of its lengths."""
        return max(8, self.library.reaches(int(row[0]))) if self.room(row) else 8

    def after_symbol(self, row: Configuration, symbol: Symbol) -> Configuration | None:
        """The configuration after a symbol; None where it is not allowed."""
        number = self._numbers.get(symbol)
        if number is None:
            return None
        taken = row.copy()

        def take(t: Handle) -> int:
            taken[:] = row
            return stepping.step_symbol(t, taken, number)

        return self._checked(taken, self.run(take))

    def after_piece(self, row: Configuration, piece: Piece) -> Configuration | None:
        """The configuration after one byte or symbol."""
        return self.after_symbol(row, piece) if isinstance(piece, str) else self.after(row, bytes((piece,)))

    def may_end(self, row: Configuration) -> bool:
        """Whether the text may end here."""
        return self.run(lambda t: stepping.may_end(t, row, self._scratch)) == 1

    def distance(self, row: Configuration) -> int:
        """Fewest bytes and symbols from here to the end."""
        return int(stepping.distance_to_end(self.handle, row))

    def accepts(self, data: bytes) -> bool:
        """Whether the bytes are a whole text of the grammar (markers that are symbols can't be written as bytes).

        That elements of a list differ is not looked at.
        """
        row = self.after(self.start(), data)
        return row is not None and self.may_end(row)

    def next_pieces(self, row: Configuration) -> list[Piece]:
        """All bytes and symbols that may come next, bytes first, in order."""
        pieces: list[Piece] = np.flatnonzero(self.next_bytes(row)).tolist()
        return pieces + [symbol for symbol, may_come in zip(self.symbols, self.next_symbols(row), strict=True) if may_come]

    def next_bytes(self, row: Configuration) -> npt.NDArray[np.bool_]:
        """Which bytes may come next: bool [256]."""
        return self._next(row, 0, 256)

    def next_symbols(self, row: Configuration) -> npt.NDArray[np.bool_]:
        """Which symbols may come next: bool [symbols]."""
        return self._next(row, 256, len(self.symbols))

    def _next(self, row: Configuration, first: int, count: int) -> npt.NDArray[np.bool_]:
        allowed, trial = np.zeros(count, np.bool_), np.empty_like(row)
        if count:
            self.run(lambda t: stepping.next_pieces(t, row, first, trial, allowed))
        return allowed

    def shortest_completion(self, row: Configuration) -> list[Piece]:
        """A shortest way to the end; from any place along it, the shortest completion is its rest."""
        pieces = np.zeros(self.distance(row), np.int32)
        trial, way = np.empty_like(row), np.empty_like(row)

        def complete(t: Handle) -> int:
            way[:] = row
            return stepping.shortest_completion(t, way, len(self.symbols), pieces, trial)

        return self._pieces(pieces[: self.run(complete)])

    def forced_pieces(self, row: Configuration, limit: int = 4096) -> list[Piece]:
        """The only bytes and symbols that can come next: as far as there is but one choice, and not the end."""
        return self.forced_run(row, limit)[0]

    def forced_run(self, row: Configuration, limit: int = 4096) -> tuple[list[Piece], Configuration]:
        """The only bytes and symbols that can come next, and the configuration after them."""
        pieces = np.zeros(limit, np.int32)
        trial, way, only = np.empty_like(row), np.empty_like(row), np.empty_like(row)

        def run(t: Handle) -> int:
            way[:] = row
            return stepping.forced_run(t, way, len(self.symbols), pieces, trial, only)

        count = self.run(run)
        return self._pieces(pieces[:count]), way

    def _pieces(self, numbers: npt.NDArray[np.int32]) -> list[Piece]:
        return [number if number < 256 else self.symbols[number - 256] for number in numbers.tolist()]

    def _checked(self, taken: Configuration, state: int) -> Configuration | None:
        if state == OVERFLOW:
            raise GrammarError(f"the text nests deeper than {STACK} calls of rules, the bound of the return stack")
        return None if state == DEAD else taken
