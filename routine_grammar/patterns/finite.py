"""Patterns of few texts, and the strings that are none of some texts.

Objects are full of both: the names of their properties, and the names of all others. Neither needs to be derived.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from itertools import product

import numpy as np

from routine_grammar.patterns.automaton import UnitAutomaton, minimal
from routine_grammar.patterns.charset import CharSet
from routine_grammar.patterns.classes import Classes
from routine_grammar.patterns.minimizing import DEAD
from routine_grammar.patterns.pattern import Chars, Concat, Either, Pattern, Times
from routine_grammar.patterns.reader import read_search

MAX_TEXTS = 10_000
_OTHER = 1  # the state of strings that begin as none of the texts


@lru_cache(maxsize=1024)
def texts_found(expression: str) -> frozenset[str] | None:
    """The texts in which an expression of JSON Schema is found, where these are few; else None. Raises as `read_search`."""
    return texts_of(read_search(expression))


def texts_of(pattern: Pattern) -> frozenset[str] | None:
    """The texts that a pattern matches, where these are few and told without looking for them; else None."""
    match pattern:
        case Chars(chars):
            return frozenset(map(chr, _members(chars))) if len(chars) <= MAX_TEXTS and not chars.escaped else None
        case Either(items):
            ways = [texts_of(item) for item in items]
            known = [texts for texts in ways if texts is not None]
            few = len(known) == len(ways) and sum(map(len, known)) <= MAX_TEXTS
            return frozenset[str]().union(*known) if few else None
        case Concat(items):
            return _in_a_row(items)
        case Times(item, low, high) if high is not None and high <= MAX_TEXTS:
            ways = [_in_a_row((item,) * count) for count in range(low, high + 1)] if high - low < 2 else [None]
            return frozenset[str]().union(*(way for way in ways if way is not None)) if None not in ways else None
        case _:
            return None


def _in_a_row(items: Collection[Pattern]) -> frozenset[str] | None:
    found = frozenset(("",))
    for item in items:
        texts = texts_of(item)
        if texts is None or len(found) * len(texts) > MAX_TEXTS:
            return None
        found = frozenset(map("".join, product(found, texts)))
    return found


def _members(chars: CharSet) -> list[int]:
    return [code for low, high in chars.ranges for code in range(low, high + 1)]


def others(texts: Collection[str], units: CharSet) -> UnitAutomaton:
    """All strings of these units, of which escapes are all there are, that spell none of the texts."""
    children: list[dict[str, int]] = [{}, {}]  # of the empty string, and of those that begin as none of the texts
    ends = set[int]()
    for text in texts:
        node = 0
        for char in text:
            if char not in children[node]:
                children[node][char] = len(children)
                children.append({})
            node = children[node][char]
        ends.add(node)
    spelled = {char: (CharSet.chars(char) & units) | CharSet.chars(char).escapes for node in children for char in node}
    classes = Classes((units, *spelled.values()))
    usual = [_OTHER if classes.masks[units] >> number & 1 else DEAD for number in range(classes.count)]
    table = np.tile(np.array(usual, np.int32), (len(children), 1))
    for row, edges in zip(table, children, strict=True):
        for char, child in edges.items():
            row[[number for number in range(classes.count) if classes.masks[spelled[char]] >> number & 1]] = child
    accepting = np.ones(len(children), np.bool_)
    accepting[list(ends)] = False
    return minimal(table, accepting, classes)
