"""Positions carried in `tool_call.id`, which OpenAI clients send back: no state in the server, no tokens in the prompt.

An id is `rg.<routine>.<version>.<position after the call>.<nonce>`; where a model family's templates want nine letters and
digits (`short_ids` of its dialect), it is a number that says the same of a known Routine.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Protocol

from routine_grammar.errors import RoutineError
from routine_grammar.routine.graph import START, Graph
from routine_grammar.routine.positions import read_position

_ID = re.compile(r"rg\.([A-Za-z][A-Za-z0-9_-]{0,63})\.([0-9a-f]{8})\.([0-9_+@-]{1,200})\.([0-9a-f]{12})")
_SHORT_ID = re.compile("[A-Za-z0-9]{9}")
_DIGITS = string.digits + string.ascii_letters
_VALUE = {digit: value for value, digit in enumerate(_DIGITS)}
_ALL = 62**9  # 2^53.58: there is room for the 53 bits of the fields
MAX_PLACES = 2**24
_FIELDS, _VERSIONS, _CHECKS = 2**28, 2**12, 2**13
# Spreads numbers that lie close together: neither factor of 62 divides it, so that it can be undone.
_SPREAD = 7_342_918_650_443_217
_GATHER: int = pow(_SPREAD, -1, _ALL)


@dataclass(frozen=True, slots=True)
class CallId:
    """What an id of ours says: the Routine, its version, and the step that the call completed."""

    routine: str
    version: str
    position: str


class CallIdForm(Protocol):
    """How ids are written for one Routine. `unknown` is the id of a call of which nothing is known."""

    @property
    def unknown(self) -> str:
        """The id of a call that was cut off."""

    @property
    def version(self) -> str:
        """The Routine's version."""

    def make(self, position: str) -> str:
        """A fresh id for a call after which the run stands at `position`."""

    def read(self, text: object) -> CallId | None:
        """What an id of ours says; None for anybody else's."""


def make_call_id(routine: str, version: str, position: str) -> str:
    """A fresh id for a call after which the run stands at `position`."""
    return f"rg.{routine}.{version}.{position}.{secrets.token_hex(6)}"


def read_call_id(text: object) -> CallId | None:
    """What an id of ours says; None for anybody else's."""
    match = _ID.fullmatch(text) if isinstance(text, str) else None
    return CallId(match[1], match[2], match[3]) if match else None


@dataclass(frozen=True, slots=True)
class LongIds:
    """Ids that spell what they say."""

    graph: Graph
    unknown: str = "call_unknown"
    version: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "version", self.graph.routine.version)  # once: it is made of the whole Routine

    def make(self, position: str) -> str:
        """A fresh id for a call after which the run stands at `position`."""
        return make_call_id(self.graph.routine.name, self.version, position)

    def read(self, text: object) -> CallId | None:
        """What an id of ours says; None for anybody else's."""
        return read_call_id(text)


@dataclass(frozen=True, slots=True)
class ShortIds:
    """Ids of nine letters and digits: a place among the Routine's positions, a nonce, 12 bits of its version, and a check.

    Place and nonce share 28 bits: a Routine of 100 positions has 2.7 million ids for each.

    The check is over the Routine's name and all the rest: of 8,192 foreign ids one is taken for ours. An id of another
    Routine is a foreign one. Of 4,096 edits of a Routine one leaves the bits of its version as they were.
    """

    graph: Graph
    unknown: str = "000000000"
    version: str = field(init=False)
    _firsts: tuple[int, ...] = field(init=False)
    _places: int = field(init=False)

    def __post_init__(self) -> None:
        ends = list(accumulate(self._items(position) or 1 for position in self.graph.positions))
        if ends[-1] > MAX_PLACES:
            raise RoutineError(
                f"routine {self.graph.routine.name!r} has {ends[-1]} positions, those at all items of its repetitions among "
                f"them; call ids of nine characters hold {MAX_PLACES}"
            )
        object.__setattr__(self, "version", self.graph.routine.version)  # once: it is made of the whole Routine
        object.__setattr__(self, "_firsts", (0, *ends[:-1]))
        object.__setattr__(self, "_places", ends[-1])

    def make(self, position: str) -> str:
        """A fresh id for a call after which the run stands at `position`."""
        place = read_position(position)
        whole = str(self.graph.position(position)).partition("@")[0]
        number = self._firsts[self.graph.positions.index(whole)] + (place.item or 0)
        return _written(self._checked(number * self._nonces + secrets.randbelow(self._nonces), self._version()))

    def read(self, text: object) -> CallId | None:
        """What an id of ours says; None for anybody else's. Of another version only that is told."""
        if not isinstance(text, str) or not _SHORT_ID.fullmatch(text):
            return None
        value = _read(text)
        fields, version = divmod(value // _CHECKS, _VERSIONS)
        if fields >= _FIELDS or self._checked(fields, version) != value:
            return None
        routine = self.graph.routine
        if version != self._version():
            return CallId(routine.name, f"…{version:03x}", START)
        place = fields // self._nonces
        if place >= self._places:
            return None
        index = bisect_right(self._firsts, place) - 1
        position, item = self.graph.positions[index], place - self._firsts[index]
        items = self._items(position)
        return CallId(routine.name, self.version, position if items is None else f"{position}@{item}")

    def _items(self, position: str) -> int | None:
        """How many items a position may stand at; None outside of repetitions."""
        loop = self.graph.loop_of(read_position(position).node)
        return loop.most if loop is not None else None

    @property
    def _nonces(self) -> int:
        """How many ids a place has: 16 or more."""
        return _FIELDS // self._places

    def _version(self) -> int:
        return int(self.version, 16) % _VERSIONS

    def _checked(self, fields: int, version: int) -> int:
        """The fields as one number, its check at the end."""
        fields = fields * _VERSIONS + version
        told = f"{self.graph.routine.name}.{fields}".encode()
        return fields * _CHECKS + int.from_bytes(hashlib.sha256(told).digest()[:4]) % _CHECKS


def _written(value: int) -> str:
    value = value * _SPREAD % _ALL
    return "".join(_DIGITS[value // 62**place % 62] for place in range(9))


def _read(text: str) -> int:
    value: int = sum(_VALUE[digit] * 62**place for place, digit in enumerate(text))
    return value * _GATHER % _ALL
