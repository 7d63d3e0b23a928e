"""Where tokens land in a flat form, compiled by numba: the rows of its states, and the ways between them.

`r` is the handle of the arrays below, `f` that of the flat states.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from routine_grammar.automaton.step import HEAD, RETURN, STACK, Configuration
from routine_grammar.automaton.tables import (
    SIZES,
    Handle,
    column_getter,
    column_setter,
    get,
    get_byte,
    get_word,
    put,
    put_word,
)
from routine_grammar.jit import jit
from routine_grammar.masks.flat.arrays import size_of
from routine_grammar.masks.flat.comb import NOWHERE
from routine_grammar.masks.flat.states import (
    BY_SYMBOL,
    ENDS,
    FIRST_MOVE,
    HIGH,
    LOW,
    RETURNED,
    STATES,
    TO,
    count_of,
    find,
    load_state,
    of_move,
)
from routine_grammar.masks.packing import add_token, add_word, clear_slots
from routine_grammar.masks.trie import BYTES, DEPTHS, ROOTS, SAME, SKIPS, TOKENS
from routine_grammar.masks.walks import EXITS, STARTS

Ids = npt.NDArray[np.int32]

# Arrays by their places: counts of what there is; the comb (`comb`); of each state its row, the token that is forced there (or
# UNTOLD, FREE), whether a token ends there, the last state of which it was seen as a landing; states to look at, and forced
# ones to spell; the ways from state to state by one token; of each row its base and where its words begin, and by which slots
# rows are found;
COUNTS, COMB, OFFSETS, NUMBERS, CLASSES, ROW_OF, FORCED, LANDED, SEEN, TODO, PENDING, EDGES = range(1, 13)
BASE_OF, FIRST, ROW_WORDS, ROW_SLOTS = range(13, 17)
# of each state the place of its leaf's state, or -1; of each of these the handle of its leaf row, whether it accepts, its base
# or -1, its words where it has none, and the leaf's states that its tokens lead to; tokens that end a text, the likely one or
# -1; those of symbols; the handle of the vocabulary's trie; scratch.
LEAF_OF, HANDLES, ACCEPTING, BASE, SMALL, FIRST_SMALL, WAYS, FIRST_WAY = range(17, 25)
END_TOKENS, LIKELY_END, SYMBOL_TOKENS, TRIE, WALKED = range(25, 30)
LAST = WALKED
USED_TODO, USED_PENDING, USED_EDGES, USED_ROWS, USED_WORDS = range(5)
UNTOLD, FREE = -2, -1
FULL = 1  # what is answered where there is no room for edges or words

of_edge, set_edge = column_getter(EDGES, 2), column_setter(EDGES, 2)
of_row_word, set_row_word = column_getter(ROW_WORDS, 2), column_setter(ROW_WORDS, 2)
of_small = column_getter(SMALL, 2)


@jit
def used(r: Handle, which: int) -> int:
    """How many of something there are."""
    return get_word(r, COUNTS, which)


@jit
def add_to(r: Handle, place: int, which: int, value: int) -> None:
    """Put a number behind those that an array has."""
    put(r, place, used(r, which), value)
    put_word(r, COUNTS, which, used(r, which) + 1)


@jit
def incoming_bytes(f: Handle, incoming: npt.NDArray[np.uint8]) -> None:
    """Set the bits of the bytes that lead to each state, [states, 32]."""
    for at in range(get(f, FIRST_MOVE, count_of(f, STATES))):
        for byte in range(of_move(f, at, LOW), of_move(f, at, HIGH) + 1):
            incoming[of_move(f, at, TO), byte >> 3] |= 1 << (byte & 7)


@jit
def is_forced(f: Handle, symbols: int, number: int) -> bool:
    """Whether there is but one byte, or one symbol, that may come next."""
    first, last = get(f, FIRST_MOVE, number), get(f, FIRST_MOVE, number + 1)
    if get(f, ENDS, number) or last - first > 1 or (last - first == 1 and of_move(f, first, LOW) != of_move(f, first, HIGH)):
        return False
    ways = last - first
    for symbol in range(symbols):
        ways += get(f, BY_SYMBOL, number * symbols + symbol) >= 0
    return bool(ways == 1)


@jit
def forced_text(f: Handle, symbols: int, number: int, pieces: Ids) -> tuple[int, int]:
    """Write the only bytes, and 256 + symbols, that can come at a state; returns how many, and the state behind them."""
    length = 0
    while length < len(pieces) and is_forced(f, symbols, number):
        at = get(f, FIRST_MOVE, number)
        if at < get(f, FIRST_MOVE, number + 1):
            pieces[length] = of_move(f, at, LOW)
            number = of_move(f, at, TO)
        else:
            symbol = 0
            while get(f, BY_SYMBOL, number * symbols + symbol) < 0:
                symbol += 1
            pieces[length] = 256 + symbol
            number = get(f, BY_SYMBOL, number * symbols + symbol)
        length += 1
    return length, number


@jit
def after_byte(r: Handle, state: int, byte: int) -> int:
    """As `comb.after_byte`."""
    entry = get_word(r, COMB, state + 1 + get_byte(r, CLASSES, byte))
    return (entry if entry >> 32 == state else get_word(r, COMB, state)) & 0xFFFFFFFF


@jit
def take_run(
    r: Handle, f: Handle, number: int, tokens: Ids, blob: npt.NDArray[np.uint8], token_offsets: npt.NDArray[np.int64]
) -> int:
    """Make tokens that spell forced text the rows of the states that they lead through.

    Returns the state behind them, -FULL where there is no room, and -2 where one of the states has another token by now.
    """
    for token in tokens:
        forced = get(r, FORCED, number)
        if forced != UNTOLD and forced != token:
            return -2
        if used(r, USED_EDGES) >= size_of(r, EDGES) // 2 or used(r, USED_WORDS) >= size_of(r, ROW_WORDS) // 2:
            return -FULL
        after = after_token(r, f, number, token, blob, token_offsets)
        if forced == UNTOLD:
            put(r, FORCED, number, token)
            set_row_word(r, used(r, USED_WORDS), 0, token >> 5)
            set_row_word(r, used(r, USED_WORDS), 1, 1 << (token & 31))
            put(r, ROW_OF, number, keep_row(r, -1, 1))
            add_edge(r, number, after)
        number = after
    return number


@jit
def after_token(
    r: Handle, f: Handle, number: int, token: int, blob: npt.NDArray[np.uint8], token_offsets: npt.NDArray[np.int64]
) -> int:
    """The state after a token that is allowed."""
    symbols = size_of(r, SYMBOL_TOKENS)
    if token_offsets[token] == token_offsets[token + 1]:
        symbol = 0
        while get(r, SYMBOL_TOKENS, symbol) != token:
            symbol += 1
        return get(f, BY_SYMBOL, number * symbols + symbol)
    state = get(r, OFFSETS, number)
    for at in range(token_offsets[token], token_offsets[token + 1]):
        state = after_byte(r, state, blob[at])
    return get(r, NUMBERS, state)


@jit
def add_edge(r: Handle, source: int, target: int) -> None:
    """Say that a token leads from one state to another."""
    set_edge(r, used(r, USED_EDGES), 0, source)
    set_edge(r, used(r, USED_EDGES), 1, target)
    put_word(r, COUNTS, USED_EDGES, used(r, USED_EDGES) + 1)


@jit
def land(r: Handle, f: Handle, scratch: npt.NDArray[np.int32]) -> int:
    """Make the rows of all states that are to be looked at, and of those that their tokens lead to; returns 0, or `FULL`.

    Forced states that are not told yet are left to be spelled. `scratch` [3, tokens] has its third row all 0 before and after.
    """
    symbols = size_of(r, SYMBOL_TOKENS)
    row = np.zeros(HEAD + STACK, np.int32)
    landings = np.zeros(count_of(f, STATES), np.int32)
    while used(r, USED_TODO):
        number = get(r, TODO, used(r, USED_TODO) - 1)
        if get(r, FORCED, number) != FREE and is_forced(f, symbols, number):
            put_word(r, COUNTS, USED_TODO, used(r, USED_TODO) - 1)
            add_to(r, PENDING, USED_PENDING, number)
            continue
        words, found = collect(r, f, number, symbols, row, scratch, landings)
        room = size_of(r, ROW_WORDS) // 2 - used(r, USED_WORDS) - words
        if room < 0 or used(r, USED_EDGES) + found > size_of(r, EDGES) // 2:
            for at in range(found):
                put(r, SEEN, landings[at], -1)
            return FULL
        put_word(r, COUNTS, USED_TODO, used(r, USED_TODO) - 1)
        put(r, FORCED, number, FREE)
        write_sorted(r, scratch[1], words)
        leaf = get(r, LEAF_OF, number)
        put(r, ROW_OF, number, keep_row(r, get(r, BASE, leaf) if leaf >= 0 else -1, words))
        for at in range(found):
            add_edge(r, number, landings[at])
            if not get(r, LANDED, landings[at]):
                put(r, LANDED, landings[at], 1)
                add_to(r, TODO, USED_TODO, landings[at])
    return 0


@jit
def collect(
    r: Handle, f: Handle, number: int, symbols: int, row: Configuration, scratch: npt.NDArray[np.int32], landings: Ids
) -> tuple[int, int]:
    """Write the words of a state's row, beside its base, to `scratch[1]`, and where its tokens lead to `landings`.

    Returns how many of each.
    """
    packed, slots = scratch[1], scratch[2]
    leaf, words, found = get(r, LEAF_OF, number), 0, 0
    for symbol in range(symbols):
        target = get(f, BY_SYMBOL, number * symbols + symbol)
        if target >= 0:
            words = add_token(get(r, SYMBOL_TOKENS, symbol), packed, slots, words)
            found = add_landing(r, number, target, landings, found)
    behind = number
    if leaf >= 0:
        behind = get(f, RETURNED, number)
        exits = get_word(r, HANDLES, leaf)
        if behind >= 0:
            words, found = walk(
                r, number, behind, exits, exits, 0, get_word(exits, SIZES, BYTES), packed, slots, landings, words, found
            )
        for at in range(get(r, FIRST_SMALL, leaf), get(r, FIRST_SMALL, leaf + 1)):
            words = add_word(of_small(r, at, 0), of_small(r, at, 1), packed, slots, words)
        found = land_within(r, f, number, leaf, behind, row, landings, found)
    if behind >= 0 and (leaf < 0 or get(r, ACCEPTING, leaf)):
        trie = get_word(r, TRIE, 0)
        for at in range(get(f, FIRST_MOVE, behind), get(f, FIRST_MOVE, behind + 1)):
            for byte in range(of_move(f, at, LOW), of_move(f, at, HIGH) + 1):
                node = get(trie, ROOTS, byte)
                if node >= 0:
                    words, found = walk(
                        r, number, behind, trie, 0, node, get(trie, SKIPS, node), packed, slots, landings, words, found
                    )
    if get(f, ENDS, number):
        alone = get(r, LIKELY_END, 0) >= 0 and found == 0
        for place in range(size_of(r, END_TOKENS)):
            if not alone or get(r, END_TOKENS, place) == get(r, LIKELY_END, 0):
                words = add_token(get(r, END_TOKENS, place), packed, slots, words)
    clear_slots(packed, slots, words)
    return words, found


@jit
def add_landing(r: Handle, number: int, target: int, landings: Ids, found: int) -> int:
    """Put a state among those that the tokens of another lead to, once; returns how many there are."""
    if get(r, SEEN, target) == number:
        return found
    put(r, SEEN, target, number)
    landings[found] = target
    return found + 1


@jit
def land_within(
    r: Handle, f: Handle, number: int, leaf: int, behind: int, row: Configuration, landings: Ids, found: int
) -> int:
    """Add the landings of the tokens of a leaf's base."""
    load_state(f, number, row)
    for at in range(get(r, FIRST_WAY, leaf), get(r, FIRST_WAY, leaf + 1)):
        target = behind
        if get(r, WAYS, at) != RETURN:
            row[0] = get(r, WAYS, at)
            target = find(f, row)
        if target >= 0:
            found = add_landing(r, number, target, landings, found)
    return found


