"""Rows in a buffer: whatever was written to its lines before, they hold what they would hold alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routine_grammar.masks.row import Ends, Row, RowBuffer
from tests.scale import SCALE

WORDS = 5
TOKENS = [bytes((97 + number % 26,)) for number in range(32 * WORDS)]
BASES = [np.random.default_rng(number).integers(0, 2**32, size, np.uint32) for number, size in enumerate((5, 5, 3, 1))]

tokens = st.lists(st.integers(0, 32 * WORDS - 1), max_size=6).map(lambda ids: np.array(sorted(set(ids)), np.int32))
rows = st.builds(Row.of, st.sampled_from([None, *BASES]), tokens, st.booleans())


def alone(row: Row | None) -> npt.NDArray[np.int32]:
    """What a line holds that only this row was written to."""
    line = np.full(WORDS, -1, np.int32)
    if row is not None:
        row.write(line)
    return line


@settings(max_examples=200 * SCALE, deadline=None)
@given(st.lists(st.lists(st.none() | rows, min_size=1, max_size=3), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_lines_hold_what_was_written_last(passes: list[list[Row | None]], order: object) -> None:
    buffer, held = RowBuffer(3, WORDS), [Row.of(None, np.zeros(0, np.int32), False)] * 3
    seen: list[Row | None] = []
    for written in passes:
        seen += written
        again: Sequence[Row | None] = [seen[(7 * place) % len(seen)] for place in range(len(written))]  # rows that were there
        for batch in (written, again):
            lines = buffer.write(batch)
            held[: len(batch)] = batch  # type: ignore[assignment]
            assert len(lines) == len(batch)
            assert np.array_equal(buffer.lines, np.array([alone(row) for row in held]))


@settings(max_examples=200 * SCALE, deadline=None)
@given(rows, st.sets(st.integers(0, 40 * WORDS), max_size=4), st.sets(st.integers(0, 32 * WORDS - 1), max_size=4))
def test_ends_are_allowed_where_a_text_may_end_and_nowhere_else(row: Row, ends: set[int], spelled: set[int]) -> None:
    ending = Ends(ends | spelled, [data if token in spelled else b"" for token, data in enumerate(TOKENS)])
    expected = set(row.allowed.tolist()) - (ends | spelled if not row.ends else set())
    expected |= ending.ids if row.ends else set[int]()
    # A token that ends a text and spells nothing is allowed by no row.
    unspelled = {token for token in ends - spelled if token in set(row.allowed.tolist())}
    assert set(row.whole(ending).allowed.tolist()) - unspelled == expected - unspelled
    assert row.whole(ending) is row.whole(ending)


@pytest.mark.parametrize("token", [10**9, 32 * WORDS, -1])
def test_a_token_outside_of_a_row_is_left_out(token: int) -> None:
    buffer = RowBuffer(2, WORDS)
    lines = buffer.write([Row.of(None, np.array([1], np.int32), True).whole(Ends([token, 2], TOKENS))] * 2)
    assert lines[:, 0].tolist() == [6, 6]
    assert not lines[:, 1:].any()
