"""Times `mask_logits` on a CUDA device beside torch, xgrammar, an empty launch and a copy; arms must be exact first.

Run it with `python -m benchmarks.kernels.mask_logits`. Out: a table and a CSV of microseconds per call, launched one by
one and replayed from a CUDA graph, over buffers that together exceed the L2 cache; exit code 2 without a CUDA device.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import torch

from routine_grammar.kernels.mask_logits import mask_logits

Call = Callable[[torch.Tensor], object]
Result = dict[str, str | int | float]

VOCAB_SIZE = 151_936
SLOTS = (1, 8, 64, 256, 512)
DTYPES = (torch.float32, torch.bfloat16)
# The mean share of a row's tokens that is allowed, drawn independently for every token.
ALLOWED_SHARES = {"tight": 64 / VOCAB_SIZE, "open": 0.97, "half": 0.5}
SEED = 0
SAMPLES = 50
CALLS_PER_SAMPLE = 20


def main(arguments: list[str] | None = None) -> int:
    """Check and time every arm, print the table and write the CSV."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels.mask_logits", description=main.__doc__)
    parser.add_argument("--output", type=Path, default=Path("mask_logits.csv"), help="CSV to write")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("no CUDA device: nothing was measured", file=sys.stderr)
        return 2
    environment = describe_environment()
    print(environment)
    results = []
    for result in itertools.chain(measure_floors(), measure_arms()):
        print("  ".join(f"{name}={value}" for name, value in result.items()), flush=True)
        results.append(result | environment)
    with options.output.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(results[0]))
        writer.writeheader()
        writer.writerows(results)
    return 0


def measure_floors() -> Iterator[Result]:
    """Yield what nothing can beat: an empty launch, and a copy at the full bandwidth of the device."""
    launch_nothing = make_empty_launch()
    buffers = [torch.empty(1, dtype=torch.int32, device="cuda")]
    yield from measure_call("empty launch", "-", buffers, 0, launch_nothing)
    source = torch.empty(1, 2**29, dtype=torch.int32, device="cuda")
    yield from measure_call("copy", "-", [torch.empty_like(source)], 2 * source.nbytes, lambda out: out.copy_(source))


def measure_arms() -> Iterator[Result]:
    """Yield every arm's times for every number of slots, dtype and kind of row, each checked just before."""
    generator = torch.Generator("cuda").manual_seed(SEED)
    for slots, dtype in itertools.product(SLOTS, DTYPES):
        buffers = make_buffers(slots, dtype)
        for kind, share in ALLOWED_SHARES.items():
            allowed = torch.rand(slots, VOCAB_SIZE, device="cuda", generator=generator) < share
            least_bytes = count_bytes(allowed, dtype)
            for name, call in build_arms(allowed).items():
                check_arm(name, call, allowed, dtype)
                yield from measure_call(name, kind, buffers, least_bytes, call)


def build_arms(allowed: torch.Tensor) -> dict[str, Call]:
    """Return each arm as a call on logits [slots, vocab]; allowed [slots, vocab] bool has a row for each slot."""
    rows, forbidden = pack_rows(allowed), ~allowed
    row_ids = torch.arange(len(allowed), dtype=torch.int32, device=allowed.device)
    arms: dict[str, Call] = {
        "mask_logits": lambda logits: mask_logits(logits, rows, row_ids),
        "masked_fill_": lambda logits: logits.masked_fill_(forbidden, float("-inf")),
    }
    if allowed.is_cuda:
        from routine_grammar.kernels.mask_logits_kernel import launch_mask_logits

        vocab_size = allowed.shape[1]
        arms["mask_logits, one column a store"] = lambda logits: launch_mask_logits(
            logits, rows, row_ids, vocab_size=vocab_size, aligned=False
        )
    try:
        from xgrammar import apply_token_bitmask_inplace
    except ImportError:
        return arms
    arms["xgrammar"] = lambda logits: apply_token_bitmask_inplace(logits, rows)
    return arms


