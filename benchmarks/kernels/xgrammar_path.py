"""xgrammar's whole path of a step: matchers take a token each and fill a bitmask on the host, which is copied and applied."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
import xgrammar

from benchmarks.kernels.timing import Result, quantiles

if TYPE_CHECKING:
    from benchmarks.kernels.gpu import Work

ROUNDS = 30
COMPILE_THREADS = 8


class Path:
    """Matchers of so many slots, a pinned bitmask, and its copy on the device."""

    def __init__(self, work: Work, slots: int) -> None:
        info = xgrammar.TokenizerInfo(
            work.tokens(), xgrammar.VocabType.RAW, vocab_size=work.vocab_size, stop_token_ids=[work.eos]
        )
        compiled = xgrammar.GrammarCompiler(info, max_threads=COMPILE_THREADS).compile_grammar(work.grammar)
        self.matchers = [xgrammar.GrammarMatcher(compiled) for _ in range(slots)]
        bitmask = xgrammar.allocate_token_bitmask(slots, work.vocab_size)
        self._on_gpu = work.device == "cuda"
        self.bitmask = bitmask.pin_memory() if self._on_gpu else bitmask
        self._copy = torch.empty_like(bitmask, device=work.device)

    def fill(self) -> None:
        """Fill the bitmask on the host."""
        for slot, matcher in enumerate(self.matchers):
            if not matcher.is_terminated():
                matcher.fill_next_token_bitmask(self.bitmask, slot)

    def apply(self, logits: torch.Tensor) -> None:
        """Copy it to the device and mask by it."""
        self._copy.copy_(self.bitmask, non_blocking=True)
        xgrammar.apply_token_bitmask_inplace(logits, self._copy)

    def take(self, tokens: Sequence[int]) -> None:
        """Take a token of each slot."""
        for matcher, token in zip(self.matchers, tokens, strict=True):
            if not matcher.is_terminated() and not matcher.accept_token(token):
                raise SystemExit(f"xgrammar refuses token {token}: nothing is timed")


def measure(work: Work, slots: Sequence[int]) -> Iterator[Result]:
    """The microseconds from the tokens of all slots to masked logits, as the host sees them."""
    for count in slots:
        path = Path(work, count)
        logits = torch.zeros(count, work.vocab_size, dtype=torch.float32, device=work.device)
        texts = [work.texts[slot % len(work.texts)] for slot in range(count)]
        times: list[float] = []
        for place in range(2 if work.dry else ROUNDS):
            if place == min(map(len, texts)):
                break
            times.append(_step(path, logits, [text[place] for text in texts]))
        yield {
            "arm": "xgrammar's whole path",
            "rows": "a text",
            "slots": count,
            "dtype": "float32",
            "mode": "wall",
            **quantiles(times),
        }


def _step(path: Path, logits: torch.Tensor, tokens: Sequence[int]) -> float:
    begin: Any = time.perf_counter()
    path.take(tokens)
    path.fill()
    path.apply(logits)
    if logits.is_cuda:
        torch.cuda.synchronize()
    return float(time.perf_counter() - begin) * 1e6
