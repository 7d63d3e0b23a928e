"""Points: a grammar's trees as places with continuations, the states of the nondeterministic automaton behind the skeleton.

Each point lists what may be read there and the point that follows. Point END is the end of the rule being read. Rules are
not copied into their callers: a call is an item of its own, so that what it calls can be shared.
"""

from __future__ import annotations

from routine_grammar.automaton.pools import (
    BODY,
    BYTES,
    COPY_OF,
    DISTANCES,
    END,
    FIRST_ITEM,
    FULL,
    INFINITE,
    LAST_ITEM,
    LEAF,
    LEAVES,
    LENGTH,
    LONGEST,
    MARKS_KNOWN,
    NODE,
    NODE_ENDS,
    NOTHING,
    OF_ITEMS,
    OF_POINTS,
    OF_TODO,
    READS,
    RULE,
    SEEN,
    SHORTEST_OF,
    SYMBOL,
    SYMBOL_OF,
    TEXT_STARTS,
    THEN,
    TODO,
    TOO_MUCH_PLACED,
    USED,
    WHAT,
    lacks,
    of_node,
    of_rule,
    set_item,
    set_rule,
)
from routine_grammar.automaton.tables import (
    Handle,
    get,
    put,
)
from routine_grammar.grammar import program
from routine_grammar.jit import jit

MAX_POINTS = 200_000


@jit
def new_point(t: Handle, distance: int, copy: int) -> int:
    """A point without items, so far from the end of its rule, as a part of a numbered copy or of none (-1); or a code."""
    point = get(t, USED, OF_POINTS)
    if point >= MAX_POINTS:
        return TOO_MUCH_PLACED
    if lacks(t, OF_POINTS, point + 1):
        return FULL
    put(t, FIRST_ITEM, point, 0)
    put(t, LAST_ITEM, point, 0)
    put(t, DISTANCES, point, distance)
    put(t, SEEN, point, 0)
    put(t, MARKS_KNOWN, point, 0)
    put(t, COPY_OF, point, copy)
    put(t, USED, OF_POINTS, point + 1)
    return point


@jit
def add_item(t: Handle, point: int, kind: int, what: int, length: int, then: int) -> None:
    """Append an item to a point, whose items are the last that there are; there is room for it."""
    item = get(t, USED, OF_ITEMS)
    set_item(t, item, READS, kind)
    set_item(t, item, WHAT, what)
    set_item(t, item, LENGTH, length)
    set_item(t, item, THEN, then)
    if get(t, LAST_ITEM, point) == 0:
        put(t, FIRST_ITEM, point, item)
    put(t, LAST_ITEM, point, item + 1)
    put(t, USED, OF_ITEMS, item + 1)


@jit
def joined(one: int, other: int) -> int:
    """The length of two texts in a row, where there are such texts."""
    return INFINITE if one == INFINITE or other == INFINITE else min(one + other, LONGEST)


@jit
def repeated(length: int, times: int) -> int:
    """The length of a text some times in a row."""
    return INFINITE if times and length == INFINITE else min(length * times, LONGEST)


@jit
def body_point(t: Handle, rule: int) -> int:
    """The first point of a rule, or a code."""
    point = of_rule(t, rule, BODY)
    if point < 0:
        point = place_rule(t, rule, END, -1)
        if point >= 0:
            set_rule(t, rule, BODY, point)
    return point


@jit
def place_rule(t: Handle, rule: int, then: int, copy: int) -> int:
    """Make the points of a rule that goes on to a point; returns the first one, or a code, and then there are none of them."""
    points, items = get(t, USED, OF_POINTS), get(t, USED, OF_ITEMS)
    node = of_rule(t, rule, NODE)
    entry = new_point(t, joined(get(t, SHORTEST_OF, node), get(t, DISTANCES, then)), copy)
    code = await_node(t, 0, node, entry, then) if entry >= 0 else entry
    waiting = 1
    while code >= 0 and waiting:
        waiting -= 1
        code = place_node(t, waiting, copy)
        waiting = code
    if code < 0:
        put(t, USED, OF_POINTS, points)
        put(t, USED, OF_ITEMS, items)
        return code
    return entry


@jit
def await_node(t: Handle, waiting: int, node: int, entry: int, then: int) -> int:
    """Have a node placed between two points, behind so many that wait; returns how many do, or a code."""
    if lacks(t, OF_TODO, 3 * waiting + 3):
        return FULL
    put(t, TODO, 3 * waiting, node)
    put(t, TODO, 3 * waiting + 1, entry)
    put(t, TODO, 3 * waiting + 2, then)
    return waiting + 1


