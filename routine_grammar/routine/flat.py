"""The planner's flat JSON: a list of rows `{step, name, description, tool, type}`, to a Routine's document and back.

Only a row's id tells where its step belongs: a branch's step that ends the Routine has type `finish` and no longer
`branchnode`. The condition of a branch stands in the description of its first step, "If <condition>, <description>". What
rows of the planner don't have stands in fields of ours: `if` and `otherwise` where a description can't hold the condition,
`on_error`, `for_each`, `parallel` and `runs` in the first step of such a branch, `routine`, `optional`, `arguments` and
`outputs`; what is said of the whole Routine stands around the rows, then under `steps`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any

from routine_grammar.errors import RoutineError
from routine_grammar.routine.documents import Document
from routine_grammar.routine.forms import routine_to_document
from routine_grammar.routine.ids import Path, branches_around, path_of
from routine_grammar.routine.model import Routine
from routine_grammar.routine.outline import Outline, default_name
from routine_grammar.routine.problems import MAX_REPORTED, nearest, shown

_GUARDS = ("if", "otherwise", "on_error", "for_each", "parallel", "runs")
_BESIDE = ("routine", "optional", "arguments", "outputs")
_FIELDS = frozenset(("step", "name", "description", "tool", "type", *_BESIDE, *_GUARDS))
_CONDITION = re.compile(r"[Ii]f ([^,]*[^,\s])(?:, (.*))?", re.DOTALL)
_OTHERWISE = re.compile(r"[Oo]therwise(?:, (.*))?", re.DOTALL)


class RowType(StrEnum):
    """What a row is: on the mainline, a check without a tool, in a branch, or the last step of a way through."""

    NODE = "node"
    BRANCH = "branch"
    BRANCHNODE = "branchnode"
    FINISH = "finish"


def is_flat(value: Any) -> bool:
    """Tell whether a document is in the flat form: rows, or `steps` that are rows."""
    rows = value.get("steps") if isinstance(value, dict) else value
    return isinstance(rows, list) and any(isinstance(row, dict) and "step" in row for row in rows)


def unflattened(flat: Document, file: str) -> Document:
    """Return the nested document of a flat one; raises `RoutineError` with one line per problem."""
    around: dict[str, Any] = flat.value if isinstance(flat.value, dict) else {}
    rows_path: Path = ("steps",) if around else ()
    rows = around["steps"] if around else flat.value
    outline, problems, lost = Outline(), list[str](), False
    paths: dict[Path, Path] = {}
    for index, row in enumerate(rows):
        try:
            paths[*rows_path, index], found = _place(outline, row)
        except (RoutineError, ValueError) as error:
            found, lost = [] if lost else [str(error)], True  # behind the first, others have no place because of it
        line = flat.lines.get((*rows_path, index))
        where = f"{file}:{line}" if line else file
        problems += [f"{where}: row {index + 1}: {problem}" for problem in found]
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''} in the rows"
        raise RoutineError(f"{file}: {count}", tuple(problems[:MAX_REPORTED]))
    document = {"name": default_name(file), **around, "steps": outline.steps}
    return Document(document, dict(_moved_lines(flat.lines, paths, len(rows_path) + 1)))


def routine_to_flat(routine: Routine) -> dict[str, Any]:
    """Return a Routine in the flat form, with what is said of the whole Routine around the rows."""
    document = routine_to_document(routine)
    return {**document, "steps": list(_rows(document["steps"], "", False))}


def to_flat_json(routine: Routine) -> str:
    """Return a Routine as flat JSON, one row a line."""
    flat = routine_to_flat(routine)
    rows = ",\n".join(f"    {json.dumps(row, ensure_ascii=False)}" for row in flat.pop("steps"))
    around = "".join(f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)},\n" for name, value in flat.items())
    return f'{{\n{around}  "steps": [\n{rows}\n  ]\n}}\n'


def _place(outline: Outline, row: Any) -> tuple[Path, list[str]]:
    """Put a row's step into the outline; return its path there, and what is wrong with the row beside its place.

    Raises `ValueError` or `RoutineError` where it has no place.
    """
    if not isinstance(row, dict):
        raise ValueError(f"expected {{step, name, description, tool, type}}, got {shown(row)}")
    step_id = row.get("step")
    if isinstance(step_id, bool) or not isinstance(step_id, int | str):
        raise ValueError(f"expected the id of a step as `step`, got {shown(step_id)}")
    step_id = str(step_id)
    path = path_of(step_id)
    problems = [f"unknown field {shown(name)}{_hint(name, _FIELDS)}" for name in row if name not in _FIELDS]
    fields = {name: value for name, value in row.items() if name in _FIELDS - {"step", "type"}}
    guard: dict[str, Any] = {}
    try:
        _apply_type(row.get("type"), fields)
        if branches_around(step_id) and step_id.endswith("_1"):
            guard = _take_guard(fields)
    except ValueError as error:
        problems.append(str(error))
    outline.place(step_id, fields, guard)
    return path, problems


def _apply_type(text: Any, fields: dict[str, Any]) -> None:
    """Say in a step's fields what its row says by its type."""
    if text not in tuple(RowType):
        raise ValueError(f"type {shown(text)} is none of {', '.join(RowType)}{_hint(text, map(str, RowType))}")
    if text == RowType.FINISH:
        fields["finish"] = True
    if text == RowType.BRANCH and fields.pop("tool", None):
        raise ValueError("a row of type branch only announces a check; expected no tool")


