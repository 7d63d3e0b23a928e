"""Walks of a vocabulary's trie through an automaton, compiled by numba: which tokens are allowed, where tokens lead.

Functions answer `NEED - i` where skeleton state i has to be expanded first, and start afresh when called again; walks expand
what they come to themselves, and answer so only where the skeleton has to provide something for it.
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
    SKELETON,
    STACK,
    Configuration,
    copy,
    has_edges_alone,
    may_end,
    may_take,
    settle,
    step,
    step_symbol,
    take_bytes,
)
from routine_grammar.automaton.tables import (
    BYTE,
    EDGE_HIGH,
    EDGE_LOW,
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
    of_edge,
    of_state,
    put,
)
from routine_grammar.jit import carray, jit, pointer
from routine_grammar.masks.packing import add_token, clear_slots
from routine_grammar.masks.trie import BYTES, DEPTHS, LAST_OF_TRIE, ROOTS, SAME, SKIPS, TOKENS

Ids = npt.NDArray[np.int32]

# Places of what leaves a leaf, behind a trie of rests: where those of a rest begin, the tokens, the characters they complete.
STARTS, EXITS, COUNTS = range(LAST_OF_TRIE + 1, LAST_OF_TRIE + 4)
# Words of a frame, addresses and sizes of what a walk works with: the configuration given, [HEAD + STACK], and the one after a
# token; rows of such, [DEPTH]; scratch, [3, WIDTH]; the tokens' bytes one behind the other, and where they begin; the handle of
# their trie; the tokens of the automaton's symbols; what is told at last, [2].
GIVEN, AFTER, ROWS, DEPTH, SCRATCH, WIDTH, BLOB, OFFSETS, TRIE, SYMBOLS, SYMBOL_COUNT, DONE = range(12)
FRAME = 12


@jit
def framed(frame: int, place: int) -> int:
    """A word of a frame."""
    return int(carray(pointer(frame), (FRAME,), np.int64)[place])


@jit
def take_token(t: Handle, frame: int, token: int) -> int:
    """Find the configuration after a token's bytes, its state being what stopped it where it is not allowed.

    From the frame's `GIVEN` to its `AFTER`; returns 0, or what the skeleton has to provide first.
    """
    before = carray(pointer(framed(frame, GIVEN)), (HEAD + STACK,), np.int32)
    row = carray(pointer(framed(frame, AFTER)), (HEAD + STACK,), np.int32)
    offsets = carray(pointer(framed(frame, OFFSETS) + 8 * token), (2,), np.int64)
    data = carray(pointer(framed(frame, BLOB) + offsets[0]), (offsets[1] - offsets[0],), np.uint8)
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
def collect(t: Handle, frame: int, exits: Handle, low: int, high: int) -> int:
    """Find the tokens that the configuration in a frame's `GIVEN` allows; returns 0, or what the skeleton has to provide first.

    Those of its trie; or, where there are `exits` of the leaf at hand, those of which the rest is allowed behind it and which
    complete `low` to `high` characters in it. Writes to `DONE` how many words they take as a packed row, which stand in the
    second row of `SCRATCH` (`pack`), and whether the text may end here. `ROWS` are overwritten; so is `SCRATCH`, but that its
    third row is all 0 before and after it.
    """
    while True:
        state = try_to_collect(t, frame, exits, low, high)
        if state > NEED:
            return 0
        asked = expand_needed(t, state)
        if asked:
            return asked


@jit
def try_to_collect(t: Handle, frame: int, exits: Handle, low: int, high: int) -> int:
    """As `collect`; returns 0 or NEED - i."""
    configuration = carray(pointer(framed(frame, GIVEN)), (HEAD + STACK,), np.int32)
    rows = carray(pointer(framed(frame, ROWS)), (framed(frame, DEPTH), HEAD + STACK), np.int32)
    scratch = carray(pointer(framed(frame, SCRATCH)), (3, framed(frame, WIDTH)), np.int32)
    symbols = carray(pointer(framed(frame, SYMBOLS)), (framed(frame, SYMBOL_COUNT),), np.int32)
    done = carray(pointer(framed(frame, DONE)), (2,), np.int32)
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
    found = walk_trie(t, exits if exits else framed(frame, TRIE), rows, hits[count:]) if first[0] >= 0 else 0
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
    state = int(rows[0, 0])
    if not has_edges_alone(t, state):
        return walk_nodes(t, trie, 0, get_word(trie, SIZES, BYTES), rows, out, 0)
    count, i = 0, state - SKELETON
    for edge in range(of_state(t, i, EDGE_LOW), of_state(t, i, EDGE_HIGH)):
        node = get(trie, ROOTS, of_edge(t, edge, BYTE))
        if node >= 0:
            count = walk_nodes(t, trie, node, get(trie, SKIPS, node), rows, out, count)
            if count <= NEED:
                return count
    return count


@jit
def walk_nodes(t: Handle, trie: Handle, node: int, nodes: int, rows: npt.NDArray[np.int32], out: Ids, count: int) -> int:
    """As `walk_trie`, for the nodes from `node` to `nodes`; `count` tokens are written already."""
    while node < nodes:
        depth = get(trie, DEPTHS, node)
        row = rows[depth + 1]
        if not may_take(t, rows[depth], get_byte(trie, BYTES, node)):
            node = get(trie, SKIPS, node)
            continue
        copy(row, rows[depth])
        state = step(t, row, get_byte(trie, BYTES, node))
        if state <= NEED:
            if expand_needed(t, state):
                return state
            continue
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
        if not may_take(t, rows[depth], get_byte(trie, BYTES, node)):
            node = get(trie, SKIPS, node)
            continue
        copy(row, rows[depth])
        state = step(t, row, get_byte(trie, BYTES, node))
        if state <= NEED:
            if expand_needed(t, state):
                return state
            continue
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
