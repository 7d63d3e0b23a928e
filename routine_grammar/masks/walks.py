"""Walks of a vocabulary's trie through an automaton, compiled by numba: which tokens are allowed, where tokens lead.

Functions answer `NEED - i` where skeleton state i has to be expanded first, and start afresh when called again.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from routine_grammar.automaton import tables
from routine_grammar.automaton.pools import EXPAND, NEW_POINTS, NEW_STATES, USED
from routine_grammar.automaton.step import (
    DEAD,
    HEAD,
    NEED,
    RETURN,
    Configuration,
    copy,
    may_end,
    settle,
    step,
    step_symbol,
    take_bytes,
)
from routine_grammar.automaton.tables import (
    SIZES,
    Handle,
    call_at,
    completes,
    counted_row,
    get,
    get_byte,
    get_word,
    leaf_accepts,
    leaf_next,
    put,
)
from routine_grammar.jit import carray, jit, pointer
from routine_grammar.masks.trie import BYTES, DEPTHS, LAST_OF_TRIE, ROOTS, SAME, SKIPS, TOKENS

Ids = npt.NDArray[np.int32]

# Places of what leaves a leaf, behind a trie of rests: where those of a rest begin, the tokens, the characters they complete.
STARTS, EXITS, COUNTS = range(LAST_OF_TRIE + 1, LAST_OF_TRIE + 4)


@jit
def take_token(
    t: Handle,
    before: Configuration,
    row: Configuration,
    blob: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    token: int,
) -> int:
    """Write the configuration after a token's bytes to `row`, its state being what stopped it where it is not allowed."""
    data = blob[offsets[token] : offsets[token + 1]]
    while True:
        copy(row, before)
        state = take_bytes(t, row, data)
        if state > NEED:
            row[0] = state
            return 0
        asked = expand_needed(t, state)
        if asked:
            return asked


@jit
def expand_needed(t: Handle, state: int) -> int:
    """Expand the state that stepping needs; returns 0, or what the skeleton has to provide first, which is positive."""
    put(t, USED, NEW_STATES, 0)
    put(t, USED, NEW_POINTS, 0)
    return max(-call_at(t, EXPAND, NEED - state), 0)


@jit
def collect(
    t: Handle,
    configuration: Configuration,
    trie: Handle,
    exits: Handle,
    low: int,
    high: int,
    symbols: Ids,
    rows: Ids,
    scratch: Ids,
    done: Ids,
) -> int:
    """Find the tokens that a configuration allows; returns 0, or what the skeleton has to provide first.

    Those of a trie; or, where there are `exits` of the leaf at hand, those of which the rest is allowed behind it and which
    complete `low` to `high` characters in it. `symbols` are the tokens of the automaton's symbols. Writes to `done` how many
    words they take as a packed row, which stand in `scratch[1]` (`pack`), and whether the text may end here. `rows` is
    overwritten; so is `scratch` [3, vocabulary], but that `scratch[2]` is all 0 before and after it.
    """
    while True:
        state = try_to_collect(t, configuration, trie, exits, low, high, symbols, rows, scratch, done)
        if state > NEED:
            return 0
        asked = expand_needed(t, state)
        if asked:
            return asked


@jit
def try_to_collect(
    t: Handle,
    configuration: Configuration,
    trie: Handle,
    exits: Handle,
    low: int,
    high: int,
    symbols: Ids,
    rows: Ids,
    scratch: Ids,
    done: Ids,
) -> int:
    """As `collect`; returns 0 or NEED - i."""
    first, hits, packed, slots = rows[0], scratch[0], scratch[1], scratch[2]
    ends = may_end(t, configuration, first)
    if ends <= NEED:
        return ends
    count = 0
    for number in range(len(symbols)):
        copy(first, configuration)
        state = step_symbol(t, first, number)
        if state <= NEED:
            return state
        if state >= 0:
            packed[count] = symbols[number]
            count += 1
    copy(first, configuration)
    if exits:
        state = settle(t, first, RETURN)
        if state <= NEED:
            return state
        first[0] = state
    found = walk_trie(t, exits if exits else trie, rows, hits[count:]) if first[0] >= 0 else 0
    if found <= NEED:
        return found
    hits[:count] = packed[:count]
    used = 0
    for place in range(count + found):
        if place < count or not exits:
            used = add_token(hits[place], packed, slots, used)
            continue
        for at in range(get(exits, STARTS, hits[place]), get(exits, STARTS, hits[place] + 1)):
            if low <= get(exits, COUNTS, at) <= high:
                used = add_token(get(exits, EXITS, at), packed, slots, used)
    clear_slots(packed, slots, used)
    done[0], done[1] = used, ends
    return 0


