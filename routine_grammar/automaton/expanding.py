"""Expanding the skeleton's states: which bytes lead where, what is entered and shared, and where two readings become a product.

As in `pools`, functions answer a code where something is missing, and are called again from the start. A state is written
last, in one piece: until then nothing that stepping reads has changed.
"""

from __future__ import annotations

from functools import cache

from routine_grammar.automaton.opening import (
    group_bytes,
    inlined,
    leaf_is_clear,
    rule_is_clear,
)
from routine_grammar.automaton.pools import (
    AMOUNT,
    BOUNDS,
    BYTE_WORDS,
    CODES,
    EDGE_DRAFT,
    FIRST_WORD,
    FULL,
    NEED_PSEUDO,
    NEXT,
    OF_EDGES,
    OF_NEXT,
    OF_PAIRS,
    OF_SYMBOLS,
    READING_OF,
    READINGS,
    ROWS,
    TEXT,
    UNSET,
    USED,
    WORDS,
    add_byte,
    add_bytes,
    has_byte,
    lacks,
    next_byte,
    wants,
)
from routine_grammar.automaton.readings import (
    CALL_COUNT,
    HEAD_SIZE,
    IS_END_READ,
    LEAF_COUNT,
    OF_LEAF,
    OF_POINT,
    SYMBOL_COUNT,
    TEXT_COUNT,
    begin,
    closure,
    finish,
    leaf_groups,
    of_reading,
    push,
    push_reading,
    push_set,
    push_text,
    saturated,
    set_of_pairs,
)
from routine_grammar.automaton.sorting import (
    sort_pairs,
)
from routine_grammar.automaton.states import (
    behind_of,
    new_states,
    return_of,
    set_forward,
    start_state,
    state_of,
)
from routine_grammar.automaton.step import (
    COUNTED,
    EDGES_KNOWN,
    RETURN,
    SKELETON,
    UNKNOWN,
    counted_after,
)
from routine_grammar.automaton.tables import (
    AFTER,
    BYTE,
    DISTANCE,
    EDGE_COLUMNS,
    EDGE_HIGH,
    EDGE_LOW,
    EDGES,
    ENTERS,
    KIND,
    SYMBOL_COLUMNS,
    SYMBOL_HIGH,
    SYMBOL_LOW,
    SYMBOL_TARGET,
    SYMBOLS,
    TARGET,
    Handle,
    get,
    get_byte,
    leaf_next,
    of_pseudo,
    of_state,
    pseudo_number,
    put,
    set_state,
)
from routine_grammar.jit import address_of, jit


@jit
def expand(t: Handle, number: int) -> int:
    """Make the edges of a state; returns 0, or a code."""
    if of_state(t, number, KIND) != UNKNOWN:
        return 0
    code = enter_at_once(t, number)
    if code:
        return min(code, 0)
    reading = saturated(t, get(t, READING_OF, number))
    reading = inlined(t, reading) if reading >= 0 else reading
    if reading < 0:
        return reading
    length = common_length(t, reading)
    if length:
        return expand_text(t, number, reading, length)
    return expand_bytes(t, number, reading)


def _expand(t: Handle, number: int) -> int:
    return expand(t, number)


@cache
def address_of_expand() -> int:
    """Where `expand` stands."""
    return address_of(_expand)


@jit
def enter_at_once(t: Handle, number: int) -> int:
    """Make a state a forward where its reading is nothing but one clear call: 1 then, 0 else, or a code."""
    at = get(t, FIRST_WORD, get(t, READING_OF, number))
    leaves, rules = get(t, READINGS, at + LEAF_COUNT), get(t, READINGS, at + CALL_COUNT)
    others = get(t, READINGS, at + TEXT_COUNT) + get(t, READINGS, at + SYMBOL_COUNT) + get(t, READINGS, at + IS_END_READ)
    if others or leaves + rules != 1:
        return 0
    what, behind = get(t, READINGS, at + HEAD_SIZE), get(t, READINGS, at + HEAD_SIZE + 1)
    clear = leaf_is_clear(t, what, behind) if leaves else rule_is_clear(t, what, behind)
    if clear <= 0:
        return clear
    to = what if leaves else start_state(t, what)
    back = return_of(t, behind) if to > CODES else to
    if back <= CODES:
        return back
    set_forward(t, number, to, back)
    return 1


