"""Routines that run other Routines, made whole: the steps of the other one are put where it is run.

They stand in a `runs` branch of the step, so that their ids and keys begin with the step's; an input of the other Routine is
replaced by what the step gives for it. The result needs no other Routine any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from routine_grammar.errors import MemoryKeyError, RoutineError, SchemaError
from routine_grammar.routine.ids import Path, branch_step_id, path_of
from routine_grammar.routine.keys import ParsedKey, parse_key
from routine_grammar.routine.model import MAX_STEPS, Branch, Constant, Item, Key, Repetition, Routine, Source, Step
from routine_grammar.routine.problems import nearest, shown
from routine_grammar.routine.structure import Finding
from routine_grammar.routine.values import misfit


def runs_others(routine: Routine) -> bool:
    """Whether some step runs a Routine that is not put in yet."""
    return any(step.routine is not None for step in routine)


@dataclass(frozen=True, slots=True)
class Given:
    """What a step gives for an input of the Routine that it runs, and the type that is declared there."""

    step: str
    name: str
    source: Source
    schema: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Inlined:
    """A Routine with the Routines that it runs put in, what it gives them, and what is wrong with how it runs them."""

    routine: Routine
    given: tuple[Given, ...] = ()
    findings: tuple[Finding, ...] = ()


def inlined(routine: Routine, others: Mapping[str, Routine]) -> Inlined:
    """Put in the Routines that a Routine runs; raises `RoutineError` where it has more than `MAX_STEPS` steps with them."""
    if not runs_others(routine):
        return Inlined(routine)
    inliner = _Inliner(routine.name, others)
    steps = inliner.block(routine.steps, "", (routine.name,), None)
    return Inlined(replace(routine, steps=steps), tuple(inliner.given), tuple(inliner.findings))


@dataclass(frozen=True, slots=True)
class _Callee:
    """A Routine that is run: where its ids begin, and what its inputs are there."""

    routine: Routine
    prefix: str
    inputs: Mapping[str, Source]


@dataclass(slots=True)
class _Inliner:
    name: str
    others: Mapping[str, Routine]
    findings: list[Finding] = field(default_factory=list)
    given: list[Given] = field(default_factory=list)
    _count: int = 0

    def block(self, steps: tuple[Step, ...], prefix: str, running: tuple[str, ...], callee: _Callee | None) -> tuple[Step, ...]:
        """The steps of a block with ids that begin so; `running` are the Routines around it."""
        return tuple(self._step(step, f"{prefix}{number}", running, callee) for number, step in enumerate(steps, 1))

    def _step(self, step: Step, step_id: str, running: tuple[str, ...], callee: _Callee | None) -> Step:
        self._count += 1
        if self._count > MAX_STEPS:
            raise RoutineError(f"routine {self.name!r} has more than {MAX_STEPS} steps with the Routines that it runs")
        path = path_of(step_id)
        arguments = {name: self._source(source, (*path, "arguments", name), callee) for name, source in step.arguments.items()}
        if step.routine is not None:
            return self._running(replace(step, arguments=arguments), step_id, running)
        branches = tuple(
            replace(
                branch,
                for_each=self._repetition(branch.for_each, (*path, "branches", number - 1, "for_each"), callee),
                steps=self.block(branch.steps, branch_step_id(step_id, number, 1)[:-1], running, callee),
            )
            for number, branch in enumerate(step.branches, 1)
        )
        return replace(step, arguments=arguments, branches=branches)

    def _running(self, step: Step, step_id: str, running: tuple[str, ...]) -> Step:
        """A step that runs a Routine, with that Routine's steps."""
        name, path = step.routine or "", path_of(step_id)
        other = self.others.get(name)
        if other is None:
            self.findings.append(((*path, "routine"), f"unknown routine {name!r}", nearest(name, self.others)))
            return step
        if name in running:
            circle = " runs ".join((*running[running.index(name) :], name))
            self.findings.append(((*path, "routine"), f"never ends: {circle}", None))
            return step
        self.findings += self._of_inputs(step, other, path)
        declared = {variable.name: variable.schema for variable in other.inputs}
        known = [(name, source) for name, source in step.arguments.items() if name in declared]
        self.given += [Given(step_id, name, source, declared[name]) for name, source in known]
        prefix = branch_step_id(step_id, 1, 1)[:-1]
        steps = self.block(other.steps, prefix, (*running, name), _Callee(other, prefix, step.arguments))
        return replace(step, routine=None, arguments={}, branches=(Branch(runs=name, steps=steps),))

    def _of_inputs(self, step: Step, other: Routine, path: Path) -> Iterator[Finding]:
        declared = {variable.name: variable for variable in other.inputs}
        for name in declared.keys() - step.arguments.keys():
            yield (*path, "arguments"), f"input {name!r} of routine {other.name!r} is not given", None
        for name, source in step.arguments.items():
            here = (*path, "arguments", name)
            if name not in declared:
                yield here, f"routine {other.name!r} has no input {name!r}", nearest(name, declared)
            elif isinstance(source, Constant):
                try:
                    why = misfit(source.value, declared[name].schema)
                except SchemaError as error:
                    why = f"a schema can't be applied: {error}"
                if why:
                    yield here, f"constant {shown(source.value)} does not fit the input: {why[:200]}", None

    def _source(self, source: Source, path: Path, callee: _Callee | None) -> Source:
        """An argument as it is written where its Routine is run."""
        if callee is None:
            return source
        match source:
            case Key(key):
                return self._key(key, path, callee)
            case Item(str(key)):
                return Item(self._list_key(key, path, callee))
        return source

    def _repetition(self, repetition: Repetition | None, path: Path, callee: _Callee | None) -> Repetition | None:
        if repetition is None or callee is None:
            return repetition
        return replace(repetition, over=self._list_key(repetition.over, (*path, "over"), callee))

    def _list_key(self, key: str, path: Path, callee: _Callee) -> str:
        found = self._key(key, path, callee)
        if isinstance(found, Key):
            return found.key
        self.findings.append((path, f"{key} is repeated over: expected the key of a list where the routine is run", None))
        return key

    def _key(self, key: str, path: Path, callee: _Callee) -> Source:
        try:
            parsed = parse_key(key)
        except MemoryKeyError:
            return Key(key)  # the checks tell
        if parsed.step is not None:
            return Key(ParsedKey(callee.prefix + parsed.step, parsed.name, parsed.item).text())
        given = callee.inputs.get(parsed.name)
        if given is None:
            return Key(key)
        return given if parsed.item is None else self._item(given, parsed, path)

    def _item(self, given: Source, parsed: ParsedKey, path: Path) -> Source:
        """One item of the list that is given for an input."""
        match given:
            case Key(key):
                whole = parse_key(key)
                if whole.item is None:
                    return Key(ParsedKey(whole.step, whole.name, parsed.item).text())
            case Constant(list(values)) if parsed.item is not None and parsed.item < len(values):
                value: Any = values[parsed.item]
                return Constant(value)
        self.findings.append((path, f"{parsed.text()} is no item of what is given for the input", None))
        return given
