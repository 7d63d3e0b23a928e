"""Sets of points and readings: each is kept once and known by its number.

A reading is `[is end, texts, leaves, rules, symbols]`, and then of each text `(start, length, point behind)` and of each other
`(what, set of points behind)`, in order. Two texts are equal where their bytes are.
"""

from __future__ import annotations

from routine_grammar.automaton.pools import (
    BYTES,
    BYTES_KNOWN,
    CLOSURES,
    COPIES,
    COPY_OF,
    COPY_SLOTS,
    COPY_TABLE,
    DISTANCES,
    DRAFT,
    END,
    FIRST_ITEM,
    FIRST_MEMBER,
    FIRST_WORD,
    FULL,
    INFINITE,
    IS_END,
    LAST_ITEM,
    LEAF,
    LENGTH,
    MARKS_KNOWN,
    MEMBERS,
    NEW_POINTS,
    NOTHING,
    NULLABLE,
    OF_COPIES,
    OF_DRAFT,
    OF_MEMBERS,
    OF_PAIRS,
    OF_POINTS,
    OF_READINGS,
    OF_SETS,
    OF_TEXTS,
    OF_TODO,
    OF_WORDS,
    OPENED,
    PAIRS,
    READING_SLOTS,
    READING_TABLE,
    READINGS,
    READS,
    RULE,
    SEEN,
    SET_SLOTS,
    SET_TABLE,
    SHORTEST,
    STAMP,
    STATE_OF,
    SYMBOL,
    TEXT,
    TEXTS,
    THEN,
    TODO,
    USED,
    WHAT,
    lacks,
    mixed,
    of_item,
    of_rule,
)
from routine_grammar.automaton.sorting import (
    compared,
    sort_pairs,
    sort_texts,
)
from routine_grammar.automaton.step import (
    COUNTED,
)
from routine_grammar.automaton.tables import (
    Handle,
    get,
    get_byte,
    get_word,
    leaf_accepts,
    put,
    put_word,
)
from routine_grammar.jit import jit

IS_END_READ, TEXT_COUNT, LEAF_COUNT, CALL_COUNT, SYMBOL_COUNT, HEAD_SIZE = range(6)
_POINT_BITS, _WHAT_BITS = 30, 28
_POINT, _WHAT = (1 << 30) - 1, (1 << 28) - 1
OF_LEAF, OF_RULE, OF_SYMBOL, OF_POINT = 0, 1 << 58, 2 << 58, 3 << 58  # kinds of pairs


# Sets of points


@jit
def set_of_pairs(t: Handle, low: int, high: int) -> int:
    """The set of the points in some pairs, which are sorted."""
    value = 0
    for place in range(low, high):
        value = mixed(value, get_word(t, PAIRS, place) & _POINT)
    slots = get(t, USED, SET_SLOTS)
    at = value & (slots - 1)
    while get(t, SET_TABLE, at) >= 0:
        number = get(t, SET_TABLE, at)
        start = get(t, FIRST_MEMBER, number)
        place = low if get(t, FIRST_MEMBER, number + 1) - start == high - low else high + 1
        while place < high and get(t, MEMBERS, start + place - low) == get_word(t, PAIRS, place) & _POINT:
            place += 1
        if place == high:
            return number
        at = (at + 1) & (slots - 1)
    number, start = get(t, USED, OF_SETS), get(t, USED, OF_MEMBERS)
    if lacks(t, OF_SETS, number + 1) or lacks(t, OF_MEMBERS, start + high - low):
        return FULL
    for place in range(low, high):
        put(t, MEMBERS, start + place - low, get_word(t, PAIRS, place) & _POINT)
    put(t, FIRST_MEMBER, number + 1, start + high - low)
    put(t, CLOSURES, number, -1)
    put(t, BYTES_KNOWN, number, 0)
    put(t, SET_TABLE, at, number)
    put(t, USED, OF_SETS, number + 1)
    put(t, USED, OF_MEMBERS, start + high - low)
    return number


@jit
def set_hash(t: Handle, number: int) -> int:
    """The hash of a set's points."""
    value = 0
    for place in range(get(t, FIRST_MEMBER, number), get(t, FIRST_MEMBER, number + 1)):
        value = mixed(value, get(t, MEMBERS, place))
    return value