@jit
def walk(
    r: Handle,
    number: int,
    start: int,
    trie: Handle,
    exits: Handle,
    node: int,
    nodes: int,
    packed: Ids,
    slots: Ids,
    landings: Ids,
    words: int,
    found: int,
) -> tuple[int, int]:
    """Put every token of a trie that is allowed at state `start` into a packed row, and where each leads to the landings.

    From `node` to `nodes`. With `exits` the tokens of the trie are rests of others. Returns how many words and landings there
    are.
    """
    begin = get(r, OFFSETS, start)
    while node < nodes:
        depth = get(trie, DEPTHS, node)
        state = after_byte(r, get(r, WALKED, depth - 1) if depth else begin, get_byte(trie, BYTES, node))
        if state == NOWHERE:
            node = get(trie, SKIPS, node)
            continue
        put(r, WALKED, depth, state)
        token = get(trie, TOKENS, node)
        if token >= 0:
            found = add_landing(r, number, get(r, NUMBERS, state), landings, found)
        while token >= 0:
            if exits:
                for at in range(get(exits, STARTS, token), get(exits, STARTS, token + 1)):
                    words = add_token(get(exits, EXITS, at), packed, slots, words)
            else:
                words = add_token(token, packed, slots, words)
            token = get(trie, SAME, token)
        node += 1
    return words, found


