"""A grammar's program as compiled code has it: one block of words that says what its nodes, texts, leaves and rules are."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from routine_grammar.automaton import pools
from routine_grammar.automaton.step import ELEMENT, LIST
from routine_grammar.grammar.program import DISTINCT
from routine_grammar.grammar.program import ELEMENT as ELEMENT_NODE
from routine_grammar.jit import jit

Ints = npt.NDArray[np.int32]

# The arrays of the block, in order: the program, what is told of its nodes and rules, and its text, bytes in words.
PLACES = np.array(
    (
        *(pools.NODES, pools.NODE_ENDS, pools.SHORTEST_OF, pools.LEADING, pools.TEXT_STARTS, pools.SYMBOL_OF, pools.LEAVES),
        *(pools.RULES, pools.RULE_BYTES, pools.RULE_STACK, pools.TEXT),
    )
)
_NODES, _ENDS, _SHORTEST_OF, _LEADING, _STARTS, _SYMBOLS, _LEAVES, RULES, RULE_BYTES, _STACK, _TEXT = range(len(PLACES))


def sizes_of_block(nodes: int, texts: int, leaves: int, rules: int, words: int, text_bytes: int) -> list[int]:
    """How many words the arrays of `PLACES` take, `words` of them a set of bytes."""
    return [
        *(3 * nodes, nodes, nodes, nodes, texts + 1, texts, 2 * leaves),
        *(rules * pools.RULE_COLUMNS, rules * 3 * words, rules * 3, text_bytes // 4 + 1),
    ]


@jit
def write_block(nodes: Ints, ends: Ints, firsts: Ints, numbers: Ints, data: Any, begins: Any, block: Ints) -> None:
    """Write what is known of a program to a block of zeros, whose arrays begin at `begins`.

    nodes [n, 3], ends [n] and firsts [rules] as of `Program`. numbers: where each text starts in the bytes `data`, and where
    the last ends; the symbol of each text or -1; of each leaf its start state and the most bytes from there to its end.
    """
    write_run(block, begins[_NODES], nodes.reshape(-1))
    write_run(block, begins[_ENDS], ends)
    write_run(block, begins[_STARTS], numbers)  # the three arrays stand side by side
    block[begins[_TEXT] :].view(np.uint8)[: len(data)] = data
    for rule, first in enumerate(firsts):
        columns = block[begins[RULES] + rule * pools.RULE_COLUMNS :][: pools.RULE_COLUMNS]
        columns[pools.NODE] = first
        columns[pools.LAST_NODE] = ends[first]
        columns[pools.BODY] = -1
        columns[pools.BODY_STATE] = columns[pools.START] = pools.UNSET
        kind = nodes[first, 0]
        columns[pools.MARKS] = LIST if kind == DISTINCT else ELEMENT if kind == ELEMENT_NODE else 0


@jit
def write_run(block: Ints, begin: int, numbers: Ints) -> None:
    """Write numbers to a block from a place on."""
    for place in range(len(numbers)):
        block[begin + place] = numbers[place]
