"""A flat form's states laid out so that one load of eight bytes tells where a byte leads: a state's number is its place.

In: states and their moves. Out: an array of words. State s has its header at s: where all bytes lead that have no entry of
their own, and the number of its row. Its entry for a byte of class c is at s + 1 + c, and for special token i at
s + 1 + classes + i, if the word there says that it is of s: states lie within each other, as in the tables of parser
generators. Bytes are of one class where no state tells them apart.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from routine_grammar.automaton.tables import Handle, get
from routine_grammar.jit import jit
from routine_grammar.masks.flat.states import BY_SYMBOL, FIRST_MOVE, HIGH, LOW, STATES, TO, FlatStates, count_of, of_move

Ids = npt.NDArray[np.int32]
Words = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint64]
Classes = npt.NDArray[np.uint8]

NOWHERE = 0  # the offset of the state to which leads what is not allowed, and which nothing leads away from
_TRIES = 64  # places behind the first free one that are looked at for a state
_LOW_HALF = (1 << 32) - 1


class Comb(NamedTuple):
    """`words` [n]: of an entry the state that it is of (above), and where it leads; of a header -1 less its row's number
    (above), and where all else leads. `offsets[n]` is the place of flat state n, and `numbers` the flat state at each place, or
    -1. `classes` [256] are the classes of bytes, of which there are `class_count`.
    """

    words: Words
    offsets: Ids
    numbers: Ids
    classes: Classes
    class_count: int


def lay_out(states: FlatStates, symbols: Ids, specials: int) -> Comb:
    """The comb of some states. Symbol i is special token `symbols[i]` of so many."""
    hashes = np.zeros(256, np.int64)
    hash_bytes(states.handle, hashes)
    _, inverse = np.unique(hashes, return_inverse=True)
    classes = inverse.astype(np.uint8)
    count = int(inverse.max()) + 1
    entries, defaults = np.zeros((2, len(states)), np.int32)
    line, sizes = np.zeros(count, np.int32), np.bincount(inverse, minlength=count).astype(np.int32)
    told = count_entries(states.handle, len(symbols), classes, line, sizes, defaults, entries)
    assert told == 0, "bytes of one class are told apart"  # two hashes of 64 bits were equal
    order = np.argsort(-entries, kind="stable").astype(np.int32)
    width = 1 + count + specials
    room = 2 * (int(entries.sum()) + len(states)) + 2 * width
    offsets = np.zeros(len(states), np.int32)
    while True:
        words = np.full(room, -1, np.int64)
        used = place(states.handle, symbols, classes, line, defaults, order, words, offsets, width)
        if used:
            break
        room *= 2
    numbers = np.full(used, -1, np.int32)
    numbers[offsets] = np.arange(len(states), dtype=np.int32)
    return Comb(words[:used].copy(), offsets, numbers, classes, count)


@jit
def hash_bytes(f: Handle, hashes: Words) -> None:
    """Add up for each byte where it leads from each state."""
    for number in range(count_of(f, STATES)):
        for at in range(get(f, FIRST_MOVE, number), get(f, FIRST_MOVE, number + 1)):
            mixed = (number * 0x9E3779B97F4A7C1 + of_move(f, at, TO) + 1) * 0x2545F4914F6CDD1D
            mixed = (mixed ^ (mixed >> 31)) * 0x1B03738712FAD5C9
            mixed ^= mixed >> 29
            for byte in range(of_move(f, at, LOW), of_move(f, at, HIGH) + 1):
                hashes[byte] += mixed


@jit
def fill_line(f: Handle, number: int, classes: Classes, line: Ids) -> int:
    """Write 1 + where each class leads from a state to `line`, which was all 0; returns for how many bytes."""
    covered = 0
    for at in range(get(f, FIRST_MOVE, number), get(f, FIRST_MOVE, number + 1)):
        for byte in range(of_move(f, at, LOW), of_move(f, at, HIGH) + 1):
            line[classes[byte]] = of_move(f, at, TO) + 1
            covered += 1
    return covered


@jit
def count_entries(f: Handle, symbols: int, classes: Classes, line: Ids, sizes: Ids, defaults: Ids, entries: Ids) -> int:
    """Find for each state where what has no entry leads, as 1 + a state, 0 being nowhere, and how many entries that leaves.

    Returns -1 where bytes of one class lead to different states, else 0.
    """
    for number in range(len(entries)):
        covered = fill_line(f, number, classes, line)
        candidate = votes = 0
        for target in line:
            if votes == 0:
                candidate = target
            votes += 1 if target == candidate else -1
        alike = nowhere = 0
        for of_class in range(len(line)):
            alike += line[of_class] == candidate
            nowhere += line[of_class] == 0
            covered -= sizes[of_class] if line[of_class] else 0
        for at in range(get(f, FIRST_MOVE, number), get(f, FIRST_MOVE, number + 1)):
            for byte in range(of_move(f, at, LOW), of_move(f, at, HIGH) + 1):
                if line[classes[byte]] != of_move(f, at, TO) + 1:
                    return -1
        if covered:
            return -1
        line[:] = 0
        defaults[number] = candidate if alike > nowhere else 0
        entries[number] = len(line) - max(alike, nowhere)
        for symbol in range(symbols):
            entries[number] += get(f, BY_SYMBOL, number * symbols + symbol) >= 0
    return 0


@jit
def place(
    f: Handle, symbols: Ids, classes: Classes, line: Ids, defaults: Ids, order: Ids, words: Words, offsets: Ids, width: int
) -> int:
    """Place all states, those of most entries first; returns how many words that takes, or 0 where there is no room.

    `words` are all -1 at first; those that are of no state stay so.
    """
    begin, end = 1, 1  # from `end` on all words are free; before `begin` it is not worth while to look for any
    taken, wanted = np.zeros(len(words) // 64 + 2, np.uint64), np.zeros((width + 63) // 64, np.uint64)
    take(taken, NOWHERE)
    entries = np.zeros((2, width), np.int32)
    for number in order:
        used = fill_entries(f, number, symbols, classes, line, defaults[number], entries)
        wanted[:] = 0
        for entry in range(used):
            take(wanted, entries[0, entry])
        last = int(entries[0, used - 1])
        offset = begin
        while offset < end and not fits(taken, wanted, (last >> 6) + 1, offset):
            offset += 1
        begin = max(begin, offset - _TRIES)
        end = max(end, offset + last + 1)
        if end + 2 * width > len(words):
            return 0
        offsets[number] = offset
        for entry in range(used):
            take(taken, offset + entries[0, entry])
            words[offset + entries[0, entry]] = (np.int64(offset) << 32) | np.int64(entries[1, entry])
    point_to_places(words, defaults, offsets, end)
    return end + width


@jit
def fill_entries(f: Handle, number: int, symbols: Ids, classes: Classes, line: Ids, default: int, entries: Ids) -> int:
    """Write the places of a state's header and entries, relative to it, and 1 + where they lead; returns how many."""
    used = 1
    fill_line(f, number, classes, line)
    for of_class in range(len(line)):
        if line[of_class] != default:
            entries[0, used], entries[1, used] = 1 + of_class, line[of_class]
            used += 1
        line[of_class] = 0
    for symbol in range(len(symbols)):
        target = get(f, BY_SYMBOL, number * len(symbols) + symbol)
        if target >= 0:
            entries[0, used], entries[1, used] = 1 + len(line) + symbols[symbol], target + 1
            used += 1
    return used