@jit
def write_sorted(r: Handle, packed: Ids, words: int) -> None:
    """Write so many words of a packed row behind those that rows have, by rising places."""
    begin = used(r, USED_WORDS)
    order = np.argsort(packed[: 2 * words : 2])
    for at in range(words):
        set_row_word(r, begin + at, 0, packed[2 * order[at]])
        set_row_word(r, begin + at, 1, packed[2 * order[at] + 1])


@jit
def keep_row(r: Handle, base: int, words: int) -> int:
    """The row of a base and so many words behind those that rows have: a new one, or the one that is equal."""
    begin, last = used(r, USED_WORDS), size_of(r, ROW_SLOTS) - 1
    mixed = 1469598103934665603 ^ base
    for at in range(begin, begin + words):
        mixed = (mixed ^ of_row_word(r, at, 0)) * 1099511628211
        mixed = (mixed ^ of_row_word(r, at, 1)) * 1099511628211
    slot = (mixed ^ (mixed >> 29)) & last
    while get(r, ROW_SLOTS, slot) != 0:
        row = get(r, ROW_SLOTS, slot) - 1
        if get(r, BASE_OF, row) == base and has_words(r, row, begin, words):
            return row
        slot = (slot + 1) & last
    row = used(r, USED_ROWS)
    put(r, ROW_SLOTS, slot, row + 1)
    put(r, BASE_OF, row, base)
    put(r, FIRST, row, begin)
    put(r, FIRST, row + 1, begin + words)
    put_word(r, COUNTS, USED_ROWS, row + 1)
    put_word(r, COUNTS, USED_WORDS, begin + words)
    return row