@jit
def common_length(t: Handle, reading: int) -> int:
    """Length of the text that has to come next, where a reading is nothing but texts, which are in order."""
    at = get(t, FIRST_WORD, reading)
    texts = get(t, READINGS, at + TEXT_COUNT)
    others = get(t, READINGS, at + LEAF_COUNT) + get(t, READINGS, at + CALL_COUNT) + get(t, READINGS, at + SYMBOL_COUNT)
    if others or get(t, READINGS, at + IS_END_READ) or not texts:
        return 0
    first, last = at + HEAD_SIZE, at + HEAD_SIZE + 3 * (texts - 1)
    one, other = get(t, READINGS, first), get(t, READINGS, last)
    most = min(get(t, READINGS, first + 1), get(t, READINGS, last + 1))
    length = 0
    while length < most and get_byte(t, TEXT, one + length) == get_byte(t, TEXT, other + length):
        length += 1
    return length


@jit
def after(t: Handle, reading: int, low: int, high: int, skip: int, leaves: int) -> int:
    """The reading of the texts `low` to `high` of a reading behind some bytes, and of its first leaves at `NEXT`, or a code."""
    of_leaves = leaf_groups(t, reading)
    texts = get(t, FIRST_WORD, reading) + HEAD_SIZE
    begin(t)
    code = 0
    for at in range(texts + 3 * low, texts + 3 * high, 3):
        if code >= 0 and get(t, READINGS, at + 1) == skip:
            code = push(t, OF_POINT, 0, get(t, READINGS, at + 2))
    for place in range(leaves):
        if code >= 0 and get(t, NEXT, place) == RETURN:
            code = push_set(t, OF_POINT, 0, get(t, READINGS, of_leaves + 2 * place + 1))
    behind = -1
    if code >= 0 and get(t, USED, OF_PAIRS):
        sort_pairs(t)
        points = set_of_pairs(t, 0, get(t, USED, OF_PAIRS))
        behind = closure(t, points) if points >= 0 else points
        code = behind
    begin(t)
    for at in range(texts + 3 * low, texts + 3 * high, 3):
        if code >= 0 and get(t, READINGS, at + 1) > skip:
            start, length = get(t, READINGS, at) + skip, get(t, READINGS, at + 1) - skip
            code = push_text(t, start, length, get(t, READINGS, at + 2))
    for place in range(leaves):
        if code >= 0 and get(t, NEXT, place) >= 0:
            code = push_set(t, OF_LEAF, get(t, NEXT, place), get(t, READINGS, of_leaves + 2 * place + 1))
    if code >= 0 and behind >= 0:
        code = push_reading(t, behind, 0)
    return finish(t) if code >= 0 else code


@jit
def expand_text(t: Handle, number: int, reading: int, length: int) -> int:
    """Have a state read a text, through states of which there is one between any two bytes."""
    start = get(t, READINGS, get(t, FIRST_WORD, reading) + HEAD_SIZE)
    found = after(t, reading, 0, of_reading(t, reading, TEXT_COUNT), length, 0)
    last = state_of(t, found) if found >= 0 else found
    if last <= CODES:
        return last
    edge = get(t, USED, OF_EDGES)
    if lacks(t, OF_EDGES, edge + length):
        return FULL
    inner = new_states(t, length - 1)
    if inner < 0:
        return inner
    for place in range(length):
        target = last if place == length - 1 else SKELETON + inner + place
        set_edge(t, edge + place, get_byte(t, TEXT, start + place), target, 0, -1)
        state = number if place == 0 else inner + place - 1
        set_state(t, state, DISTANCE, of_state(t, number, DISTANCE) - place)
        set_state(t, state, EDGE_LOW, edge + place)
        set_state(t, state, EDGE_HIGH, edge + place + 1)
        set_state(t, state, KIND, EDGES_KNOWN)
    put(t, USED, OF_EDGES, edge + length)
    return 0


@jit
def set_edge(t: Handle, edge: int, byte: int, target: int, enters: int, back: int) -> None:
    """Set all columns of an edge."""
    put(t, EDGES, edge * EDGE_COLUMNS + BYTE, byte)
    put(t, EDGES, edge * EDGE_COLUMNS + TARGET, target)
    put(t, EDGES, edge * EDGE_COLUMNS + ENTERS, enters)
    put(t, EDGES, edge * EDGE_COLUMNS + AFTER, back)


