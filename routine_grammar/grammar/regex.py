"""Grammar tree to one regular expression of Python's `re`."""

from __future__ import annotations

from routine_grammar.errors import GrammarError, GrammarTooLargeError
from routine_grammar.grammar.terminal_text import terminal_to_regex
from routine_grammar.grammar.tree import (
    Call,
    Choice,
    Distinct,
    Element,
    Grammar,
    Leaf,
    Literal,
    Marker,
    Node,
    Optional,
    Repeat,
    Sequence,
)
from routine_grammar.patterns.text import escape

MAX_REGEX_CHARS = 4 * 2**20


def grammar_to_regex(grammar: Grammar) -> str:
    """A pattern that matches whole exactly the grammar's texts, markers as their characters.

    Raises `GrammarError` for a recursive rule and for lists of distinct elements: no regular expression holds them;
    `GrammarTooLargeError` past the bounds: every call of a rule is a copy of it.
    """
    grammar.require_plain("a regular expression")
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
                return f"(?:{terminal_to_regex(pattern)})"
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
            case Distinct(item) | Element(item):  # never met: the grammar is plain
                return self.write(item)

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
