"""The demo Routines, and the tools that they use as their MCP servers listed them."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from routine_grammar.routine.model import Routine
from routine_grammar.routine.tools import Tool, load_tools


def demo_folder() -> Path:
    """The folder with `routines/*.yaml` and `tools.json`; the package must be installed as files, not zipped."""
    return Path(str(files("routine_grammar") / "demo"))


def demo_routines() -> tuple[Routine, ...]:
    """All demo Routines, by name."""
    return tuple(Routine.load(path) for path in sorted((demo_folder() / "routines").glob("*.yaml")))


def demo_tools() -> tuple[Tool, ...]:
    """The recorded tools of mcp-server-git and mcp-server-time, and six of an expense system that only exists here."""
    return load_tools(demo_folder() / "tools.json")
