"""Batches that decode under grammars, step by step, for any device: what kernels do is what their references do, bit by bit.

Slots come and go, have grammars or none, think first, are drafted for, are interrupted and go on; some drafts are not allowed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from routine_grammar.automaton.automaton import Automaton
from routine_grammar.grammar.tree import Choice, Grammar, Leaf, Literal, Marker, Optional, Repeat
from routine_grammar.grammar.tree import Sequence as Then
from routine_grammar.kernels.advance_and_mask import advance_and_mask, advance_states, mask_states
from routine_grammar.kernels.advance_and_mask_reference import advance_states_reference, mask_states_reference
from routine_grammar.kernels.close_rows import close_rows
from routine_grammar.kernels.close_rows_reference import close_rows_reference
from routine_grammar.kernels.draft_forced import draft_forced, draft_forced_reference
from routine_grammar.kernels.grammar_tables import NOWHERE, SLOT_COLUMNS, THINKING, UNTOUCHED, Batch, Tables
from routine_grammar.kernels.replay_states import replay_states, replay_states_reference
from routine_grammar.masks.distinct import rows_of
from routine_grammar.masks.flat.packed import PackedTable, pack_table, pack_tokens
from routine_grammar.masks.flat.table import DISTANCE, FlatTable
from routine_grammar.masks.rows import TokenRows
from routine_grammar.masks.vocabulary import Vocabulary
from tests.kernels.mask_logits_cases import INTEGERS, assert_equal_bits
from tests.masks.test_spelling import longest_first

WORDS = ("name", '": "', '"}', "get_", "weather", "order", "city", "Paris", ", ", "[1", "12", "ab", "bc", "abc", "é", "call it")
THINKING_END = "</think>"
GRAMMARS = (
    Grammar(
        Then(
            (
                Literal('{"name": "'),
                Choice((Literal("get_weather"), Literal("get_order"), Literal("order"))),
                Literal('", "city": "'),
                Leaf("CITY", "[a-zA-Z]*"),
                Literal('"}'),
            )
        )
    ),
    Grammar(Then((Marker("<call>"), Repeat(Leaf("AB", "a[bc]"), 1, 3), Optional(Marker("</call>"))))),
    Grammar(Then((Literal("[1"), Repeat(Then((Literal(", "), Leaf("NUMBER", "[1-9][0-9]?"))), 0, 4), Literal("]")))),
    Grammar(Leaf("ANY", "(?:[ -~]|[à-ÿ])*")),
)


def make_vocabulary() -> Vocabulary:
    """A byte vocabulary with words, two markers and the token that ends thoughts."""
    return longest_first(WORDS, ("<call>", "</call>", THINKING_END))


def make_table(grammar: Grammar, vocabulary: Vocabulary, *, canonical: bool = True) -> FlatTable:
    rows = rows_of(Automaton(grammar, vocabulary.special), vocabulary)
    assert isinstance(rows, TokenRows)
    return FlatTable.of(rows, rows.shared.ends(None), canonical=canonical)


@dataclass
class Slot:
    """What a slot decodes, as the host sees it: `tokens` are its prompt and its text, `states` those behind each of them."""

    table: int
    tokens: list[int]
    prompt: int
    limit: int
    thinks: bool
    states: list[int] = field(default_factory=list)

    @property
    def entry(self) -> int:
        return len(self.states) - 1


class Simulation:
    """A batch of slots on a device. `expected` rings are written by references, `got` by kernels."""

    def __init__(self, device: str, *, seed: int, slots: int, drafts: int, canonical: bool = True) -> None:
        self.rng, self.device, self.most_drafts = random.Random(seed), device, drafts
        self.vocabulary = make_vocabulary()
        self.tables = [make_table(grammar, self.vocabulary, canonical=canonical) for grammar in GRAMMARS]
        self.thinking_end, self.opening = (self.vocabulary.special[name] for name in (THINKING_END, "<call>"))
        arena, self._begins = place_tables([pack_table(table) for table in self.tables], pack_tokens(self.vocabulary))
        self._slots = torch.full((slots, SLOT_COLUMNS), -1, dtype=torch.int32)
        self.arena = torch.from_numpy(arena).to(device)
        self.expected, self.got = (torch.zeros(slots, 8, dtype=torch.int64, device=device) for _ in range(2))
        self.slots: list[Slot | None] = [None] * slots
        self.counts = dict.fromkeys(("rows", "masked", "nowhere", "thinking", "closed", "drafted", "replayed"), 0)

    @property
    def on_device(self) -> Tables:
        ends = self.thinking_end, self.opening
        return Tables(self.arena, self._slots.to(self.device), self.vocabulary.size, *ends)

    # Slots that come, go and are interrupted

    def fill_slots(self) -> None:
        """Put something new into each slot that is free, and interrupt some others."""
        added = []
        for slot, held in enumerate(self.slots):
            if held is None:
                self.slots[slot] = held = self._draw_slot()
            elif held.table < 0 or self.rng.random() > 0.1:
                continue
            else:
                self.counts["replayed"] += 1
            entry = len(held.tokens) - 1
            if held.table >= 0:
                packed = pack_table(self.tables[held.table])
                begin = self._begins[held.table]
                columns = (
                    begin + packed.comb,
                    begin,
                    begin + packed.listed,
                    packed.class_count,
                    packed.start,
                    entry,
                    held.limit,
                    self.rng.choice((0, 2, 100)),
                )
                self._slots[slot] = torch.tensor(columns, dtype=torch.int32)
                added.append((slot, held.prompt, THINKING if held.thinks else packed.start))
            else:
                self._slots[slot] = -1
                added.append((slot, held.prompt, 0))
        rows = torch.tensor(added, dtype=torch.int32, device=self.device).reshape(-1, 3)
        tokens = self._all_tokens()
        replay_states(self.on_device, rows, tokens, self.got)
        replay_states_reference(self.on_device, rows, tokens, self.expected)
        assert torch.equal(self.got, self.expected)

    def _draw_slot(self) -> Slot:
        table = self.rng.randrange(-1, len(self.tables))
        prompt = self.rng.randrange(1, 6)
        tokens = [self.rng.randrange(self.vocabulary.size) for _ in range(prompt)]
        thinks = self.rng.random() < 0.3
        limit = prompt - 1 + self.rng.choice((3, 8, 20, 1000))
        state = THINKING if thinks else self.tables[table].start
        return Slot(table, tokens, prompt, limit, thinks, [UNTOUCHED] * (prompt - 1) + [state])

    def _all_tokens(self) -> torch.Tensor:
        longest = max(len(held.tokens) for held in self.slots if held)
        tokens = torch.zeros(len(self.slots), longest + 3, dtype=torch.int32)
        for slot, held in enumerate(self.slots):
            if held:
                tokens[slot, : len(held.tokens)] = torch.tensor(held.tokens, dtype=torch.int32)
        return tokens.to(self.device)

    # One step of decoding

    def step(self, dtype: torch.dtype, columns: int, padding: int) -> None:
        """Advance, mask, close and draft over all slots; then let each take what its rows allow."""
        self.fill_slots()
        drafted = [self._draw_drafts(held) for held in self.slots]
        batch, owners = self._make_batch(drafted)
        wide = make_logits(len(owners), columns + padding, dtype, self.rng.randrange(1 << 30)).to(self.device)
        expected = wide.clone()
        reference = expected[:, :columns]
        advance_states_reference(self.on_device, batch, self.expected)
        mask_states_reference(reference, self.on_device, batch, self.expected)
        for run in (self._fused, self._in_two):
            got, ring = wide.clone(), self.got.clone()
            run(got[:, :columns], batch, ring)
            assert_equal_bits(got, expected)
            assert torch.equal(ring, self.expected)
        self.got = ring
        self._check_rows(batch, owners, drafted, reference)
        before = reference.clone()
        close_rows_reference(reference, self.on_device, batch, self.expected)
        close_rows(got[:, :columns], self.on_device, batch, self.got)
        assert_equal_bits(got, expected)
        self.counts["closed"] += int((before != reference).any(dim=1).sum())
        self._take(owners, drafted, reference)
        self._check_drafts()

    def _fused(self, logits: torch.Tensor, batch: Batch, ring: torch.Tensor) -> None:
        advance_and_mask(logits, self.on_device, batch, ring)

    def _in_two(self, logits: torch.Tensor, batch: Batch, ring: torch.Tensor) -> None:
        advance_states(self.on_device, batch, ring)
        mask_states(logits, self.on_device, batch, ring)

    def _draw_drafts(self, held: Slot | None) -> list[int]:
        """Tokens that may or may not be allowed, and now and then -1, which is no token."""
        assert held is not None
        drafts: list[int] = []
        state = held.states[-1]
        for _ in range(self.rng.randrange(self.most_drafts + 1)):
            if held.table >= 0 and state > NOWHERE and self.rng.random() < 0.8:
                draft = self.rng.choice(listed(self.tables[held.table].allowed(state)))
            else:
                draft = self.rng.choice((-1, self.thinking_end, self.opening, self.rng.randrange(self.vocabulary.size)))
            drafts.append(draft)
            state = self._after(held, state, draft)
        return drafts

    def _after(self, held: Slot, state: int, token: int) -> int:
        if state == UNTOUCHED or held.table < 0:
            return UNTOUCHED
        table = self.tables[held.table]
        if state == THINKING and token != self.opening:
            return table.start if token == self.thinking_end else THINKING
        return table.after(table.start if state == THINKING else state, token)

    def _make_batch(self, drafted: Sequence[list[int]]) -> tuple[Batch, list[tuple[int, int]]]:
        rows = []
        order = list(range(len(self.slots)))
        self.rng.shuffle(order)
        for slot in order:
            held = self.slots[slot]
            assert held is not None
            last = len(held.tokens) - 1
            for place, token in enumerate((held.tokens[-1], *drafted[slot])):
                rows.append((slot, place, last + place, token))
            if len(held.tokens) > held.prompt + 1 and self.rng.random() < 0.1:  # a piece of a prompt, in the middle of it
                self._slots[slot, 5] = last + len(drafted[slot]) + 1
                held.states[-1] = UNTOUCHED
        columns = list(zip(*rows, strict=True))
        slots, positions = (torch.tensor(columns[at], dtype=torch.int64, device=self.device) for at in (0, 2))
        places, tokens = (torch.tensor(columns[at], dtype=torch.int32, device=self.device) for at in (1, 3))
        return Batch(slots, places, positions, tokens), list(zip(columns[0], columns[1], strict=True))

    def _check_rows(
        self, batch: Batch, owners: Sequence[tuple[int, int]], drafted: Sequence[list[int]], logits: torch.Tensor
    ) -> None:
        """Hold the rows against the tables that they are of, which the device's arrays were made of."""
        allowed = (logits != float("-inf")).cpu()
        for row, (slot, place) in enumerate(owners):
            held = self.slots[slot]
            assert held is not None
            state = held.states[-1]
            for token in drafted[slot][:place]:
                state = self._after(held, state, token)
            self.counts["rows"] += 1
            self.counts["nowhere"] += state == NOWHERE and held.table >= 0
            self.counts["thinking"] += state == THINKING
            if held.table < 0 or state < 0:
                assert allowed[row].all()
            else:
                self.counts["masked"] += 1
                expected = [token for token in listed(self.tables[held.table].allowed(state)) if token < logits.shape[1]]
                assert torch.nonzero(allowed[row]).flatten().tolist() == expected

    def _take(self, owners: Sequence[tuple[int, int]], drafted: Sequence[list[int]], logits: torch.Tensor) -> None:
        """Let every slot take some of its drafts, as far as they are allowed, and a token behind them."""
        allowed = (logits != float("-inf")).cpu()
        rows = {owner: row for row, owner in enumerate(owners)}
        for slot, held in enumerate(self.slots):
            assert held is not None
            if held.table >= 0 and held.states[-1] == UNTOUCHED:
                self.slots[slot] = None
                continue
            for place, draft in enumerate([*drafted[slot], -1]):
                may = torch.nonzero(allowed[rows[slot, place]]).flatten().tolist()
                if not may:  # all that is allowed lies behind the columns that there are
                    self.slots[slot] = None
                    break
                is_taken = draft in may and self.rng.random() < 0.8
                token = draft if is_taken else self.rng.choice(may)
                held.tokens.append(token)
                held.states.append(self._after(held, held.states[-1], token))
                if not is_taken or held.states[-1] == NOWHERE:
                    break
            if self.slots[slot] and (held.states[-1] == NOWHERE or len(held.tokens) > 60):
                if held.table >= 0 and not held.thinks and len(held.tokens) <= 60:
                    self._check_whole(held)
                self.slots[slot] = None

    def _check_whole(self, held: Slot) -> None:
        """A text that ended is within its budget, where that is one that a text fits in."""
        table = self.tables[held.table]
        shortest = int(table.rows[table.row_number(table.start), DISTANCE])
        if held.limit - (held.prompt - 1) >= shortest:
            assert len(held.tokens) - 2 <= held.limit  # without the token that ends it

    def _check_drafts(self) -> None:
        kept = [slot for slot, held in enumerate(self.slots) if held and len(held.states) == len(held.tokens)]
        slots = torch.tensor(kept, dtype=torch.int64, device=self.device)
        lengths = torch.tensor([len(held.tokens) if held else 0 for held in self.slots], dtype=torch.int32, device=self.device)
        last = torch.tensor([held.tokens[-1] if held else 0 for held in self.slots], dtype=torch.int64, device=self.device)
        got, expected = (torch.zeros(len(kept), 5, dtype=torch.int64, device=self.device) for _ in range(2))
        draft_forced(got, self.on_device, slots, lengths, last, self.got)
        arguments = (self.on_device, slots, lengths, last, self.expected)
        draft_forced_reference(expected, *arguments)
        assert torch.equal(got, expected)
        for row, slot in enumerate(kept):
            held = self.slots[slot]
            assert held is not None
            state = held.states[-1]
            drafts = expected[row].tolist()
            table = self.tables[held.table]
            while drafts and held.table >= 0 and state > NOWHERE and listed(table.allowed(state)) == drafts[:1]:
                state = self._after(held, state, drafts.pop(0))
                self.counts["drafted"] += 1
            assert set(drafts) <= {held.tokens[-1]}, "behind what is forced the last token stands"


