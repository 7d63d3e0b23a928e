"""How kernels read tables: where a token leads, which state a row of a batch is in, and the words of what a state allows.

In: pointers and numbers of `grammar_tables`. Out: scalars and blocks in registers, and a row's state in the ring.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from routine_grammar.kernels import grammar_tables as layout
from routine_grammar.kernels.grammar_tables import Batch, Tables

COMB, CLASSES, LISTED, CLASS_COUNT = (
    tl.constexpr(column) for column in (layout.COMB, layout.CLASSES, layout.LISTED, layout.CLASS_COUNT)
)
START, ENTRY, LIMIT, DRAFTS = (tl.constexpr(column) for column in (layout.START, layout.ENTRY, layout.LIMIT, layout.DRAFTS))
BASE, FIRST, COUNT = (tl.constexpr(column) for column in (layout.BASE, layout.FIRST, layout.COUNT))
DISTANCE, FARTHEST, FORCED, AFTER = (
    tl.constexpr(column) for column in (layout.DISTANCE, layout.FARTHEST, layout.FORCED, layout.AFTER)
)
SLOT_COLUMNS, ROW_COLUMNS = tl.constexpr(layout.SLOT_COLUMNS), tl.constexpr(layout.ROW_COLUMNS)
CLASS_WORDS, NOWHERE = tl.constexpr(layout.CLASS_WORDS), tl.constexpr(layout.NOWHERE)
UNTOUCHED, THINKING = tl.constexpr(layout.UNTOUCHED), tl.constexpr(layout.THINKING)


class Held(NamedTuple):
    """What every kernel that follows grammars is given first: the tables, and the ring of states with its places a slot."""

    arena: Any
    slots: Any
    vocab_size: Any
    thinking_end: Any
    opening: Any
    ring: Any
    ring_size: Any


def first_arguments(tables: Tables, ring: torch.Tensor) -> Held:
    """The first arguments of a launch."""
    return Held(*tables, ring, ring.shape[1])


@triton.jit  # type: ignore[untyped-decorator]
def row_of_state(arena: tl.tensor, of_slot: tl.tensor, state: tl.tensor) -> tl.tensor:
    """Where the row of a state begins, as a pointer to its columns."""
    comb = arena + tl.load(of_slot + COMB)
    number = -1 - (tl.load(comb + state) >> 32)
    rows = (arena + tl.load(of_slot + CLASSES) + CLASS_WORDS).to(tl.pointer_type(tl.int32))
    return rows + number * ROW_COLUMNS


@triton.jit  # type: ignore[untyped-decorator]
def after_byte(comb: tl.tensor, classes: tl.tensor, state: tl.tensor, byte: tl.tensor) -> tl.tensor:
    """Where a byte leads."""
    entry = tl.load(comb + state + 1 + tl.load(classes + byte))
    header = tl.load(comb + state)
    return tl.where(entry >> 32 == state, entry, header).to(tl.int32)


@triton.jit  # type: ignore[untyped-decorator]
def after_token(held: Held, of_slot: tl.tensor, state: tl.tensor, token: tl.tensor) -> tl.tensor:
    """Where a token leads."""
    after = tl.full([], NOWHERE, tl.int32)
    thinks = (state == THINKING) & (token != held.opening)
    if state == THINKING:
        state = tl.load(of_slot + START)
    if thinks:
        after = tl.where(token == held.thinking_end, state, THINKING)
    elif (token >= 0) & (token < held.vocab_size):
        row = row_of_state(held.arena, of_slot, state)
        # Forced text is of long tokens: what comes behind it is known without its bytes.
        if tl.load(row + FORCED) == token:  # noqa: SIM108 -- a choice of calls is made by branches alone
            after = tl.load(row + AFTER)
        else:
            after = spell_token(held.arena, of_slot, state, token)
    return after


@triton.jit  # type: ignore[untyped-decorator]
def spell_token(arena: tl.tensor, of_slot: tl.tensor, state: tl.tensor, token: tl.tensor) -> tl.tensor:
    """Where a token of the vocabulary leads, byte by byte."""
    comb = arena + tl.load(of_slot + COMB)
    word = tl.load(arena + token)
    at = word >> 32
    length = word.to(tl.int32)
    if length == 0:
        entry = tl.load(comb + state + tl.load(of_slot + CLASS_COUNT) + at)
        state = tl.where((at > 0) & (entry >> 32 == state), entry, NOWHERE).to(tl.int32)
    else:
        spelled = arena.to(tl.pointer_type(tl.uint8)) + at
        classes = (arena + tl.load(of_slot + CLASSES)).to(tl.pointer_type(tl.uint8))
        while length > 0:
            state = after_byte(comb, classes, state, tl.load(spelled))
            spelled += 1
            length -= 1
    return state


@triton.jit  # type: ignore[untyped-decorator]
def ring_state(held: Held, slot: tl.tensor, position: tl.tensor) -> tl.tensor:
    """The state that the ring has of a slot at a position; NOWHERE where it has none."""
    word = tl.load(held.ring + slot * held.ring_size + (position & (held.ring_size - 1)))
    return tl.where(word >> 32 == position, word.to(tl.int32), NOWHERE)


@triton.jit  # type: ignore[untyped-decorator]
def put_in_ring(held: Held, slot: tl.tensor, position: tl.tensor, state: tl.tensor) -> None:
    """Write the state of a slot at a position, for the step to come."""
    word = (position.to(tl.int64) << 32) | (state.to(tl.int64) & 0xFFFFFFFF)
    tl.store(held.ring + slot * held.ring_size + (position & (held.ring_size - 1)), word)


@triton.jit  # type: ignore[untyped-decorator]
def state_of_row(held: Held, batch: Batch, row: tl.tensor) -> tl.tensor:
    """The state of a row of a batch, UNTOUCHED where it has none: no grammar, or a prompt that goes on behind it."""
    slot = tl.load(batch.slots + row).to(tl.int64)
    of_slot = held.slots + slot * SLOT_COLUMNS
    state = tl.full([], UNTOUCHED, tl.int32)
    position = tl.load(batch.positions + row)
    entry = tl.load(of_slot + ENTRY).to(tl.int64)
    if (tl.load(of_slot + COMB) >= 0) & (position >= entry):
        known = tl.maximum(position - tl.load(batch.places + row) - 1, entry)
        state = ring_state(held, slot, known)
        behind = (position - known).to(tl.int32)
        for back in range(behind):
            token = tl.load(batch.tokens + row - behind + 1 + back)
            state = after_token(held, of_slot, state, token)
    return state


@triton.jit  # type: ignore[untyped-decorator]
def keep_state(held: Held, batch: Batch, row: tl.tensor, state: tl.tensor) -> None:
    """Write the state of a row to the ring, if it has one."""
    if state != UNTOUCHED:
        put_in_ring(held, tl.load(batch.slots + row).to(tl.int64), tl.load(batch.positions + row), state)


@triton.jit  # type: ignore[untyped-decorator]
def kept_state(held: Held, batch: Batch, row: tl.tensor) -> tl.tensor:
    """The state of a row as `keep_state` wrote it, UNTOUCHED where it has none."""
    slot = tl.load(batch.slots + row).to(tl.int64)
    position = tl.load(batch.positions + row)
    of_slot = held.slots + slot * SLOT_COLUMNS
    is_ours = (tl.load(of_slot + COMB) >= 0) & (position >= tl.load(of_slot + ENTRY))
    return tl.where(is_ours, ring_state(held, slot, position), UNTOUCHED)


@triton.jit  # type: ignore[untyped-decorator]
def load_allowed(held: Held, of_slot: tl.tensor, state: tl.tensor, first: tl.tensor, WORDS: tl.constexpr) -> tl.tensor:
    """Load WORDS words of what a state allows, from column `first` on: those of its bitmap and those that are listed."""
    row = row_of_state(held.arena, of_slot, state)
    place = first // 32 + tl.arange(0, WORDS)
    base = tl.load(row + BASE)
    bitmap = (held.arena + tl.maximum(base, 0)).to(tl.pointer_type(tl.int32))
    words = tl.load(bitmap + place, mask=place < tl.where(base >= 0, (held.vocab_size + 31) // 32, 0), other=0)
    count = tl.load(row + COUNT)
    listed = (held.arena + tl.load(of_slot + LISTED) + tl.load(row + FIRST)).to(tl.pointer_type(tl.int32))
    # How many listed words stand before each of these: every lane searches its own place among them, which rise.
    before = tl.zeros([WORDS], tl.int32)
    step = tl.full([], 1, tl.int32)
    while step * 2 <= count:
        step *= 2
    while step > 0:
        probe = before + step
        found = tl.load(listed + 2 * (probe - 1), mask=probe <= count, other=0x7FFFFFFF)
        before = tl.where(found < place, probe, before)
        step = step // 2
    is_listed = tl.load(listed + 2 * before, mask=before < count, other=-1) == place
    return words | tl.load(listed + 2 * before + 1, mask=is_listed, other=0)
