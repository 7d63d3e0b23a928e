"""Sorting what is gathered of a reading: pairs of a kind and a point, and texts by their bytes."""

from __future__ import annotations

from routine_grammar.automaton.pools import (
    OF_PAIRS,
    OF_TEXTS,
    PAIRS,
    TEXT,
    TEXTS,
    USED,
)
from routine_grammar.automaton.tables import (
    Handle,
    get,
    get_byte,
    get_word,
    put,
    put_word,
)
from routine_grammar.jit import jit


@jit
def sort_pairs(t: Handle) -> None:
    """Sort what was gathered, each once."""
    count = get(t, USED, OF_PAIRS)
    for place in range(1, count):
        if get_word(t, PAIRS, place - 1) > get_word(t, PAIRS, place):
            for root in range(count // 2 - 1, -1, -1):
                sift_pair(t, root, count)
            for last in range(count - 1, 0, -1):
                swap_pairs(t, 0, last)
                sift_pair(t, 0, last)
            break
    kept = 0
    for place in range(count):
        if not kept or get_word(t, PAIRS, kept - 1) != get_word(t, PAIRS, place):
            put_word(t, PAIRS, kept, get_word(t, PAIRS, place))
            kept += 1
    put(t, USED, OF_PAIRS, kept)


@jit
def swap_pairs(t: Handle, one: int, other: int) -> None:
    """Exchange two pairs."""
    pair = get_word(t, PAIRS, one)
    put_word(t, PAIRS, one, get_word(t, PAIRS, other))
    put_word(t, PAIRS, other, pair)


@jit
def sift_pair(t: Handle, root: int, count: int) -> None:
    """Let a pair sink in the heap of the first so many."""
    while 2 * root + 1 < count:
        below = 2 * root + 1
        if below + 1 < count and get_word(t, PAIRS, below) < get_word(t, PAIRS, below + 1):
            below += 1
        if get_word(t, PAIRS, root) >= get_word(t, PAIRS, below):
            return
        swap_pairs(t, root, below)
        root = below


@jit
def compared(t: Handle, array: int, one: int, other_array: int, other: int) -> int:
    """How a text with the point behind it stands to another, by its bytes first: less than 0, 0 or more."""
    start, length = get(t, array, one), get(t, array, one + 1)
    other_start, other_length = get(t, other_array, other), get(t, other_array, other + 1)
    if start != other_start:
        for place in range(min(length, other_length)):
            difference = get_byte(t, TEXT, start + place) - get_byte(t, TEXT, other_start + place)
            if difference:
                return difference
    if length != other_length:
        return length - other_length
    return get(t, array, one + 2) - get(t, other_array, other + 2)


@jit
def sort_texts(t: Handle) -> None:
    """Sort the texts that were gathered, each once."""
    count = get(t, USED, OF_TEXTS)
    for place in range(1, count):
        if compared(t, TEXTS, 3 * (place - 1), TEXTS, 3 * place) > 0:
            for root in range(count // 2 - 1, -1, -1):
                sift_text(t, root, count)
            for last in range(count - 1, 0, -1):
                swap_texts(t, 0, last)
                sift_text(t, 0, last)
            break
    kept = 0
    for place in range(count):
        if not kept or compared(t, TEXTS, 3 * (kept - 1), TEXTS, 3 * place):
            swap_texts(t, kept, place)
            kept += 1
    put(t, USED, OF_TEXTS, kept)


@jit
def swap_texts(t: Handle, one: int, other: int) -> None:
    """Exchange two texts."""
    for column in range(3):
        value = get(t, TEXTS, 3 * one + column)
        put(t, TEXTS, 3 * one + column, get(t, TEXTS, 3 * other + column))
        put(t, TEXTS, 3 * other + column, value)


@jit
def sift_text(t: Handle, root: int, count: int) -> None:
    """Let a text sink in the heap of the first so many."""
    while 2 * root + 1 < count:
        below = 2 * root + 1
        if below + 1 < count and compared(t, TEXTS, 3 * below, TEXTS, 3 * (below + 1)) < 0:
            below += 1
        if compared(t, TEXTS, 3 * root, TEXTS, 3 * below) >= 0:
            return
        swap_texts(t, root, below)
        root = below
