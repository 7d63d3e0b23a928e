"""The memory of a skeleton under construction, as compiled code reads and writes it: flat arrays behind its handle.

Beside what stepping reads there are points and the items that may be read at them; sets of points; readings (all that may be
read next at a set of points: rests of literals, leaves, rules and symbols, each with the points behind it); and scratch. All
are int32 but where said. Compiled functions answer one of `CODES` where they need more room, or something that only the
grammar's tree tells. The caller provides it and calls again: what was found by then is kept.
"""

from __future__ import annotations

from routine_grammar.automaton.tables import Handle, column_getter, column_setter, get, put
from routine_grammar.jit import jit

INFINITE = 1 << 30  # the length of texts that there are none of
LONGEST = INFINITE - 1  # lengths past it count as this one
END = 0  # the point at which a rule ends
JUST_END = 0  # the reading of the end alone
UNSET = -1000  # a state that is not known yet
BYTE_WORDS = 8  # words of a set of bytes; symbols have further ones

# Arrays, by the places of their addresses; those before are in `tables`.
USED = 5  # [counters]
ROOM = 6  # [pools]: how much of each pool there is room for
# The program.
NODES = 7  # [nodes, 3]
NODE_ENDS = 8  # [nodes]: the node behind those below each
SHORTEST_OF = 9  # [nodes]: fewest bytes and symbols of a text
LEADING = 10  # [nodes]: whether a text of its rule may begin with it
TEXT = 11  # bytes: all texts
TEXT_STARTS = 12  # [texts + 1]
SYMBOL_OF = 13  # [texts]: the symbol that a marker of this text is, or -1
LEAVES = 14  # [leaves, 2]: its first state, and how far its end can be
RULES = 15  # [rules, RULE_COLUMNS]: the root is the last
RULE_BYTES = 16  # [rules, 3, words]
RULE_STACK = 17  # [rules, 3]: scratch
# Points.
FIRST_ITEM = 18  # [points]: a point reads the items from its first to its last
LAST_ITEM = 19  # [points]: the one behind it
DISTANCES = 20  # [points]: fewest bytes and symbols to the end of the rule
SEEN = 21  # [points]: stamps of walks
MARKS_KNOWN = 22  # [points]: 1: no mark ahead, 2: a mark ahead, 0: not known
COPY_OF = 23  # [points]: of which copy of a rule it is a part, or -1
WALKED = 24  # [points]: scratch
ITEMS = 25  # [items, 4]
COPIES = 26  # [copies, 3]: the rule, the set that it goes on to, its first point
COPY_TABLE = 27  # [slots]
WITHIN = 28  # [copies, recursive rules]: how many copies of each it is within, itself too
# Sets and readings.
FIRST_MEMBER = 29  # [sets + 1]
CLOSURES = 30  # [sets]: the reading at the points of a set, or -1
BYTES_KNOWN = 31  # [sets]
SET_BYTES = 32  # [sets, words]: what may come at the points of a set
MEMBERS = 33  # the points of all sets
SET_TABLE = 34  # [slots]: sets by their hash
FIRST_WORD = 35  # [readings + 1]
STATE_OF = 36  # [readings]: its state, or -1
READINGS = 37  # the words of all readings
READING_TABLE = 38  # [slots]
# States, beside what stepping reads.
READING_OF = 39  # [states], or -1
RULE_OF = 40  # [states]: the rule that it is the start of, or -1
STATE_SEEN = 41  # [states]: stamps of walks
VISIT = 42  # [states]: scratch
# Scratch.
PAIRS = 43  # int64: what is gathered of a reading, (what, point) each
TEXTS = 44  # [texts, 3]: the literals that are gathered
DRAFT = 45
TODO = 46
OPENED = 47  # [opened, 3]: a rule, the set behind it, the reading of its body
NEXT = 48  # leaves at their next states, as often as there are bytes and once more
ROWS = 49  # [rows, words]
FACTS = 50  # [facts, 2 * words + 3]: first bytes, bytes that extend, whether these are known, shortest, farthest
FOUND = 51  # [words]: what a walk over states finds
EDGE_DRAFT = 52  # [256, 3]: by byte where it leads, whether it enters, and where that returns to
EXPAND = LAST = 53  # no array: where the function stands that expands a state

