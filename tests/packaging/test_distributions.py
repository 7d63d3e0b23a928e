"""The built wheel and sdist: what they hold, and that they start from another folder and from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a clean environment with the wheel, which sees the libraries of this one but not its checkout."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    site = next((folder / "lib").glob("python*/site-packages"))
    (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")  # its own .pth files are not read
    (wheel,) = built.glob("*.whl")
    install = [str(python), "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--force-reinstall", str(wheel)]
    subprocess.run(install, check=True, capture_output=True, timeout=300)
    return python


def run(python: Path | str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(python), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, env=environment)


def test_the_wheel_holds_everything_and_nothing_twice(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert len(names) == len(set(names))
    for name in (
        "routine_grammar/py.typed",
        "routine_grammar/kernels/mask_logits.py",
        "routine_grammar/grammars/routine.lark",
        "routine_grammar/grammars/dialects/hermes.lark",
        "routine_grammar/demo/chat_template.jinja",
        "routine_grammar/demo/tools.json",
        "routine_grammar/demo/routines/repository_review.yaml",
    ):
        assert name in names
    assert not [name for name in names if name.startswith(("kernels/", "grammars/", "tests/"))]
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_sdist_holds_the_sources(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in ("pyproject.toml", "LICENSE", "Makefile", "kernels/mask_logits.py", "grammars/keys.lark", "tests/conftest.py"):
        assert name in names


@pytest.mark.parametrize("place", ["elsewhere", "checkout"])
def test_the_wheel_starts(installed: Path, tmp_path: Path, place: str) -> None:
    folder = tmp_path if place == "elsewhere" else ROOT
    told = run(installed, folder, "-P", "-c", "import routine_grammar; print(routine_grammar.__file__)")
    assert str(installed.parent.parent) in told.stdout, told
    served = run(installed, folder, "-P", "-m", "routine_grammar.serve", "--help")
    assert served.returncode == 0, served.stderr
    assert "--routines" in served.stdout
    code = (
        "import routine_grammar.kernels.mask_logits; from routine_grammar.demo.catalogue import demo_routines; "
        "assert len(demo_routines()) == 3"
    )
    kernels = run(installed, folder, "-P", "-c", code)
    assert kernels.returncode == 0, kernels.stderr


def test_the_sdist_builds_the_same_wheel(built: Path, tmp_path: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(tmp_path), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (again,), (wheel,) = tmp_path.glob("*.whl"), built.glob("*.whl")
    assert sorted(zipfile.ZipFile(again).namelist()) == sorted(zipfile.ZipFile(wheel).namelist())


def test_the_checkout_starts() -> None:
    served = run(sys.executable, ROOT, "-m", "routine_grammar.serve", "--help")
    assert served.returncode == 0, served.stderr
    refused = run(sys.executable, ROOT, "-m", "routine_grammar.serve", "--no-such-flag")
    assert refused.returncode == 2
    assert "--no-such-flag" in refused.stderr
