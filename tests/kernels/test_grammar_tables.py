"""Kernels that follow grammars: references against the tables that they read, kernels against references, what is refused."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from routine_grammar.errors import VocabularyError
from routine_grammar.kernels import grammar_tables as layout
from routine_grammar.kernels.advance_and_mask import advance_and_mask, advance_states, mask_states
from routine_grammar.kernels.close_rows import close_rows
from routine_grammar.kernels.draft_forced import draft_forced
from routine_grammar.kernels.grammar_tables import Batch, Tables
from routine_grammar.kernels.replay_states import replay_states
from routine_grammar.masks.flat import comb, packed, table
from routine_grammar.masks.flat.packed import pack_table, pack_tokens
from tests.kernels.grammar_table_cases import GRAMMARS, make_table, make_vocabulary, run_simulation
from tests.kernels.interpreting import run_interpreted
from tests.scale import SCALE


def test_references_follow_the_tables() -> None:
    """And the batches have all that they are for: rows that allow nothing, thoughts, ends of budgets, drafts, interruptions."""
    met: Counter[str] = Counter()
    for seed in range(20 * SCALE):
        met += Counter(run_simulation("cpu", seed=seed, slots=6, drafts=4, steps=12, canonical=seed % 3 > 0))
    assert all(met[name] > 20 for name in ("masked", "nowhere", "thinking", "closed", "drafted", "replayed")), met


def test_kernels_equal_references_under_the_interpreter() -> None:
    run_interpreted("interpreted_grammar_tables.py")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("seed", range(20))
def test_compiled_kernels_equal_references(seed: int) -> None:
    run_simulation("cuda", seed=seed, slots=16, drafts=4, steps=20, canonical=seed % 2 == 0)


def test_packed_arrays_are_as_kernels_read_them() -> None:
    names = ("BASE", "FIRST", "COUNT", "DISTANCE", "FARTHEST", "FORCED", "AFTER")
    assert [getattr(layout, name) for name in names] == [getattr(table, name) for name in names]
    assert (layout.ROW_COLUMNS, layout.CLASS_WORDS, layout.NOWHERE) == (table.COLUMNS, packed.CLASS_WORDS, comb.NOWHERE)


def test_a_forced_token_leads_where_its_row_says() -> None:
    vocabulary = make_vocabulary()
    forced = 0
    for grammar in GRAMMARS:
        flat = make_table(grammar, vocabulary)
        for state in np.flatnonzero(flat.comb >> 32 < -1).tolist():
            row = flat.rows[flat.row_number(state)]
            if row[table.FORCED] >= 0:
                assert row[table.AFTER] == flat.after(state, int(row[table.FORCED]))
                forced += 1
    assert forced > 10


def test_tables_are_told_apart_by_what_they_allow() -> None:
    vocabulary = make_vocabulary()
    tables = [
        pack_table(make_table(grammar, vocabulary, canonical=canonical)) for grammar in GRAMMARS for canonical in (False, True)
    ]
    again = pack_table(make_table(GRAMMARS[0], vocabulary, canonical=True))
    assert again.digest == tables[1].digest
    assert len({one.digest for one in tables}) > len(GRAMMARS)
    assert all(one.shortest >= 1 and one.farthest >= one.shortest - 1 for one in tables[:-2])


def test_a_vocabulary_too_large_for_a_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "MAX_VOCABULARY_BYTES", 1000)
    with pytest.raises(VocabularyError, match=r"tokens are of .* bytes; a device takes 1000"):
        pack_tokens(make_vocabulary())


# What is refused

SLOTS, PLACES = 2, 4
RING = torch.zeros(SLOTS, PLACES, dtype=torch.int64)
TABLES = Tables(torch.zeros(64, dtype=torch.int64), torch.full((SLOTS, layout.SLOT_COLUMNS), -1, dtype=torch.int32), 3)


def batch(rows: int = 1) -> Batch:
    wide, narrow = torch.zeros(rows, dtype=torch.int64), torch.zeros(rows, dtype=torch.int32)
    return Batch(wide, narrow, wide, narrow)


@pytest.mark.parametrize(
    ("tables", "ring", "message"),
    [
        (TABLES._replace(arena=TABLES.arena.int()), RING, "got arena of torch.int32"),
        (TABLES._replace(slots=TABLES.slots.long()), RING, "got slots of torch.int64"),
        (TABLES._replace(slots=TABLES.slots[:, :4].contiguous()), RING, r"got slots and ring of shapes \[2, 4\]"),
        (TABLES._replace(vocab_size=65), RING, "got vocab_size 65"),
        (TABLES, RING.int(), "got ring of torch.int32"),
        (TABLES, RING[:1], r"\[1, 4\], expected"),
        (TABLES, torch.zeros(SLOTS, 6, dtype=torch.int64), "a ring of 6 places a slot, expected a power of two"),
    ],
)
def test_other_tables_are_refused(tables: Tables, ring: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        advance_states(tables, batch(), ring)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slots": torch.zeros(1, dtype=torch.int32)}, "got slots of torch.int32"),
        ({"places": torch.zeros(1, dtype=torch.int64)}, "got places of torch.int64"),
        ({"positions": torch.zeros(2, dtype=torch.int64)}, r"of shapes \[\(1,\), \(2,\)\], expected one shape"),
        ({"tokens": torch.zeros(1, dtype=torch.int32, device="meta")}, "a batch that is not on cpu"),
    ],
)
def test_other_batches_are_refused(change: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        advance_states(TABLES, batch()._replace(**change), RING)


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (torch.zeros(1, 3, dtype=torch.float64), "got logits of torch.float64"),
        (torch.zeros(2, 3), r"got logits of shape \[2, 3\] for a batch of 1 rows"),
        (torch.zeros(3), "expected \\[rows, columns\\]"),
        (torch.zeros(1, 6)[:, ::2], "column stride 2"),
        (torch.zeros(1, 3, device="meta"), "logits on meta and states on cpu"),
    ],
)
def test_other_logits_are_refused(logits: torch.Tensor, message: str) -> None:
    for masked in (mask_states, close_rows, advance_and_mask):
        with pytest.raises(ValueError, match=message):
            masked(logits, TABLES, batch(), RING)


def test_other_replays_and_drafts_are_refused() -> None:
    added, tokens = torch.zeros(1, 3, dtype=torch.int32), torch.zeros(SLOTS, 5, dtype=torch.int32)
    with pytest.raises(ValueError, match=r"got added of torch.int64"):
        replay_states(TABLES, added.long(), tokens, RING)
    with pytest.raises(ValueError, match=r"got tokens of torch.int32, shape \[1, 5\]"):
        replay_states(TABLES, added, tokens[:1], RING)
    drafts, lengths, last = torch.zeros(1, 4, dtype=torch.int64), torch.ones(SLOTS, dtype=torch.int32), torch.zeros(SLOTS)
    with pytest.raises(ValueError, match=r"last_tokens of torch.int32 .* and torch.float32"):
        draft_forced(drafts, TABLES, torch.zeros(1, dtype=torch.int64), lengths, last, RING)
    with pytest.raises(ValueError, match=r"got drafts of torch.int32"):
        draft_forced(drafts.int(), TABLES, torch.zeros(1, dtype=torch.int64), lengths, last.long(), RING)


def test_empty_batches_change_nothing() -> None:
    ring = torch.full_like(RING, 7)
    advance_and_mask(torch.zeros(0, 3), TABLES, batch(0), ring)
    close_rows(torch.zeros(0, 3), TABLES, batch(0), ring)
    replay_states(TABLES, torch.zeros(0, 3, dtype=torch.int32), torch.zeros(SLOTS, 5, dtype=torch.int32), ring)
    draft_forced(
        torch.zeros(0, 4, dtype=torch.int64),
        TABLES,
        torch.zeros(0, dtype=torch.int64),
        torch.ones(SLOTS, dtype=torch.int32),
        torch.zeros(SLOTS, dtype=torch.int64),
        ring,
    )
    assert ring.eq(7).all()