# Pools, by the places in `USED` of how much of them is used.
OF_POINTS, OF_ITEMS, OF_SETS, OF_MEMBERS, OF_READINGS, OF_WORDS, OF_STATES, OF_EDGES, OF_SYMBOLS, OF_COPIES = range(10)
OF_PAIRS, OF_TEXTS, OF_DRAFT, OF_TODO, OF_OPENED, OF_NEXT, OF_ROWS, OF_FACTS = range(10, 18)
POOLS = 18
# Other counters: sizes that stay, what is asked for, and what is under way.
WORDS, RULE_COUNT, CIRCLES, SET_SLOTS, READING_SLOTS, COPY_SLOTS = range(POOLS, POOLS + 6)
WANTED, AMOUNT, BOUNDS = range(POOLS + 6, POOLS + 9)
IS_END, STAMP, STATE_STAMP, NEW_STATES, NEW_POINTS, LOOKED_AT, AT, DEEPEST = range(POOLS + 9, POOLS + 17)
COUNTERS = POOLS + 17

# What functions answer: what it is about is in `WANTED`.
CODES = -100  # each is below
FULL, NEED_EXTENDS, NEED_RULE, NEED_FOLLOWS, NEED_PSEUDO = range(-105, -100)
TOO_MANY_STATES, TOO_MANY_POINTS, TOO_LARGE, TOO_MUCH_PLACED, IS_MARKED, IS_LEFT_RECURSIVE = range(-111, -105)

# Columns of `ITEMS`: what kind of thing is read, what it is, its length, and the point that follows.
READS, WHAT, LENGTH, THEN = range(4)
NOTHING, BYTES, LEAF, RULE, SYMBOL = range(5)
# Columns of `RULES`: its first node and the one behind its last; what is known of its words; its points and states.
NODE, LAST_NODE, NULLABLE, SHORTEST, FARTHEST, DECIDED, EXTENDS_KNOWN, FOLLOWS_KNOWN = range(8)
BODY, BODY_STATE, START, MARKS, MARKED, CIRCLE, COMPONENT, ORDER, LOWEST, COLOUR = range(8, 18)
RULE_COLUMNS = 18
# Rows of `RULE_BYTES`.
FIRST, EXTENDS, FOLLOWS = range(3)

of_item, set_item = column_getter(ITEMS, 4), column_setter(ITEMS, 4)
of_rule, set_rule = column_getter(RULES, RULE_COLUMNS), column_setter(RULES, RULE_COLUMNS)
of_node = column_getter(NODES, 3)


@jit
def lacks(t: Handle, pool: int, amount: int) -> bool:
    """Whether a pool has no room for so much in all: it is asked for then."""
    if amount <= get(t, ROOM, pool):
        return False
    put(t, USED, WANTED, pool)
    put(t, USED, AMOUNT, amount)
    return True


@jit
def wants(t: Handle, code: int, what: int) -> int:
    """Ask for something."""
    put(t, USED, WANTED, what)
    return code


@jit
def mixed(value: int, number: int) -> int:
    """A hash with a number more."""
    value = (value ^ number) * 0x2545F4914F6CDD1D
    return value ^ (value >> 29)


@jit
def add_byte(t: Handle, array: int, row: int, byte: int) -> None:
    """Put a byte, or 256 and a symbol, into a set that begins at a place of an array."""
    at = row + (byte >> 5)
    put(t, array, at, get(t, array, at) | 1 << (byte & 31))


@jit
def has_byte(t: Handle, array: int, row: int, byte: int) -> bool:
    """Whether a byte, or 256 and a symbol, is in a set."""
    return get(t, array, row + (byte >> 5)) >> (byte & 31) & 1 != 0


@jit
def next_byte(t: Handle, array: int, row: int, byte: int) -> int:
    """The first byte of a set from one on; 256 where there is none."""
    word = byte >> 5
    if word == BYTE_WORDS:
        return 256
    bits = (get(t, array, row + word) & 0xFFFFFFFF) >> (byte & 31)
    while bits == 0:
        word += 1
        if word == BYTE_WORDS:
            return 256
        bits, byte = get(t, array, row + word) & 0xFFFFFFFF, 32 * word
    while bits & 1 == 0:
        bits >>= 1
        byte += 1
    return byte


@jit
def add_bytes(t: Handle, array: int, row: int, other: int, other_row: int) -> None:
    """Put all of another set into a set."""
    for word in range(get(t, USED, WORDS)):
        put(t, array, row + word, get(t, array, row + word) | get(t, other, other_row + word))


@jit
def clear_bytes(t: Handle, array: int, row: int) -> None:
    """Empty a set."""
    for word in range(get(t, USED, WORDS)):
        put(t, array, row + word, 0)


@jit
def meets(t: Handle, array: int, row: int, other: int, other_row: int) -> bool:
    """Whether two sets have something in common."""
    word, words = 0, get(t, USED, WORDS)
    while word < words and not get(t, array, row + word) & get(t, other, other_row + word):
        word += 1
    return word < words


@jit
def rule_row(t: Handle, rule: int, which: int) -> int:
    """Where in `RULE_BYTES` a set of a rule begins."""
    return (3 * rule + which) * get(t, USED, WORDS)
