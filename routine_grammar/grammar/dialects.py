"""Dialects: how model families write a tool call, each one Lark template under `grammars/dialects/`.

A template begins at `start`, whose `call` leaves `arguments` open, and `name` (inside JSON's quotes) or `bare_name`; `start`
leaves `leading` open where text may stand before the call. What else a template may say, each by a rule of its own:

`between`    what stands between two calls of one turn; without it there is only one
`parameter`  how one argument is written, with `key` and `value` open; without it arguments are one JSON object
`reserved`   characters that free text does without, beside those that begin a marker
`escaped`    characters that JSON spells by escapes only
`number`     the numbers, where the model family's parser does not hold all
`short_ids`  that chat templates want ids of calls of nine letters and digits
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from routine_grammar.errors import GrammarError
from routine_grammar.grammar.lark_reader import read_lark
from routine_grammar.grammar.tree import (
    EMPTY,
    Call,
    Choice,
    Grammar,
    Leaf,
    Literal,
    Node,
    Optional,
    Repeat,
    Sequence,
    choice,
    sequence,
    walk,
)

_HOLES = frozenset(("leading", "name", "bare_name", "arguments", "key", "value"))
# Names of vLLM's tool parsers that are another one's.
ALIASES = {"llama4_json": "llama3_json", "qwen3_xml": "qwen3_coder", "qwen3_json": "hermes"}


@dataclass(frozen=True, slots=True)
class Dialect:
    """A dialect's template. `leading_text`: whether its parser lets text stand before a call."""

    name: str
    template: Grammar

    @property
    def markers(self) -> tuple[str, ...]:
        """The texts that no argument may spell."""
        return tuple(sorted(self.template.markers()))

    @property
    def leading_text(self) -> bool:
        """Whether a thought or a header may stand before a call."""
        return any(node == Call("leading") for node in self.template.nodes())

    @property
    def between(self) -> Node | None:
        """What stands between two calls of one turn; None where there is only one."""
        return self.template.rules.get("between")

    @property
    def has_bare_names(self) -> bool:
        """Whether a tool's name is written as it is, not as a JSON string."""
        return any(node == Call("bare_name") for node in walk(self.template.rules["call"]))

    @property
    def free_text_lacks(self) -> str:
        """The characters that thoughts and final answers do without."""
        return "".join(dict.fromkeys((*(marker[0] for marker in self.markers), *self._said("reserved"))))

    @property
    def short_ids(self) -> bool:
        """Whether the ids of calls have to be nine letters and digits."""
        return "short_ids" in self.template.rules

    @property
    def escaped(self) -> str:
        """The characters that JSON spells by escapes only."""
        return self._said("escaped")

    @property
    def number(self) -> Leaf | None:
        """The numbers that the dialect's parser holds; None: all."""
        node = self.template.rules.get("number")
        return node if isinstance(node, Leaf) else None

    def parameter(self, key: str) -> tuple[str, str] | None:
        """What stands before and behind the value of an argument; None where all arguments are one JSON object."""
        if "parameter" not in self.template.rules:
            return None
        match _filled(self.template.rules["parameter"], {"key": Literal(key), "value": Call("value")}, self.template):
            case Sequence((Literal(before), Call("value"), Literal(behind))):
                return before, behind
        raise GrammarError(f"dialect {self.name!r}: expected a text, `key`, a text, `value` and a text for `parameter`")

    def _said(self, rule: str) -> str:
        node = self.template.rules.get(rule, EMPTY)
        return node.text if isinstance(node, Literal) else ""

    def call(self, name: Node, arguments: Node) -> Node:
        """One call with these parts."""
        parts = {"name": name, "bare_name": name, "arguments": arguments}
        return _filled(self.template.rules["call"], parts, self.template)

    def turn(self, leading: Node, calls: Node) -> Node:
        """A turn with these calls, the first with this before it."""
        return _filled(self.template.root, {"leading": leading, "call": calls}, self.template)


def _filled(node: Node, parts: dict[str, Node], template: Grammar) -> Node:
    """The template's tree with its rules written out and its holes filled."""
    match node:
        case Call(rule):
            return parts[rule] if rule in parts else _filled(template.rules[rule], parts, template)
        case Sequence(items):
            return sequence(*(_filled(item, parts, template) for item in items))
        case Choice(items):
            return choice(*(_filled(item, parts, template) for item in items))
        case Optional(item):
            return Optional(_filled(item, parts, template))
        case Repeat(item, low, high):
            return Repeat(_filled(item, parts, template), low, high)
        case _:
            return node


def dialect_names() -> tuple[str, ...]:
    """The dialects there are."""
    folder = files("routine_grammar") / "grammars" / "dialects"
    return tuple(sorted(file.name.removesuffix(".lark") for file in folder.iterdir() if file.name.endswith(".lark")))


def dialect_of_parser(parser: str, vocabulary: Container[str]) -> str:
    """The dialect that one of vLLM's tool parsers reads where the vocabulary has these tokens.

    Its `mistral` reads two; which, the token `[ARGS]` decides there too. Raises `GrammarError` where there is none.
    """
    name = load_dialect(parser).name
    return "mistral_v3" if name == "mistral" and "[ARGS]" not in vocabulary else name


@cache
def load_dialect(name: str) -> Dialect:
    """The dialect of this name, or of this name of vLLM's tool parsers; raises `GrammarError` where there is none."""
    name = ALIASES.get(name, name)
    if name not in dialect_names():
        raise GrammarError(f"there is no dialect {name!r:.80}; there are {', '.join(dialect_names())}")
    text = (files("routine_grammar") / "grammars" / "dialects" / f"{name}.lark").read_text(encoding="utf-8")
    return Dialect(name, read_lark(text, _HOLES))
