"""What can be said of a rule without its states: first bytes, emptiness, extensions, lengths, from its last node to its first.

What extends: the bytes that may follow a complete word inside a longer one, where the tree alone tells.
"""

from __future__ import annotations

from routine_grammar.automaton.placing import (
    joined,
    repeated,
)
from routine_grammar.automaton.pools import (
    BYTE_WORDS,
    DECIDED,
    DRAFT,
    FACTS,
    FARTHEST,
    FIRST,
    FULL,
    INFINITE,
    LAST_NODE,
    LEAVES,
    NEED_EXTENDS,
    NODE,
    NODE_ENDS,
    OF_DRAFT,
    OF_FACTS,
    OF_TEXTS,
    RULE_BYTES,
    SHORTEST,
    SHORTEST_OF,
    SYMBOL_OF,
    TEXT,
    TEXT_STARTS,
    TEXTS,
    USED,
    WORDS,
    add_byte,
    add_bytes,
    clear_bytes,
    lacks,
    meets,
    of_node,
    of_rule,
    rule_row,
    wants,
)
from routine_grammar.automaton.readings import (
    begin,
    push_text,
)
from routine_grammar.automaton.sorting import (
    sort_texts,
)
from routine_grammar.automaton.step import (
    COUNTED,
    leaf_allows,
    leaf_length,
)
from routine_grammar.automaton.tables import (
    Handle,
    extends_word,
    get,
    get_byte,
    leaf_extends,
    put,
)
from routine_grammar.grammar import program
from routine_grammar.jit import jit


@jit
def fact_row(t: Handle, row: int) -> int:
    """Where a row of facts begins: with the first bytes of the words."""
    return row * (2 * get(t, USED, WORDS) + 3)


@jit
def extends_at(t: Handle, row: int) -> int:
    """Where the bytes begin that may follow a complete word within a longer one."""
    return fact_row(t, row) + get(t, USED, WORDS)


@jit
def known_at(t: Handle, row: int) -> int:
    """Where it is said whether those are known."""
    return fact_row(t, row) + 2 * get(t, USED, WORDS)


@jit
def shortest_at(t: Handle, row: int) -> int:
    """Where the length of the shortest word is."""
    return fact_row(t, row) + 2 * get(t, USED, WORDS) + 1


@jit
def farthest_at(t: Handle, row: int) -> int:
    """Where the largest distance to the end is that a word under way can have."""
    return fact_row(t, row) + 2 * get(t, USED, WORDS) + 2


@jit
def set_facts(t: Handle, row: int, shortest: int, farthest: int) -> None:
    """Begin a row: no first bytes, none that extend, and these are known."""
    for at in range(fact_row(t, row), known_at(t, row)):
        put(t, FACTS, at, 0)
    put(t, FACTS, known_at(t, row), 1)
    put(t, FACTS, shortest_at(t, row), shortest)
    put(t, FACTS, farthest_at(t, row), farthest)


@jit
def copy_facts(t: Handle, to: int, row: int) -> None:
    """Copy a row of facts."""
    if to != row:
        for word in range(fact_row(t, 1)):
            put(t, FACTS, fact_row(t, to) + word, get(t, FACTS, fact_row(t, row) + word))


# Facts of nodes


@jit
def add_leaf_bytes(t: Handle, state: int, array: int, row: int) -> None:
    """Put the bytes that may come next within a leaf into a set."""
    for word in range(BYTE_WORDS):
        allowed = 0
        for bit in range(32):
            if leaf_allows(t, state, 32 * word + bit):
                allowed |= 1 << bit
        put(t, array, row + word, get(t, array, row + word) | allowed)


@jit
def evaluate(t: Handle, rule: int) -> int:
    """Find the facts of a rule from what is known of those that it calls, as row 0; returns 0, or a code.

    From the last node to the first, so that the facts of all below a node are the last rows, that of the first child on top.
    """
    top = 0
    for node in range(of_rule(t, rule, LAST_NODE) - 1, of_rule(t, rule, NODE) - 1, -1):
        if lacks(t, OF_FACTS, top + 2):
            return FULL
        kind, what = of_node(t, node, 0), of_node(t, node, 1)
        if kind == program.SEQUENCE:
            top = follow(t, top, what)
        elif kind == program.CHOICE:
            code = choose(t, top, node)
            if code < 0:
                return code
            top = code
        elif kind == program.OPTIONAL:
            make_optional(t, top - 1)
        elif kind == program.REPEAT:
            repeat(t, top - 1, what, of_node(t, node, 2))
        elif kind == program.LEAF:
            code = of_leaf(t, top, what)
            if code < 0:
                return code
            top += 1
        elif kind == program.CALL:
            of_call(t, top, what)
            top += 1
        elif kind == program.MARKER or kind == program.LITERAL:
            of_text(t, top, what, kind == program.MARKER)
            top += 1
        put(t, SHORTEST_OF, node, get(t, FACTS, shortest_at(t, top - 1)))
    return 0


