"""A throw-away Git repository for the demo: a clone of the checkout this package stands in, or else a small new one.

Either has commits and a change that is not committed. Nothing is fetched, and the user's checkout is only read.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from routine_grammar.errors import RunError

_COMMITS = (
    ("Begin a price list", "prices.txt", "apples 3\npears 4\n"),
    ("Raise the price of pears", "prices.txt", "apples 3\npears 5\n"),
    ("Say what the list is for", "README.md", "# Prices\n\nWhat the shop asks for a kilogram.\n"),
)
_CHANGE = "\nA change that is not committed yet.\n"
_IDENTITY = ("-c", "user.name=Demo", "-c", "user.email=demo@example.org", "-c", "commit.gpgsign=false", "-c", "core.hooksPath=")


def throwaway_repository(parent: Path, source: Path | None = None) -> Path:
    """Make the repository in a new folder of `parent`, from the checkout around `source` (default: this file).

    Raises `RunError` where git is missing or fails.
    """
    folder = parent / "repository"
    if not _cloned(_checkout_of(source or Path(__file__)), folder):
        _write_small_repository(folder)
    changed = next(file for file in (folder / "README.md", *sorted(folder.glob("*.*"))) if file.is_file())
    with changed.open("a", encoding="utf-8") as file:
        file.write(_CHANGE)
    return folder


def _checkout_of(file: Path) -> Path | None:
    """The root of the checkout that tracks this file; none where it is shallow, as commits miss their parents there."""
    folder = file.resolve().parent
    if not _succeeds("-C", str(folder), "ls-files", "--error-unmatch", file.name):
        return None
    if _git("-C", str(folder), "rev-parse", "--is-shallow-repository").strip() != "false":
        return None
    return Path(_git("-C", str(folder), "rev-parse", "--show-toplevel").strip())


def _cloned(root: Path | None, folder: Path) -> bool:
    if root is None or not _succeeds("clone", "--quiet", "--no-hardlinks", str(root), str(folder)):
        return False
    return any(file.is_file() for file in folder.glob("*.*"))


def _write_small_repository(folder: Path) -> None:
    _git("init", "--quiet", "--initial-branch=main", str(folder))
    for message, name, text in _COMMITS:
        (folder / name).write_text(text, encoding="utf-8")
        _git("-C", str(folder), "add", name)
        _git("-C", str(folder), "commit", "--quiet", "--message", message)


def _succeeds(*arguments: str) -> bool:
    return _run(*arguments).returncode == 0


def _git(*arguments: str) -> str:
    done = _run(*arguments)
    if done.returncode != 0:
        raise RunError(f"git {' '.join(arguments)} failed: {done.stderr.strip()[:500]}")
    return done.stdout


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    # Variables such as GIT_DIR, set where a hook runs this, would turn git to another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        return subprocess.run(
            ["git", *_IDENTITY, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=120
        )
    except FileNotFoundError as error:
        raise RunError("git is not installed; the demo needs it for a throw-away repository") from error
    except subprocess.TimeoutExpired as error:
        raise RunError(f"git {arguments[0]} did not end within 120 s") from error
