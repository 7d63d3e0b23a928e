"""A grammar as a program: its trees as rows of integers, node before node, so that compiled code reads them as they travel.

In: a grammar tree, or the parts of a program that someone else wrote, which are checked. Out: arrays, and the tree again.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from routine_grammar.errors import GrammarError, GrammarTooLargeError
from routine_grammar.grammar import tree
from routine_grammar.grammar.terminals import Terminal
from routine_grammar.grammar.tree import MAX_DEPTH, MAX_NODES, MAX_REPEAT, Grammar, Node
from routine_grammar.jit import jit

# Kinds of nodes. Behind its kind stand in a node's row: the number of a text, of a leaf or of a rule; how many nodes are
# directly below; the least and the most repetitions; the text of a pointer and the fewest elements.
LITERAL, LEAF, MARKER, CALL, SEQUENCE, CHOICE, OPTIONAL, REPEAT, DISTINCT, ELEMENT = range(10)
UNBOUNDED = -1  # the most repetitions where there may be any number

_BAD, _DEEP, _BACKWARD, _OFTEN, _INSIDE = range(-5, 0)
_MARKED, _WATCHED = 1, 2  # what a program has: markers, lists of distinct elements

Ints = npt.NDArray[np.int32]
Leaves = tuple[tuple[str, Terminal], ...]


class Program:
    """The trees of all `rules`, by name, and then of the root: `nodes` [n, 3] int32, each before those below it.

    `texts` and `leaves` (names and terminals) are what nodes name by number. `ends` [n] says what node comes behind those
    below each, `firsts` [rules + 1] where the trees begin. Raises `GrammarError` for what is no grammar, and
    `GrammarTooLargeError` past the bounds of one.
    """

    def __init__(self, rules: tuple[str, ...], texts: tuple[str, ...], leaves: Leaves, nodes: Ints) -> None:
        self.rules = rules
        self.texts = texts
        self.leaves = leaves
        self.pointers: dict[str, str] = {}  # of leaves, where they are known, in their schema
        self.nodes = nodes
        self.ends, self.firsts = np.zeros(len(nodes), np.int32), np.zeros(len(rules) + 1, np.int32)
        if len(nodes) > MAX_NODES:
            raise GrammarTooLargeError(f"grammar has {len(nodes)} nodes; the bound is {MAX_NODES}")
        code = _check(nodes, len(texts), len(leaves), self.ends, self.firsts)
        if code < 0:
            raise self._refusal(code)
        # The texts of all markers; the fewest elements of each list of distinct ones.
        kinds = nodes[:, 0]
        self.markers = frozenset(map(texts.__getitem__, nodes[kinds == MARKER, 1].tolist())) if code & _MARKED else frozenset()
        self.distinct: Ints = nodes[kinds == DISTINCT, 2] if code & _WATCHED else kinds[:0]

    def _refusal(self, code: int) -> GrammarError:
        """What is wrong at the node at which a check ended."""
        number = int(self.ends[0])
        rule = (*self.rules, "start")[int(np.searchsorted(self.firsts[1:], number, side="right")) if number else 0]
        _, low, high = self.nodes[number].tolist() if number < len(self.nodes) else (0, 0, 0)
        told = {
            _BACKWARD: f"rule {rule} repeats an item {low} to {high} times",
            _INSIDE: f"rule {rule} has a list of distinct elements, or an element, that is not the whole of it",
        }
        if code == _DEEP:
            return GrammarTooLargeError(f"rule {rule} is nested more than {MAX_DEPTH} deep, the bound")
        if code == _OFTEN:
            most = "any number of" if high == UNBOUNDED else high
            return GrammarTooLargeError(f"rule {rule} repeats an item {low} to {most} times; the bound is {MAX_REPEAT}")
        return GrammarError(told.get(code, f"malformed grammar text: node {number} is none, or not all of them are there"))

    @classmethod
    def of(cls, grammar: Grammar) -> Program:
        """The program of a grammar. Raises `GrammarError` where two leaves of one name differ."""
        return _Assembler(grammar).program()

    @cached_property
    def grammar(self) -> Grammar:
        """The grammar as a tree."""
        trees = [self._node(int(first))[0] for first in self.firsts]
        return Grammar(trees[-1], dict(zip(self.rules, trees, strict=False)))

    def _node(self, number: int) -> tuple[Node, int]:
        """A node, and the number of the one behind all that is below it."""
        kind, what, more = self.nodes[number].tolist()
        below: list[Node] = []
        behind = number + 1
        while behind < self.ends[number]:
            child, behind = self._node(behind)
            below.append(child)
        node: Node
        if kind in (LITERAL, MARKER):
            node = (tree.Literal if kind == LITERAL else tree.Marker)(self.texts[what])
        elif kind in (SEQUENCE, CHOICE):
            node = (tree.Sequence if kind == SEQUENCE else tree.Choice)(tuple(below))
        elif kind in (OPTIONAL, ELEMENT):
            node = (tree.Optional if kind == OPTIONAL else tree.Element)(below[0])
        elif kind == LEAF:
            node = tree.Leaf(*self.leaves[what])
        elif kind == CALL:
            node = tree.Call(self.rules[what])
        elif kind == REPEAT:
            node = tree.Repeat(below[0], what, None if more == UNBOUNDED else more)
        else:
            node = tree.Distinct(below[0], self.texts[what], more)
        return node, behind


_LISTED = (tree.Sequence, tree.Choice)  # not as a union, which would be made again for every node


class _Assembler:
    """Writes the nodes of a grammar."""

    def __init__(self, grammar: Grammar) -> None:
        self._rules = {name: number for number, name in enumerate(grammar.rules)}
        self._texts: dict[str, int] = {}
        self._leaves: dict[str, tuple[int, Terminal]] = {}
        self._pointers: dict[str, str] = {}
        self._nodes: list[int] = []
        for node in (*grammar.rules.values(), grammar.root):
            self._write(node)

    def program(self) -> Program:
        """All that was written."""
        leaves = tuple((name, terminal) for name, (_, terminal) in self._leaves.items())
        program = Program(tuple(self._rules), tuple(self._texts), leaves, np.array(self._nodes, np.int32).reshape(-1, 3))
        program.pointers |= self._pointers
        return program

    def _text(self, text: str) -> int:
        return self._texts.setdefault(text, len(self._texts))

    def _leaf(self, name: str, terminal: Terminal) -> int:
        number, known = self._leaves.setdefault(name, (len(self._leaves), terminal))
        if known is not terminal and known != terminal:
            raise GrammarError(f"leaf {name} has two patterns: {known!r} and {terminal!r}")
        return number

    def _write(self, node: Node) -> None:
        nodes = self._nodes
        if isinstance(node, tree.Literal):
            nodes += (LITERAL, self._text(node.text), 0)
        elif isinstance(node, _LISTED):
            nodes += (SEQUENCE if isinstance(node, tree.Sequence) else CHOICE, len(node.items), 0)
            for item in node.items:
                self._write(item)
        elif isinstance(node, tree.Call):
            nodes += (CALL, self._rules[node.rule], 0)
        elif isinstance(node, tree.Leaf):
            nodes += (LEAF, self._leaf(node.name, node.pattern), 0)
            if node.pointer is not None:
                self._pointers.setdefault(node.name, node.pointer)
        elif isinstance(node, tree.Marker):
            nodes += (MARKER, self._text(node.text), 0)
        else:
            if isinstance(node, tree.Repeat):
                nodes += (REPEAT, node.low, UNBOUNDED if node.high is None else node.high)
            elif isinstance(node, tree.Distinct):
                nodes += (DISTINCT, self._text(node.pointer), node.least)
            else:
                nodes += (OPTIONAL if isinstance(node, tree.Optional) else ELEMENT, 0, 0)
            self._write(node.item)


@jit
def _check(nodes: Ints, texts: int, leaves: int, ends: Ints, firsts: Ints) -> int:
    """Write `ends` and `firsts`; returns what the program has, or a code and the node that it is about as `ends[0]`."""
    around, left = np.zeros(MAX_DEPTH, np.int32), np.zeros(MAX_DEPTH, np.int32)
    rule = depth = has = 0
    for number in range(len(nodes)):
        kind, what, more = nodes[number]
        code = _check_node(kind, what, more, depth, texts, leaves, len(firsts) - 1)
        below = what if kind in (SEQUENCE, CHOICE) else 1 if kind in (OPTIONAL, REPEAT, DISTINCT, ELEMENT) else 0
        if rule == len(firsts):
            code = _BAD
        elif code == 0 and below and depth == MAX_DEPTH - 1:
            code = _DEEP
        if code:
            ends[0] = number
            return code
        has |= (_MARKED if kind == MARKER else 0) | (_WATCHED if kind == DISTINCT else 0)
        if not depth:
            firsts[rule] = number
        if below:
            around[depth], left[depth] = number, below
            depth += 1
            continue
        ends[number] = number + 1
        while depth:
            left[depth - 1] -= 1
            if left[depth - 1]:
                break
            depth -= 1
            ends[around[depth]] = number + 1
        if not depth:
            rule += 1
    if depth or rule < len(firsts):
        if len(ends):
            ends[0] = len(nodes)
        return _BAD
    return has


@jit
def _check_node(kind: int, what: int, more: int, depth: int, texts: int, leaves: int, rules: int) -> int:
    """A code where a node is none, or stands where it may not; else 0."""
    if kind in (LITERAL, MARKER, DISTINCT):
        is_good = 0 <= what < texts and more >= 0
    elif kind == LEAF:
        is_good = 0 <= what < leaves
    elif kind == CALL:
        is_good = 0 <= what < rules
    elif kind == REPEAT:
        if what < 0 or more < UNBOUNDED or (more != UNBOUNDED and more < what):
            return _BACKWARD
        return _OFTEN if max(what, more) > MAX_REPEAT else 0
    else:
        is_good = kind in (OPTIONAL, ELEMENT) or (kind in (SEQUENCE, CHOICE) and what >= 0)
    if not is_good:
        return _BAD
    return _INSIDE if depth and kind in (DISTINCT, ELEMENT) else 0
