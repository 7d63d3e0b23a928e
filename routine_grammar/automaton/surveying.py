"""Walks over the skeleton's states: what may follow a complete word of a rule, and what has to be known of all states."""

from __future__ import annotations

from routine_grammar.automaton.pools import (
    AT,
    BYTE_WORDS,
    CODES,
    EXPAND,
    EXTENDS,
    EXTENDS_KNOWN,
    FIRST_ITEM,
    FIRST_MEMBER,
    FIRST_WORD,
    FOUND,
    LAST_ITEM,
    LOOKED_AT,
    MARKED,
    MARKS_KNOWN,
    MEMBERS,
    NEED_EXTENDS,
    NEED_RULE,
    NEW_POINTS,
    NEW_STATES,
    OF_STATES,
    READING_OF,
    READINGS,
    READS,
    RULE,
    RULE_BYTES,
    RULE_OF,
    SEEN,
    STAMP,
    STATE_SEEN,
    STATE_STAMP,
    THEN,
    UNSET,
    USED,
    VISIT,
    WALKED,
    WHAT,
    add_byte,
    add_bytes,
    clear_bytes,
    of_item,
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
)
from routine_grammar.automaton.states import (
    body_state,
)
from routine_grammar.automaton.step import (
    COUNTED,
    FORWARD,
    SKELETON,
)
from routine_grammar.automaton.tables import (
    AFTER,
    BYTE,
    EDGE_HIGH,
    EDGE_LOW,
    ENDS,
    ENTERS,
    FORWARD_RETURN,
    FORWARD_TO,
    KIND,
    SYMBOL_HIGH,
    SYMBOL_LOW,
    SYMBOL_TARGET,
    TARGET,
    Handle,
    call_at,
    extends_word,
    get,
    leaf_extends,
    of_edge,
    of_state,
    of_symbol,
    put,
)
from routine_grammar.jit import jit


@jit
def expand_at(t: Handle, number: int) -> int:
    """Make the edges of a state; returns 0, or a code."""
    return call_at(t, EXPAND, number)


@jit
def explore(t: Handle, rule: int) -> int:
    """Write to `FOUND` which bytes may follow a complete word of a rule within a longer one; returns 0, or a code."""
    clear_bytes(t, FOUND, 0)
    start = body_state(t, rule)
    if start <= CODES:
        return start
    put(t, USED, STATE_STAMP, get(t, USED, STATE_STAMP) + 1)
    waiting = see(t, start, 0)
    while waiting:
        waiting -= 1
        number = get(t, VISIT, waiting)
        code = call_at(t, EXPAND, number)
        if code < 0:
            return code
        ends = of_state(t, number, ENDS)
        if of_state(t, number, KIND) == FORWARD:
            back = of_state(t, number, FORWARD_RETURN)
            code = add_extends(t, of_state(t, number, FORWARD_TO), back)
            waiting = see(t, back, waiting)
        entered = returns = UNSET
        for edge in range(of_state(t, number, EDGE_LOW), of_state(t, number, EDGE_HIGH)):
            target, back = of_edge(t, edge, TARGET), of_edge(t, edge, AFTER)
            if ends:
                add_byte(t, FOUND, 0, of_edge(t, edge, BYTE))
            if not of_edge(t, edge, ENTERS):
                waiting = see(t, target, waiting)
            elif target != entered or back != returns:
                entered, returns = target, back
                code = add_extends(t, entered, back) if code >= 0 else code
                waiting = see(t, back, waiting)
        for edge in range(of_state(t, number, SYMBOL_LOW), of_state(t, number, SYMBOL_HIGH)):
            if ends:
                add_byte(t, FOUND, 0, 256 + of_symbol(t, edge, 0))
            waiting = see(t, of_symbol(t, edge, SYMBOL_TARGET), waiting)
        if code < 0:
            return code
    return 0


@jit
def see(t: Handle, state: int, waiting: int) -> int:
    """Have a state of the skeleton visited, once a walk; returns how many wait."""
    number = state - SKELETON
    if number >= 0 and get(t, STATE_SEEN, number) != get(t, USED, STATE_STAMP):
        put(t, STATE_SEEN, number, get(t, USED, STATE_STAMP))
        put(t, VISIT, waiting, number)
        return waiting + 1
    return waiting


