"""Which rules readings open: where bytes alone decide, a leaf or a rule is entered and left.

What they don't decide is read beside the others: a copy of the rule that goes on to what is behind it.
"""

from __future__ import annotations

from routine_grammar.automaton.facts import (
    add_leaf_bytes,
)
from routine_grammar.automaton.placing import (
    add_item,
    body_point,
    new_point,
    place_rule,
)
from routine_grammar.automaton.pools import (
    BYTE_WORDS,
    BYTES_KNOWN,
    CIRCLE,
    CIRCLES,
    COPIES,
    COPY_OF,
    COPY_SLOTS,
    COPY_TABLE,
    DECIDED,
    DEEPEST,
    END,
    EXTENDS,
    EXTENDS_KNOWN,
    FIRST,
    FIRST_MEMBER,
    FIRST_WORD,
    FOLLOWS,
    FOLLOWS_KNOWN,
    FULL,
    IS_MARKED,
    MARKS,
    MEMBERS,
    NEED_EXTENDS,
    NEED_FOLLOWS,
    NEED_RULE,
    NOTHING,
    OF_COPIES,
    OF_ITEMS,
    OF_OPENED,
    OF_POINTS,
    OF_ROWS,
    OPENED,
    READINGS,
    ROWS,
    RULE_BYTES,
    SET_BYTES,
    TEXT,
    USED,
    WITHIN,
    WORDS,
    add_byte,
    add_bytes,
    clear_bytes,
    lacks,
    meets,
    mixed,
    of_rule,
    rule_row,
    wants,
)
from routine_grammar.automaton.readings import (
    CALL_COUNT,
    HEAD_SIZE,
    LEAF_COUNT,
    SYMBOL_COUNT,
    TEXT_COUNT,
    begin,
    closure,
    finish,
    leaf_groups,
    nearest,
    of_reading,
    push_reading,
    saturated,
    set_of_point,
)
from routine_grammar.automaton.step import (
    COUNTED,
)
from routine_grammar.automaton.tables import (
    Handle,
    extends_word,
    get,
    get_byte,
    leaf_extends,
    put,
)
from routine_grammar.jit import jit


@jit
def bytes_at(t: Handle, number: int) -> int:
    """Find `SET_BYTES` of a set; returns 0, or a code."""
    if get(t, BYTES_KNOWN, number):
        return 0
    reading = closure(t, number)
    if reading < 0:
        return reading
    row = number * get(t, USED, WORDS)
    clear_bytes(t, SET_BYTES, row)
    at = get(t, FIRST_WORD, reading)
    texts, leaves = get(t, READINGS, at + TEXT_COUNT), get(t, READINGS, at + LEAF_COUNT)
    rules, symbols = get(t, READINGS, at + CALL_COUNT), get(t, READINGS, at + SYMBOL_COUNT)
    at += HEAD_SIZE
    for _ in range(texts):
        add_byte(t, SET_BYTES, row, get_byte(t, TEXT, get(t, READINGS, at)))
        at += 3
    for _ in range(leaves):
        add_leaf_bytes(t, get(t, READINGS, at), SET_BYTES, row)
        at += 2
    for _ in range(rules):
        add_bytes(t, SET_BYTES, row, RULE_BYTES, rule_row(t, get(t, READINGS, at), FIRST))
        at += 2
    for _ in range(symbols):
        add_byte(t, SET_BYTES, row, 256 + get(t, READINGS, at))
        at += 2
    put(t, BYTES_KNOWN, number, 1)
    return 0


@jit
def leaf_is_clear(t: Handle, state: int, behind: int) -> int:
    """1 if no byte can both go on in a leaf after a complete word and begin what follows it; else 0, or a code."""
    if state >= COUNTED:
        return 1
    known = leaf_extends(t, state)
    if known < 0:
        return wants(t, NEED_EXTENDS, state)
    code = bytes_at(t, behind)
    if code < 0:
        return code
    for word in range(BYTE_WORDS):
        if extends_word(t, known, word) & get(t, SET_BYTES, behind * get(t, USED, WORDS) + word):
            return 0
    return 1