@jit
def has_words(r: Handle, row: int, begin: int, words: int) -> bool:
    """Whether a row is of the words that begin at a place."""
    first = get(r, FIRST, row)
    if get(r, FIRST, row + 1) - first != words:
        return False
    for at in range(words):
        for column in range(2):
            if of_row_word(r, first + at, column) != of_row_word(r, begin + at, column):
                return False
    return True


@jit
def measure(r: Handle, f: Handle, size: int) -> Ids:
    """How few tokens lead from each state that has a row to one where the text may end; large where none do."""
    edges = used(r, USED_EDGES)
    first, sources = np.zeros(size + 2, np.int32), np.zeros(edges, np.int32)
    for at in range(edges):
        first[of_edge(r, at, 1) + 2] += 1
    for number in range(size):
        first[number + 2] += first[number + 1]
    for at in range(edges):
        target = of_edge(r, at, 1)
        sources[first[target + 1]] = of_edge(r, at, 0)
        first[target + 1] += 1
    distance, queue = np.full(size, 1 << 30, np.int32), np.zeros(size, np.int32)
    known = done = 0
    for number in range(size):
        if get(f, ENDS, number) and get(r, ROW_OF, number) >= 0:
            distance[number] = 0
            queue[known] = number
            known += 1
    while done < known:
        number = queue[done]
        done += 1
        for at in range(first[number], first[number + 1]):
            source = sources[at]
            if distance[source] == 1 << 30:
                distance[source] = distance[number] + 1
                queue[known] = source
                known += 1
    return distance