@jit
def walk_trie(t: Handle, trie: Handle, rows: npt.NDArray[np.int32], out: Ids) -> int:
    """Write every token that the configuration `rows[0]` allows; returns how many, or NEED - i.

    `rows` [longest token + 2, configuration] int32 is scratch behind its first row.
    """
    count = 0
    node = 0
    nodes = get_word(trie, SIZES, BYTES)
    while node < nodes:
        depth = get(trie, DEPTHS, node)
        row = rows[depth + 1]
        copy(row, rows[depth])
        state = step(t, row, get_byte(trie, BYTES, node))
        if state <= NEED:
            return state
        if state < 0:
            node = get(trie, SKIPS, node)
            continue
        token = get(trie, TOKENS, node)
        while token >= 0:
            out[count] = token
            count += 1
            token = get(trie, SAME, token)
        node += 1
    return count


@jit
def scan_leaf(t: Handle, trie: Handle, start: int, states: Ids, base: npt.NDArray[np.uint32], tokens: Ids, exits: Ids) -> int:
    """Walk the whole vocabulary through a leaf from state `start`.

    Sets the bits of the tokens that stay in the leaf (or leave it with their last byte) in `base`, and writes the tokens
    that leave it earlier, each with the number of its bytes that the leaf takes (at least one), to `tokens` and `exits`.
    Returns how many those are. `states` [longest token + 1] is scratch: a state, or -3 - n once left after n bytes.
    """
    count = 0
    node = 0
    nodes = get_word(trie, SIZES, BYTES)
    while node < nodes:
        depth = get(trie, DEPTHS, node)
        state = start if depth == 0 else states[depth - 1]
        if state >= 0:
            target = leaf_next(t, state, get_byte(trie, BYTES, node))
            if target == RETURN:
                target = -3 - (depth + 1)
            elif target == DEAD:
                target = -3 - depth if depth > 0 and leaf_accepts(t, state) else DEAD
        else:
            target = state
        if target == DEAD:
            node = get(trie, SKIPS, node)
            continue
        states[depth] = target
        token = get(trie, TOKENS, node)
        while token >= 0:
            if target >= 0 or target == -3 - (depth + 1):
                base[token >> 5] |= np.uint32(1) << np.uint32(token & 31)
            else:
                tokens[count] = token
                exits[count] = -3 - target
                count += 1
            token = get(trie, SAME, token)
        node += 1
    return count


@jit
def scan_counted(t: Handle, trie: Handle, start: int, states: Ids, counts: Ids, needs: Ids, tokens: Ids, exits: Ids) -> int:
    """Count the characters of every token through a counted leaf from state `start`.

    `needs` [vocabulary], -1 at first, is set for the tokens that stay in the leaf, or leave it with their last byte: the
    characters that they complete and that it then takes at least to the end; to the former alone, complemented, for the
    latter. Tokens that leave it earlier are written to `tokens`, in the order in which `scan_leaf` writes them, each with the
    number of characters that it completes in the leaf to `exits`. Returns how many those are. `states` and `counts`
    [longest token + 1] are scratch.
    """
    count = 0
    node = 0
    nodes = get_word(trie, SIZES, BYTES)
    while node < nodes:
        depth = get(trie, DEPTHS, node)
        state = start if depth == 0 else states[depth - 1]
        completed = 0 if depth == 0 else counts[depth - 1]
        if state >= 0:
            target = leaf_next(t, state, get_byte(trie, BYTES, node))
            if target >= 0:
                completed += completes(t, counted_row(t, target))
            elif target == RETURN:
                target = -3 - depth
        else:
            target = state
        if target == DEAD:
            node = get(trie, SKIPS, node)
            continue
        states[depth] = target
        counts[depth] = completed
        token = get(trie, TOKENS, node)
        while token >= 0:
            if target >= 0:
                needs[token] = completed + tables.counts(t, counted_row(t, target), 0)
            elif target == -3 - depth:
                needs[token] = -2 - completed
            else:
                tokens[count] = token
                exits[count] = completed
                count += 1
            token = get(trie, SAME, token)
        node += 1
    return count


