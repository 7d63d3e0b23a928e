"""Dialects: how model families write a tool call, each one Lark template under `grammars/dialects/`.

A template begins at `start`, whose `call` leaves `name` and `arguments` open; `start` leaves `leading` open where text may
stand before the call. Where several calls may be made in one turn, `between` stands between two of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from routine_grammar.errors import GrammarError
from routine_grammar.grammar.lark_reader import read_lark
from routine_grammar.grammar.tree import Call, Choice, Grammar, Node, Optional, Repeat, Sequence, choice, sequence

_HOLES = frozenset(("leading", "name", "arguments"))


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

    def call(self, name: Node, arguments: Node) -> Node:
        """One call with these parts."""
        return _filled(self.template.rules["call"], {"name": name, "arguments": arguments}, self.template)

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


@cache
def load_dialect(name: str) -> Dialect:
    """The dialect of this name; raises `GrammarError` where there is none."""
    if name not in dialect_names():
        raise GrammarError(f"there is no dialect {name!r:.80}; there are {', '.join(dialect_names())}")
    text = (files("routine_grammar") / "grammars" / "dialects" / f"{name}.lark").read_text(encoding="utf-8")
    return Dialect(name, read_lark(text, _HOLES))