@jit
def rule_is_clear(t: Handle, rule: int, behind: int) -> int:
    """As `leaf_is_clear`, of a rule: brackets may tell what else takes many states."""
    code = bytes_at(t, behind)
    if code < 0:
        return code
    row = behind * get(t, USED, WORDS)
    if not of_rule(t, rule, DECIDED):
        if not of_rule(t, rule, FOLLOWS_KNOWN):
            return wants(t, NEED_FOLLOWS, rule)
        is_told = of_rule(t, rule, FOLLOWS_KNOWN) == 1
        if is_told and not meets(t, RULE_BYTES, rule_row(t, rule, FOLLOWS), SET_BYTES, row):
            return 1
        if not of_rule(t, rule, EXTENDS_KNOWN):
            return wants(t, NEED_RULE, rule)
    return 0 if meets(t, RULE_BYTES, rule_row(t, rule, EXTENDS), SET_BYTES, row) else 1


@jit
def copied(t: Handle, rule: int, behind: int) -> int:
    """The first point of a copy of a rule that goes on to the points of a set, or a code."""
    low = get(t, FIRST_MEMBER, behind)
    if get(t, FIRST_MEMBER, behind + 1) - low == 1 and get(t, MEMBERS, low) == END:
        return body_point(t, rule)
    slots = get(t, USED, COPY_SLOTS)
    at = mixed(mixed(0, rule), behind) & (slots - 1)
    while get(t, COPY_TABLE, at) >= 0:
        known = 3 * get(t, COPY_TABLE, at)
        if get(t, COPIES, known) == rule and get(t, COPIES, known + 1) == behind:
            return get(t, COPIES, known + 2)
        at = (at + 1) & (slots - 1)
    number = get(t, USED, OF_COPIES)
    if lacks(t, OF_COPIES, number + 1):
        return FULL
    point = make_copy(t, rule, behind, number)
    if point >= 0:
        put(t, COPIES, 3 * number, rule)
        put(t, COPIES, 3 * number + 1, behind)
        put(t, COPIES, 3 * number + 2, point)
        put(t, COPY_TABLE, at, number)
        put(t, USED, OF_COPIES, number + 1)
    return point


@jit
def make_copy(t: Handle, rule: int, behind: int, copy: int) -> int:
    """Place a rule as a numbered copy that goes on to the points of a set; returns the first point, or a code."""
    members, members_end = get(t, FIRST_MEMBER, behind), get(t, FIRST_MEMBER, behind + 1)
    points, items = get(t, USED, OF_POINTS), get(t, USED, OF_ITEMS)
    count_within(t, rule, members, members_end, copy)
    after = get(t, MEMBERS, members)
    if members_end - members > 1:
        after = new_point(t, nearest(t, behind), copy)
        if after >= 0 and lacks(t, OF_ITEMS, items + members_end - members):
            after = FULL
        for place in range(members, members_end if after >= 0 else members):
            add_item(t, after, NOTHING, 0, 0, get(t, MEMBERS, place))
    point = place_rule(t, rule, after, copy) if after >= 0 else after
    if point < 0:
        put(t, USED, OF_POINTS, points)
        put(t, USED, OF_ITEMS, items)
    return point


@jit
def count_within(t: Handle, rule: int, members: int, members_end: int, copy: int) -> None:
    """Count for a copy how many copies of each recursive rule it is within, itself too."""
    circles = get(t, USED, CIRCLES)
    for circle in range(circles):
        deepest = 0
        for place in range(members, members_end):
            around = get(t, COPY_OF, get(t, MEMBERS, place))
            if around >= 0:
                deepest = max(deepest, get(t, WITHIN, around * circles + circle))
        if of_rule(t, rule, CIRCLE) == circle:
            deepest += 1
        put(t, WITHIN, copy * circles + circle, deepest)
        put(t, USED, DEEPEST, max(get(t, USED, DEEPEST), deepest))