@jit
def of_text(t: Handle, row: int, text: int, is_marker: bool) -> None:
    """Facts of a literal or marker."""
    start = get(t, TEXT_STARTS, text)
    length = get(t, TEXT_STARTS, text + 1) - start
    if is_marker and get(t, SYMBOL_OF, text) >= 0:
        set_facts(t, row, 1, 1)
        add_byte(t, FACTS, fact_row(t, row), 256 + get(t, SYMBOL_OF, text))
        return
    set_facts(t, row, length, length)
    if length:
        add_byte(t, FACTS, fact_row(t, row), get_byte(t, TEXT, start))


@jit
def of_leaf(t: Handle, row: int, leaf: int) -> int:
    """Facts of a leaf; returns 0, or a code."""
    state = get(t, LEAVES, 2 * leaf)
    set_facts(t, row, leaf_length(t, state), get(t, LEAVES, 2 * leaf + 1))
    add_leaf_bytes(t, state, FACTS, fact_row(t, row))
    if state < COUNTED:
        known = leaf_extends(t, state)
        if known < 0:
            return wants(t, NEED_EXTENDS, state)
        for word in range(BYTE_WORDS):
            put(t, FACTS, extends_at(t, row) + word, extends_word(t, known, word))
    return 0


@jit
def of_call(t: Handle, row: int, rule: int) -> None:
    """Facts of a call: those of the rule, as far as they are known."""
    set_facts(t, row, of_rule(t, rule, SHORTEST), of_rule(t, rule, FARTHEST))
    put(t, FACTS, known_at(t, row), of_rule(t, rule, DECIDED))
    for word in range(2 * get(t, USED, WORDS)):
        put(t, FACTS, fact_row(t, row) + word, get(t, RULE_BYTES, rule_row(t, rule, FIRST) + word))


@jit
def follow(t: Handle, top: int, count: int) -> int:
    """Facts of as many nodes in a row, in the place of theirs; returns how many rows there are then."""
    if not count:
        set_facts(t, top, 0, 0)
        return top + 1
    rest = top - count
    for part in range(rest + 1, top):
        precede(t, part, rest)
    return rest + 1


@jit
def precede(t: Handle, part: int, rest: int) -> None:
    """Make the facts of what is behind a node those of both."""
    first, rest_first = fact_row(t, part), fact_row(t, rest)
    is_nullable, rest_is_nullable = get(t, FACTS, shortest_at(t, part)) == 0, get(t, FACTS, shortest_at(t, rest)) == 0
    is_known = get(t, FACTS, known_at(t, part)) and get(t, FACTS, known_at(t, rest))
    if is_known and meets(t, FACTS, extends_at(t, part), FACTS, rest_first):
        is_known = 0
    put(t, FACTS, known_at(t, rest), is_known)
    if is_known and rest_is_nullable:
        add_bytes(t, FACTS, extends_at(t, rest), FACTS, extends_at(t, part))
        add_bytes(t, FACTS, extends_at(t, rest), FACTS, rest_first)
    if not is_known:
        clear_bytes(t, FACTS, extends_at(t, rest))
    if not is_nullable:
        clear_bytes(t, FACTS, rest_first)
    add_bytes(t, FACTS, rest_first, FACTS, first)
    owed = get(t, FACTS, farthest_at(t, part)) + get(t, FACTS, shortest_at(t, rest))
    put(t, FACTS, farthest_at(t, rest), min(max(owed, get(t, FACTS, farthest_at(t, rest))), INFINITE))
    length = joined(get(t, FACTS, shortest_at(t, part)), get(t, FACTS, shortest_at(t, rest)))
    put(t, FACTS, shortest_at(t, rest), length)


