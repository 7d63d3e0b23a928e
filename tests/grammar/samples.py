"""Random texts of any grammar tree, and edits of them. What is drawn is only a proposal: independent judges decide."""

from __future__ import annotations

import random

from routine_grammar.automaton.leaf import LeafLibrary
from routine_grammar.automaton.step import RETURN
from routine_grammar.grammar.terminals import Terminal
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
from tests.automaton.reference_facts import Analysis

LARGEST = 3_000  # nodes drawn before a text comes to its end
LIKELY = frozenset(b'abeimory_</>tcl017 \\u"')
EDITS = '"\\<>{}[],: 01aeu_\n\x00é😀'


class Sampler:
    """Draws texts of one grammar: leaves by a walk through their automata; deep or large texts by their shortest way out."""

    def __init__(self, grammar: Grammar, seed: int, deepest: int = 12, leaf_bytes: int = 24) -> None:
        self._grammar = grammar
        self._rng = random.Random(seed)
        self._deepest = deepest
        self._leaf_bytes = leaf_bytes
        self._left = LARGEST
        self._library = LeafLibrary.shared()
        self._facts = Analysis(grammar.rules, self._library, {})

    def text(self) -> str:
        """One text of the grammar."""
        self._left = LARGEST
        return self._draw(self._grammar.root, 0).decode()

    def edited(self, text: str) -> str:
        """The text with one character removed, added, changed, doubled, or swapped with the next."""
        rng = self._rng
        place = rng.randrange(len(text) + 1)
        char = rng.choice(EDITS + text[:40])
        before, here, after = text[:place], text[place : place + 1], text[place + 1 :]
        swapped = before + after[:1] + here + after[1:]
        return rng.choice(
            (before + after, before + char + here + after, before + char + after, before + 2 * here + after, swapped)
        )

    def _draw(self, node: Node, depth: int) -> bytes:
        self._left -= 1
        if self._left < 0:
            depth = max(depth, self._deepest + 1)
        match node:
            case Literal(text) | Marker(text):
                return text.encode()
            case Leaf(_, pattern):
                return self._word(pattern)
            case Call(rule):
                return self._draw(self._grammar.rules[rule], depth + 1)
            case Distinct(item) | Element(item):
                return self._draw(item, depth)
            case Sequence(items):
                return b"".join([self._draw(item, depth) for item in items])
            case Choice(items):
                if depth > self._deepest:
                    return self._draw(min(items, key=lambda item: self._facts.of(item).shortest), depth)
                return self._draw(self._rng.choice(items), depth)
            case Optional(item):
                return self._draw(item, depth) if depth <= self._deepest and self._rng.random() < 0.6 else b""
            case Repeat(item, low, high):
                most = low + 2 if high is None else min(high, low + 2)
                count = self._rng.randint(low, most) if depth <= self._deepest else low
                return b"".join([self._draw(item, depth) for _ in range(count)])

    def _word(self, terminal: Terminal) -> bytes:
        library = self._library
        state = library.start(terminal)
        word = bytearray()
        while True:
            if library.is_accepting(state) and (len(word) >= self._leaf_bytes or self._rng.random() < 0.15):
                return bytes(word)
            options = [byte for byte in range(256) if library.first(state) >> byte & 1]
            if not options:
                return bytes(word)
            if len(word) >= self._leaf_bytes:
                after = {byte: library.next(state, byte) for byte in options}
                left = library.distance_of(state)
                options = [b for b in options if after[b] == RETURN or library.distance_of(after[b]) < left]
            likely = [byte for byte in options if byte in LIKELY]
            byte = self._rng.choice(likely if likely and self._rng.random() < 0.8 else options)
            word.append(byte)
            state = library.next(state, byte)
            if state == RETURN:
                return bytes(word)
            assert state >= 0
