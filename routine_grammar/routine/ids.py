"""Step ids, the headers the model reads and writes for them, and where a step stands in a document.

A mainline step has the id "2"; step i of branch n of step s has the id "s-n_i": "2-1_1", nested "2-1_1-1_2".
A path is a place in a written Routine: ("steps", 1, "branches", 0, "steps", 0, "tool"). Knows no Routine.
"""

from __future__ import annotations

import re

from routine_grammar.errors import RoutineError

Path = tuple[str | int, ...]

_NUMBER = "[1-9][0-9]*"
STEP_ID = f"{_NUMBER}(?:-{_NUMBER}_{_NUMBER})*"
_STEP_ID = re.compile(STEP_ID)
_HEADER = re.compile(f"Step ({_NUMBER})|Branch ({_STEP_ID.pattern}-{_NUMBER}) Step ({_NUMBER})")


def branch_step_id(step_id: str, branch: int, number: int) -> str:
    """Return the id of a step of a branch; both numbers count from 1."""
    return f"{step_id}-{branch}_{number}"


def branch_id(step_id: str, branch: int) -> str:
    """Return the id of a branch, which counts from 1: "2-1"."""
    return f"{step_id}-{branch}"


def branch_header(branch: str) -> str:
    """Return the header of a branch that is taken as a whole: "Branch 2-1"."""
    return f"Branch {branch}"


def header_of(step_id: str) -> str:
    """Return a step's header: "Step 2", "Branch 2-1 Step 1", nested "Branch 2-1_1-1 Step 2"."""
    branch, _, number = _checked(step_id).rpartition("_")
    return f"Branch {branch} Step {number}" if branch else f"Step {number}"


def step_id_of(header: str) -> str:
    """Return the step id that a header names: the inverse of `header_of`."""
    match = _HEADER.fullmatch(header)
    if match is None:
        raise RoutineError(f"{header[:80]!r} is no header; expected e.g. 'Step 2' or 'Branch 2-1 Step 1'")
    mainline, branch, number = match.groups()
    return mainline or f"{branch}_{number}"


def branches_around(step_id: str) -> tuple[tuple[str, int], ...]:
    """Return the branches a step stands in, outermost first, each as (branching step's id, branch number from 1)."""
    around: list[tuple[str, int]] = []
    rest = _checked(step_id)
    while "_" in rest:
        rest, _, branch = rest.rpartition("_")[0].rpartition("-")
        around.append((rest, int(branch)))
    return tuple(reversed(around))


def path_of(step_id: str) -> Path:
    """Return the path of a step in a written Routine."""
    first, *branches = _checked(step_id).split("-")
    path: Path = ("steps", int(first) - 1)
    for part in branches:
        branch, number = part.split("_")
        path += ("branches", int(branch) - 1, "steps", int(number) - 1)
    return path


def locate(path: Path) -> tuple[str | None, Path]:
    """Split a path into the id of the step it lies in (None: outside every step) and the rest within that step."""
    match path:
        case ("steps", int(number), *_):
            step_id, rest = str(number + 1), path[2:]
        case _:
            return None, path
    while True:
        match rest:
            case ("branches", int(branch), "steps", int(number), *_):
                step_id, rest = branch_step_id(step_id, branch + 1, number + 1), rest[4:]
            case _:
                return step_id, rest


def _checked(step_id: str) -> str:
    if not _STEP_ID.fullmatch(step_id):
        raise RoutineError(f"{step_id[:80]!r} is no step id; expected e.g. '2', '2-1_1' or '2-1_1-1_2'")
    return step_id
