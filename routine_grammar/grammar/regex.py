"""Grammar tree to one regular expression, in the subset that Python's `re`, outlines-core and llguidance read alike."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Words
from typing import Any

from routine_grammar.errors import GrammarError, GrammarTooLargeError
from routine_grammar.grammar.tree import Call, Choice, Grammar, Leaf, Literal, Marker, Node, Optional, Repeat, Sequence

MAX_REGEX_CHARS = 4 * 2**20
_SPECIAL = frozenset("\\.^$|?*+()[]{}")


def escape(text: str) -> str:
    """A pattern that matches exactly `text`."""
    return "".join(_escaped(char) for char in text)


def _escaped(char: str) -> str:
    if char in _SPECIAL:
        return "\\" + char
    if char < " " or char == "\x7f":
        return f"\\x{ord(char):02x}"
    return char


def trie_of(words: Words[str]) -> dict[str, Any]:
    """Words as nested dictionaries of characters; a word ends at an empty one.

    A word that begins with another is the other's already.
    """
    root: dict[str, Any] = {}
    for word in sorted(words, key=len):
        node = root
        for place, char in enumerate(word):
            if char in node and not node[char]:
                break
            node = node.setdefault(char, {})
            if place == len(word) - 1:
                node.clear()
    return root


def beginning_otherwise(words: Words[str], without: str) -> str:
    """A pattern of the texts that begin with none of these words and have no character of `without`; they are not empty."""

    def after(trie: dict[str, Any]) -> str:
        ways = [_none_of((*without, *trie)) + f"{_none_of(without)}*"]
        ways += [f"{escape(char)}(?:{after(below)})?" for char, below in trie.items() if below]
        return "|".join(ways)

    return after(trie_of(words))


def _none_of(chars: Iterable[str]) -> str:
    """A pattern of any character but these."""
    excluded = "".join("\\" + char if char in "-^" else escape(char) for char in chars)
    return f"[^{excluded}]" if excluded else r"(?:.|\n)"


def grammar_to_regex(grammar: Grammar) -> str:
    """A pattern that matches whole exactly the grammar's texts, markers as their characters.

    Raises `GrammarError` for a recursive rule: no regular expression holds it; `GrammarTooLargeError` past the bounds: every
    call of a rule is a copy of it.
    """
    try:
        return _Writer(grammar).write(grammar.root)
    except RecursionError as error:
        raise GrammarTooLargeError("the grammar's rules are nested too deep in rules for a regular expression") from error


class _Writer:
    def __init__(self, grammar: Grammar) -> None:
        self._rules = grammar.rules
        self._written: dict[str, str] = {}
        self._open: list[str] = []
        self._copied_chars = 0

    def write(self, node: Node) -> str:
        match node:
            case Literal(text) | Marker(text):
                return escape(text)
            case Leaf(_, pattern):
                return f"(?:{pattern})"
            case Call(rule):
                return self._rule(rule)
            case Sequence(items):
                return "".join(self.write(item) for item in items)
            case Choice(items):
                return "(?:" + "|".join(self.write(item) for item in items) + ")"
            case Optional(item):
                return f"(?:{self.write(item)})?"
            case Repeat(item, low, high):
                return f"(?:{self.write(item)})" + _count(low, high)

    def _rule(self, rule: str) -> str:
        if rule in self._open:
            raise GrammarError(f"rule {rule} calls itself: no regular expression holds a recursive grammar")
        if rule not in self._written:
            self._open.append(rule)
            self._written[rule] = f"(?:{self.write(self._rules[rule])})"
            self._open.pop()
        self._copied_chars += len(self._written[rule])
        if self._copied_chars > MAX_REGEX_CHARS:
            raise GrammarTooLargeError(f"a regular expression with more than {MAX_REGEX_CHARS} characters, the bound")
        return self._written[rule]


def _count(low: int, high: int | None) -> str:
    if high is None:
        return ("*", "+")[low] if low < 2 else f"{{{low},}}"
    return f"{{{low},{high}}}"
