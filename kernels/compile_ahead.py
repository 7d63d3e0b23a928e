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

from routine_grammar.kernels import mask_logits_kernel

MAX_REGISTERS = 64
CAPABILITIES = (80, 90)


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


def list_builds() -> tuple[Build, ...]:
    """Return every build that the launchers can ask for; formats of one width share a build but for a constant."""
    formats = {"16-bit": torch.bfloat16, "32-bit": torch.float32}
    return tuple(
        _mask_logits_build(f"mask_logits {width} {'aligned' if aligned else 'unaligned'}", dtype, aligned)
        for width, dtype in formats.items()
        for aligned in (True, False)
    )


def _mask_logits_build(name: str, dtype: torch.dtype, aligned: bool) -> Build:
    integer, minus_infinity = mask_logits_kernel.INTEGER_VIEWS[dtype]
    types = {
        "logits": f"*i{integer.itemsize * 8}",
        "logits_stride": "i32",
        "columns": "i32",
        "rows": "*i32",
        "rows_stride": "i32",
        "vocab_size": "i32",
        "row_ids": "*i32",
    }
    constants = {
        "MINUS_INFINITY": minus_infinity,
        "ALIGNED": aligned,
        "BLOCK": mask_logits_kernel.COLUMNS_PER_PROGRAM,
    }
    return Build(name, mask_logits_kernel.mask_logits_kernel, types, constants, mask_logits_kernel.COMPILE_OPTIONS)


def compile_build(build: Build, capability: int) -> bytes:
    """Return the cubin of a build for a compute capability such as 90; takes a second, less from Triton's cache."""
    if not isinstance(build.kernel, triton.JITFunction):
        raise RuntimeError(f"{build.name} is interpreted, expected a kernel to compile: unset TRITON_INTERPRET")
    signature = {name: build.types.get(name, "constexpr") for name in build.kernel.arg_names}
    source = ASTSource(fn=build.kernel, signature=signature, constexprs=dict(build.constants))
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
