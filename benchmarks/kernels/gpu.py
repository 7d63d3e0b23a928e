"""`python -m benchmarks gpu`: times the kernels that follow grammars on a CUDA device, beside xgrammar, torch and the floors.

Needs torch, Triton and numpy, and `tables.npz`; the decoding loop needs transformers, xgrammar's arms its wheel, and an arm
that can't run is named. Out: lines and a CSV of microseconds. Every arm's logits are compared, bit by bit, before it is timed.
`--dry` does all of it once and small, on the CPU where Triton's interpreter runs (TRITON_INTERPRET=1).
"""

from __future__ import annotations

import argparse
import csv
import functools
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.kernels.timing import Result, describe_environment, floors, make_buffers, measure_call, quantiles
from routine_grammar.kernels.advance_and_mask import advance_and_mask, advance_states, mask_states
from routine_grammar.kernels.advance_and_mask_reference import advance_states_reference, mask_states_reference
from routine_grammar.kernels.grammar_tables import ENTRY, Batch, Tables
from routine_grammar.kernels.grammar_tables_reference import Reader, ring_word, state_of_row

FILE = Path(__file__).with_name("tables.npz")
SLOTS = (1, 8, 64, 256, 512)
DTYPES = (torch.float32, torch.bfloat16)
KINDS = ("token list", "97% open", "half")
DRY_COLUMNS = 4200
ROUNDS = 30  # of what the host takes part in
SEED = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Check and time every arm; returns 2 where there is no CUDA device."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "results", metavar="DIR")
    parser.add_argument("--tables", type=Path, default=FILE, help="file of tables (default: the one beside this module)")
    parser.add_argument("--slots", type=int, nargs="+", default=list(SLOTS), metavar="N")
    parser.add_argument("--no-loop", action="store_true", help="leave out the decoding loop")
    parser.add_argument("--dry", action="store_true", help="once and small, on whatever device there is")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available() and not options.dry:
        print("no CUDA device: nothing was measured", file=sys.stderr)
        return 2
    work = Work.load(options.tables, "cuda" if torch.cuda.is_available() else "cpu", dry=options.dry)
    environment = describe_environment()
    print(environment)
    results: list[Result] = []
    for result in measure(work, [2] if options.dry else options.slots, loop=not options.no_loop):
        print("  ".join(f"{name}={value}" for name, value in result.items()), flush=True)
        results.append(result | environment)
    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / f"{environment['date']}_gpu.csv"
    with file.open("w", newline="") as stream:
        names = list(dict.fromkeys(name for result in results for name in result))
        writer = csv.DictWriter(stream, fieldnames=names, restval="")
        writer.writeheader()
        writer.writerows(results)
    print(f"written to {file}")
    return 0


def measure(work: Work, slots: Sequence[int], *, loop: bool) -> Iterator[Result]:
    """Every arm's times, each checked just before."""
    yield from floors(work.device, dry=work.dry)
    for count, dtype, kind in itertools.product(slots, DTYPES, KINDS):
        yield from measure_step(work, count, dtype, kind)
    yield from measure_paths(work, slots)
    if loop:
        from benchmarks.kernels import decoding

        yield from decoding.measure(work)