@jit
def expand_bytes(t: Handle, number: int, reading: int) -> int:
    """Edges byte by byte: what one group alone can take enters it, what several can take is their product."""
    code = share_bytes(t, reading)
    code = draft_entering(t, reading) if code >= 0 else code
    code = draft_products(t, reading) if code >= 0 else code
    symbols = of_reading(t, reading, SYMBOL_COUNT)
    of_symbols = get(t, FIRST_WORD, reading + 1) - 2 * symbols
    for place in range(symbols):
        if code >= 0:
            state = behind_of(t, get(t, READINGS, of_symbols + 2 * place + 1))
            code = state if state <= CODES else 0
    if code < 0:
        return code
    drafted, count = drafted_row(t, reading), 0
    byte = next_byte(t, ROWS, drafted, 0)
    while byte < 256:
        count += 1
        byte = next_byte(t, ROWS, drafted, byte + 1)
    edge, symbol = get(t, USED, OF_EDGES), get(t, USED, OF_SYMBOLS)
    if lacks(t, OF_EDGES, edge + count) or lacks(t, OF_SYMBOLS, symbol + symbols):
        return FULL
    set_state(t, number, EDGE_LOW, edge)
    set_state(t, number, EDGE_HIGH, edge + count)
    set_state(t, number, SYMBOL_LOW, symbol)
    set_state(t, number, SYMBOL_HIGH, symbol + symbols)
    byte = next_byte(t, ROWS, drafted, 0)
    while byte < 256:
        at = 3 * byte
        set_edge(t, edge, byte, get(t, EDGE_DRAFT, at), get(t, EDGE_DRAFT, at + 1), get(t, EDGE_DRAFT, at + 2))
        edge += 1
        byte = next_byte(t, ROWS, drafted, byte + 1)
    for place in range(symbols):
        put(t, SYMBOLS, (symbol + place) * SYMBOL_COLUMNS, get(t, READINGS, of_symbols + 2 * place))
        target = behind_of(t, get(t, READINGS, of_symbols + 2 * place + 1))
        put(t, SYMBOLS, (symbol + place) * SYMBOL_COLUMNS + SYMBOL_TARGET, target)
    put(t, USED, OF_EDGES, edge)
    put(t, USED, OF_SYMBOLS, symbol + symbols)
    set_state(t, number, KIND, EDGES_KNOWN)
    return 0


@jit
def drafted_row(t: Handle, reading: int) -> int:
    """Where the set of the bytes begins for which an edge is drafted: the last row of `ROWS`."""
    groups = 1 + of_reading(t, reading, LEAF_COUNT) + of_reading(t, reading, CALL_COUNT)
    return (groups + 1) * get(t, USED, WORDS)


@jit
def share_bytes(t: Handle, reading: int) -> int:
    """Write to the row of `ROWS` behind its groups the bytes that no group can take alone, or not clearly; 0, or a code."""
    code = group_bytes(t, reading)
    if code < 0:
        return code
    leaves, words = of_reading(t, reading, LEAF_COUNT), get(t, USED, WORDS)
    groups = 1 + leaves + of_reading(t, reading, CALL_COUNT)
    for word in range(BYTE_WORDS):
        seen = shared = 0
        for group in range(groups):
            row = get(t, ROWS, group * words + word)
            shared |= seen & row
            seen |= row
        put(t, ROWS, groups * words + word, shared)
    at = leaf_groups(t, reading)
    for place in range(leaves):
        clear = leaf_is_clear(t, get(t, READINGS, at + 2 * place), get(t, READINGS, at + 2 * place + 1))
        if clear < 0:
            return clear
        if not clear:
            add_bytes(t, ROWS, groups * words, ROWS, (1 + place) * words)
    return 0


