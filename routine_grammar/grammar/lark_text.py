"""Grammar tree to Lark text: `lark` for readers and for our own reader, `llguidance` for vLLM's guidance backend.

Rules are lower case; leaves and markers are terminals. Flavours differ in how a marker that is one token is written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from itertools import count

from routine_grammar.errors import GrammarError
from routine_grammar.grammar.terminal_text import expressions, terminal_to_regex
from routine_grammar.grammar.terminals import JsonString, Terminal
from routine_grammar.grammar.tree import Call, Choice, Grammar, Leaf, Literal, Marker, Node, Optional, Repeat, Sequence

MARKER_SUFFIX = "_MARKER"
# A colon is a piece of its own where it can follow a name, and part of a text elsewhere ("Thought: ").
_JSON_PIECES = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]|, |(?:^|(?<=")): |[^"\[\]{},]+|.', re.DOTALL)


class Flavour(Enum):
    """Whose Lark is written."""

    LARK = "lark"
    LLGUIDANCE = "llguidance"


def grammar_to_lark(
    grammar: Grammar, flavour: Flavour = Flavour.LARK, special: Mapping[str, int] | None = None, note: str = ""
) -> str:
    """The grammar as Lark text that begins at `start`, headed by the comment `note`.

    `special` are the ids of the texts that are one token of the vocabulary it is meant for: llguidance takes their ids.
    Its lexer keeps to the longest terminal: where terminals overlap (a thought beside a final answer) it allows less.
    Raises `GrammarError` for lists of distinct elements.
    """
    grammar.require_plain("Lark")
    return _Writer(grammar, flavour, special or {}).text(note)


class _Writer:
    def __init__(self, grammar: Grammar, flavour: Flavour, special: Mapping[str, int]) -> None:
        self._grammar = grammar
        self._flavour = flavour
        self._special = special
        self._markers = _marker_names(sorted(grammar.markers()))
        self._names = {name: name for name in grammar.rules}
        if "start" in self._names and grammar.root != Call("start"):
            self._names["start"] = next(name for n in count(2) if (name := f"start_{n}") not in self._names)

    def text(self, note: str) -> str:
        lines = [f"// {line}".rstrip() for line in note.splitlines()]
        if self._grammar.root != Call("start"):
            lines += [f"start: {self._alternatives(self._grammar.root)}"]
        lines += [f"{self._names[name]}: {self._alternatives(tree)}" for name, tree in self._grammar.rules.items()]
        lines += [f"{name}: {self._terminal(terminal)}" for name, terminal in self._grammar.leaves().items()]
        lines += [f"{name}: {quoted(text)}" for text, name in self._markers.items() if not self._is_token(text)]
        return "\n".join(lines) + "\n"

    def _terminal(self, terminal: Terminal) -> str:
        """A leaf's expression; llguidance has operators in the place of lookaheads."""
        if self._flavour is Flavour.LLGUIDANCE and isinstance(terminal, JsonString):
            return " & ".join(f"{'' if holds else '~'}/{_slashed(text)}/" for holds, text in expressions(terminal))
        return f"/{_slashed(terminal_to_regex(terminal))}/"

    def _is_token(self, text: str) -> bool:
        return self._flavour is Flavour.LLGUIDANCE and text in self._special

    def _alternatives(self, node: Node) -> str:
        if isinstance(node, Choice) and node.items:
            return "\n    | ".join(self._sequence(item) for item in node.items)
        return self._sequence(node)

    def _sequence(self, node: Node) -> str:
        if isinstance(node, Sequence):
            return " ".join(self._atom(item) for item in node.items) or '""'
        return self._atom(node)

    def _atom(self, node: Node) -> str:
        match node:
            case Literal(text):
                return " ".join(map(quoted, self._pieces(text)))
            case Leaf(name, _):
                return name
            case Marker(text):
                return f"<[{self._special[text]}]>" if self._is_token(text) else self._markers[text]
            case Call(rule):
                return self._names[rule]
            case Optional(item):
                return f"{self._group(item)}?"
            case Repeat(_, _, 0):
                return '""'
            case Repeat(item, low, None) if low > 1 and self._flavour is Flavour.LARK:
                return f"{self._group(item)}~{low} {self._group(item)}*"  # `~low..` has to have an upper bound there
            case Repeat(item, low, high):
                return self._group(item) + self._count(low, high)
            case _:
                return self._group(node)

    def _group(self, node: Node) -> str:
        if isinstance(node, Choice):
            if not node.items:
                raise GrammarError("a choice without alternatives can't be written: it allows nothing")
            return "(" + " | ".join(self._sequence(item) for item in node.items) + ")"
        if isinstance(node, Sequence | Optional | Repeat) or (isinstance(node, Literal) and len(self._pieces(node.text)) > 1):
            return f"({self._sequence(node)})"
        return self._atom(node)

    def _pieces(self, text: str) -> list[str]:
        """A literal as the terminals that it is written as.

        llguidance's lexer follows the longest terminal: beside `{"a": ` it would never read a `{` that goes on otherwise.
        Cut where JSON's own tokens end, only a number is the beginning of another terminal that may stand there, and of
        numbers the longest is meant.
        """
        return _JSON_PIECES.findall(text) or [""] if self._flavour is Flavour.LLGUIDANCE else [text]

    def _count(self, low: int, high: int | None) -> str:
        if high is None and low < 2:
            return "*+"[low]
        if self._flavour is Flavour.LLGUIDANCE:
            return f"{{{low},{'' if high is None else high}}}"
        return f"~{low}..{high}"


def _marker_names(markers: list[str]) -> dict[str, str]:
    names: dict[str, str] = {}
    for text in markers:
        word = re.sub(r"[^A-Z0-9]+", "_", text.replace("/", "END_").upper()).strip("_") or "A"
        name, number = f"{word}{MARKER_SUFFIX}", 2
        while name in names.values():
            name, number = f"{word}_{number}{MARKER_SUFFIX}", number + 1
        names[text] = name
    return names


def quoted(text: str) -> str:
    """A Lark string literal."""
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(escapes.get(char) or (char if char >= " " else f"\\x{ord(char):02x}") for char in text) + '"'


def _slashed(pattern: str) -> str:
    """A pattern between slashes: its own slashes escaped, its line breaks spelled."""
    if not pattern:
        return "(?:)"  # two slashes would be a comment
    return re.sub(r"(?<!\\)((?:\\\\)*)/", r"\1\\/", pattern).replace("\n", "\\n")
