"""Lark text to grammar tree, read by Lark's own meta-grammar: user grammars and the dialect templates of `grammars/`.

A terminal of one regular expression is a leaf; one whose name ends in `_MARKER` is a marker; others are rules in capitals.
Each use of a template with other arguments is a rule of its own; `%import` takes rules and terminals of the fragments under
`grammars/`. What has no counterpart in the tree (`%ignore`, `%declare`, `%override`) is declined by name.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedInput

from routine_grammar.effort import A_PIECE, spend
from routine_grammar.errors import GrammarError, GrammarTooLargeError
from routine_grammar.grammar.lark_text import MARKER_SUFFIX
from routine_grammar.grammar.tree import (
    Call,
    Choice,
    Grammar,
    Leaf,
    Literal,
    Marker,
    Node,
    Optional,
    Repeat,
    Sequence,
    choice,
    reachable,
    sequence,
    walk,
)
from routine_grammar.patterns.reader import read_terminal
from routine_grammar.patterns.text import escape

MAX_LARK_CHARS = 4 * 2**20
MAX_INSTANCES = 1_000  # rules that templates become
_PIECES = re.compile(r'\w+|"(?:[^"\\\n]|\\.)*"|/(?:[^/\\\n]|\\.)+/|\S')


@cache
def _meta_parser() -> Lark:
    # Tokens have their lines; to have trees have them too would double the time.
    return Lark.open_from_package("lark", "lark.lark", ("grammars",), parser="lalr")


def read_lark(text: str, holes: frozenset[str] = frozenset()) -> Grammar:
    """The grammar that Lark text describes, from its rule `start`; `holes` are rules that may stay undefined, as literals.

    Raises `GrammarError` naming line and rule for what is malformed or declined.
    """
    if len(text) > MAX_LARK_CHARS:
        raise GrammarTooLargeError(f"a Lark grammar has {len(text)} characters; the bound is {MAX_LARK_CHARS}")
    rules = _read(text).rules
    if "start" not in rules:
        raise GrammarError("the Lark grammar has no rule `start`")
    calls_start = any(node == Call("start") for tree in rules.values() for node in walk(tree))
    root = Call("start") if calls_start else rules.pop("start")
    return Grammar(root, {**rules, **{hole: Literal("") for hole in holes - set(rules)}})


@dataclass(frozen=True, slots=True)
class _Read:
    """What a Lark text defines: rules with their trees, and the terminals that stand in their users as leaves or markers."""

    rules: dict[str, Node]
    terminals: dict[str, Leaf | Marker]


def _read(text: str) -> _Read:
    spend(A_PIECE * sum(1 for _ in _PIECES.finditer(text)))
    try:
        parsed = _meta_parser().parse(text.rstrip() + "\n")
        return _Reader().read(parsed)
    except UnexpectedInput as error:
        raise GrammarError(
            f"not Lark, at line {error.line}, column {error.column}: {error.get_context(text).strip()}"
        ) from error
    except RecursionError as error:
        raise GrammarTooLargeError("the Lark grammar is nested too deep") from error


@cache
def _fragment(name: str) -> _Read | None:
    file = files("routine_grammar") / "grammars" / "fragments" / f"{name}.lark"
    return _read(file.read_text(encoding="utf-8")) if name in fragment_names() else None


def fragment_names() -> tuple[str, ...]:
    """The fragments that `%import` knows."""
    folder = files("routine_grammar") / "grammars" / "fragments"
    return tuple(sorted(file.name.removesuffix(".lark") for file in folder.iterdir() if file.name.endswith(".lark")))


class _Reader:
    def __init__(self) -> None:
        self._rules: dict[str, Node] = {}
        self._bodies: dict[str, Any] = {}  # of terminals
        self._terminals: dict[str, Node | None] = {}
        self._templates: dict[str, tuple[tuple[str, ...], Any]] = {}
        self._instances: dict[tuple[str, tuple[Node, ...]], str] = {}
        self._given: dict[str, Node] = {}  # the arguments of the template that is being read
        self._taken = set[str]()

    def read(self, parsed: Tree[Token]) -> _Read:
        """Everything that a parsed text defines."""
        items = [item for item in parsed.children if isinstance(item, Tree)]
        for item in items:
            match item.data:
                case "rule" | "token":
                    self._declare(item)
                case "import" | "multi_import":
                    self._import(item)
                case other:
                    raise GrammarError(f"{_line(item)}: %{other.removesuffix('_rule')} is not supported")
        for item in items:
            name = _name(item.children[0])
            if item.data == "rule" and name not in self._templates:
                self._rules[name] = self._node(item.children[-1])
        for name in self._bodies:
            if not isinstance(terminal := self._terminal(name), Leaf | Marker):
                self._rules[name] = terminal
        terminals = {name: node for name, node in self._terminals.items() if isinstance(node, Leaf | Marker)}
        return _Read(self._rules, terminals)

    def _take(self, name: str, item: Tree[Token]) -> None:
        if name in self._taken:
            raise GrammarError(f"{_line(item)}: {name} is defined twice")
        self._taken.add(name)

    def _declare(self, item: Tree[Token]) -> None:
        name, parameters, body = _name(item.children[0]), item.children[1], item.children[-1]
        self._take(name, item)
        named = tuple(str(child) for child in getattr(parameters, "children", ()) if child is not None)
        if named:
            self._templates[name] = named, body
        elif item.data == "token":
            self._bodies[name] = body

    def _import(self, item: Tree[Token]) -> None:
        """Take names of a fragment; what these call comes along, under names that begin with the fragment's."""
        path, names = _parts(item.children[0]), _parts(item.children[1])
        wanted = [(name, name) for name in names] if item.data == "multi_import" else [(path[-1], (names or path)[-1])]
        where = "".join(path if item.data == "multi_import" else path[:-1]).removesuffix(".")
        fragment = _fragment(where)
        if fragment is None:
            raise GrammarError(f"{_line(item)}: there is no fragment {where!r:.80}; there are {', '.join(fragment_names())}")
        for name, alias in wanted:
            self._take(alias, item)
            if name in fragment.terminals:
                terminal = fragment.terminals[name]
                self._terminals[alias] = Leaf(alias, terminal.pattern) if isinstance(terminal, Leaf) else terminal
            elif name in fragment.rules:
                self._rules[alias] = _moved(fragment.rules[name], where)
                called = reachable(fragment.rules[name], fragment.rules)
                self._rules |= {_longer(where, rule): _moved(node, where) for rule, node in called.items()}
            else:
                raise GrammarError(f"{_line(item)}: fragment {where!r} has no {name!r:.80}")

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

    def _instance(self, item: Tree[Token]) -> Node:
        """A use of a template: a call of the rule that its arguments make of it."""
        (name,), arguments = _parts(item.children[0]), tuple(map(self._node, item.children[1:]))
        if name not in self._templates:
            raise GrammarError(f"{_line(item)}: there is no template {name!r:.80}")
        parameters, body = self._templates[name]
        if len(arguments) != len(parameters):
            raise GrammarError(f"{_line(item)}: template {name} takes {len(parameters)} arguments, got {len(arguments)}")
        if (name, arguments) not in self._instances:
            if len(self._instances) >= MAX_INSTANCES:
                raise GrammarTooLargeError(f"{_line(item)}: templates become more than {MAX_INSTANCES} rules, the bound")
            number = len(self._instances) + 1
            while (rule := f"{name}_{number}") in self._taken:
                number += 1
            self._taken.add(rule)
            self._instances[name, arguments] = rule
            given, self._given = self._given, dict(zip(parameters, arguments, strict=True))
            try:
                self._rules[rule] = self._node(body)
            finally:
                self._given = given
        return Call(self._instances[name, arguments])

    def _node(self, item: Any) -> Node:
        if not isinstance(item, Tree):
            raise GrammarError(f"unexpected {item!r}")
        match str(item.data):  # as a token it would be compared slowly
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
                return self._named(str(item.children[0]), item)
            case "template_usage":
                return self._instance(item)
            case "literal":
                return _literal(item.children[0])
            case "literal_range":
                return _range(*item.children)
            case other:
                raise GrammarError(f"{_line(item)}: {other} is not supported")

    def _named(self, name: str, item: Tree[Token]) -> Node:
        if name in self._given:
            return self._given[name]
        if name in self._templates:
            raise GrammarError(f"{_line(item)}: {name} is a template, and takes {len(self._templates[name][0])} arguments")
        node = self._terminal(name) if name in self._bodies or name in self._terminals else None
        return node if isinstance(node, Leaf | Marker) else Call(name)