@jit
def draft_entering(t: Handle, reading: int) -> int:
    """Draft the edges that enter a leaf or a rule; returns 0, or a code."""
    leaves, rules, words = of_reading(t, reading, LEAF_COUNT), of_reading(t, reading, CALL_COUNT), get(t, USED, WORDS)
    at, shared, drafted = leaf_groups(t, reading), (1 + leaves + rules) * words, drafted_row(t, reading)
    for place in range(leaves + rules):
        what, behind = get(t, READINGS, at + 2 * place), get(t, READINGS, at + 2 * place + 1)
        row, is_any = (1 + place) * words, False
        for word in range(BYTE_WORDS):
            if place < leaves:
                put(t, ROWS, row + word, get(t, ROWS, row + word) & ~get(t, ROWS, shared + word))
            is_any = is_any or get(t, ROWS, row + word) != 0
        if not is_any:
            continue
        to = what if place < leaves else start_state(t, what)
        back = return_of(t, behind) if to > CODES else to
        if back <= CODES:
            return back
        byte = next_byte(t, ROWS, row, 0)
        while byte < 256:
            draft_edge(t, drafted, byte, to, 1, back)
            byte = next_byte(t, ROWS, row, byte + 1)
    return 0


@jit
def draft_edge(t: Handle, drafted: int, byte: int, to: int, enters: int, back: int) -> None:
    """Draft an edge, and put its byte into a set of `ROWS`."""
    add_byte(t, ROWS, drafted, byte)
    put(t, EDGE_DRAFT, 3 * byte, to)
    put(t, EDGE_DRAFT, 3 * byte + 1, enters)
    put(t, EDGE_DRAFT, 3 * byte + 2, back)


@jit
def draft_products(t: Handle, reading: int) -> int:
    """Draft the edges on which texts, and leaves that share their bytes, go on together; returns 0, or a code."""
    leaves = of_reading(t, reading, LEAF_COUNT)
    shared = (1 + leaves + of_reading(t, reading, CALL_COUNT)) * get(t, USED, WORDS)
    texts, of_leaves = of_reading(t, reading, TEXT_COUNT), leaf_groups(t, reading)
    at = get(t, FIRST_WORD, reading) + HEAD_SIZE
    if lacks(t, OF_NEXT, 257 * (leaves + 1)):
        return FULL
    drafted = drafted_row(t, reading)
    known = low = 0
    byte = -1
    while True:
        byte = min(next_byte(t, ROWS, 0, byte + 1), next_byte(t, ROWS, shared, byte + 1))
        if byte == 256:
            return 0
        high = low
        while high < texts and get_byte(t, TEXT, get(t, READINGS, at + 3 * high)) == byte:
            high += 1
        with_leaves = leaves if has_byte(t, ROWS, shared, byte) else 0
        if low == high and not with_leaves:
            continue
        for place in range(with_leaves):
            state = leaf_after(t, get(t, READINGS, of_leaves + 2 * place), byte)
            if state <= CODES:
                return state
            put(t, NEXT, place, state)
        target = known_product(t, leaves, known) if low == high else UNSET
        if target == UNSET:
            found = after(t, reading, low, high, 1, with_leaves)
            target = state_of(t, found) if found >= 0 else found
            if target <= CODES:
                return target
            if low == high:
                known += 1
                for place in range(leaves):
                    put(t, NEXT, known * (leaves + 1) + place, get(t, NEXT, place))
                put(t, NEXT, known * (leaves + 1) + leaves, target)
        draft_edge(t, drafted, byte, target, 0, -1)
        low = high


@jit
def known_product(t: Handle, leaves: int, known: int) -> int:
    """The state that was found for leaves as at the beginning of `NEXT`, of so many that were; UNSET where none was."""
    for number in range(1, known + 1):
        place = 0
        while place < leaves and get(t, NEXT, place) == get(t, NEXT, number * (leaves + 1) + place):
            place += 1
        if place == leaves:
            return get(t, NEXT, number * (leaves + 1) + leaves)
    return UNSET


@jit
def leaf_after(t: Handle, state: int, byte: int) -> int:
    """The state of a leaf after a byte, DEAD or RETURN, or a code: a counted one has its count in it."""
    if state < COUNTED:
        return leaf_next(t, state, byte)
    real, bounds = of_pseudo(t, state - COUNTED, 0), of_pseudo(t, state - COUNTED, 2)
    target, number = counted_after(t, leaf_next(t, real, byte), of_pseudo(t, state - COUNTED, 1), bounds)
    if target < 0:
        return target
    found = pseudo_number(t, target, number, bounds)
    if found < 0:
        put(t, USED, AMOUNT, number)
        put(t, USED, BOUNDS, bounds)
        return wants(t, NEED_PSEUDO, target)
    return COUNTED + found