@jit
def set_of_point(t: Handle, point: int) -> int:
    """The set of one point."""
    begin(t)
    if push(t, OF_POINT, 0, point) < 0:
        return FULL
    return set_of_pairs(t, 0, 1)


@jit
def nearest(t: Handle, number: int) -> int:
    """The distance of the nearest point of a set."""
    best = INFINITE
    for place in range(get(t, FIRST_MEMBER, number), get(t, FIRST_MEMBER, number + 1)):
        best = min(best, get(t, DISTANCES, get(t, MEMBERS, place)))
    return best


# Gathering a reading


@jit
def begin(t: Handle) -> None:
    """Gather a reading anew."""
    put(t, USED, OF_PAIRS, 0)
    put(t, USED, OF_TEXTS, 0)
    put(t, USED, IS_END, 0)


@jit
def push(t: Handle, kind: int, what: int, point: int) -> int:
    """Gather what may be read with a point behind it."""
    number = get(t, USED, OF_PAIRS)
    if lacks(t, OF_PAIRS, number + 1):
        return FULL
    put_word(t, PAIRS, number, kind | what << _POINT_BITS | point)
    put(t, USED, OF_PAIRS, number + 1)
    return 0


@jit
def push_set(t: Handle, kind: int, what: int, number: int) -> int:
    """Gather what may be read with each of some points behind it."""
    for place in range(get(t, FIRST_MEMBER, number), get(t, FIRST_MEMBER, number + 1)):
        if push(t, kind, what, get(t, MEMBERS, place)) < 0:
            return FULL
    return 0


@jit
def push_text(t: Handle, start: int, length: int, point: int) -> int:
    """Gather a rest of a literal."""
    number = get(t, USED, OF_TEXTS)
    if lacks(t, OF_TEXTS, number + 1):
        return FULL
    put(t, TEXTS, 3 * number, start)
    put(t, TEXTS, 3 * number + 1, length)
    put(t, TEXTS, 3 * number + 2, point)
    put(t, USED, OF_TEXTS, number + 1)
    return 0


@jit
def push_reading(t: Handle, reading: int, opened: int) -> int:
    """Gather all of a reading, but the calls among the first so many of `OPENED`."""
    at = get(t, FIRST_WORD, reading)
    texts, leaves = get(t, READINGS, at + TEXT_COUNT), get(t, READINGS, at + LEAF_COUNT)
    rules, symbols = get(t, READINGS, at + CALL_COUNT), get(t, READINGS, at + SYMBOL_COUNT)
    put(t, USED, IS_END, get(t, USED, IS_END) | get(t, READINGS, at + IS_END_READ))
    at += HEAD_SIZE
    for _ in range(texts):
        if push_text(t, get(t, READINGS, at), get(t, READINGS, at + 1), get(t, READINGS, at + 2)) < 0:
            return FULL
        at += 3
    for place in range(leaves + rules + symbols):
        what, behind = get(t, READINGS, at), get(t, READINGS, at + 1)
        at += 2
        kind = OF_LEAF if place < leaves else OF_RULE if place < leaves + rules else OF_SYMBOL
        if kind == OF_RULE and is_opened(t, what, behind, opened):
            continue
        if push_set(t, kind, what, behind) < 0:
            return FULL
    return 0


@jit
def is_opened(t: Handle, rule: int, behind: int, opened: int) -> bool:
    """Whether a call is among the first so many of `OPENED`."""
    place = 0
    while place < opened and not (get(t, OPENED, 3 * place) == rule and get(t, OPENED, 3 * place + 1) == behind):
        place += 1
    return place < opened


@jit
def finish(t: Handle) -> int:
    """The reading of what was gathered."""
    sort_pairs(t)
    sort_texts(t)
    count, texts = get(t, USED, OF_PAIRS), get(t, USED, OF_TEXTS)
    if lacks(t, OF_DRAFT, HEAD_SIZE + 3 * texts + 2 * count):
        return FULL
    put(t, DRAFT, IS_END_READ, get(t, USED, IS_END))
    put(t, DRAFT, TEXT_COUNT, texts)
    for column in range(LEAF_COUNT, HEAD_SIZE):
        put(t, DRAFT, column, 0)
    for place in range(3 * texts):
        put(t, DRAFT, HEAD_SIZE + place, get(t, TEXTS, place))
    at = HEAD_SIZE + 3 * texts
    high = 0
    while high < count:
        low, key = high, get_word(t, PAIRS, high) >> _POINT_BITS
        while high < count and get_word(t, PAIRS, high) >> _POINT_BITS == key:
            high += 1
        behind = set_of_pairs(t, low, high)
        if behind < 0:
            return behind
        put(t, DRAFT, at, key & _WHAT)
        put(t, DRAFT, at + 1, behind)
        at += 2
        column = LEAF_COUNT + (key >> _WHAT_BITS)
        put(t, DRAFT, column, get(t, DRAFT, column) + 1)
    return reading_of_draft(t, at)