@jit
def group_bytes(t: Handle, reading: int) -> int:
    """Write to `ROWS` what may come first of the texts of a reading, of each leaf, and of each rule; returns 0, or a code.

    Behind them are two rows of nothing.
    """
    at = get(t, FIRST_WORD, reading)
    texts, leaves = get(t, READINGS, at + TEXT_COUNT), get(t, READINGS, at + LEAF_COUNT)
    rules, words = get(t, READINGS, at + CALL_COUNT), get(t, USED, WORDS)
    if lacks(t, OF_ROWS, 3 + leaves + rules):
        return FULL
    at += HEAD_SIZE
    for row in range(3 + leaves + rules):
        clear_bytes(t, ROWS, row * words)
    for _ in range(texts):
        add_byte(t, ROWS, 0, get_byte(t, TEXT, get(t, READINGS, at)))
        at += 3
    for place in range(leaves):
        add_leaf_bytes(t, get(t, READINGS, at), ROWS, (1 + place) * words)
        at += 2
    for place in range(rules):
        add_bytes(t, ROWS, (1 + leaves + place) * words, RULE_BYTES, rule_row(t, get(t, READINGS, at), FIRST))
        at += 2
    return 0


@jit
def inlined(t: Handle, reading: int) -> int:
    """The reading, or a code, with every rule opened that cannot be entered and left by its bytes alone."""
    opened = 0
    while True:
        if opened:  # what was opened is in the reading already
            begin(t)
            code = push_reading(t, reading, opened)
            reading = finish(t) if code >= 0 else code
            if reading < 0:
                return reading
        more = open_unclear(t, reading, opened)
        if more <= opened:
            return reading if more == opened else more
        begin(t)
        code = push_reading(t, reading, more)
        for place in range(opened, more):
            if code >= 0:
                code = push_reading(t, get(t, OPENED, 3 * place + 2), 0)
        reading = finish(t) if code >= 0 else code
        reading = saturated(t, reading) if reading >= 0 else reading
        if reading < 0:
            return reading
        opened = more


@jit
def open_unclear(t: Handle, reading: int, opened: int) -> int:
    """Append the unclear calls of a reading to the first so many of `OPENED`, each with the reading of its body.

    Returns how many there are then, or a code.
    """
    code = group_bytes(t, reading)
    if code < 0:
        return code
    leaves, rules = of_reading(t, reading, LEAF_COUNT), of_reading(t, reading, CALL_COUNT)
    at = leaf_groups(t, reading) + 2 * leaves
    for place in range(rules):
        rule, behind = get(t, READINGS, at + 2 * place), get(t, READINGS, at + 2 * place + 1)
        if is_apart(t, 1 + leaves + place, 1 + leaves + rules):
            clear = rule_is_clear(t, rule, behind)
            if clear < 0:
                return clear
            if clear:
                continue
        if of_rule(t, rule, MARKS):
            return wants(t, IS_MARKED, rule)
        if lacks(t, OF_OPENED, opened + 1):
            return FULL
        point = copied(t, rule, behind)
        alone = set_of_point(t, point) if point >= 0 else point
        body = closure(t, alone) if alone >= 0 else alone
        if body < 0:
            return body
        put(t, OPENED, 3 * opened, rule)
        put(t, OPENED, 3 * opened + 1, behind)
        put(t, OPENED, 3 * opened + 2, body)
        opened += 1
    return opened


@jit
def is_apart(t: Handle, group: int, groups: int) -> bool:
    """Whether what a group of `ROWS` begins with is bytes alone, which no other group begins with."""
    words = get(t, USED, WORDS)
    for word in range(BYTE_WORDS, words):
        if get(t, ROWS, group * words + word):
            return False
    other = 0
    while other < groups and (other == group or not meets(t, ROWS, group * words, ROWS, other * words)):
        other += 1
    return other == groups
