"""Makes the file of tables that `python -m benchmarks gpu` runs over, so that a machine with a GPU needs none of our compiler.

In: the medium turn of the workload, over 151,936 tokens. Out: `tables.npz`, arrays as kernels read them, and steps to measure:
a table, a state, and a token that leads to a row of some kind. Run it with `python -m benchmarks.kernels.tables`.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.vocabularies import Tokenization, sized_tokenization
from benchmarks.workload import PLAIN, Case, make_case
from routine_grammar.automaton.automaton import Automaton
from routine_grammar.masks.distinct import rows_of
from routine_grammar.masks.flat.comb import NOWHERE, header
from routine_grammar.masks.flat.packed import CLASS_WORDS, PackedTable, pack_table, pack_tokens
from routine_grammar.masks.flat.table import BASE, COLUMNS, COUNT, FORCED, FlatTable
from routine_grammar.masks.rows import TokenRows

FILE = Path(__file__).with_name("tables.npz")
VOCAB_SIZE = 151_936
SEED = 0
SAMPLES = 64  # texts that are walked for steps
TOKEN_LIST, OPEN, HALF = "token list", "97% open", "half"
MOST_LISTED = 64  # tokens of a row that is a list

Words = npt.NDArray[np.int64]
Ids = npt.NDArray[np.int32]


def main(file: Path = FILE) -> int:
    """Write the file."""
    tokenization = sized_tokenization(VOCAB_SIZE)
    case = make_case("medium", SAMPLES, SEED).plain(PLAIN.format("medium"))
    table = make_table(case, tokenization)
    texts = [tokenization.encode(text) for text in case.samples]
    steps = find_steps(table, texts)
    arena, slots = place([pack_table(table), half_table(VOCAB_SIZE)], pack_tokens(tokenization.vocabulary))
    kept: dict[str, Any] = {
        "arena": arena,
        "slots": slots,
        "vocab_size": VOCAB_SIZE,
        "eos": tokenization.vocabulary.eos[0],
        "grammar": case.grammar.lark_for("xgrammar", tokenization.vocabulary),
        "texts": np.array([token for text in texts for token in (*text, -1)], np.int32),
        **{f"steps of {kind}": found for kind, found in steps.items()},
    }
    np.savez_compressed(file, **kept)
    told = ", ".join(f"{len(found)} steps of {kind}" for kind, found in steps.items())
    print(f"{file.name}: {file.stat().st_size / 2**20:.1f} MiB, {told}")
    return 0


def make_table(case: Case, tokenization: Tokenization) -> FlatTable:
    """The table of a case's grammar."""
    rows = rows_of(Automaton(case.grammar.tree, tokenization.vocabulary.special), tokenization.vocabulary)
    assert isinstance(rows, TokenRows)
    return FlatTable.of(rows, rows.shared.ends(None), canonical=True)


def find_steps(table: FlatTable, texts: Sequence[Sequence[int]]) -> dict[str, Ids]:
    """Steps to rows of each kind: int32 [n, 3] of a table (0: this one, 1: that of a half), a state of it, and a token."""
    found: dict[str, set[tuple[int, int, int]]] = {TOKEN_LIST: set(), OPEN: set()}
    for text in texts:
        for state, token, after in _walk(table, text):
            allowed = int(np.bitwise_count(table.allowed(after).view(np.uint32)).sum())
            if allowed <= MOST_LISTED:
                found[TOKEN_LIST].add((0, state, token))
            elif allowed > table.vocabulary.size // 2:
                found[OPEN].add((0, state, token))
    rng = random.Random(SEED)
    half = {(1, 1, token) for token in rng.sample([token for token, data in enumerate(table.vocabulary.tokens) if data], 512)}
    return {kind: np.array(sorted(steps), np.int32) for kind, steps in (*found.items(), (HALF, half))}


def _walk(table: FlatTable, text: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    state = table.start
    for token in text:
        after = table.after(state, token)
        assert after != NOWHERE
        yield state, token, after
        state = after


def half_table(size: int) -> PackedTable:
    """A table of one state, which allows a random half of the tokens and which all of them lead back to."""
    words = np.random.default_rng(SEED).integers(0, 1 << 32, -(-size // 64) * 2, np.uint32)
    words[size // 32 :] = 0
    rows = np.zeros((2, COLUMNS), np.int32)
    rows[0, [BASE, COUNT, FORCED]] = -1, 1, -1
    rows[1, [BASE, FORCED]] = 0, -1
    comb = np.array([header(0, NOWHERE), header(1, 1), -1, -1], np.int64)
    parts = [np.zeros(CLASS_WORDS, np.int64), rows.view(np.int64).ravel(), np.ones(1, np.int64) << 32, comb]
    listed = CLASS_WORDS + rows.size // 2
    return PackedTable(np.concatenate(parts), (words.view(np.int64),), listed, listed + 1, 1, 1, 0, 0)


def place(tables: Sequence[PackedTable], tokens: Words) -> tuple[Words, Ids]:
    """An arena of some tables, and the columns of a slot that decodes under each, from position 0 on and without a limit."""
    parts, slots, used = [tokens], [], len(tokens)
    for table in tables:
        bases = []
        for base in table.bases:
            bases.append(used)
            parts.append(base)
            used += len(base)
        parts.append(table.placed(bases))
        slots.append((used + table.comb, used, used + table.listed, table.class_count, table.start, 0, 1 << 30, 0))
        used += len(table.words)
    return np.concatenate(parts), np.array(slots, np.int32)


if __name__ == "__main__":
    sys.exit(main())