def pack_rows(allowed: torch.Tensor) -> torch.Tensor:
    """Pack allowed [n, vocab] bool to rows [n, ceil(vocab / 32)] int32, lowest bit first."""
    padded = torch.nn.functional.pad(allowed, (0, -allowed.shape[1] % 32)).reshape(len(allowed), -1, 32)
    places = torch.arange(32, device=allowed.device)
    words: torch.Tensor = (padded.long() << places).sum(dim=2)
    return words.to(torch.int32)


def count_bytes(allowed: torch.Tensor, dtype: torch.dtype) -> int:
    """Count the least bytes to move: forbidden groups of eight columns written, mixed ones read too, and the rows."""
    counts = allowed[:, : allowed.shape[1] // 8 * 8].reshape(len(allowed), -1, 8).sum(dim=2)
    touched, mixed = int((counts < 8).sum()), int(((counts > 0) & (counts < 8)).sum())
    return (touched + mixed) * 8 * dtype.itemsize + allowed.numel() // 8


def check_arm(name: str, call: Call, allowed: torch.Tensor, dtype: torch.dtype) -> None:
    """Refuse to time an arm whose logits differ by a bit from torch's own."""
    generator = torch.Generator(allowed.device).manual_seed(SEED)
    logits = torch.randn(allowed.shape, device=allowed.device, generator=generator).to(dtype)
    expected = torch.where(allowed, logits, float("-inf"))
    call(logits)
    integer = torch.int16 if dtype.itemsize == 2 else torch.int32
    if not torch.equal(logits.view(integer), expected.view(integer)):
        raise SystemExit(f"{name} is wrong for {list(allowed.shape)} {dtype}: nothing is timed")


def make_buffers(slots: int, dtype: torch.dtype) -> list[torch.Tensor]:
    """Return logits that together take three times the L2 cache, at least two of them."""
    cache_bytes = torch.cuda.get_device_properties().L2_cache_size
    count = max(2, -(-3 * cache_bytes // (slots * VOCAB_SIZE * dtype.itemsize)))
    return list(torch.zeros(count, slots, VOCAB_SIZE, dtype=dtype, device="cuda"))


def measure_call(name: str, kind: str, buffers: list[torch.Tensor], least_bytes: int, call: Call) -> Iterator[Result]:
    """Yield the p20, p50 and p80 of a call's microseconds, launched one by one and replayed from a graph."""
    calls = max(CALLS_PER_SAMPLE, len(buffers))

    def call_often() -> None:
        for buffer in itertools.islice(itertools.cycle(buffers), calls):
            call(buffer)

    call_often()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call_often()
    batch: Result = {"slots": len(buffers[0]), "dtype": str(buffers[0].dtype).removeprefix("torch.")}
    for mode, run in (("eager", call_often), ("graph", graph.replay)):
        times = sorted(time_run(run) / calls for _ in range(SAMPLES))
        quantiles = {f"p{share}_us": round(times[SAMPLES * share // 100], 3) for share in (20, 50, 80)}
        yield {"arm": name, "rows": kind, **batch, "mode": mode, **quantiles, "least_bytes": least_bytes}


def time_run(run: Callable[[], object]) -> float:
    """Return the microseconds that the device spends between two events around a run."""
    start: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    end: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    start.record()
    run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) * 1000


def make_empty_launch() -> Call:
    """Return a launch of a kernel that does nothing."""
    import triton

    @triton.jit  # type: ignore[untyped-decorator]
    def do_nothing(pointer: torch.Tensor) -> None:
        pass

    return lambda tensor: do_nothing[(1,)](tensor, enable_fp_fusion=False)


def describe_environment() -> Result:
    """Return the GPU, driver, versions, commit, seed and date that a result belongs to."""
    packages = {name: name for name in ("torch", "triton", "xgrammar")}
    for name in packages:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            packages[name] = "absent"
    return {
        "gpu": torch.cuda.get_device_name(),
        "driver": _read_output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"),
        "cuda": torch.version.cuda or "absent",
        **packages,
        "commit": _read_output("git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"),
        "seed": SEED,
        "date": datetime.now(UTC).date().isoformat(),
    }


def _read_output(*command: str) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


if __name__ == "__main__":
    sys.exit(main())
