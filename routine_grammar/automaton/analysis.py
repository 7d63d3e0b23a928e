"""Facts of all rules, callees first: those that call each other as a least fixpoint, and none that begins with itself."""

from __future__ import annotations

from routine_grammar.automaton.facts import (
    evaluate,
    farthest_at,
    known_at,
    shortest_at,
)
from routine_grammar.automaton.pools import (
    CIRCLE,
    CIRCLES,
    COLOUR,
    COMPONENT,
    DECIDED,
    EXTENDS,
    EXTENDS_KNOWN,
    FACTS,
    FARTHEST,
    FIRST,
    FOLLOWS,
    INFINITE,
    IS_LEFT_RECURSIVE,
    LAST_NODE,
    LEADING,
    LOWEST,
    NODE,
    NODE_ENDS,
    NULLABLE,
    ORDER,
    RULE_BYTES,
    RULE_COUNT,
    RULE_STACK,
    SHORTEST,
    SHORTEST_OF,
    USED,
    WORDS,
    clear_bytes,
    of_node,
    of_rule,
    rule_row,
    set_rule,
    wants,
)
from routine_grammar.automaton.tables import (
    Handle,
    get,
    put,
)
from routine_grammar.grammar import program
from routine_grammar.jit import jit

_FAR = INFINITE >> 1


@jit
def analyse(t: Handle) -> int:
    """Find the facts of all rules, as a least fixpoint, callees first; returns 0, or a code.

    Rules that call each other are one component (Tarjan's algorithm); those that call themselves are numbered by `CIRCLE`.
    """
    rules = get(t, USED, RULE_COUNT)
    for rule in range(rules):
        set_rule(t, rule, ORDER, 0)
        set_rule(t, rule, CIRCLE, -1)
        set_rule(t, rule, SHORTEST, INFINITE)
        set_rule(t, rule, FARTHEST, 0)
        set_rule(t, rule, DECIDED, 1)
        for row in (FIRST, EXTENDS, FOLLOWS):
            clear_bytes(t, RULE_BYTES, rule_row(t, rule, row))
    put(t, USED, CIRCLES, 0)
    order = 0
    for root in range(rules):
        if not of_rule(t, root, ORDER):
            order = analyse_from(t, root, order)
            if order < 0:
                return order
    return refuse_left_recursion(t)


@jit
def analyse_from(t: Handle, root: int, order: int) -> int:
    """Find the facts of a rule and of all that it calls; returns how many rules were met by then, or a code.

    `RULE_STACK` holds the rules under way with the node to look at next, and those whose component is not complete.
    """
    order = meet_rule(t, root, order)
    put(t, RULE_STACK, 0, root)
    put(t, RULE_STACK, 1, of_rule(t, root, NODE))
    put(t, RULE_STACK, 2, root)
    depth = waiting = 1
    while depth:
        rule, node = get(t, RULE_STACK, 3 * depth - 3), get(t, RULE_STACK, 3 * depth - 2)
        if node == of_rule(t, rule, LAST_NODE):
            depth -= 1
            if depth:
                caller = get(t, RULE_STACK, 3 * depth - 3)
                set_rule(t, caller, LOWEST, min(of_rule(t, caller, LOWEST), of_rule(t, rule, LOWEST)))
            if of_rule(t, rule, LOWEST) == of_rule(t, rule, ORDER):
                first = waiting - 1
                while get(t, RULE_STACK, 3 * first + 2) != rule:
                    first -= 1
                code = find_facts(t, first, waiting)
                if code < 0:
                    return code
                waiting = first
            continue
        put(t, RULE_STACK, 3 * depth - 2, node + 1)
        if of_node(t, node, 0) != program.CALL:
            continue
        called = of_node(t, node, 1)
        if not of_rule(t, called, ORDER):
            order = meet_rule(t, called, order)
            put(t, RULE_STACK, 3 * depth, called)
            put(t, RULE_STACK, 3 * depth + 1, of_rule(t, called, NODE))
            put(t, RULE_STACK, 3 * waiting + 2, called)
            depth += 1
            waiting += 1
        elif of_rule(t, called, COMPONENT) < 0:
            set_rule(t, rule, LOWEST, min(of_rule(t, rule, LOWEST), of_rule(t, called, ORDER)))
    return order


@jit
def meet_rule(t: Handle, rule: int, order: int) -> int:
    """Number a rule that is met; returns how many rules were."""
    set_rule(t, rule, ORDER, order + 1)
    set_rule(t, rule, LOWEST, order + 1)
    set_rule(t, rule, COMPONENT, -1)
    return order + 1


@jit
def find_facts(t: Handle, first: int, last: int) -> int:
    """Find the facts of the rules of a component, which are on the stack; returns 0, or a code."""
    component = get(t, RULE_STACK, 3 * first + 2)
    is_circle = last - first > 1
    for place in range(first, last):
        set_rule(t, get(t, RULE_STACK, 3 * place + 2), COMPONENT, component)
    for node in range(of_rule(t, component, NODE), of_rule(t, component, LAST_NODE)):
        is_circle = is_circle or (of_node(t, node, 0) == program.CALL and of_node(t, node, 1) == component)
    if not is_circle:
        code = evaluate(t, component)
        if code >= 0:
            keep_facts(t, component, True)
        return code
    for place in range(first, last):
        set_rule(t, get(t, RULE_STACK, 3 * place + 2), CIRCLE, get(t, USED, CIRCLES))
        put(t, USED, CIRCLES, get(t, USED, CIRCLES) + 1)
    return find_circle(t, first, last)


