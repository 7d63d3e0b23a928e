"""Variable memory: the values that a run has stored, under keys that a model decodes in their place.

In: values with their keys. Out: arguments with every key replaced by its value, the text by which a tool message shows
a value, and the live keys. Values come from tools and are hostile text: what is shown of them can't spell a chat
marker. It lives in one process, and knows neither engines nor servers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from routine_grammar.errors import MemoryKeyError
from routine_grammar.routine.keys import SIGIL, MemoryKey, parse_key

THRESHOLD_CHARS = 512
PREVIEW_CHARS = 80
MAX_VALUE_CHARS = 16 * 2**20
MAX_KEYS, MAX_CHARS = 10_000, 256 * 2**20
MARKERS = (
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
    "<function=",
    "[TOOL_CALLS]",
    "<|python_tag|>",
)
_ESCAPE = "\\"


@dataclass(frozen=True, slots=True)
class Stored:
    """A key with its value; `order` is its place among all keys, `chars` what the value takes as text."""

    order: int
    chars: int
    key: MemoryKey


class VariableMemory:
    """The values of one run, by key; at most `max_keys` of them, of `max_chars` characters in all.

    `threshold_chars`: a value whose text is longer is shown by its key and a preview. `markers`: the texts that no
    shown value may spell. One writer at a time; a stored value is not copied and must not be changed afterwards.
    """

    def __init__(
        self,
        *,
        threshold_chars: int = THRESHOLD_CHARS,
        max_value_chars: int = MAX_VALUE_CHARS,
        max_keys: int = MAX_KEYS,
        max_chars: int = MAX_CHARS,
        sigil: str = SIGIL,
        markers: Sequence[str] = MARKERS,
    ) -> None:
        self._threshold_chars = threshold_chars
        self._max_value_chars = max_value_chars
        self._max_keys = max_keys
        self._max_chars = max_chars
        self._sigil = sigil
        self._markers = tuple(markers)
        self._live: dict[str, Stored] = {}
        self._changed: dict[str, Stored] = {}
        self._chars = self._next = 0
        self._begun = (0, -1)
        self._is_in_order = True

    def put(self, key: str, value: object, schema: Mapping[str, Any] | None = None) -> MemoryKey:
        """Store a JSON value under a key, in place of what stood there; `schema` is its declared type, if it has one.

        Raises `MemoryKeyError` where the key is malformed, the value is no JSON or longer than `max_value_chars`, or there are
        more than `max_keys` keys or `max_chars` characters with it.
        """
        parse_key(key, self._sigil)
        text = value_text(value)
        if len(text) > self._max_value_chars:
            raise MemoryKeyError(f"the value of {key!r} has {len(text)} characters; expected at most {self._max_value_chars}")
        known = self._live.get(key)
        chars = self._chars + len(text) - (known.chars if known else 0)
        if known is None and len(self._live) >= self._max_keys:
            raise MemoryKeyError(f"there is no room for {key!r}: {len(self._live)} keys are stored, the bound")
        if chars > self._max_chars:
            raise MemoryKeyError(
                f"there is no room for {key!r}: all values have {chars} characters; the bound is {self._max_chars}"
            )
        stored = Stored(
            known.order if known else self._next, len(text), MemoryKey(key, schema, value, preview(text, self._markers))
        )
        if known is None:
            self._is_in_order &= not self._live or next(reversed(self._live.values())).order < self._next
            self._next += 1
        self._chars = chars
        self._live[key] = self._changed[key] = stored
        return stored.key

    def begin(self, turn: int, place: int) -> None:
        """Have keys that are stored from now on stand, in the order of all, at a call of a turn; without it, behind all others.

        Calls that are made at once answer in any order; the order of their keys is that in which they were written.
        """
        self._next = max(turn << 40 | (place + 1) << 24, self._next if (turn, place) == self._begun else 0)
        self._begun = (turn, place)

    def take_changes(self) -> tuple[Stored, ...]:
        """What was stored since this was last asked for: to be kept elsewhere."""
        changed = tuple(self._changed.values())
        self._changed = {}
        return changed

    def restore(self, stored: Iterable[Stored]) -> None:
        """Take up what was kept elsewhere, in place of all that is stored here."""
        self._live = {each.key.name: each for each in sorted(stored, key=lambda each: each.order)}
        self._changed = {}
        self._chars = sum(each.chars for each in self._live.values())
        self._next = max((each.order + 1 for each in self._live.values()), default=0)
        self._is_in_order = True

    def get(self, key: str) -> object:
        """Return the value under a key; raises `MemoryKeyError` where the key is not live."""
        if key not in self._live:
            raise MemoryKeyError(f"no value is stored under {key[:80]!r}; live keys: {', '.join(self._live) or 'none'}")
        return self._live[key].key.value

    def live_keys(self) -> tuple[MemoryKey, ...]:
        """All keys with their types, values and previews, in the order in which they were first stored."""
        if not self._is_in_order:
            self._live = dict(sorted(self._live.items(), key=lambda item: item[1].order))
            self._is_in_order = True
        return tuple(stored.key for stored in self._live.values())

    def resolve(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return decoded arguments as the tool gets them: keys replaced by their values, escaped literals unescaped.

        A string, at any depth, that begins with the sigil is a key: a decoded literal can't begin with it. Names of
        properties are left alone, and so is what stands inside a stored value. Raises `MemoryKeyError` for a key that
        is not live.
        """
        return {name: self._resolved(value) for name, value in arguments.items()}

    def observation(self, value: object, key: str | None = None) -> str:
        """Return the text of a tool message: the value, or its key and a preview where it is longer than the threshold.

        Without a key the value is always shown whole. Markers are neutralised either way.
        """
        text = value_text(value)
        if key is None or len(text) <= self._threshold_chars:
            return neutralise(text, self._markers)
        return f'{key}: "{preview(text, self._markers)}" ({len(text)} characters)'

    def _resolved(self, value: object) -> object:
        if isinstance(value, str):
            return self.get(value) if value.startswith(self._sigil) else unescape_literal(value, self._sigil)
        if isinstance(value, Mapping):
            return {name: self._resolved(part) for name, part in value.items()}
        if isinstance(value, list | tuple):
            return [self._resolved(part) for part in value]
        return value