@dataclass(frozen=True)
class Work:
    """What `tables.npz` holds, on a device: an arena, columns of slots under each of its tables, steps by kind, texts."""

    device: str
    dry: bool
    arena: torch.Tensor
    slots: torch.Tensor
    vocab_size: int
    steps: dict[str, np.ndarray]
    texts: list[list[int]]
    grammar: str
    eos: int

    @property
    def columns(self) -> int:
        """Columns of logits: one for each token; fewer where it is not for their times."""
        return DRY_COLUMNS if self.dry else self.vocab_size

    @classmethod
    def load(cls, file: Path, device: str, *, dry: bool) -> Work:
        """Read the file."""
        with np.load(file) as found:
            texts: list[list[int]] = [[]]
            for token in found["texts"].tolist():
                texts[-1].append(token) if token >= 0 else texts.append([])
            return cls(
                device=device,
                dry=dry,
                arena=torch.from_numpy(found["arena"]).to(device),
                slots=torch.from_numpy(found["slots"]),
                vocab_size=int(found["vocab_size"]),
                steps={kind: found[f"steps of {kind}"] for kind in KINDS},
                texts=texts[:-1],
                grammar=str(found["grammar"]),
                eos=int(found["eos"]),
            )

    def step(self, count: int, kind: str) -> tuple[Tables, Batch, torch.Tensor]:
        """So many slots that take one token each, to rows of a kind: tables, the batch, and the ring of states before it."""
        steps = self.steps[kind]
        chosen = steps[np.random.default_rng(SEED).integers(0, len(steps), count)]
        columns = self.slots[torch.from_numpy(chosen[:, 0]).long()].clone()
        columns[:, ENTRY] = 0
        ring = torch.zeros(count, 2, dtype=torch.int64)
        ring[:, 0] = torch.tensor([ring_word(0, state) for state in chosen[:, 1].tolist()])
        batch = Batch(
            torch.arange(count, device=self.device),
            torch.zeros(count, dtype=torch.int32, device=self.device),
            torch.ones(count, dtype=torch.int64, device=self.device),
            torch.from_numpy(chosen[:, 2].copy()).to(self.device),
        )
        return Tables(self.arena, columns.contiguous().to(self.device), self.vocab_size), batch, ring.to(self.device)

    def tokens(self) -> list[bytes]:
        """The bytes of all tokens."""
        arena = self.arena.cpu()
        data = arena.view(torch.uint8).numpy().tobytes()
        words = arena[: self.vocab_size].tolist()
        return [data[word >> 32 : (word >> 32) + (word & 0xFFFFFFFF)] if word & 0xFFFFFFFF else b"" for word in words]


def measure_step(work: Work, count: int, dtype: torch.dtype, kind: str) -> Iterator[Result]:
    """The arms of one step: states and masks, and masks alone by several ways."""
    tables, batch, ring = work.step(count, kind)
    allowed = check_step(work, tables, batch, ring, dtype)
    buffers = make_buffers(count, work.columns, dtype, work.device, dry=work.dry)
    least = count_bytes(allowed, dtype)
    done = ring.clone()
    advance_states(tables, batch, done)

    def in_two(logits: torch.Tensor) -> None:
        advance_states(tables, batch, ring)
        mask_states(logits, tables, batch, ring)

    arms: dict[str, Callable[[torch.Tensor], object]] = {
        "fused step": lambda logits: advance_and_mask(logits, tables, batch, ring),
        "two launches": in_two,
        "states alone": lambda logits: advance_states(tables, batch, ring),
        "mask alone": lambda logits: mask_states(logits, tables, batch, done),
        **packed_arms(allowed),
    }
    for name, call in arms.items():
        if name != "states alone":
            check_arm(name, call, allowed, dtype)
        bytes_ = 0 if name == "states alone" else least
        yield from measure_call(name, kind, buffers, bytes_, call, dry=work.dry)


