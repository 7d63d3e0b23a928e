"""Terminals as regular expressions, for readers and for other libraries: what our own automata do not need.

A string of which several things are asked becomes one expression for each, to be met at once: by lookaheads that end with the
closing quote, or by `&` and `~` where a grammar has them. A number or raw text becomes one, by way of its automaton.
"""

from __future__ import annotations

from functools import lru_cache

from routine_grammar.grammar.json_text import string_pattern
from routine_grammar.grammar.terminals import JsonNumber, JsonString, RawText, Terminal
from routine_grammar.patterns.automaton import is_empty
from routine_grammar.patterns.classes import has_edges
from routine_grammar.patterns.pattern import Chars, Not, Pattern, Times, both
from routine_grammar.patterns.reader import read_whole
from routine_grammar.patterns.text import as_expression, pattern_to_regex

_SIGIL = "^"


def terminal_of(text: str) -> str:
    """A terminal that matches what a whole regular expression does: itself, but for anchors. Raises as `read_whole`."""
    pattern = read_whole(text)
    return pattern_to_regex(as_expression(pattern)) if has_edges(pattern) else text


@lru_cache(maxsize=512)
def terminal_to_regex(terminal: Terminal) -> str:
    """A regular expression of Python's `re` for a terminal; where strings need it, with lookaheads no further than itself.

    Raises `GrammarTooLargeError` where it would be too long.
    """
    if isinstance(terminal, str):
        return terminal
    if isinstance(terminal, JsonNumber | RawText):
        return pattern_to_regex(as_expression(terminal.pattern()))
    first, *others = expressions(terminal)
    ahead = [f"(?{'=' if holds else '!'}{text})" for holds, text in others]
    return "".join(ahead) + first[1]


@lru_cache(maxsize=512)
def expressions(terminal: JsonString) -> tuple[tuple[bool, str], ...]:
    """Expressions that a string matches, the first one, or (False) does not match; quotes are part of each."""
    if not terminal.found and not terminal.is_counted and all(map(_is_prefix, terminal.never)) and len(terminal.never) < 2:
        sigil = terminal.never[0].removeprefix(_SIGIL) if terminal.never else ""
        return ((True, string_pattern(terminal.markers, sigil, terminal.escaped)),)
    parts = _needed(terminal)
    return tuple((holds, f'"{_grouped(as_expression(pattern))}"') for holds, pattern in parts)


def _grouped(pattern: Pattern) -> str:
    text = pattern_to_regex(pattern)
    return f"(?:{text})" if "|" in text else text


def _is_prefix(text: str) -> bool:
    """Whether an expression is an anchor and an identifier, as those that keep a sigil away are."""
    return text.startswith(_SIGIL) and text.removeprefix(_SIGIL).isidentifier() and text.isascii()


def _needed(terminal: JsonString) -> list[tuple[bool, Pattern]]:
    """The parts of a string that the others do not imply, one that holds in first place."""
    any_text, *parts = terminal.parts()
    if terminal.is_counted:
        parts.append((True, Times(Chars(terminal.units), terminal.low, terminal.high)))
    held = [pattern for holds, pattern in parts if holds] or [any_text[1]]
    needed = [(True, pattern) for pattern in held]
    for holds, pattern in parts:
        if not holds and not is_empty(both(*held, pattern)):
            needed.append((False, pattern))
    for part in needed[:]:
        rest = [pattern for holds, pattern in needed if holds and pattern is not part[1]]
        if part[0] and rest and is_empty(both(*rest, any_text[1], Not(part[1]))):
            needed.remove(part)
    return needed
