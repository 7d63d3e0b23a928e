"""A decoding loop: a Qwen3-shaped model of random weights under a CUDA graph, unconstrained, by our kernel, by xgrammar's path.

Our step is part of the graph. xgrammar's matchers are on the host, which waits for each token, fills the bitmask and copies it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.kernels.timing import Result, quantiles
from routine_grammar.engines.vllm.environment import hide_broken_packages
from routine_grammar.kernels.advance_and_mask import advance_and_mask
from routine_grammar.kernels.grammar_tables import COMB, ENTRY, LIMIT, Batch, Tables
from routine_grammar.kernels.grammar_tables_reference import ring_word

if TYPE_CHECKING:
    from benchmarks.kernels.gpu import Work

SHAPES: dict[str, dict[str, Any]] = {
    "0.6B": {
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": True,
    },
    "8B": {
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": False,
    },
}
DRY = {"dry": {**SHAPES["0.6B"], "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_key_value_heads": 16}}
BATCHES = (1, 8, 64)
TOKENS = 64
ROUNDS = 7
LONGEST = 128


def measure(work: Work) -> Iterator[Result]:
    """The microseconds a token of every shape, batch and arm."""
    hide_broken_packages()
    try:
        import transformers
    except ImportError:
        print("left out: the decoding loop, transformers is not installed")
        return
    for shape, sizes in (DRY if work.dry else SHAPES).items():
        torch.manual_seed(0)
        config = transformers.Qwen3Config(vocab_size=work.vocab_size, max_position_embeddings=LONGEST, **sizes)
        with torch.device(work.device):
            model = transformers.Qwen3ForCausalLM(config).to(torch.bfloat16).eval()
        for count in (2,) if work.dry else BATCHES:
            cache = transformers.StaticCache(config=config, max_cache_len=LONGEST)
            yield from _measure_arms(work, shape, Loop(work, model, cache, count))
        del model


class Loop:
    """A batch that decodes, each sequence the likeliest token that it may say; the last step is kept in `tokens`."""

    def __init__(self, work: Work, model: Any, cache: Any, count: int) -> None:
        self._model, self._cache, self.count, self._work = model, cache, count, work
        self.tokens = torch.zeros(count, 1, dtype=torch.int64, device=work.device)
        self.position = torch.zeros(1, dtype=torch.int64, device=work.device)
        columns = work.slots[torch.zeros(count, dtype=torch.int64)].clone()
        assert (columns[:, COMB] >= 0).all()
        columns[:, ENTRY], columns[:, LIMIT] = 0, 1 << 30
        self._tables = Tables(work.arena, columns.contiguous().to(work.device), work.vocab_size)
        self._start = int(columns[0, 4])
        self._ring = torch.zeros(count, 2, dtype=torch.int64, device=work.device)
        self._batch = Batch(
            torch.arange(count, device=work.device),
            torch.zeros(count, dtype=torch.int32, device=work.device),
            torch.zeros(count, dtype=torch.int64, device=work.device),
            torch.zeros(count, dtype=torch.int32, device=work.device),
        )
        self.place = 0  # steps since the texts began
        self.logits = torch.zeros(count, work.vocab_size, dtype=torch.bfloat16, device=work.device)

    def begin(self) -> None:
        """Stand before the first token of all texts, behind a prompt of one token."""
        self._cache.reset()
        self.place = 0
        self.tokens.zero_()
        self.position.zero_()
        self._ring.zero_()
        self._ring[:, 0] = ring_word(0, self._start)

    def forward(self) -> None:
        """The logits behind the last token of each sequence."""
        positions = self.position.expand(self.count, 1)
        found = self._model(self.tokens, position_ids=positions, past_key_values=self._cache, use_cache=True)
        self.logits.copy_(found.logits[:, -1])

    def mask(self) -> None:
        """Our step: where each sequence stands, and what it may say."""
        self._batch.positions.copy_(self.position.expand(self.count))
        self._batch.tokens.copy_(self.tokens[:, 0])
        advance_and_mask(self.logits, self._tables, self._batch, self._ring)

    def choose(self) -> None:
        """Say the likeliest token that is left."""
        self.tokens.copy_(self.logits.argmax(dim=-1, keepdim=True))
        self.position.add_(1)

    def unconstrained(self) -> None:
        """A step that masks nothing."""
        self.forward()
        self.choose()

    def ours(self) -> None:
        """A step under our kernel."""
        self.forward()
        self.mask()
        self.choose()


def _measure_arms(work: Work, shape: str, loop: Loop) -> Iterator[Result]:
    arms: dict[str, Callable[[], Callable[[], None]]] = {
        "unconstrained": lambda: _captured(loop, loop.unconstrained),
        "ours": lambda: _captured(loop, loop.ours),
        "xgrammar's path": lambda: _xgrammar(work, loop),
    }
    with torch.inference_mode():
        for name, prepare in arms.items():
            loop.begin()
            try:
                step = prepare()
            except ImportError:
                print(f"left out: {name} in the decoding loop, xgrammar is not installed")
                continue
            times = [_run(loop, step, 2 if work.dry else TOKENS) for _ in range(1 if work.dry else ROUNDS)]
            batch: Result = {"rows": f"loop of {shape}", "slots": loop.count, "dtype": "bfloat16", "mode": "a token"}
            yield {"arm": name, **batch, **quantiles(times)}


def _captured(loop: Loop, step: Callable[[], None]) -> Callable[[], None]:
    """A step as a CUDA graph; as it is where there is no CUDA."""
    if not loop.tokens.is_cuda:
        return step
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def _xgrammar(work: Work, loop: Loop) -> Callable[[], None]:
    from benchmarks.kernels.xgrammar_path import Path

    path = Path(work, loop.count)
    forward = _captured(loop, loop.forward)

    def step() -> None:
        forward()
        if loop.place == 0:
            for matcher in path.matchers:
                matcher.reset()
        else:
            path.take(loop.tokens[:, 0].tolist())
        path.fill()
        path.apply(loop.logits)
        loop.choose()

    return step


def _run(loop: Loop, step: Callable[[], None], tokens: int) -> float:
    """The microseconds a token of one run from the begin of the texts on."""
    loop.begin()
    if loop.tokens.is_cuda:
        torch.cuda.synchronize()
    begin = time.perf_counter()
    for loop.place in range(tokens):
        step()
    if loop.tokens.is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - begin) * 1e6 / tokens
