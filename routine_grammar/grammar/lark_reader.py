"""Lark text to grammar tree, read by Lark's own meta-grammar: user grammars and the dialect templates of `grammars/`.

A terminal of one regular expression is a leaf; one whose name ends in `_MARKER` is a marker; others are rules in capitals.
What has no counterpart in the tree (`%ignore`, imports, templates, flags) is declined by name.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from typing import Any

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedInput

from routine_grammar.errors import GrammarError, GrammarTooLargeError
from routine_grammar.grammar.lark_text import MARKER_SUFFIX
from routine_grammar.grammar.tree import Call, Grammar, Leaf, Literal, Marker, Node, Optional, Repeat, choice, sequence, walk

MAX_LARK_CHARS = 4 * 2**20


@cache
def _meta_parser() -> Lark:
    return Lark.open_from_package("lark", "lark.lark", ("grammars",), parser="lalr", propagate_positions=True)


def read_lark(text: str, holes: frozenset[str] = frozenset()) -> Grammar:
    """The grammar that Lark text describes, from its rule `start`; `holes` are rules that may stay undefined, as literals.

    Raises `GrammarError` naming line and rule for what is malformed or declined.
    """
    if len(text) > MAX_LARK_CHARS:
        raise GrammarTooLargeError(f"a Lark grammar has {len(text)} characters; the bound is {MAX_LARK_CHARS}")
    try:
        parsed = _meta_parser().parse(text.rstrip() + "\n")
    except UnexpectedInput as error:
        raise GrammarError(
            f"not Lark, at line {error.line}, column {error.column}: {error.get_context(text).strip()}"
        ) from error
    except RecursionError as error:
        raise GrammarTooLargeError("the Lark grammar is nested too deep") from error
    try:
        rules = _Reader().rules(parsed)
    except RecursionError as error:
        raise GrammarTooLargeError("the Lark grammar is nested too deep") from error
    if "start" not in rules:
        raise GrammarError("the Lark grammar has no rule `start`")
    calls_start = any(node == Call("start") for tree in rules.values() for node in walk(tree))
    root = Call("start") if calls_start else rules.pop("start")
    return Grammar(root, {**rules, **{hole: Literal("") for hole in holes - set(rules)}})


class _Reader:
    def __init__(self) -> None:
        self._bodies: dict[str, Any] = {}
        self._terminals: dict[str, Node | None] = {}

    def rules(self, parsed: Tree[Token]) -> dict[str, Node]:
        """Every rule with its tree; terminals that are leaves or markers stand in their users."""
        items = [item for item in parsed.children if isinstance(item, Tree)]
        names = set[str]()
        for item in items:
            if item.data not in ("rule", "token"):
                statement = item.data.removeprefix("multi_").removesuffix("_rule")
                raise GrammarError(f"{_line(item)}: %{statement} is not supported")
            name, parameters, body = str(item.children[0]).lstrip("?!"), item.children[1], item.children[-1]
            if isinstance(parameters, Tree) and any(child is not None for child in parameters.children):
                raise GrammarError(f"{_line(item)}: {name} is a template; templates are not supported")
            if name in names:
                raise GrammarError(f"{_line(item)}: {name} is defined twice")
            names.add(name)
            if item.data == "token":
                self._bodies[name] = body
        found: dict[str, Node] = {}
        for item in items:
            name = str(item.children[0]).lstrip("?!")
            if item.data == "rule":
                found[name] = self._node(item.children[-1])
            elif not isinstance(terminal := self._terminal(name), Leaf | Marker):
                found[name] = terminal
        return found

    def _terminal(self, name: str) -> Node:
        if name not in self._terminals:
            self._terminals[name] = None  # while it is being read
            node = self._node(self._bodies[name])
            if isinstance(node, Leaf):
                node = Leaf(name, node.pattern)
            elif isinstance(node, Literal) and name.endswith(MARKER_SUFFIX):
                node = Marker(node.text)
            self._terminals[name] = node
        terminal = self._terminals[name]
        if terminal is None:
            raise GrammarError(f"{_line(self._bodies[name])}: terminal {name} is defined by itself")
        return terminal

    def _node(self, item: Any) -> Node:
        if not isinstance(item, Tree):
            raise GrammarError(f"unexpected {item!r}")
        match item.data:
            case "expansions":
                return choice(*map(self._node, item.children))
            case "expansion":
                return sequence(*map(self._node, item.children))
            case "alias":
                return self._node(item.children[0])
            case "expr":
                return _repeated(self._node(item.children[0]), item.children[1:])
            case "maybe":
                return Optional(self._node(item.children[0]))
            case "name":
                name = str(item.children[0])
                node = self._terminal(name) if name in self._bodies else None
                return node if isinstance(node, Leaf | Marker) else Call(name)
            case "literal":
                return _literal(item.children[0])
            case "literal_range":
                return _range(*item.children)
            case other:
                raise GrammarError(f"{_line(item)}: {other} is not supported")


def _line(item: Tree[Token]) -> str:
    return f"line {item.meta.line}"


def _literal(token: Any) -> Node:
    if token.type == "STRING":
        return Literal(_string(token))
    body, _, flags = str(token)[1:].rpartition("/")
    if flags:
        raise GrammarError(f"line {token.line}: flags {flags!r} of a regular expression are not supported")
    return Leaf(f"PATTERN_{token.line}_{token.column}", body.replace("\\/", "/"))


def _range(first: Any, last: Any) -> Node:
    low, high = _string(first), _string(last)
    if len(low) != 1 or len(high) != 1 or low > high:
        raise GrammarError(f"line {first.line}: {first}..{last} is no range of characters")
    return Leaf(f"RANGE_{ord(low):X}_{ord(high):X}", f"[{re.escape(low)}-{re.escape(high)}]")


def _string(token: Any) -> str:
    if str(token).endswith("i"):
        raise GrammarError(f"line {token.line}: case-insensitive strings are not supported")
    try:
        return str(ast.literal_eval(str(token).replace("\n", "\\n")))
    except (SyntaxError, ValueError) as error:
        raise GrammarError(f"line {token.line}: {token} is no string: {error}") from error


def _repeated(item: Node, suffix: list[Any]) -> Node:
    marks = [str(mark) for mark in suffix if mark is not None]
    match marks:
        case ["?"]:
            return Optional(item)
        case ["*"]:
            return Repeat(item)
        case ["+"]:
            return Repeat(item, 1)
        case [count]:
            return Repeat(item, int(count), int(count))
        case [low, high]:
            return Repeat(item, int(low), int(high))
        case _:
            return item