def listed(packed: np.ndarray) -> list[int]:
    return [int(token) for token in np.flatnonzero(np.unpackbits(packed.view(np.uint8), bitorder="little"))]


def place_tables(tables: Sequence[PackedTable], tokens: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """An arena of some tables, with gaps, and where each begins."""
    parts, begins, used = [tokens], [], len(tokens)
    for table in tables:
        bases = []
        for base in table.bases:
            bases.append(used)
            parts.append(base)
            used += len(base)
        gap = np.full(3, -1, np.int64)
        begins.append(used + len(gap))
        parts += [gap, table.placed(bases)]
        used += len(gap) + len(table.words)
    return np.concatenate(parts), begins


def make_logits(rows: int, columns: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Random bit patterns, but for minus infinity, which is what a mask writes."""
    limits = torch.iinfo(INTEGERS[dtype])
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randint(limits.min, limits.max + 1, (rows, columns), generator=generator, dtype=torch.int64)
    logits = patterns.to(INTEGERS[dtype]).view(dtype)
    return torch.where(logits == float("-inf"), torch.zeros((), dtype=dtype), logits)


def run_simulation(device: str, *, seed: int, slots: int, drafts: int, steps: int, canonical: bool = True) -> dict[str, int]:
    """Run some steps with logits of all dtypes and several layouts; returns what was met."""
    simulation = Simulation(device, seed=seed, slots=slots, drafts=drafts, canonical=canonical)
    size = simulation.vocabulary.size
    layouts = [(torch.float32, size, 0), (torch.bfloat16, size + 40, 3), (torch.float16, size - 5, 8), (torch.float32, 4200, 1)]
    for step in range(steps):
        simulation.step(*layouts[step % len(layouts)])
    return simulation.counts
