"""The grammar tree: the intermediate form between everything that makes grammars and everything that reads them.

A `Grammar` is a root node and named rules. Leaves are terminals given by a regular expression; markers are texts that a
vocabulary may hold as one token. The tree is over text (UTF-8 when it becomes bytes) and knows neither tokens nor Routines.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from routine_grammar.effort import A_NODE, spend
from routine_grammar.errors import GrammarError, GrammarTooLargeError
from routine_grammar.grammar.terminals import Terminal

MAX_NODES = 200_000
MAX_DEPTH = 200
MAX_REPEAT = 10_000


@dataclass(frozen=True, slots=True)
class Literal:
    """Exactly this text."""

    text: str


@dataclass(frozen=True, slots=True)
class Leaf:
    """A terminal: any text that `pattern` matches whole, a regular expression of Python's or what is asked of a JSON value.

    `name` is how grammars in Lark call it (upper case), `pointer` where a schema asks for it, if that is known.
    """

    name: str
    pattern: Terminal
    pointer: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Marker:
    """A dialect's marker, e.g. `<tool_call>`: one symbol where the vocabulary has it as a token of its own, else its bytes."""

    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """The language of the rule of this name."""

    rule: str


@dataclass(frozen=True, slots=True)
class Sequence:
    """All items, one after the other."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """Any one of the items."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Optional:
    """The item, or nothing."""

    item: Node


@dataclass(frozen=True, slots=True)
class Repeat:
    """The item, `low` to `high` times in a row; `high` None means without an upper bound."""

    item: Node
    low: int = 0
    high: int | None = None


@dataclass(frozen=True, slots=True)
class Distinct:
    """A text of JSON values of which no two are equal: its `Element`s. It is the whole of a rule, and so are they.

    No expression and no grammar without a memory says so: an automaton that is made of it watches its texts. `pointer` is
    that of the keyword that wants it, and `least` how many elements there have to be, as far as that is more than one.
    """

    item: Node
    pointer: str = ""
    least: int = 0


@dataclass(frozen=True, slots=True)
class Element:
    """One value of the `Distinct` list around it."""

    item: Node


Node = Literal | Leaf | Marker | Call | Sequence | Choice | Optional | Repeat | Distinct | Element
EMPTY = Sequence(())
_SURROGATE = re.compile("[\ud800-\udfff]")


def children(node: Node) -> tuple[Node, ...]:
    """The nodes directly below `node`."""
    if isinstance(node, Sequence | Choice):
        return node.items
    return (node.item,) if isinstance(node, Optional | Repeat | Distinct | Element) else ()


def walk(node: Node) -> Iterator[Node]:
    """All nodes of a tree, parents first, in the order they are written. Iterative: depth does not matter."""
    stack = [node]
    while stack:
        current = stack.pop()
        yield current
        stack.extend(reversed(children(current)))


def calls_of(node: Node) -> set[str]:
    """The rules that a tree calls."""
    return {each.rule for each in walk(node) if isinstance(each, Call)}


@dataclass(frozen=True, slots=True)
class Grammar:
    """A root node and the rules it calls, by name, callees anywhere.

    Raises `GrammarError` for an undefined rule or a senseless repetition, `GrammarTooLargeError` past the documented bounds.
    """

    root: Node
    rules: Mapping[str, Node] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", MappingProxyType(dict(self.rules)))
        count = 0
        for name, tree in (("start", self.root), *self.rules.items()):
            count += _check_tree(name, tree, self.rules)
        spend(A_NODE * count)
        if count > MAX_NODES:
            raise GrammarTooLargeError(f"grammar has {count} nodes; the bound is {MAX_NODES}")

    def nodes(self) -> Iterator[Node]:
        """All nodes of the root and of every rule."""
        yield from walk(self.root)
        for tree in self.rules.values():
            yield from walk(tree)

    def leaves(self) -> dict[str, Terminal]:
        """Pattern of every leaf, by leaf name; one name always means one pattern."""
        named: dict[str, Terminal] = {}
        for node in self.nodes():
            if isinstance(node, Leaf) and named.setdefault(node.name, node.pattern) != node.pattern:
                raise GrammarError(f"leaf {node.name} has two patterns: {named[node.name]!r} and {node.pattern!r}")
        return named

    def require_plain(self, writing: str) -> None:
        """Raise `GrammarError` where the grammar says what no `writing` (such as "Lark") can say."""
        for name, tree in self.rules.items():
            if isinstance(tree, Distinct):
                told = f"rule {name}: that no two elements are equal can't be written in {writing}"
                raise GrammarError(f"{told} (at JSON pointer {tree.pointer!r})")

    def markers(self) -> frozenset[str]:
        """The texts of all markers."""
        return frozenset(node.text for node in self.nodes() if isinstance(node, Marker))


def reachable(root: Node, rules: Mapping[str, Node]) -> dict[str, Node]:
    """The rules that `root` calls, and those that these call, in the order they are met."""
    met: dict[str, Node] = {}
    todo = [root]
    while todo:
        for node in walk(todo.pop()):
            if isinstance(node, Call) and node.rule not in met:
                met[node.rule] = rules[node.rule]
                todo.append(met[node.rule])
    return met


