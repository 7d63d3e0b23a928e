"""Compiles every build of the kernels to machine code ahead of time, without a GPU, and reports what each one uses.

In: the kernels and a compute capability. Out: registers, stack and spills of each build, read from its cubin by the
tools that ship with Triton. It launches nothing. Run it with `python -m routine_grammar.kernels.compile_ahead`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from routine_grammar.kernels import (
    advance_and_mask_kernel,
    close_rows_kernel,
    draft_forced_kernel,
    mask_logits_kernel,
    replay_states_kernel,
)

MAX_REGISTERS = 64
CAPABILITIES = (80, 90, 100)


@dataclass(frozen=True, slots=True)
class Build:
    """One kernel, and by argument name the types and constants that it is launched with."""

    name: str
    kernel: Any
    types: Mapping[str, str]
    constants: Mapping[str, int]
    options: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a cubin needs per thread, and how its global loads and stores are split by width in bits."""

    registers: int
    stack_bytes: int
    spills: int
    loads: Mapping[int, int]
    stores: Mapping[int, int]

    @property
    def fits(self) -> bool:
        """Tell whether the build stays in registers and leaves room for full occupancy of its blocks."""
        return self.registers <= MAX_REGISTERS and not self.stack_bytes and not self.spills


# The types of all arguments by name: of no kernel do two arguments of a name differ in theirs, but for logits.
TYPES = {
    **dict.fromkeys(("logits_stride", "columns", "rows_stride", "vocab_size", "ring_size", "tokens_stride", "most"), "i32"),
    **dict.fromkeys(("thinking_end", "opening"), "i32"),
    **dict.fromkeys(("rows", "row_ids", "slots", "places", "tokens", "added", "lengths"), "*i32"),
    **dict.fromkeys(("arena", "ring", "batch_slots", "positions", "last_tokens", "drafts"), "*i64"),
}
FORMATS = {"16-bit": torch.bfloat16, "32-bit": torch.float32}
ALIGNED_ARGUMENTS = ("arena", "ring", "slots")  # allocated whole by their owner: their addresses may be told to the compiler


def list_builds() -> tuple[Build, ...]:
    """Return every build that the launchers can ask for; formats of one width share a build but for a constant."""
    masking = advance_and_mask_kernel.mask_kernel
    builds = []
    for width, dtype in FORMATS.items():
        size = dtype.itemsize
        for aligned in (True, False):
            kind = f"{width} {'aligned' if aligned else 'unaligned'}"
            constants = {"ALIGNED": aligned, "BLOCK": mask_logits_kernel.COLUMNS_PER_PROGRAM}
            kernel, options = mask_logits_kernel.mask_logits_kernel, mask_logits_kernel.COMPILE_OPTIONS
            builds.append(_of_logits(f"mask_logits {kind}", kernel, dtype, constants, options))
            for name, advances in (("mask_states", False), ("advance_and_mask", True)):
                constants = {**constants, "ADVANCES": advances}
                options = advance_and_mask_kernel.MASK_OPTIONS[size]
                builds.append(_of_logits(f"{name} {kind}", masking, dtype, constants, options))
        constants = {"BLOCK": close_rows_kernel.COLUMNS_PER_PROGRAM, "AT_ONCE": close_rows_kernel.COLUMNS_AT_ONCE}
        kernel, options = close_rows_kernel.close_kernel, close_rows_kernel.CLOSE_OPTIONS
        builds.append(_of_logits(f"close_rows {width}", kernel, dtype, constants, options))
    for name, kernel, options in (
        ("advance_states", advance_and_mask_kernel.advance_kernel, advance_and_mask_kernel.ADVANCE_OPTIONS),
        ("replay_states", replay_states_kernel.replay_kernel, replay_states_kernel.REPLAY_OPTIONS),
        ("draft_forced", draft_forced_kernel.draft_kernel, draft_forced_kernel.DRAFT_OPTIONS),
    ):
        builds.append(Build(name, kernel, TYPES, {}, options))
    return tuple(builds)


def _of_logits(name: str, kernel: Any, dtype: torch.dtype, constants: Mapping[str, int], options: Mapping[str, int]) -> Build:
    integer, minus_infinity = mask_logits_kernel.INTEGER_VIEWS[dtype]
    types = {**TYPES, "logits": f"*i{integer.itemsize * 8}"}
    return Build(name, kernel, types, {**constants, "MINUS_INFINITY": minus_infinity}, options)


def compile_build(build: Build, capability: int) -> bytes:
    """Return the cubin of a build for a compute capability such as 90; takes a second, less from Triton's cache."""
    if not isinstance(build.kernel, triton.JITFunction):
        raise RuntimeError(f"{build.name} is interpreted, expected a kernel to compile: unset TRITON_INTERPRET")
    names = build.kernel.arg_names
    signature = {name: "constexpr" if name in build.constants else build.types[name] for name in names}
    attributes = {(at,): [["tt.divisibility", 16]] for at, name in enumerate(names) if name in ALIGNED_ARGUMENTS}
    source = ASTSource(build.kernel, signature, dict(build.constants), attributes)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=dict(build.options))
    cubin: bytes = compiled.asm["cubin"]
    return cubin


def measure_cubin(cubin: bytes) -> Usage:
    """Return what a cubin of one kernel uses, read by `cuobjdump`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        resources = _run_cuobjdump("-res-usage", path)
        instructions = _run_cuobjdump("-sass", path)
    return Usage(
        registers=_read_resource(resources, "REG"),
        stack_bytes=_read_resource(resources, "STACK"),
        spills=len(re.findall(r"\b(?:LDL|STL)\b", instructions)),
        loads=_count_widths(instructions, "LDG"),
        stores=_count_widths(instructions, "STG"),
    )


def _run_cuobjdump(option: str, path: Path) -> str:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return subprocess.run([tool, option, path], check=True, capture_output=True, text=True).stdout


def _read_resource(resources: str, name: str) -> int:
    found = re.search(rf"\b{name}:(\d+)", resources)
    if found is None:
        raise ValueError(f"cuobjdump reports no {name}, got: {resources!r}")
    return int(found[1])


def _count_widths(instructions: str, operation: str) -> dict[int, int]:
    """Count the instructions of one operation by bits moved: `LDG.E.128` moves 128, one without a width moves 32."""
    counts: dict[int, int] = {}
    for suffixes in re.findall(rf"\b{operation}((?:\.\w+)+)", instructions):
        width = re.search(r"\.[US]?(8|16|64|128)\b", suffixes)
        bits = int(width[1]) if width else 32
        counts[bits] = counts.get(bits, 0) + 1
    return dict(sorted(counts.items()))


def main(arguments: list[str] | None = None) -> int:
    """Print one line per build and capability; return 1 if any of them does not fit."""
    parser = argparse.ArgumentParser(prog="python -m routine_grammar.kernels.compile_ahead", description=main.__doc__)
    parser.add_argument("--capability", type=int, nargs="+", default=list(CAPABILITIES), help="such as 80 90 100")
    all_fit = True
    for capability in parser.parse_args(arguments).capability:
        for build in list_builds():
            usage = measure_cubin(compile_build(build, capability))
            all_fit = all_fit and usage.fits
            print(f"sm_{capability} {build.name:28s} {usage}", flush=True)
    return 0 if all_fit else 1


if __name__ == "__main__":
    sys.exit(main())
