"""The states of a skeleton: which reading each is of, how far its end is, where rules are entered and returned from.

As in `pools`, functions answer a code where something is missing, and are called again from the start.
"""

from __future__ import annotations

from routine_grammar.automaton.placing import (
    body_point,
)
from routine_grammar.automaton.pools import (
    BODY_STATE,
    CODES,
    DISTANCES,
    FIRST_MEMBER,
    FIRST_WORD,
    FULL,
    INFINITE,
    JUST_END,
    MARKS,
    NEW_POINTS,
    NEW_STATES,
    OF_STATES,
    READING_OF,
    READINGS,
    RULE_OF,
    SHORTEST,
    START,
    STATE_OF,
    STATE_SEEN,
    TOO_LARGE,
    TOO_MANY_POINTS,
    TOO_MANY_STATES,
    UNSET,
    USED,
    lacks,
    of_rule,
    set_rule,
)
from routine_grammar.automaton.readings import (
    CALL_COUNT,
    HEAD_SIZE,
    IS_END_READ,
    LEAF_COUNT,
    SYMBOL_COUNT,
    TEXT_COUNT,
    closure,
    leaf_groups,
    nearest,
    of_reading,
    saturated,
    set_of_point,
)
from routine_grammar.automaton.step import (
    EDGES_KNOWN,
    FORWARD,
    MARK,
    RETURN,
    SKELETON,
    leaf_length,
)
from routine_grammar.automaton.tables import (
    DISTANCE,
    ENDS,
    FORWARD_RETURN,
    FORWARD_TO,
    KIND,
    STATE_COLUMNS,
    Handle,
    get,
    put,
    set_state,
)
from routine_grammar.jit import jit

MOST_NEW_STATES, MOST_NEW_POINTS = 2_000, 400_000  # of one expansion: real schemas need ten states
MAX_STATES = 1_000_000


@jit
def state_of(t: Handle, reading: int) -> int:
    """The state of a reading: RETURN where only the end is left."""
    if reading == JUST_END:
        return RETURN
    if get(t, STATE_OF, reading) >= 0:
        return SKELETON + get(t, STATE_OF, reading)
    filled = saturated(t, reading)
    if filled < 0:
        return filled
    if get(t, USED, NEW_STATES) >= MOST_NEW_STATES:
        return TOO_MANY_STATES
    put(t, USED, NEW_POINTS, get(t, USED, NEW_POINTS) + size_of(t, reading))
    if get(t, USED, NEW_POINTS) > MOST_NEW_POINTS:
        return TOO_MANY_POINTS
    number = new_state(t, distance_of(t, reading), of_reading(t, filled, IS_END_READ))
    if number < 0:
        return number
    put(t, USED, NEW_STATES, get(t, USED, NEW_STATES) + 1)
    put(t, STATE_OF, reading, number)
    put(t, READING_OF, number, reading)
    return SKELETON + number


@jit
def new_state(t: Handle, distance: int, ends: int) -> int:
    """A state whose edges are not known yet; returns its number, or a code."""
    number = new_states(t, 1)
    if number >= 0:
        set_state(t, number, ENDS, ends)
        set_state(t, number, DISTANCE, distance)
    return number


@jit
def new_states(t: Handle, count: int) -> int:
    """So many states in a row of which nothing is known; returns the first one's number, or a code."""
    number = get(t, USED, OF_STATES)
    if number + count > MAX_STATES:
        return TOO_LARGE
    if lacks(t, OF_STATES, number + count):
        return FULL
    for place in range(number, number + count):
        for column in range(STATE_COLUMNS):
            set_state(t, place, column, 0)
        put(t, READING_OF, place, -1)
        put(t, RULE_OF, place, -1)
        put(t, STATE_SEEN, place, 0)
    put(t, USED, OF_STATES, number + count)
    return number


@jit
def make_first_states(t: Handle) -> None:
    """Make the state FINAL, which only ends, and the marks LIST and ELEMENT."""
    set_state(t, new_state(t, 0, 1), KIND, EDGES_KNOWN)
    for _ in range(2):
        set_state(t, new_state(t, 0, 1), KIND, MARK)


@jit
def size_of(t: Handle, reading: int) -> int:
    """How many configurations a reading is."""
    low, size = leaf_groups(t, reading), of_reading(t, reading, TEXT_COUNT)
    groups = of_reading(t, reading, LEAF_COUNT) + of_reading(t, reading, CALL_COUNT)
    for at in range(low, low + 2 * groups, 2):
        behind = get(t, READINGS, at + 1)
        size += get(t, FIRST_MEMBER, behind + 1) - get(t, FIRST_MEMBER, behind)
    return size


@jit
def distance_of(t: Handle, reading: int) -> int:
    """Fewest bytes and symbols from a reading to the end of its rule."""
    at = get(t, FIRST_WORD, reading)
    if get(t, READINGS, at + IS_END_READ):
        return 0
    texts, leaves = get(t, READINGS, at + TEXT_COUNT), get(t, READINGS, at + LEAF_COUNT)
    rules, symbols = get(t, READINGS, at + CALL_COUNT), get(t, READINGS, at + SYMBOL_COUNT)
    best = INFINITE
    at += HEAD_SIZE
    for _ in range(texts):
        best = min(best, get(t, READINGS, at + 1) + get(t, DISTANCES, get(t, READINGS, at + 2)))
        at += 3
    for place in range(leaves + rules + symbols):
        what, own = get(t, READINGS, at), 1
        if place < leaves:
            own = leaf_length(t, what)
        elif place < leaves + rules:
            own = of_rule(t, what, SHORTEST)
        best = min(best, own + nearest(t, get(t, READINGS, at + 1)))
        at += 2
    return best


@jit
def behind_of(t: Handle, behind: int) -> int:
    """The state at the points of a set, or a code."""
    reading = closure(t, behind)
    return state_of(t, reading) if reading >= 0 else reading


@jit
def return_of(t: Handle, behind: int) -> int:
    """The state to return to, or a code: -1 where the caller ends there too."""
    state = behind_of(t, behind)
    return -1 if state == RETURN else state


@jit
def body_state(t: Handle, rule: int) -> int:
    """The first state of what a rule reads, or a code."""
    state = of_rule(t, rule, BODY_STATE)
    if state != UNSET:
        return state
    point = body_point(t, rule)
    alone = set_of_point(t, point) if point >= 0 else point
    state = behind_of(t, alone) if alone >= 0 else alone
    if state <= CODES:
        return state
    set_rule(t, rule, BODY_STATE, state)
    if state >= SKELETON and get(t, RULE_OF, state - SKELETON) < 0:
        put(t, RULE_OF, state - SKELETON, rule)
    return state


@jit
def start_state(t: Handle, rule: int) -> int:
    """The state in which a rule is entered, or a code: a list or an element of one leaves a mark on the stack."""
    state = of_rule(t, rule, START)
    if state != UNSET:
        return state
    state = body_state(t, rule)
    if state <= CODES:
        return state
    if of_rule(t, rule, MARKS):
        number = new_state(t, of_rule(t, rule, SHORTEST), 0)
        if number < 0:
            return number
        set_forward(t, number, state, of_rule(t, rule, MARKS))
        put(t, RULE_OF, number, rule)
        state = SKELETON + number
    set_rule(t, rule, START, state)
    return state


@jit
def set_forward(t: Handle, number: int, to: int, back: int) -> None:
    """Make a state one that is left at once for another, to return to a third."""
    set_state(t, number, FORWARD_TO, to)
    set_state(t, number, FORWARD_RETURN, back)
    set_state(t, number, KIND, FORWARD)