@jit
def point_to_places(words: Words, defaults: Ids, offsets: Ids, end: int) -> None:
    """Have headers and entries lead to places, and no more to the numbers of flat states."""
    for number in range(len(offsets)):
        words[offsets[number]] = -1
    for at in range(end):
        if words[at] >= 0:
            target = words[at] & _LOW_HALF
            words[at] = (words[at] >> 32 << 32) | np.int64(offsets[target - 1] if target else NOWHERE)
    for number in range(len(offsets)):
        words[offsets[number]] = header(0, offsets[defaults[number] - 1] if defaults[number] else NOWHERE)
    words[NOWHERE] = header(0, NOWHERE)


@jit
def header(row: int, default: int) -> int:
    """The header of a state of a row: the number of no state is above."""
    return int(((-1 - np.int64(row)) << 32) | np.int64(default))


@jit
def take(bits: Bits, place: int) -> None:
    """Set a bit."""
    bits[place >> 6] |= np.uint64(1) << np.uint64(place & 63)


@jit
def fits(taken: Bits, wanted: Bits, words: int, offset: int) -> bool:
    """Whether none of the first so many words of wanted bits, moved by an offset, is taken."""
    shift = np.uint64(offset & 63)
    for word in range(words):
        found = taken[(offset >> 6) + word] >> shift
        if shift:
            found |= taken[(offset >> 6) + word + 1] << (np.uint64(64) - shift)
        if found & wanted[word]:
            return False
    return True


@jit
def after_byte(words: Words, classes: Classes, state: int, byte: int) -> int:
    """The place to which a byte leads from a state's place: NOWHERE where it is not allowed."""
    entry = words[state + 1 + classes[byte]]
    return int((entry if entry >> 32 == state else words[state]) & _LOW_HALF)