@jit
def add_extends(t: Handle, entered: int, back: int) -> int:
    """Put what may go on in a leaf or a rule, where that is entered last, into `FOUND`; returns 0, or a code."""
    if back >= 0 and not of_state(t, back - SKELETON, ENDS):
        return 0
    if entered >= SKELETON:
        rule = get(t, RULE_OF, entered - SKELETON)
        if not of_rule(t, rule, EXTENDS_KNOWN):
            return wants(t, NEED_RULE, rule)
        add_bytes(t, FOUND, 0, RULE_BYTES, rule_row(t, rule, EXTENDS))
    elif entered < COUNTED:
        known = leaf_extends(t, entered)
        if known < 0:
            return wants(t, NEED_EXTENDS, entered)
        for word in range(BYTE_WORDS):
            put(t, FOUND, word, get(t, FOUND, word) | extends_word(t, known, word))
    return 0


@jit
def look_at(t: Handle, most: int, with_marks: int) -> int:
    """Expand at most so many states, perhaps those alone that may come to a mark; returns how many, or a code.

    It goes on from where it ended: `LOOKED_AT` states, the next being `AT`.
    """
    while get(t, USED, LOOKED_AT) < most and get(t, USED, AT) < get(t, USED, OF_STATES):
        number = get(t, USED, AT)
        reading = get(t, READING_OF, number)
        if reading >= 0 and (not with_marks or marks_ahead(t, reading)):
            code = call_at(t, EXPAND, number)
            if code < 0:
                return code
            put(t, USED, LOOKED_AT, get(t, USED, LOOKED_AT) + 1)
            put(t, USED, NEW_STATES, 0)
            put(t, USED, NEW_POINTS, 0)
        put(t, USED, AT, number + 1)
    return get(t, USED, LOOKED_AT)


@jit
def marks_ahead(t: Handle, reading: int) -> bool:
    """Whether a list of distinct elements, or one of these, may come before the rule at hand ends."""
    at = get(t, FIRST_WORD, reading)
    texts, leaves = get(t, READINGS, at + TEXT_COUNT), get(t, READINGS, at + LEAF_COUNT)
    rules, symbols = get(t, READINGS, at + CALL_COUNT), get(t, READINGS, at + SYMBOL_COUNT)
    at += HEAD_SIZE
    for _ in range(texts):
        if mark_ahead(t, get(t, READINGS, at + 2)):
            return True
        at += 3
    for place in range(leaves + rules + symbols):
        if leaves <= place < leaves + rules and of_rule(t, get(t, READINGS, at), MARKED):
            return True
        behind = get(t, READINGS, at + 1)
        for member in range(get(t, FIRST_MEMBER, behind), get(t, FIRST_MEMBER, behind + 1)):
            if mark_ahead(t, get(t, MEMBERS, member)):
                return True
        at += 2
    return False


@jit
def mark_ahead(t: Handle, start: int) -> bool:
    """Whether a mark may come behind a point; told once for each."""
    if get(t, MARKS_KNOWN, start):
        return get(t, MARKS_KNOWN, start) == 2
    stamp = get(t, USED, STAMP) + 1
    put(t, USED, STAMP, stamp)
    put(t, SEEN, start, stamp)
    put(t, WALKED, 0, start)
    walked, done = 1, 0
    while done < walked:
        point = get(t, WALKED, done)
        done += 1
        for item in range(get(t, FIRST_ITEM, point), get(t, LAST_ITEM, point)):
            then = of_item(t, item, THEN)
            is_marked = of_item(t, item, READS) == RULE and of_rule(t, of_item(t, item, WHAT), MARKED)
            if is_marked or get(t, MARKS_KNOWN, then) == 2:
                put(t, MARKS_KNOWN, start, 2)
                return True
            if get(t, SEEN, then) != stamp and not get(t, MARKS_KNOWN, then):
                put(t, SEEN, then, stamp)
                put(t, WALKED, walked, then)
                walked += 1
    for place in range(walked):
        put(t, MARKS_KNOWN, get(t, WALKED, place), 1)
    return False
