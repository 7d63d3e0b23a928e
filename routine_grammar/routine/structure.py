"""What can be wrong with a Routine by itself, whatever its tools are: names, branches, toolless steps, schemas."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from routine_grammar.errors import MemoryKeyError, SchemaError
from routine_grammar.routine.ids import Path, header_of, path_of
from routine_grammar.routine.keys import ERROR_OUTPUT, NAME_RULE, is_name, parse_key
from routine_grammar.routine.model import (
    MAX_PARALLEL,
    MAX_REPETITIONS,
    AnyKey,
    Branch,
    Item,
    Literal,
    Omit,
    Repetition,
    Routine,
    Step,
    Variable,
)
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
        yield from _optional_on_top(self._routine)
        yield from _items_outside(self._routine)
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
    if step.routine is not None:
        yield from _of_running_step(step, path)
    elif step.tool is None:
        if not step.branches:
            yield path, "a step needs a tool, a routine to run, or branches", None
        for field in ("arguments", "outputs", "finish"):
            if getattr(step, field):
                yield (*path, field), f"a step without a tool has no {field}", None
    if step.finish and any(not branch.on_error for branch in step.branches):
        yield (*path, "finish"), "the Routine ends after a step with finish, so that its branches are never taken", None
    if step.handles_errors and any(variable.name == ERROR_OUTPUT for variable in step.outputs):
        yield (*path, "outputs", ERROR_OUTPUT), "a step with on_error keeps the tool's error under this name", None


def _of_running_step(step: Step, path: Path) -> Iterator[Finding]:
    """A step that runs another Routine."""
    if not _ROUTINE_NAME.fullmatch(step.routine or ""):
        yield (*path, "routine"), f"{shown(step.routine)} is no name of a Routine", None
    if step.tool is not None:
        yield (*path, "routine"), "a step uses a tool or runs a routine, not both", None
    for field in ("outputs", "branches", "finish"):
        if getattr(step, field):
            yield (*path, field), f"a step that runs a routine has no {field}", None
    for name, source in step.arguments.items():
        if isinstance(source, AnyKey | Literal | Omit):
            yield (*path, "arguments", name), "an input of a routine is a constant, a key, or an item", None


def _of_branches(step: Step) -> Iterator[Finding]:
    whole = [branch for branch in step.branches if not branch.is_alternative and not branch.on_error]
    for index, branch in enumerate(step.branches):
        path: Path = (*path_of(step.id), "branches", index)
        yield from _of_guard(branch, path)
        yield from _of_kind(step, branch, path)
        if not branch.steps:
            yield (*path, "steps"), "a branch needs at least one step", None
        if branch.otherwise and any(other.is_alternative for other in step.branches[index + 1 :]):
            yield (*path, "otherwise"), "only the last branch may be the otherwise", None
        if branch in whole and sum(not other.on_error for other in step.branches) > 1:
            yield path, "beside for_each, parallel or runs, only an on_error may stand", None


def _of_guard(branch: Branch, path: Path) -> Iterator[Finding]:
    """What says when a branch is taken: exactly one field."""
    guards = {
        "if": branch.condition is not None,
        "otherwise": branch.otherwise,
        "on_error": branch.on_error,
        "for_each": branch.for_each is not None,
        "parallel": branch.parallel,
        "runs": branch.runs is not None,
    }
    given = [name for name, is_given in guards.items() if is_given]
    if not given:
        yield path, "a branch needs a condition (if), or otherwise, on_error, for_each or parallel", None
    for name in given[1:]:
        yield (*path, name), f"a branch has {given[0]} or {name}, not both", None
    if branch.condition is not None and not branch.condition.strip():
        yield (*path, "if"), "expected a condition, got an empty one", None


def _of_kind(step: Step, branch: Branch, path: Path) -> Iterator[Finding]:
    if branch.on_error:
        if step.tool is None:
            yield (*path, "on_error"), "only a step with a tool can fail", None
        if sum(other.on_error for other in step.branches) > 1:
            yield (*path, "on_error"), "a step has one on_error branch", None
    if branch.runs is not None:
        if not _ROUTINE_NAME.fullmatch(branch.runs):
            yield (*path, "runs"), f"{shown(branch.runs)} is no name of a Routine", None
        if step.tool is not None:
            yield (*path, "runs"), "a step uses a tool or runs a routine, not both", None
    if branch.for_each is not None:
        yield from _of_repetition(step, branch.for_each, branch.steps, path)
    if branch.parallel:
        yield from _of_calls(branch, path)
    else:
        for number, inner in enumerate(branch.steps):
            if inner.optional:
                yield (*path, "steps", number, "optional"), "only a call of a parallel branch can be optional", None


def _of_repetition(step: Step, repetition: Repetition, steps: tuple[Step, ...], path: Path) -> Iterator[Finding]:
    here = (*path, "for_each")
    if not 1 <= repetition.most <= MAX_REPETITIONS:
        yield (*here, "most"), f"expected 1 to {MAX_REPETITIONS} repetitions, got {repetition.most}", None
    try:
        if parse_key(repetition.over).item is not None:
            yield (*here, "over"), f"{repetition.over} is an item; expected the key of a whole list", None
    except MemoryKeyError as error:
        yield (*here, "over"), str(error), None
    if _may_pass(steps):
        yield (*path, "steps"), "expected a call that every repetition makes: nothing else tells that it was done", None
    if any(other.for_each is not None for inner in _walk_steps(steps) for other in inner.branches):
        yield here, f"{header_of(step.id)} repeats steps that repeat others, which is not supported", None


def _may_pass(steps: tuple[Step, ...]) -> bool:
    """Whether a block can be gone through without any call."""
    return all(_step_may_pass(step) for step in steps)


def _step_may_pass(step: Step) -> bool:
    if step.tool is not None or step.routine is not None:
        return False
    if any(branch.parallel for branch in step.branches):
        return all(inner.optional for branch in step.branches for inner in branch.steps)
    goes_past = not any(branch.otherwise or branch.runs is not None for branch in step.branches)
    return goes_past or any(_may_pass(branch.steps) for branch in step.branches)


def _walk_steps(steps: tuple[Step, ...]) -> Iterator[Step]:
    for step in steps:
        yield step
        for branch in step.branches:
            yield from _walk_steps(branch.steps)


def _of_calls(branch: Branch, path: Path) -> Iterator[Finding]:
    """The calls of a parallel branch."""
    if not 2 <= len(branch.steps) <= MAX_PARALLEL:
        yield (*path, "steps"), f"expected 2 to {MAX_PARALLEL} calls in parallel, got {len(branch.steps)}", None
    for number, step in enumerate(branch.steps):
        here = (*path, "steps", number)
        if step.tool is None:
            yield (*here, "tool"), "expected a tool: each step of a parallel branch is one call", None
        for field in ("branches", "finish"):
            if getattr(step, field):
                yield (*here, field), f"a call in parallel has no {field}", None


def _optional_on_top(routine: Routine) -> Iterator[Finding]:
    """Steps of the mainline that say they are optional."""
    for step in routine.steps:
        if step.optional:
            yield (*path_of(step.id), "optional"), "only a call of a parallel branch can be optional", None


def _items_outside(routine: Routine) -> Iterator[Finding]:
    """Arguments that read an item where nothing is repeated."""
    inside = {
        inner.id for step in routine for branch in step.branches if branch.for_each for inner in _walk_steps(branch.steps)
    }
    for step in routine:
        for name, source in step.arguments.items():
            if isinstance(source, Item) and step.id not in inside:
                yield (*path_of(step.id), "arguments", name), "there is an item only in the steps of a for_each", None