@jit
def scan_landings(t: Handle, trie: Handle, start: int, states: Ids, counts: Ids, lands: Ids, completed: Ids) -> None:
    """Write where every token leads that stays in a leaf from state `start`: `lands` [vocabulary], all DEAD at first.

    RETURN where the leaf ends with its last byte. `completed` [vocabulary] are the characters that it completes where these
    are counted, else 0. `states` and `counts` [longest token + 1] are scratch.
    """
    node = 0
    nodes = get_word(trie, SIZES, BYTES)
    while node < nodes:
        depth = get(trie, DEPTHS, node)
        state = start if depth == 0 else states[depth - 1]
        done = 0 if depth == 0 else counts[depth - 1]
        target = leaf_next(t, state, get_byte(trie, BYTES, node))
        if target >= 0 and counted_row(t, target) >= 0:
            done += completes(t, counted_row(t, target))
        token = get(trie, TOKENS, node)
        while token >= 0:
            lands[token] = target
            completed[token] = done
            token = get(trie, SAME, token)
        if target < 0:
            node = get(trie, SKIPS, node)
            continue
        states[depth] = target
        counts[depth] = done
        node += 1


@jit
def is_same(one: Configuration, other: Configuration) -> bool:
    """Whether two configurations are equal: what stands behind a stack does not count."""
    place = 0
    while place < HEAD + one[1] and one[place] == other[place]:
        place += 1
    return bool(place == HEAD + one[1])


@jit
def group_tokens(t: Handle, trie: Handle, rows: npt.NDArray[np.int32], groups: Ids, leads: npt.NDArray[np.int32]) -> int:
    """Sort the tokens that the configuration `rows[0]` allows by where each leads: `groups[i]` is token i's row of `leads`.

    `groups` [tokens of the trie] is -1 at first. Returns how many rows of `leads` are used, DEAD where they don't suffice, or
    NEED - i. `rows` [longest token + 2, configuration] int32 is scratch behind its first row.
    """
    used = group = 0
    node = 0
    nodes = get_word(trie, SIZES, BYTES)
    while node < nodes:
        depth = get(trie, DEPTHS, node)
        row = rows[depth + 1]
        copy(row, rows[depth])
        state = step(t, row, get_byte(trie, BYTES, node))
        if state <= NEED:
            return state
        if state < 0:
            node = get(trie, SKIPS, node)
            continue
        token = get(trie, TOKENS, node)
        if token >= 0:
            if group >= used or not is_same(row, leads[group]):
                group = 0
                while group < used and not is_same(row, leads[group]):
                    group += 1
                if group == len(leads):
                    return DEAD
                if group == used:
                    leads[group] = row
                    used += 1
            while token >= 0:
                groups[token] = group
                token = get(trie, SAME, token)
        node += 1
    return used


@jit
def child(trie: Handle, node: int, byte: int) -> int:
    """The node of a byte below a node, or -1."""
    last = get(trie, SKIPS, node)
    below = node + 1
    while below < last and get_byte(trie, BYTES, below) != byte:
        below = get(trie, SKIPS, below)
    return int(below) if below < last else -1