@jit
def choose(t: Handle, top: int, node: int) -> int:
    """Facts of a choice of all nodes below one, in the place of theirs; returns how many rows there are then, or a code."""
    count = of_node(t, node, 1)
    low = top - count
    set_facts(t, top, INFINITE, 0)
    is_apart = True
    for part in range(low, top):
        is_apart = is_apart and not meets(t, FACTS, fact_row(t, part), FACTS, fact_row(t, top))
        add_bytes(t, FACTS, fact_row(t, top), FACTS, fact_row(t, part))
        add_bytes(t, FACTS, extends_at(t, top), FACTS, extends_at(t, part))
        if not get(t, FACTS, known_at(t, part)):
            put(t, FACTS, known_at(t, top), 0)
        shortest = min(get(t, FACTS, shortest_at(t, top)), get(t, FACTS, shortest_at(t, part)))
        put(t, FACTS, shortest_at(t, top), shortest)
        farthest = max(get(t, FACTS, farthest_at(t, top)), get(t, FACTS, farthest_at(t, part)))
        put(t, FACTS, farthest_at(t, top), farthest)
    if not is_apart:
        clear_bytes(t, FACTS, extends_at(t, top))
        code = extend_literals(t, top, node)
        if code < 0:
            return code
        put(t, FACTS, known_at(t, top), code)
    if not get(t, FACTS, known_at(t, top)):
        clear_bytes(t, FACTS, extends_at(t, top))
    elif get(t, FACTS, shortest_at(t, top)) == 0:
        add_bytes(t, FACTS, extends_at(t, top), FACTS, fact_row(t, top))
    copy_facts(t, low, top)
    return low + 1


@jit
def extend_literals(t: Handle, row: int, node: int) -> int:
    """Bytes that go on from a literal which is the prefix of another, in a choice of literals: 1, or 0 where others are in it.

    Or a code. In order each literal comes behind its prefixes: `DRAFT` links it to the longest of them.
    """
    begin(t)
    child = node + 1
    for _ in range(of_node(t, node, 1)):
        if of_node(t, child, 0) != program.LITERAL:
            return 0
        start = get(t, TEXT_STARTS, of_node(t, child, 1))
        length = get(t, TEXT_STARTS, of_node(t, child, 1) + 1) - start
        if length and push_text(t, start, length, 0) < 0:
            return FULL
        child = get(t, NODE_ENDS, child)
    sort_texts(t)
    count = get(t, USED, OF_TEXTS)
    if lacks(t, OF_DRAFT, count):
        return FULL
    for place in range(count):
        before = place - 1
        while before >= 0 and not begins_with(t, place, before):
            before = get(t, DRAFT, before)
        put(t, DRAFT, place, before)
        while before >= 0:
            add_byte(t, FACTS, extends_at(t, row), get_byte(t, TEXT, get(t, TEXTS, 3 * place) + get(t, TEXTS, 3 * before + 1)))
            before = get(t, DRAFT, before)
    return 1


@jit
def begins_with(t: Handle, place: int, before: int) -> bool:
    """Whether a text that was gathered begins with another."""
    length = get(t, TEXTS, 3 * before + 1)
    if length > get(t, TEXTS, 3 * place + 1):
        return False
    start, other = get(t, TEXTS, 3 * place), get(t, TEXTS, 3 * before)
    at = 0
    while at < length and get_byte(t, TEXT, start + at) == get_byte(t, TEXT, other + at):
        at += 1
    return at == length


@jit
def make_optional(t: Handle, row: int) -> None:
    """Facts of a node or nothing, in the place of the node's."""
    if get(t, FACTS, known_at(t, row)):
        add_bytes(t, FACTS, extends_at(t, row), FACTS, fact_row(t, row))
    put(t, FACTS, shortest_at(t, row), 0)


@jit
def repeat(t: Handle, row: int, low: int, high: int) -> None:
    """Facts of a node some times in a row, in the place of the node's."""
    if high == 0:
        set_facts(t, row, 0, 0)
        return
    shortest = get(t, FACTS, shortest_at(t, row))
    is_known = get(t, FACTS, known_at(t, row)) and not meets(t, FACTS, extends_at(t, row), FACTS, fact_row(t, row))
    put(t, FACTS, known_at(t, row), 1 if is_known else 0)
    if is_known:
        add_bytes(t, FACTS, extends_at(t, row), FACTS, fact_row(t, row))
    else:
        clear_bytes(t, FACTS, extends_at(t, row))
    owed = max(low - 1, 0) * shortest
    put(t, FACTS, farthest_at(t, row), min(get(t, FACTS, farthest_at(t, row)) + owed, INFINITE))
    put(t, FACTS, shortest_at(t, row), repeated(shortest, low))
