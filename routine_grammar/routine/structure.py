"""What can be wrong with a Routine by itself, whatever its tools are: names, branches, toolless steps, schemas."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from routine_grammar.errors import SchemaError
from routine_grammar.routine.ids import Path, path_of
from routine_grammar.routine.keys import NAME_RULE, is_name
from routine_grammar.routine.model import Branch, Routine, Step, Variable
from routine_grammar.routine.problems import Problem, problem_at, refuse, shown
from routine_grammar.routine.values import pointer_parts, schema_problem

MAX_STEP_NAME_LENGTH = 200
MAX_THOUGHT_CHARACTERS = 1_000_000

_ROUTINE_NAME = re.compile("[A-Za-z][A-Za-z0-9_-]{0,63}")

# A path, what is wrong there, and a suggestion.
Finding = tuple[Path, str, str | None]


def structure_problems(routine: Routine) -> tuple[Problem, ...]:
    """Return everything that is wrong with a Routine by itself."""
    return as_problems(routine, _Structure(routine).findings())


def require_structure(routine: Routine) -> Routine:
    """Return the Routine; raises `RoutineError` with one line per problem where it is malformed."""
    problems = structure_problems(routine)
    if problems:
        raise refuse(routine.name, routine.origin, problems)
    return routine


def as_problems(routine: Routine, findings: Iterator[Finding]) -> tuple[Problem, ...]:
    """Return the findings with the Routine's name, file and lines."""
    return tuple(problem_at(routine.name, path, message, routine.origin, suggestion) for path, message, suggestion in findings)


class _Structure:
    """One look at a Routine; equal schemas are checked once."""

    def __init__(self, routine: Routine) -> None:
        self._routine = routine
        self._schemas: dict[str, str | None] = {}

    def findings(self) -> Iterator[Finding]:
        yield from self._of_routine(self._routine)
        yield from self._of_variables(self._routine.inputs, ("inputs",))
        for variable in self._routine.inputs:
            if variable.pointer:
                yield ("inputs", variable.name, "pointer"), "an input is no part of a result: expected no pointer", None
        for step in self._routine:
            yield from _of_step(step)
            yield from _of_branches(step)
            yield from self._of_variables(step.outputs, (*path_of(step.id), "outputs"))

    def _of_routine(self, routine: Routine) -> Iterator[Finding]:
        if not _ROUTINE_NAME.fullmatch(routine.name):
            rule = "a letter, then at most 63 letters, digits, '_' or '-'"
            yield ("name",), f"{shown(routine.name)} is no name of a Routine; expected {rule}", None
        if not routine.steps:
            yield ("steps",), "expected at least one step", None
        for field, value in (("linear", routine.thought.linear), ("branch", routine.thought.branch)):
            if not 0 <= value <= MAX_THOUGHT_CHARACTERS:
                yield ("thought", field), f"expected 0 to {MAX_THOUGHT_CHARACTERS} characters, got {value}", None

    def _of_variables(self, variables: tuple[Variable, ...], path: Path) -> Iterator[Finding]:
        seen: set[str] = set()
        for variable in variables:
            here = (*path, variable.name)
            if not is_name(variable.name):
                better = re.sub("[^a-z0-9]+", "_", variable.name.lower()).strip("_")
                message = f"{shown(variable.name)} is no name of an input or output; expected {NAME_RULE}"
                yield here, message, better if is_name(better) else None
            if variable.name in seen:
                yield here, f"{variable.name!r} is declared twice", None
            seen.add(variable.name)
            try:
                pointer_parts(variable.pointer)
            except SchemaError as error:
                yield (*here, "pointer"), str(error), None
            problem = None if variable.schema is None else self._schema_problem(variable.schema)
            if problem:
                yield here, problem, None

    def _schema_problem(self, schema: Mapping[str, Any]) -> str | None:
        text = json.dumps(schema, sort_keys=True)
        if text not in self._schemas:
            self._schemas[text] = schema_problem(schema)
        return self._schemas[text]


def _of_step(step: Step) -> Iterator[Finding]:
    path = path_of(step.id)
    if not step.name.strip() or len(step.name) > MAX_STEP_NAME_LENGTH or not step.name.isprintable():
        rule = f"one line of 1 to {MAX_STEP_NAME_LENGTH} printable characters"
        yield (*path, "name"), f"{shown(step.name)} is no name of a step; expected {rule}", None
    if step.tool is not None and not step.tool:
        yield (*path, "tool"), "expected the name of a tool, got an empty one", None
    if step.tool is None:
        if not step.branches:
            yield path, "a step needs a tool, or branches", None
        for field in ("arguments", "outputs", "finish"):
            if getattr(step, field):
                yield (*path, field), f"a step without a tool has no {field}", None
    if step.finish and step.branches:
        yield (*path, "finish"), "the Routine ends after a step with finish, so that its branches are never taken", None


def _of_branches(step: Step) -> Iterator[Finding]:
    for index, branch in enumerate(step.branches):
        path: Path = (*path_of(step.id), "branches", index)
        yield from _of_branch(branch, path)
        if branch.otherwise and index < len(step.branches) - 1:
            yield (*path, "otherwise"), "only the last branch may be the otherwise", None


def _of_branch(branch: Branch, path: Path) -> Iterator[Finding]:
    if branch.condition is None and not branch.otherwise:
        yield path, "a branch needs a condition (if) or otherwise: true", None
    if branch.condition is not None and branch.otherwise:
        yield (*path, "if"), "a branch has a condition (if) or otherwise: true, not both", None
    if branch.condition is not None and not branch.condition.strip():
        yield (*path, "if"), "expected a condition, got an empty one", None
    if not branch.steps:
        yield (*path, "steps"), "a branch needs at least one step", None