def allows_text(root: Node, rules: Mapping[str, Node]) -> bool:
    """Whether some finite text is allowed: no recursion without an end. Leaves are taken to match something."""
    called = reachable(root, rules)
    callers: dict[str, list[str]] = {rule: [] for rule in called}
    for rule, tree in called.items():
        for callee in calls_of(tree):
            callers[callee].append(rule)
    ending: set[str] = set()
    todo = dict.fromkeys(reversed(called))  # callees first, for the most part
    while todo:
        again: dict[str, None] = {}
        for rule in todo:
            if rule not in ending and _ends(called[rule], ending):
                ending.add(rule)
                again |= dict.fromkeys(callers[rule])
        todo = again
    return _ends(root, ending)


def _ends(node: Node, ending: set[str]) -> bool:
    """Whether a node allows some text, if of all rules these do."""
    match node:
        case Call(rule):
            return rule in ending
        case Sequence(items):
            return all(_ends(item, ending) for item in items)
        case Choice(items):
            return any(_ends(item, ending) for item in items)
        case Repeat(item, low, _):
            return low == 0 or _ends(item, ending)
        case Distinct(item) | Element(item):
            return _ends(item, ending)
        case _:
            return True


def cut(rules: Mapping[str, Node], dead: Iterable[str]) -> dict[str, Node]:
    """The rules without all that calls a rule of `dead`, which allow nothing; what then allows nothing is gone, too."""
    cut_off, left = set(dead), dict(rules)
    while gone := cut_off & left.keys():
        for rule in gone:
            del left[rule]
        for rule, tree in left.items():
            node = without(tree, gone)
            if node is None:
                cut_off.add(rule)
            else:
                left[rule] = node
    return left


def without(node: Node, dead: Collection[str]) -> Node | None:
    """A node's texts that call none of some rules; None where there are none."""
    match node:
        case Call(rule):
            return None if rule in dead else node
        case Sequence(items):
            kept = [without(item, dead) for item in items]
            return None if None in kept else Sequence(tuple(item for item in kept if item is not None))
        case Choice(items):
            ways = [way for item in items if (way := without(item, dead)) is not None]
            return choice(*ways) if ways else None
        case Optional(item):
            return EMPTY if (inner := without(item, dead)) is None else Optional(inner)
        case Repeat(item, low, _):
            inner = without(item, dead)
            return replace(node, item=inner) if inner is not None else EMPTY if low == 0 else None
        case Distinct(item) | Element(item):
            return None if (inner := without(item, dead)) is None else replace(node, item=inner)
        case _:
            return node


def _check_tree(name: str, tree: Node, rules: Mapping[str, Node]) -> int:
    """Check one rule's tree; returns how many nodes it has."""
    count = 0
    level: list[Node] = [tree]
    for depth in range(MAX_DEPTH + 1):
        if not level:
            return count
        if depth == MAX_DEPTH:
            break
        count += len(level)
        if count > MAX_NODES:
            raise GrammarTooLargeError(f"rule {name} has more than {MAX_NODES} nodes, the bound")
        for node in level:
            _check_node(name, node, rules)
            if isinstance(node, Distinct | Element) and node is not tree:
                raise GrammarError(f"rule {name} has a list of distinct elements, or an element, that is not the whole of it")
        level = [child for node in level for child in children(node)]
    raise GrammarTooLargeError(f"rule {name} is nested more than {MAX_DEPTH} deep, the bound")


def _check_node(name: str, node: Node, rules: Mapping[str, Node]) -> None:
    match node:
        case Call(rule) if rule not in rules:
            raise GrammarError(f"rule {name} calls rule {rule}, which is not defined")
        case Repeat(_, low, high):
            if low < 0 or (high is not None and high < low):
                raise GrammarError(f"rule {name} repeats an item {low} to {high} times")
            if max(low, high or 0) > MAX_REPEAT:
                raise GrammarTooLargeError(f"rule {name} repeats an item {low} to {high} times; the bound is {MAX_REPEAT}")
        case Marker(""):
            raise GrammarError(f"rule {name} has an empty marker")
        case Literal(text) | Marker(text) if _SURROGATE.search(text):
            raise GrammarError(f"rule {name} has a literal with a lone surrogate: {text!r}")


def sequence(*items: Node) -> Node:
    """A sequence with nested sequences flattened and neighbouring literals joined."""
    flat: list[Node] = []
    for item in items:
        for part in item.items if isinstance(item, Sequence) else (item,):
            if isinstance(part, Literal) and flat and isinstance(flat[-1], Literal):
                flat[-1] = Literal(flat[-1].text + part.text)
            elif part != Literal(""):
                flat.append(part)
    return flat[0] if len(flat) == 1 else Sequence(tuple(flat))


def choice(*items: Node) -> Node:
    """A choice without repetitions of an item; one item alone stands for itself."""
    flat = tuple(dict.fromkeys(part for item in items for part in (item.items if isinstance(item, Choice) else (item,))))
    return flat[0] if len(flat) == 1 else Choice(flat)


def separated(separator: Node, items: Iterable[Node]) -> list[Node]:
    """Items with a separator between any two."""
    return [part for place, item in enumerate(items) for part in ((separator, item) if place else (item,))]


def listed(separator: Node, item: Node) -> Node:
    """An item at least once, with a separator between any two."""
    return sequence(item, Repeat(sequence(separator, item)))
