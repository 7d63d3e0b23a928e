"""Times on a CUDA device: of calls over buffers that together exceed the L2 cache, launched one by one and from a graph.

It needs torch and Triton alone.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import subprocess
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

Call = Callable[[torch.Tensor], object]
Result = dict[str, str | int | float]

SAMPLES = 50
CALLS_PER_SAMPLE = 20
SEED = 0
COPIED_BYTES = 1 << 31


def floors(device: str, *, dry: bool) -> Iterator[Result]:
    """Yield what nothing can beat: an empty launch, and a copy at the full bandwidth of the device."""
    launch_nothing = make_empty_launch()
    yield from measure_call(
        "empty launch", "-", [torch.empty(1, 1, dtype=torch.int32, device=device)], 0, launch_nothing, dry=dry
    )
    source = torch.empty(1, 1 << 10 if dry else COPIED_BYTES // 4, dtype=torch.int32, device=device)
    copied = [torch.empty_like(source)]
    yield from measure_call("copy", "-", copied, 2 * source.nbytes, lambda out: out.copy_(source), dry=dry)


def make_empty_launch() -> Call:
    """Return a launch of a kernel that does nothing."""
    import triton

    @triton.jit  # type: ignore[untyped-decorator]
    def do_nothing(pointer: torch.Tensor) -> None:
        pass

    return lambda tensor: do_nothing[(1,)](tensor, enable_fp_fusion=False)


def make_buffers(slots: int, columns: int, dtype: torch.dtype, device: str, *, dry: bool) -> list[torch.Tensor]:
    """Return logits that together take three times the L2 cache, at least two of them."""
    cache_bytes = 1 if dry else torch.cuda.get_device_properties().L2_cache_size
    count = max(2, -(-3 * cache_bytes // (slots * columns * dtype.itemsize)))
    return list(torch.zeros(count, slots, columns, dtype=dtype, device=device))


def measure_call(
    name: str, kind: str, buffers: Sequence[torch.Tensor], least_bytes: int, call: Call, *, dry: bool = False
) -> Iterator[Result]:
    """Yield the p20, p50 and p80 of a call's microseconds, launched one by one and replayed from a graph."""
    batch: Result = {"slots": len(buffers[0]), "dtype": str(buffers[0].dtype).removeprefix("torch.")}
    if dry:
        call(buffers[0])
        yield {"arm": name, "rows": kind, **batch, "mode": "dry", "least_bytes": least_bytes}
        return
    calls = max(CALLS_PER_SAMPLE, len(buffers))

    def call_often() -> None:
        for buffer in itertools.islice(itertools.cycle(buffers), calls):
            call(buffer)

    call_often()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call_often()
    for mode, run in (("eager", call_often), ("graph", graph.replay)):
        times = [time_run(run) / calls for _ in range(SAMPLES)]
        yield {"arm": name, "rows": kind, **batch, "mode": mode, **quantiles(times), "least_bytes": least_bytes}


def quantiles(times: Sequence[float]) -> Result:
    """The p20, p50 and p80 of some microseconds."""
    ordered = sorted(times)
    return {f"p{share}_us": round(ordered[len(ordered) * share // 100], 3) for share in (20, 50, 80)}


def time_run(run: Callable[[], object]) -> float:
    """Return the microseconds that the device spends between two events around a run."""
    start: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    end: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    start.record()
    run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) * 1000


def describe_environment() -> Result:
    """Return the GPU, driver, versions, commit, seed and date that a result belongs to."""
    packages = {name: name for name in ("torch", "triton", "xgrammar", "transformers")}
    for name in packages:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            packages[name] = "absent"
    on_gpu = torch.cuda.is_available()
    return {
        "gpu": torch.cuda.get_device_name() if on_gpu else "none",
        "driver": _read_output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0")
        if on_gpu
        else "none",
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