@jit
def reading_of_draft(t: Handle, size: int) -> int:
    """The reading whose words are the first so many of the draft."""
    slots = get(t, USED, READING_SLOTS)
    at = reading_hash(t, DRAFT, 0, size) & (slots - 1)
    while get(t, READING_TABLE, at) >= 0:
        number = get(t, READING_TABLE, at)
        if is_reading(t, number, size):
            return number
        at = (at + 1) & (slots - 1)
    number, start = get(t, USED, OF_READINGS), get(t, USED, OF_WORDS)
    if lacks(t, OF_READINGS, number + 1) or lacks(t, OF_WORDS, start + size):
        return FULL
    for place in range(size):
        put(t, READINGS, start + place, get(t, DRAFT, place))
    put(t, FIRST_WORD, number + 1, start + size)
    put(t, STATE_OF, number, -1)
    put(t, READING_TABLE, at, number)
    put(t, USED, OF_READINGS, number + 1)
    put(t, USED, OF_WORDS, start + size)
    return number


@jit
def reading_hash(t: Handle, array: int, start: int, size: int) -> int:
    """The hash of a reading whose words stand somewhere: of texts the bytes count, not where they are."""
    value = 0
    texts_end = start + HEAD_SIZE + 3 * get(t, array, start + TEXT_COUNT)
    for place in range(start, start + HEAD_SIZE):
        value = mixed(value, get(t, array, place))
    for at in range(start + HEAD_SIZE, texts_end, 3):
        for place in range(get(t, array, at), get(t, array, at) + get(t, array, at + 1)):
            value = mixed(value, get_byte(t, TEXT, place))
        value = mixed(value, get(t, array, at + 2))
    for place in range(texts_end, start + size):
        value = mixed(value, get(t, array, place))
    return value


@jit
def is_reading(t: Handle, number: int, size: int) -> bool:
    """Whether a reading is what the first words of the draft say."""
    start = get(t, FIRST_WORD, number)
    if get(t, FIRST_WORD, number + 1) - start != size:
        return False
    for place in range(HEAD_SIZE):
        if get(t, READINGS, start + place) != get(t, DRAFT, place):
            return False
    texts_end = HEAD_SIZE + 3 * get(t, DRAFT, TEXT_COUNT)
    for place in range(texts_end, size):
        if get(t, READINGS, start + place) != get(t, DRAFT, place):
            return False
    place = HEAD_SIZE
    while place < texts_end and not compared(t, READINGS, start + place, DRAFT, place):
        place += 3
    return place >= texts_end


# What may be read at points


@jit
def closure(t: Handle, number: int) -> int:
    """The reading at the points of a set: through what reads nothing, and past what may be empty."""
    if get(t, CLOSURES, number) >= 0:
        return get(t, CLOSURES, number)
    begin(t)
    stamp = get(t, USED, STAMP) + 1
    put(t, USED, STAMP, stamp)
    looked_at = waiting = 0
    for place in range(get(t, FIRST_MEMBER, number), get(t, FIRST_MEMBER, number + 1)):
        if lacks(t, OF_TODO, waiting + 1):
            return FULL
        put(t, TODO, waiting, get(t, MEMBERS, place))
        put(t, SEEN, get(t, MEMBERS, place), stamp)
        waiting += 1
    while waiting:
        waiting -= 1
        point = get(t, TODO, waiting)
        looked_at += 1
        if point == END:
            put(t, USED, IS_END, 1)
            continue
        for item in range(get(t, FIRST_ITEM, point), get(t, LAST_ITEM, point)):
            then = of_item(t, item, THEN)
            if get(t, DISTANCES, then) >= INFINITE:
                continue
            passes = gather_item(t, of_item(t, item, READS), of_item(t, item, WHAT), of_item(t, item, LENGTH), then)
            if passes < 0:
                return passes
            if passes and get(t, SEEN, then) != stamp:
                if lacks(t, OF_TODO, waiting + 1):
                    return FULL
                put(t, SEEN, then, stamp)
                put(t, TODO, waiting, then)
                waiting += 1
    reading = finish(t)
    if reading >= 0:
        put(t, USED, NEW_POINTS, get(t, USED, NEW_POINTS) + looked_at)
        put(t, CLOSURES, number, reading)
    return reading


