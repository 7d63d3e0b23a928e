"""Memory keys: the names of stored values, computed from a step and an output, or from an input.

Their grammar is `grammars/keys.lark`. A live key is a `MemoryKey`: its name, its declared type and, where known, its
value. Knows no Routine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache, lru_cache
from typing import Any, cast

from lark.exceptions import UnexpectedInput

from routine_grammar.errors import MemoryKeyError
from routine_grammar.routine.parsers import load_parser

SIGIL = "memory_"
IMPLICIT_OUTPUT = "result"
ERROR_OUTPUT = "error"  # what a tool said as it failed, where the Routine goes on behind that
MAX_NAME_LENGTH = 64
MAX_KEY_LENGTH = 512
NAME_RULE = f"a-z, 0-9 and '_', at most {MAX_NAME_LENGTH} of them, beginning with a letter, not ending in '_' or '_<digits>'"


class Unknown(Enum):
    """The value of a key whose value is not known yet; `None` is a value."""

    UNKNOWN = "unknown"


UNKNOWN = Unknown.UNKNOWN


@dataclass(frozen=True, slots=True)
class MemoryKey:
    """A live key. `schema` None: its type is not known; `preview`: the start of its value, for the model to read."""

    name: str
    schema: Mapping[str, Any] | None = None
    value: object = UNKNOWN
    preview: str = ""


@dataclass(frozen=True, slots=True)
class ParsedKey:
    """What a key names: an output of a step, an input (`step` None), or item `item` (from 0) of either."""

    step: str | None
    name: str
    item: int | None = None

    def text(self, sigil: str = SIGIL) -> str:
        """Return the key, unchecked."""
        item = "" if self.item is None else f"_{self.item}"
        return f"{sigil}{self.step or 'input'}_{self.name}{item}"


def memory_key(step_id: str, output: str, sigil: str = SIGIL) -> str:
    """Return the key of a step's output: `memory_<step id>_<output>`."""
    if not _pattern("STEP").fullmatch(step_id):
        raise MemoryKeyError(f"{step_id[:80]!r} is no step id; expected e.g. '2' or '2-1_1'")
    return ParsedKey(step_id, check_name(output)).text(sigil)


def input_key(name: str, sigil: str = SIGIL) -> str:
    """Return the key of a Routine's input: `memory_input_<name>`."""
    return ParsedKey(None, check_name(name)).text(sigil)


def item_key(key: str, index: int, sigil: str = SIGIL) -> str:
    """Return the key of one item, counted from 0, of the list under `key`."""
    parsed = parse_key(key, sigil)
    if parsed.item is not None or index < 0:
        raise MemoryKeyError(f"item {index} of {key!r}: expected the key of a whole list and a number from 0")
    return ParsedKey(parsed.step, parsed.name, index).text(sigil)


@lru_cache(maxsize=2**16)  # a turn meets the keys of the turn before, and some more
def parse_key(key: str, sigil: str = SIGIL) -> ParsedKey:
    """Return what a key names; raises `MemoryKeyError` where it names nothing."""
    expected = f"expected {sigil}<step id>_<output>, {sigil}input_<name>, or either followed by _<item>"
    if not key.startswith(sigil) or len(key) > MAX_KEY_LENGTH:
        raise MemoryKeyError(f"{key[:80]!r} is no memory key; {expected}")
    try:
        tree = load_parser("keys", "key", "body").parse(key.removeprefix(sigil), start="body")
    except UnexpectedInput as error:
        raise MemoryKeyError(f"{key[:80]!r} is no memory key; {expected}") from error
    owner, name, item = cast("list[str | None]", tree.children)
    return ParsedKey(None if owner == "input" else str(owner), str(name), None if item is None else int(item))


def is_name(name: str) -> bool:
    """Tell whether an input or output may have this name."""
    return len(name) <= MAX_NAME_LENGTH and _pattern("NAME").fullmatch(name) is not None


def check_name(name: str) -> str:
    """Return the name of an input or output; raises `MemoryKeyError` where no key could be made of it."""
    if not is_name(name):
        raise MemoryKeyError(f"{name[:80]!r} is no name of an input or output; expected {NAME_RULE}")
    return name


@cache
def _pattern(terminal: str) -> re.Pattern[str]:
    return re.compile(load_parser("keys", "key", "body").get_terminal(terminal).pattern.to_regexp())