@jit
def fewest_tokens(trie: Handle, pieces: Ids, costs: Ids) -> int:
    """Fewest tokens that spell the pieces (bytes, and from 256 on symbols of one token each). `costs` is scratch."""
    end = len(pieces)
    costs[end] = 0
    for start in range(end - 1, -1, -1):
        best = 1 << 30
        if pieces[start] >= 256:
            best = 1 + costs[start + 1]
        else:
            node = get(trie, ROOTS, pieces[start])
            place = start
            while node >= 0:
                place += 1
                if get(trie, TOKENS, node) >= 0 and 1 + costs[place] < best:
                    best = 1 + costs[place]
                if place == end or pieces[place] >= 256:
                    break
                node = child(trie, node, pieces[place])
        costs[start] = best
    return int(costs[0])


@jit
def goes_on(trie: Handle, text: npt.NDArray[np.uint8], follows: npt.NDArray[np.bool_]) -> bool:
    """Whether some token begins with the text and goes on with one of the bytes that may follow."""
    node = get(trie, ROOTS, text[0])
    for place in range(1, len(text)):
        if node < 0:
            return False
        node = child(trie, node, text[place])
    if node < 0:
        return False
    last = get(trie, SKIPS, node)
    next_node = node + 1
    while next_node < last:
        if follows[get_byte(trie, BYTES, next_node)]:
            return True
        next_node = get(trie, SKIPS, next_node)
    return False


@jit
def add_token(token: int, packed: Ids, slots: Ids, used: int) -> int:
    """Put a token into a packed row of so many words, each behind its place; returns how many there are then.

    `slots` [words] says where in `packed` a word is, behind how many with itself, or 0.
    """
    slot = slots[token >> 5]
    if slot == 0:
        used += 1
        slot = used
        slots[token >> 5] = slot
        packed[2 * slot - 2] = token >> 5
        packed[2 * slot - 1] = 0
    packed[2 * slot - 1] |= 1 << (token & 31)
    return used


@jit
def clear_slots(packed: Ids, slots: Ids, used: int) -> None:
    """Make all slots of a packed row 0."""
    for place in range(used):
        slots[packed[2 * place]] = 0


@jit
def pack(tokens: Ids, packed: Ids, slots: Ids) -> int:
    """Write the words of a packed row of some tokens, each behind its place; returns how many. `slots` stays 0."""
    used = 0
    for token in tokens:
        used = add_token(token, packed, slots, used)
    clear_slots(packed, slots, used)
    return used


@jit
def write_row(out: Ids, base: Ids, packed: Ids) -> None:
    """Overwrite a packed row with a base, which may be shorter, and some words beside it; those outside of it are left out."""
    out[: len(base)] = base
    out[len(base) :] = 0
    set_words(out, packed)


@jit
def set_words(row: Ids, packed: Ids) -> None:
    """Set the bits of some words of a row, each behind its place; those outside of the row are left out."""
    for place in range(0, len(packed), 2):
        if 0 <= packed[place] < len(row):
            row[packed[place]] |= packed[place + 1]


@jit
def write_rows(out: int, words: int, rows: npt.NDArray[np.int64], written: npt.NDArray[np.int64]) -> None:
    """Overwrite packed rows, int32 of so many words each from the address `out` on, where they differ from what was written.

    A row stands at an address: the address of its base and its length, and those of its words beside it. `written` are the
    rows that are there, and then those that are.
    """
    for line in range(len(rows)):
        if rows[line] == written[line]:
            continue
        row = carray(pointer(out + 4 * words * line), (words,), np.int32)
        wanted = carray(pointer(rows[line]), (4,), np.int64)
        before = carray(pointer(written[line]), (4,), np.int64)
        base = carray(pointer(wanted[0]), (wanted[1],), np.int32)
        if before[0] == wanted[0] and before[1] == wanted[1]:
            beside = carray(pointer(before[2]), (before[3],), np.int32)
            for at in beside[::2]:
                if 0 <= at < words:
                    row[at] = base[at] if at < len(base) else 0
        else:
            row[: len(base)] = base
            row[len(base) :] = 0
        set_words(row, carray(pointer(wanted[2]), (wanted[3],), np.int32))
        written[line] = rows[line]