@jit
def place_node(t: Handle, waiting: int, copy: int) -> int:
    """Place the node that waits behind so many; returns how many wait then, or a code."""
    node, entry, then = get(t, TODO, 3 * waiting), get(t, TODO, 3 * waiting + 1), get(t, TODO, 3 * waiting + 2)
    kind, what = of_node(t, node, 0), of_node(t, node, 1)
    if lacks(t, OF_ITEMS, get(t, USED, OF_ITEMS) + 2):
        return FULL
    if kind == program.SEQUENCE:
        return place_sequence(t, waiting, node, entry, then, copy)
    if kind == program.CHOICE:
        return place_choice(t, waiting, node, entry, then, copy)
    if kind == program.REPEAT:
        return place_repeat(t, waiting, node, entry, then, copy)
    if kind == program.DISTINCT or kind == program.ELEMENT:
        return await_node(t, waiting, node + 1, entry, then)
    if kind == program.OPTIONAL:
        add_item(t, entry, NOTHING, 0, 0, then)
        return place_way(t, waiting, node + 1, entry, then, copy)
    if kind == program.LEAF:
        add_item(t, entry, LEAF, get(t, LEAVES, 2 * what), 0, then)
    elif kind == program.CALL:
        add_item(t, entry, RULE, what, 0, then)
    elif kind == program.MARKER and get(t, SYMBOL_OF, what) >= 0:
        add_item(t, entry, SYMBOL, get(t, SYMBOL_OF, what), 1, then)
    else:
        add_text(t, entry, what, then)
    return waiting


@jit
def add_text(t: Handle, point: int, text: int, then: int) -> None:
    """Have a point read a text."""
    start = get(t, TEXT_STARTS, text)
    length = get(t, TEXT_STARTS, text + 1) - start
    add_item(t, point, BYTES if length else NOTHING, start, length, then)


@jit
def place_way(t: Handle, waiting: int, node: int, entry: int, then: int, copy: int) -> int:
    """Have a point go on to a node; returns how many wait then, or a code."""
    way = new_point(t, joined(get(t, SHORTEST_OF, node), get(t, DISTANCES, then)), copy)
    if way < 0:
        return way
    add_item(t, entry, NOTHING, 0, 0, way)
    return await_node(t, waiting, node, way, then)


@jit
def place_sequence(t: Handle, waiting: int, node: int, entry: int, then: int, copy: int) -> int:
    """Place all nodes below one in a row: the points between them are made from the last on, whose distance is known."""
    count, child = of_node(t, node, 1), node + 1
    if not count:
        add_item(t, entry, NOTHING, 0, 0, then)
        return waiting
    if lacks(t, OF_TODO, 3 * (waiting + count)):
        return FULL
    for place in range(waiting, waiting + count):
        put(t, TODO, 3 * place, child)
        child = get(t, NODE_ENDS, child)
    for place in range(waiting + count - 1, waiting - 1, -1):
        point = entry
        if place > waiting:
            length = get(t, SHORTEST_OF, get(t, TODO, 3 * place))
            point = new_point(t, joined(length, get(t, DISTANCES, then)), copy)
            if point < 0:
                return point
        put(t, TODO, 3 * place + 1, point)
        put(t, TODO, 3 * place + 2, then)
        then = point
    return waiting + count


@jit
def place_choice(t: Handle, waiting: int, node: int, entry: int, then: int, copy: int) -> int:
    """Place all nodes below one as ways from one point; a literal needs no point of its own."""
    count, child = of_node(t, node, 1), node + 1
    if lacks(t, OF_ITEMS, get(t, USED, OF_ITEMS) + count):
        return FULL
    for _ in range(count):
        if of_node(t, child, 0) == program.LITERAL:
            add_text(t, entry, of_node(t, child, 1), then)
        else:
            waiting = place_way(t, waiting, child, entry, then, copy)
            if waiting < 0:
                return waiting
        child = get(t, NODE_ENDS, child)
    return waiting


@jit
def place_repeat(t: Handle, waiting: int, node: int, entry: int, then: int, copy: int) -> int:
    """Place the node below one as often as it may be repeated, or as a loop."""
    low, high = of_node(t, node, 1), of_node(t, node, 2)
    length, further = get(t, SHORTEST_OF, node + 1), get(t, DISTANCES, then)
    for place in range(1, low + 1):  # those that there have to be; behind the last is where the others begin
        after = then
        if place < low or low != high:
            after = new_point(t, joined(repeated(length, low - place), further), copy)
        waiting = await_node(t, waiting, node + 1, entry, after) if after >= 0 else after
        if waiting < 0:
            return waiting
        entry = after
    if high == program.UNBOUNDED:
        if lacks(t, OF_ITEMS, get(t, USED, OF_ITEMS) + 2):
            return FULL
        add_item(t, entry, NOTHING, 0, 0, then)
        way = new_point(t, joined(length, get(t, DISTANCES, entry)), copy)
        if way < 0:
            return way
        add_item(t, entry, NOTHING, 0, 0, way)
        return await_node(t, waiting, node + 1, way, entry)
    for place in range(low, high):
        if lacks(t, OF_ITEMS, get(t, USED, OF_ITEMS) + 2):
            return FULL
        add_item(t, entry, NOTHING, 0, 0, then)
        after = then if place == high - 1 else new_point(t, further, copy)
        way = new_point(t, joined(length, further), copy) if after >= 0 else after
        if way < 0:
            return way
        add_item(t, entry, NOTHING, 0, 0, way)
        waiting = await_node(t, waiting, node + 1, way, after)
        if waiting < 0:
            return waiting
        entry = after
    if high == 0:
        add_item(t, entry, NOTHING, 0, 0, then)
    return waiting
