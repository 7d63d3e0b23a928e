from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from routine_grammar.automaton import step
from routine_grammar.jit import COMPILED, COMPLETE, PACKAGE, cache_folder


def test_every_module_with_compiled_functions_is_part_of_the_cache_s_name() -> None:
    files = [file for folder in (PACKAGE, PACKAGE / "kernels") for file in folder.rglob("*.py")]  # no link is followed
    assert {str(file.relative_to(PACKAGE)) for file in files if "@jit\n" in file.read_text(encoding="utf-8")} == set(COMPILED)


def test_a_change_in_any_of_them_is_another_cache(tmp_path: Path) -> None:
    folders = set()
    for number, changed in enumerate(("", *COMPILED)):
        package = tmp_path / str(number)
        for file in COMPILED:
            (package / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PACKAGE / file, package / file)
            if file == changed:
                with (package / file).open("a", encoding="utf-8") as source:
                    source.write("# changed\n")
        folders.add(cache_folder("", package).name)
    assert len(folders) == 1 + len(COMPILED)
    assert cache_folder("", tmp_path / "0").name == cache_folder().name


def test_the_cache_is_where_it_may_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder("/given").parent == Path("/given")
    assert cache_folder().parent == PACKAGE / "__pycache__"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder().parent == tmp_path


def test_what_was_put_beside_modules_that_are_read_only_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, home = tmp_path / "package", tmp_path / "home"
    for file in COMPILED:
        (package / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PACKAGE / file, package / file)
    beside = cache_folder("", package)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    beside.mkdir(parents=True)
    (beside / "step.nbi").write_bytes(b"some of it")
    assert not cache_folder("", package).exists()
    (beside / COMPLETE).touch()
    copied = cache_folder("", package)
    assert (copied, (copied / "step.nbi").read_bytes()) == (home / beside.name, b"some of it")
    (copied / "step.nbi").write_bytes(b"own")
    assert (cache_folder("", package) / "step.nbi").read_bytes() == b"own"
    assert list(home.iterdir()) == [copied]


def test_what_is_compiled_is_kept_there() -> None:
    assert Path(step.step._cache.cache_path).is_relative_to(cache_folder(os.environ.get("NUMBA_CACHE_DIR", "")))  # type: ignore[attr-defined]