def _hint(text: Any, known: Iterable[str]) -> str:
    near = nearest(text, known) if isinstance(text, str) else None
    return f"; did you mean {near!r}?" if near else ""


def _take_guard(fields: dict[str, Any]) -> dict[str, Any]:
    """Take the condition of a branch out of the fields of its first step."""
    if any(name in fields for name in _GUARDS):
        return {name: fields.pop(name) for name in _GUARDS if name in fields}
    guard, fields["description"] = _guard_in(fields.get("description"))
    return guard


def _guard_in(description: Any) -> tuple[dict[str, Any], str]:
    """Return the condition that a description begins with, and the rest of it."""
    text = description if isinstance(description, str) else ""
    if match := _CONDITION.fullmatch(text):
        return {"if": match[1]}, match[2] or ""
    if match := _OTHERWISE.fullmatch(text):
        return {"otherwise": True}, match[1] or ""
    message = "expected the description 'If <condition>, …' or 'Otherwise, …' in the first step of a branch"
    raise ValueError(f"{message}, got {shown(description)}")


def _rows(steps: list[dict[str, Any]], prefix: str, in_branch: bool) -> Iterator[dict[str, Any]]:
    for number, step in enumerate(steps, 1):
        yield from _rows_of(step, f"{prefix}{number}", in_branch, {})


def _rows_of(step: dict[str, Any], step_id: str, in_branch: bool, guard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    fields = {name: step[name] for name in _BESIDE if name in step}
    description, beside = _guarded(step.get("description", ""), guard)
    tool = step.get("tool")
    if step.get("finish"):
        row_type = RowType.FINISH
    elif tool is None and "routine" not in step:
        row_type = RowType.BRANCH
    else:
        row_type = RowType.BRANCHNODE if in_branch else RowType.NODE
    row = {"step": step_id, "name": step["name"], "description": description, "tool": tool, "type": row_type.value}
    yield {name: value for name, value in row.items() if value is not None} | dict(beside) | fields
    for number, branch in enumerate(step.get("branches", ()), 1):
        first, *others = branch["steps"]
        own = {name: branch[name] for name in _GUARDS if name in branch}
        yield from _rows_of(first, f"{step_id}-{number}_1", True, own)
        for place, other in enumerate(others, 2):
            yield from _rows_of(other, f"{step_id}-{number}_{place}", True, {})


def _guarded(description: str, guard: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return a description with the condition in it, or, where it can't be read back from there, with fields beside it."""
    if not guard.keys() & {"if", "otherwise"}:
        return description, guard
    words = "Otherwise" if "otherwise" in guard else f"If {guard['if']}"
    said = f"{words}, {description}" if description else words
    try:
        reads_back = _guard_in(said) == (guard, description)
    except ValueError:
        reads_back = False
    return (said, {}) if reads_back else (description, guard)


def _moved_lines(lines: Mapping[Path, int], paths: Mapping[Path, Path], length: int) -> Iterator[tuple[Path, int]]:
    """Yield the lines of a flat document by the paths of the nested one."""
    for path, line in lines.items():
        yield (*paths[path[:length]], *path[length:]) if path[:length] in paths else path, line