def check_step(work: Work, tables: Tables, batch: Batch, ring: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Hold a step against its reference on the CPU, bit by bit; returns what it allows: bool [slots, tokens]."""
    on_host = Tables(tables.arena.cpu(), tables.slots.cpu(), tables.vocab_size)
    asked, expected = Batch(*(each.cpu() for each in batch)), ring.cpu()
    states = [state_of_row(on_host, asked, expected, row) for row in range(len(ring))]
    words = torch.stack([Reader(on_host, slot).allowed(state) for slot, state in enumerate(states)])
    places = torch.arange(32, dtype=torch.int32)
    allowed = ((words[:, :, None] >> places) & 1).flatten(1)[:, : work.columns].bool()
    logits = random_logits(len(ring), work.columns, dtype)
    got, kept = logits.to(work.device), ring.clone()
    advance_and_mask(got, tables, batch, kept)
    advance_states_reference(on_host, asked, expected)
    mask_states_reference(logits, on_host, asked, expected)
    integer = torch.int16 if dtype.itemsize == 2 else torch.int32
    if not torch.equal(got.cpu().view(integer), logits.view(integer)) or not torch.equal(kept.cpu(), expected):
        raise SystemExit(f"the fused step differs from its reference for {len(ring)} slots, {dtype}: nothing is timed")
    return allowed.to(work.device)


def packed_arms(allowed: torch.Tensor) -> dict[str, Callable[[torch.Tensor], object]]:
    """Arms that take rows as they are: packed ones on the device, or booleans."""
    from routine_grammar.kernels.mask_logits_kernel import launch_mask_logits

    rows, forbidden = pack_rows(allowed), ~allowed
    row_ids = torch.arange(len(allowed), dtype=torch.int32, device=allowed.device)
    arms: dict[str, Callable[[torch.Tensor], object]] = {
        "mask_logits": lambda logits: launch_mask_logits(logits, rows, row_ids, vocab_size=allowed.shape[1]),
        "masked_fill_": lambda logits: logits.masked_fill_(forbidden, float("-inf")),
    }
    if allowed.is_cuda:
        with_xgrammar(lambda xgrammar: arms.update({"xgrammar's apply": lambda logits: xgrammar(logits, rows)}))
    return arms


def with_xgrammar(use: Callable[[Any], object]) -> None:
    """Use xgrammar's mask, or say that it is not there."""
    try:
        from xgrammar import apply_token_bitmask_inplace
    except ImportError:
        print("left out: xgrammar's arms, it is not installed")
        return
    use(apply_token_bitmask_inplace)


def measure_paths(work: Work, slots: Sequence[int]) -> Iterator[Result]:
    """Whole paths as the host sees them, from a token of each slot to masked logits: ours, and xgrammar's."""
    for count, kind in itertools.product(slots, ("token list", "97% open")):
        tables, batch, ring = work.step(count, kind)
        logits = torch.zeros(count, work.columns, dtype=torch.float32, device=work.device)
        step = functools.partial(advance_and_mask, logits, tables, batch, ring)
        times = [wall(step, work) for _ in range(2 if work.dry else ROUNDS)]
        batch_of: Result = {"rows": kind, "slots": count, "dtype": "float32", "mode": "wall"}
        yield {"arm": "whole path", **batch_of, **quantiles(times)}
    try:
        from benchmarks.kernels.xgrammar_path import measure as measure_xgrammar
    except ImportError:
        print("left out: xgrammar's whole path, it is not installed")
        return
    yield from measure_xgrammar(work, slots)


def wall(run: Callable[[], object], work: Work) -> float:
    """The microseconds until what a call asked for is done."""
    _wait(work)
    begin = time.perf_counter()
    run()
    _wait(work)
    return (time.perf_counter() - begin) * 1e6


def _wait(work: Work) -> None:
    if work.device == "cuda":
        torch.cuda.synchronize()


def pack_rows(allowed: torch.Tensor) -> torch.Tensor:
    """Pack allowed [n, vocab] bool to rows [n, ceil(vocab / 32)] int32, lowest bit first."""
    padded = torch.nn.functional.pad(allowed, (0, -allowed.shape[1] % 32)).reshape(len(allowed), -1, 32)
    places = torch.arange(32, device=allowed.device)
    words: torch.Tensor = (padded.long() << places).sum(dim=2)
    return words.to(torch.int32)


def count_bytes(allowed: torch.Tensor, dtype: torch.dtype) -> int:
    """Count the least bytes to move: forbidden groups of eight columns written, mixed ones read too."""
    counts = allowed[:, : allowed.shape[1] // 8 * 8].reshape(len(allowed), -1, 8).sum(dim=2)
    touched, mixed = int((counts < 8).sum()), int(((counts > 0) & (counts < 8)).sum())
    return (touched + mixed) * 8 * dtype.itemsize


def random_logits(rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
    """Logits of a normal distribution."""
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(SEED)).to(dtype)


def check_arm(name: str, call: Callable[[torch.Tensor], object], allowed: torch.Tensor, dtype: torch.dtype) -> None:
    """Refuse to time an arm whose logits differ by a bit from torch's own."""
    logits = random_logits(len(allowed), allowed.shape[1], dtype).to(allowed.device)
    expected = torch.where(allowed, logits, float("-inf"))
    call(logits)
    integer = torch.int16 if dtype.itemsize == 2 else torch.int32
    if not torch.equal(logits.view(integer), expected.view(integer)):
        raise SystemExit(f"{name} is wrong for {list(allowed.shape)} {dtype}: nothing is timed")


if __name__ == "__main__":
    sys.exit(main())