@jit
def find_circle(t: Handle, first: int, last: int) -> int:
    """Facts of rules that call each other, all but `FARTHEST` by rising (or falling) to a fixpoint; returns 0, or a code."""
    is_changed = True
    while is_changed:
        is_changed = False
        for place in range(first, last):
            rule = get(t, RULE_STACK, 3 * place + 2)
            code = evaluate(t, rule)
            if code < 0:
                return code
            is_changed = keep_facts(t, rule, False) or is_changed
    # How far the end can be from within a call is the rule's own and what is owed after the call. Where anything is owed
    # within the circle, it grows without bound; else the largest of all is everyone's.
    own = farthest_of(t, first, last)
    for place in range(first, last):
        set_rule(t, get(t, RULE_STACK, 3 * place + 2), FARTHEST, _FAR)
    both = farthest_of(t, first, last) if own >= 0 else own
    if both < 0:
        return both
    for place in range(first, last):
        set_rule(t, get(t, RULE_STACK, 3 * place + 2), FARTHEST, INFINITE if both > _FAR else own)
    return 0


@jit
def farthest_of(t: Handle, first: int, last: int) -> int:
    """How far the end can be from within any of some rules on the stack, or a code."""
    most = 0
    for place in range(first, last):
        code = evaluate(t, get(t, RULE_STACK, 3 * place + 2))
        if code < 0:
            return code
        most = max(most, get(t, FACTS, farthest_at(t, 0)))
    return most


@jit
def keep_facts(t: Handle, rule: int, with_farthest: bool) -> bool:
    """Keep the facts that were found last as a rule's; returns whether they differ from those before."""
    words = get(t, USED, WORDS)
    is_changed = of_rule(t, rule, SHORTEST) != get(t, FACTS, shortest_at(t, 0))
    is_changed = is_changed or of_rule(t, rule, DECIDED) != get(t, FACTS, known_at(t, 0))
    for word in range(2 * words):
        at = rule_row(t, rule, FIRST) + word
        is_changed = is_changed or get(t, RULE_BYTES, at) != get(t, FACTS, word)
        put(t, RULE_BYTES, at, get(t, FACTS, word))
    set_rule(t, rule, SHORTEST, get(t, FACTS, shortest_at(t, 0)))
    set_rule(t, rule, NULLABLE, 1 if get(t, FACTS, shortest_at(t, 0)) == 0 else 0)
    set_rule(t, rule, DECIDED, get(t, FACTS, known_at(t, 0)))
    set_rule(t, rule, EXTENDS_KNOWN, get(t, FACTS, known_at(t, 0)))
    set_rule(t, rule, FARTHEST, get(t, FACTS, farthest_at(t, 0)) if with_farthest else 0)
    return is_changed


@jit
def refuse_left_recursion(t: Handle) -> int:
    """A code where a rule can come to itself without reading anything, which would be entered for ever; else 0."""
    rules = get(t, USED, RULE_COUNT)
    for rule in range(rules):
        set_rule(t, rule, COLOUR, 0)
        if of_rule(t, rule, CIRCLE) >= 0:
            find_leading(t, rule)
    for root in range(rules):
        if of_rule(t, root, CIRCLE) >= 0 and not of_rule(t, root, COLOUR):
            code = refuse_leading(t, root)
            if code < 0:
                return code
    return 0


@jit
def find_leading(t: Handle, rule: int) -> None:
    """Mark the nodes of a rule with which its texts may begin."""
    first, last = of_rule(t, rule, NODE), of_rule(t, rule, LAST_NODE)
    for node in range(first, last):
        put(t, LEADING, node, 0)
    put(t, LEADING, first, 1)
    for node in range(first, last):
        if not get(t, LEADING, node):
            continue
        child = node + 1
        is_leading = True
        while child < get(t, NODE_ENDS, node):
            if is_leading:
                put(t, LEADING, child, 1)
            if of_node(t, node, 0) == program.SEQUENCE and get(t, SHORTEST_OF, child):
                is_leading = False
            child = get(t, NODE_ENDS, child)


@jit
def refuse_leading(t: Handle, root: int) -> int:
    """A code where a rule begins with itself among those that a rule begins with; else 0. `COLOUR`: 1 under way, 2 done."""
    set_rule(t, root, COLOUR, 1)
    put(t, RULE_STACK, 0, root)
    put(t, RULE_STACK, 1, of_rule(t, root, NODE))
    depth = 1
    while depth:
        rule, node = get(t, RULE_STACK, 3 * depth - 3), get(t, RULE_STACK, 3 * depth - 2)
        if node == of_rule(t, rule, LAST_NODE):
            set_rule(t, rule, COLOUR, 2)
            depth -= 1
            continue
        put(t, RULE_STACK, 3 * depth - 2, node + 1)
        if of_node(t, node, 0) != program.CALL or not get(t, LEADING, node):
            continue
        called = of_node(t, node, 1)
        if of_rule(t, called, CIRCLE) < 0:
            continue
        if of_rule(t, called, COLOUR) == 1:
            return wants(t, IS_LEFT_RECURSIVE, called)
        if not of_rule(t, called, COLOUR):
            set_rule(t, called, COLOUR, 1)
            put(t, RULE_STACK, 3 * depth, called)
            put(t, RULE_STACK, 3 * depth + 1, of_rule(t, called, NODE))
            depth += 1
    return 0