def _parts(tree: Any) -> list[str]:
    """The names, and dots, of an import."""
    if tree is None:
        return []
    if tree.data == "name":
        return [str(tree.children[0])]
    return [part for child in tree.children for part in (_parts(child) if isinstance(child, Tree) else [str(child)])]


def _name(token: Any) -> str:
    """A name without the marks that only matter to trees."""
    return str(token).lstrip("?!")


def _longer(where: str, name: str) -> str:
    """The name that a rule or terminal of a fragment has elsewhere; capitals stay what tells terminals."""
    return f"{where.upper() if name.isupper() else where}__{name}"


def _moved(node: Node, where: str) -> Node:
    """A node of a fragment in another grammar: what it calls, and its leaves, by longer names."""
    match node:
        case Call(rule):
            return Call(_longer(where, rule))
        case Leaf(name, pattern):
            return Leaf(_longer(where, name), pattern)
        case Sequence(items):
            return sequence(*(_moved(item, where) for item in items))
        case Choice(items):
            return choice(*(_moved(item, where) for item in items))
        case Optional(item):
            return Optional(_moved(item, where))
        case Repeat(item, low, high):
            return Repeat(_moved(item, where), low, high)
        case _:
            return node


def _line(item: Tree[Token]) -> str:
    first = next((token for token in item.scan_values(lambda value: isinstance(value, Token))), None)
    return f"line {first.line if first is not None else '?'}"


def _literal(token: Any) -> Node:
    if token.type == "STRING":
        text = _string(token)
        if not str(token).endswith("i") or text.lower() == text.upper():
            return Literal(text)
        return Leaf(f"TEXT_{token.line}_{token.column}", f"(?i:{escape(text)})")
    body, _, flags = str(token)[1:].rpartition("/")
    body = body.replace("\\/", "/")
    pattern = f"(?{flags}:{body})" if flags else body
    try:
        read_terminal(pattern)
    except GrammarTooLargeError as error:
        raise GrammarTooLargeError(f"line {token.line}: {error}") from error
    except GrammarError as error:
        raise GrammarError(f"line {token.line}: {error}") from error
    return Leaf(f"PATTERN_{token.line}_{token.column}", pattern)


def _range(first: Any, last: Any) -> Node:
    low, high = _string(first), _string(last)
    if len(low) != 1 or len(high) != 1 or low > high:
        raise GrammarError(f"line {first.line}: {first}..{last} is no range of characters")
    return Leaf(f"RANGE_{ord(low):X}_{ord(high):X}", f"[{re.escape(low)}-{re.escape(high)}]")


def _string(token: Any) -> str:
    text = str(token).removesuffix("i")
    if "\\" not in text and text.isascii() and text.isprintable():
        return text[1:-1]
    try:
        return str(ast.literal_eval(text.replace("\n", "\\n")))
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
