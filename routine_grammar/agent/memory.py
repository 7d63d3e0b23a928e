"""Variable memory: the values that a run has stored, under keys that a model decodes in their place.

In: values with their keys. Out: arguments with every key replaced by its value, the text by which a tool message shows
a value, and the live keys. Values come from tools and are hostile text: what is shown of them can't spell a chat
marker. It lives in one process, and knows neither engines nor servers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from routine_grammar.errors import MemoryKeyError
from routine_grammar.routine.keys import SIGIL, MemoryKey, parse_key

THRESHOLD_CHARS = 512
PREVIEW_CHARS = 80
MAX_VALUE_CHARS = 16 * 2**20
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


class VariableMemory:
    """The values of one run, by key.

    `threshold_chars`: a value whose text is longer is shown by its key and a preview. `markers`: the texts that no
    shown value may spell. One writer at a time; a stored value is not copied and must not be changed afterwards.
    """

    def __init__(
        self,
        *,
        threshold_chars: int = THRESHOLD_CHARS,
        max_value_chars: int = MAX_VALUE_CHARS,
        sigil: str = SIGIL,
        markers: Sequence[str] = MARKERS,
    ) -> None:
        self._threshold_chars = threshold_chars
        self._max_value_chars = max_value_chars
        self._sigil = sigil
        self._markers = tuple(markers)
        self._live: dict[str, MemoryKey] = {}

    def put(self, key: str, value: object, schema: Mapping[str, Any] | None = None) -> MemoryKey:
        """Store a JSON value under a key, in place of what stood there; `schema` is its declared type, if it has one.

        Raises `MemoryKeyError` where the key is malformed, or the value is no JSON or longer than `max_value_chars`.
        """
        parse_key(key, self._sigil)
        text = value_text(value)
        if len(text) > self._max_value_chars:
            raise MemoryKeyError(f"the value of {key!r} has {len(text)} characters; expected at most {self._max_value_chars}")
        self._live[key] = MemoryKey(key, schema, value, preview(text, self._markers))
        return self._live[key]

    def get(self, key: str) -> object:
        """Return the value under a key; raises `MemoryKeyError` where the key is not live."""
        if key not in self._live:
            raise MemoryKeyError(f"no value is stored under {key[:80]!r}; live keys: {', '.join(self._live) or 'none'}")
        return self._live[key].value

    def live_keys(self) -> tuple[MemoryKey, ...]:
        """All keys with their types, values and previews, in the order in which they were first stored."""
        return tuple(self._live.values())

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