@jit
def gather_item(t: Handle, kind: int, what: int, length: int, then: int) -> int:
    """Gather what an item reads; returns whether it may read nothing."""
    code = 0
    passes = kind == NOTHING
    if kind == BYTES:
        code = push_text(t, what, length, then)
    elif kind == LEAF:
        code = push(t, OF_LEAF, what, then)
        passes = what < COUNTED and leaf_accepts(t, what)
    elif kind == RULE:
        if of_rule(t, what, SHORTEST) < INFINITE:
            code = push(t, OF_RULE, what, then)
        passes = of_rule(t, what, NULLABLE) != 0
    elif kind == SYMBOL:
        code = push(t, OF_SYMBOL, what, then)
    if code < 0:
        return code
    return 1 if passes else 0


@jit
def leaf_groups(t: Handle, reading: int) -> int:
    """Where the leaves of a reading begin."""
    at = get(t, FIRST_WORD, reading)
    return at + HEAD_SIZE + 3 * get(t, READINGS, at + TEXT_COUNT)


@jit
def of_reading(t: Handle, reading: int, column: int) -> int:
    """A column of a reading's head."""
    return get(t, READINGS, get(t, FIRST_WORD, reading) + column)


@jit
def saturated(t: Handle, reading: int) -> int:
    """The reading with all that may follow leaves that may end here."""
    while True:
        low = leaf_groups(t, reading)
        high = low + 2 * of_reading(t, reading, LEAF_COUNT)
        is_ended = False
        for at in range(low, high, 2):
            if get(t, READINGS, at) < COUNTED and leaf_accepts(t, get(t, READINGS, at)):
                behind = closure(t, get(t, READINGS, at + 1))
                if behind < 0:
                    return behind
                is_ended = True
        if not is_ended:
            return reading
        begin(t)
        code = push_reading(t, reading, 0)
        for at in range(low, high, 2):
            if code >= 0 and get(t, READINGS, at) < COUNTED and leaf_accepts(t, get(t, READINGS, at)):
                code = push_reading(t, get(t, CLOSURES, get(t, READINGS, at + 1)), 0)
        found = finish(t) if code >= 0 else code
        if found == reading or found < 0:
            return found
        reading = found


@jit
def make_end(t: Handle) -> int:
    """Make the point END, and the reading of the end alone; returns its number."""
    for array in (FIRST_ITEM, LAST_ITEM, DISTANCES, SEEN, MARKS_KNOWN, FIRST_MEMBER, FIRST_WORD):
        put(t, array, 0, 0)
    put(t, COPY_OF, 0, -1)
    put(t, USED, OF_POINTS, 1)
    begin(t)
    put(t, USED, IS_END, 1)
    return finish(t)


# Tables


@jit
def fill_tables(t: Handle) -> None:
    """Write all that is known by hashes to tables that are empty."""
    for number in range(get(t, USED, OF_SETS)):
        insert(t, SET_TABLE, get(t, USED, SET_SLOTS), set_hash(t, number), number)
    for number in range(get(t, USED, OF_READINGS)):
        start = get(t, FIRST_WORD, number)
        value = reading_hash(t, READINGS, start, get(t, FIRST_WORD, number + 1) - start)
        insert(t, READING_TABLE, get(t, USED, READING_SLOTS), value, number)
    for number in range(get(t, USED, OF_COPIES)):
        value = mixed(mixed(0, get(t, COPIES, 3 * number)), get(t, COPIES, 3 * number + 1))
        insert(t, COPY_TABLE, get(t, USED, COPY_SLOTS), value, number)


@jit
def insert(t: Handle, table: int, slots: int, value: int, number: int) -> None:
    """Put a number into the first free slot for its hash."""
    at = value & (slots - 1)
    while get(t, table, at) >= 0:
        at = (at + 1) & (slots - 1)
    put(t, table, at, number)
