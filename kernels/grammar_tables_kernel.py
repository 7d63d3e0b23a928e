"""How kernels read tables: where a token leads, which state a row of a batch is in, and the words of what a state allows.

In: pointers and numbers of `grammar_tables`. Out: scalars and blocks in registers. Nothing is written here.
"""

from __future__ import annotations

import triton
import triton.language as tl

from routine_grammar.kernels import grammar_tables as layout

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
def after_token(
    arena: tl.tensor,
    vocab_size: tl.tensor,
    of_slot: tl.tensor,
    state: tl.tensor,
    token: tl.tensor,
    thinking_end: tl.tensor,
    opening: tl.tensor,
) -> tl.tensor:
    """Where a token leads."""
    after = tl.full([], NOWHERE, tl.int32)
    thinks = (state == THINKING) & (token != opening)
    if state == THINKING:
        state = tl.load(of_slot + START)
    if thinks:
        after = tl.where(token == thinking_end, state, THINKING)
    elif (token >= 0) & (token < vocab_size):
        row = row_of_state(arena, of_slot, state)
        # Forced text is of long tokens: what comes behind it is known without its bytes.
        if tl.load(row + FORCED) == token:  # noqa: SIM108 -- a choice of calls is made by branches alone
            after = tl.load(row + AFTER)
        else:
            after = spell_token(arena, of_slot, state, token)
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
def state_of_row(
    arena: tl.tensor,
    vocab_size: tl.tensor,
    slots: tl.tensor,
    ring: tl.tensor,
    ring_size: tl.tensor,
    batch_slots: tl.tensor,
    places: tl.tensor,
    positions: tl.tensor,
    tokens: tl.tensor,
    thinking_end: tl.tensor,
    opening: tl.tensor,
    row: tl.tensor,
) -> tl.tensor:
    """The state of a row of a batch, UNTOUCHED where it has none: no grammar, or a prompt that goes on behind it."""
    slot = tl.load(batch_slots + row).to(tl.int64)
    of_slot = slots + slot * SLOT_COLUMNS
    state = tl.full([], UNTOUCHED, tl.int32)
    position = tl.load(positions + row)
    entry = tl.load(of_slot + ENTRY).to(tl.int64)
    if (tl.load(of_slot + COMB) >= 0) & (position >= entry):
        known = tl.maximum(position - tl.load(places + row) - 1, entry)
        word = tl.load(ring + slot * ring_size + (known & (ring_size - 1)))
        state = tl.where(word >> 32 == known, word.to(tl.int32), NOWHERE)
        behind = (position - known).to(tl.int32)
        for back in range(behind):
            token = tl.load(tokens + row - behind + 1 + back)
            state = after_token(arena, vocab_size, of_slot, state, token, thinking_end, opening)
    return state


@triton.jit  # type: ignore[untyped-decorator]
def keep_state(
    ring: tl.tensor, ring_size: tl.tensor, batch_slots: tl.tensor, positions: tl.tensor, row: tl.tensor, state: tl.tensor
) -> None:
    """Write the state of a row to the ring, for the step to come."""
    if state != UNTOUCHED:
        position = tl.load(positions + row)
        slot = tl.load(batch_slots + row).to(tl.int64)
        tl.store(ring + slot * ring_size + (position & (ring_size - 1)), (position << 32) | (state.to(tl.int64) & 0xFFFFFFFF))


@triton.jit  # type: ignore[untyped-decorator]
def kept_state(
    slots: tl.tensor, ring: tl.tensor, ring_size: tl.tensor, batch_slots: tl.tensor, positions: tl.tensor, row: tl.tensor
) -> tl.tensor:
    """The state of a row as `keep_state` wrote it, UNTOUCHED where it has none."""
    slot = tl.load(batch_slots + row).to(tl.int64)
    position = tl.load(positions + row)
    of_slot = slots + slot * SLOT_COLUMNS
    is_ours = (tl.load(of_slot + COMB) >= 0) & (position >= tl.load(of_slot + ENTRY))
    word = tl.load(ring + slot * ring_size + (position & (ring_size - 1)))
    return tl.where(is_ours, tl.where(word >> 32 == position, word.to(tl.int32), NOWHERE), UNTOUCHED)


@triton.jit  # type: ignore[untyped-decorator]
def load_allowed(
    arena: tl.tensor, of_slot: tl.tensor, state: tl.tensor, first: tl.tensor, vocab_size: tl.tensor, WORDS: tl.constexpr
) -> tl.tensor:
    """Load WORDS words of what a state allows, from column `first` on: those of its bitmap and those that are listed."""
    row = row_of_state(arena, of_slot, state)
    place = first // 32 + tl.arange(0, WORDS)
    base = tl.load(row + BASE)
    bitmap = (arena + tl.maximum(base, 0)).to(tl.pointer_type(tl.int32))
    words = tl.load(bitmap + place, mask=place < tl.where(base >= 0, (vocab_size + 31) // 32, 0), other=0)
    count = tl.load(row + COUNT)
    listed = (arena + tl.load(of_slot + LISTED) + tl.load(row + FIRST)).to(tl.pointer_type(tl.int32))
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