def escape_literal(text: str, sigil: str = SIGIL) -> str:
    r"""Write user text so that it can stand where a key could: `memory_of_a_cat` becomes `\memory_of_a_cat`.

    Text that begins with backslashes and then the sigil gets one more, so that `unescape_literal` undoes every text
    exactly; all other text stays as it is. The result never begins with the sigil.
    """
    return _ESCAPE + text if _begins_escaped(text, sigil) else text


def unescape_literal(text: str, sigil: str = SIGIL) -> str:
    r"""Undo `escape_literal`: one backslash is taken from text that begins with backslashes and then the sigil."""
    return text.removeprefix(_ESCAPE) if _begins_escaped(text, sigil) else text


def neutralise(text: str, markers: Sequence[str] = MARKERS) -> str:
    r"""Return the text with the first character of every marker in it written as an escape, `\u003c` for `<`.

    No marker stands in the result: a tool's result can't end its own message or begin a call. In JSON text the meaning
    stays the same, as a marker stands inside a string there.
    """
    return neutralise_parts((text,), markers)[0]


def neutralise_parts(parts: Sequence[str], markers: Sequence[str] = MARKERS) -> list[str]:
    """Neutralise texts that may be shown one right after the other: no marker stands in one, nor across several."""
    pattern = _any_of(tuple(filter(None, markers)))
    if pattern is None:
        return list(parts)
    found = [match.start() for match in pattern.finditer("".join(parts))]
    shown, begin, index = [], 0, 0
    for part in parts:
        pieces: list[str] = []
        rest = 0
        while index < len(found) and found[index] < begin + len(part):
            at = found[index] - begin
            pieces += (part[rest:at], f"\\u{ord(part[at]):04x}")
            rest, index = at + 1, index + 1
        shown.append("".join(pieces) + part[rest:])
        begin += len(part)
    return shown


def preview(text: str, markers: Sequence[str] = MARKERS) -> str:
    """Return the start of a text as one line of at most 80 characters, control characters escaped, no marker in it."""
    line = neutralise(_one_line(text[:PREVIEW_CHARS]), markers)
    whole = len(text) <= PREVIEW_CHARS and len(line) <= PREVIEW_CHARS
    return line if whole else line[: PREVIEW_CHARS - 1] + "…"


def value_text(value: object) -> str:
    """Return a string as it is and any other JSON value as JSON; raises `MemoryKeyError` where it is no JSON."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise MemoryKeyError(f"a value to store is no JSON: {error}") from error


@lru_cache(maxsize=64)
def _any_of(markers: tuple[str, ...]) -> re.Pattern[str] | None:
    """Where any of the markers begins; looking ahead finds markers that overlap as well."""
    if not markers:
        return None
    # A vocabulary may have a thousand markers: they are tried only where one of their first characters stands.
    begins = "".join(sorted({re.escape(marker[0]) for marker in markers}))
    return re.compile(f"(?=[{begins}])(?={'|'.join(map(re.escape, markers))})", re.DOTALL)


def _begins_escaped(text: str, sigil: str) -> bool:
    return text.lstrip(_ESCAPE).startswith(sigil)


def _one_line(text: str) -> str:
    """Escape quotes, backslashes and what is not printable, line ends among them, as JSON does."""
    escaped = json.dumps(text, ensure_ascii=False)[1:-1]
    return "".join(character if character.isprintable() else f"\\u{ord(character):04x}" for character in escaped)
