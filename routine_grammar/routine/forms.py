"""The document form of a Routine (YAML and JSON): pydantic models at the boundary, to and from `Routine`.

An input or output is a JSON Schema whose `description` and (for outputs) `pointer` are ours, not the schema's; in the
long form the schema stands under `schema`. With neither a `schema` nor another keyword, no type is declared. An
argument is {const: value}, {key: memory_…}, `key` (any compatible key), `item`, {item: memory_…}, `literal` or `omit`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from routine_grammar.routine.documents import write_yaml
from routine_grammar.routine.ids import Path
from routine_grammar.routine.model import (
    AnyKey,
    Branch,
    Constant,
    Header,
    Item,
    Key,
    Literal,
    Omit,
    Repetition,
    Routine,
    Source,
    Step,
    Thought,
    Variable,
)
from routine_grammar.routine.problems import MAX_REPORTED, Origin, Problem, nearest, problem_at, refuse, shown
from routine_grammar.routine.structure import require_structure

_EXPECTED = {
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "list_type": "a list",
    "dict_type": "a mapping of names to values",
    "model_type": "a mapping of fields",
    "enum": "auto or always",
}


def _source(value: object) -> Source:
    match value:
        case "key":
            return AnyKey()
        case "literal":
            return Literal()
        case "omit":
            return Omit()
        case "item":
            return Item()
        case {"const": constant, **other} if not other:
            return Constant(constant)
        case {"key": str(key), **other} if not other:
            return Key(key)
        case {"item": str(key), **other} if not other:
            return Item(key)
    raise _refusal("{const: value}, {key: memory_…}, {item: memory_…}, key, item, literal or omit", value)


def _variable_fields(value: object) -> dict[str, Any]:
    """Split the document of an input or output into the fields of a `Variable`, its name left out."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _refusal("a JSON Schema, with description and pointer beside its keywords", value)
    fields = {name: value[name] for name in ("description", "pointer") if name in value}
    for name, text in fields.items():
        if not isinstance(text, str):
            raise _refusal(f"text as {name}", text)
    schema = {keyword: part for keyword, part in value.items() if keyword not in fields}
    if "schema" in schema:
        if len(schema) > 1 or not isinstance(schema["schema"], dict):
            raise _refusal("schema: {a JSON Schema}, with nothing beside it but description and pointer", schema)
        return {**fields, "schema": schema["schema"]}
    return {**fields, "schema": schema} if schema else fields


def _refusal(expected: str, got: object) -> PydanticCustomError:
    return PydanticCustomError("refused", "expected {expected}, got {got}", {"expected": expected, "got": shown(got)})


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _ThoughtForm(_Form):
    linear: int = Thought().linear
    branch: int = Thought().branch


class _RepetitionForm(_Form):
    over: str
    most: int


class _BranchForm(_Form):
    condition: str | None = Field(default=None, alias="if")
    otherwise: bool = False
    on_error: bool = False
    for_each: _RepetitionForm | None = None
    parallel: bool = False
    runs: str | None = None
    steps: list[_StepForm]


class _StepForm(_Form):
    name: str
    description: str = ""
    tool: str | None = None
    routine: str | None = None
    optional: bool = False
    arguments: dict[str, Annotated[Any, PlainValidator(_source)]] = {}
    outputs: dict[str, Annotated[Any, PlainValidator(_variable_fields)]] = {}
    branches: list[_BranchForm] = []
    finish: bool = False


class _RoutineForm(_Form):
    name: str
    description: str = ""
    inputs: dict[str, Annotated[Any, PlainValidator(_variable_fields)]] = {}
    thought: _ThoughtForm = _ThoughtForm()
    header: Annotated[Header, Field(strict=False)] = Header.AUTO
    steps: list[_StepForm]


def routine_from_document(value: Any, origin: Origin | None = None) -> Routine:
    """Read a Routine from its document; raises `RoutineError` with one line per problem."""
    origin = origin or Origin()
    try:
        form = _RoutineForm.model_validate(value)
    except ValidationError as error:
        name = value.get("name") if isinstance(value, dict) else None
        name = name if isinstance(name, str) else "(unnamed)"
        found = error.errors(include_url=False)
        problems = [_problem(name[:80], details, origin) for details in found[:MAX_REPORTED]]
        raise refuse(name[:80], origin, problems, more=len(found) - len(problems)) from error
    routine = Routine(
        name=form.name,
        description=form.description,
        inputs=_variables(form.inputs),
        steps=tuple(_step(step) for step in form.steps),
        thought=Thought(form.thought.linear, form.thought.branch),
        header=form.header,
        origin=origin,
    )
    return require_structure(routine)


def routine_to_document(routine: Routine) -> dict[str, Any]:
    """Return the document of a Routine, without fields that have their default value."""
    thought = {"linear": routine.thought.linear, "branch": routine.thought.branch}
    document = {
        "name": routine.name,
        "description": routine.description,
        "inputs": _variables_document(routine.inputs),
        "thought": thought if routine.thought != Thought() else None,
        "header": routine.header.value if routine.header is not Header.AUTO else None,
        "steps": [_step_document(step) for step in routine.steps],
    }
    return _without_empty(document, keep=("name", "steps"))


def to_yaml(routine: Routine) -> str:
    """Return a Routine as YAML."""
    return write_yaml(routine_to_document(routine))


def to_json(routine: Routine) -> str:
    """Return a Routine as indented JSON."""
    return json.dumps(routine_to_document(routine), indent=2, ensure_ascii=False) + "\n"


def _step(form: _StepForm) -> Step:
    return Step(
        id="",
        name=form.name,
        description=form.description,
        tool=form.tool,
        arguments=form.arguments,
        outputs=_variables(form.outputs),
        branches=tuple(_branch(branch) for branch in form.branches),
        finish=form.finish,
        routine=form.routine,
        optional=form.optional,
    )


def _branch(form: _BranchForm) -> Branch:
    return Branch(
        condition=form.condition,
        otherwise=form.otherwise,
        steps=tuple(_step(step) for step in form.steps),
        on_error=form.on_error,
        for_each=None if form.for_each is None else Repetition(form.for_each.over, form.for_each.most),
        parallel=form.parallel,
        runs=form.runs,
    )


def _variables(fields: Mapping[str, dict[str, Any]]) -> tuple[Variable, ...]:
    return tuple(Variable(name, **given) for name, given in fields.items())


def _step_document(step: Step) -> dict[str, Any]:
    document = {
        "name": step.name,
        "description": step.description,
        "tool": step.tool,
        "routine": step.routine,
        "optional": step.optional,
        "arguments": {name: _source_document(source) for name, source in step.arguments.items()},
        "outputs": _variables_document(step.outputs),
        "branches": [_branch_document(branch) for branch in step.branches],
        "finish": step.finish,
    }
    return _without_empty(document, keep=("name",))


def _branch_document(branch: Branch) -> dict[str, Any]:
    document = {
        "if": branch.condition,
        "otherwise": branch.otherwise,
        "on_error": branch.on_error,
        "for_each": None if branch.for_each is None else {"over": branch.for_each.over, "most": branch.for_each.most},
        "parallel": branch.parallel,
        "runs": branch.runs,
        "steps": [_step_document(step) for step in branch.steps],
    }
    return _without_empty(document, keep=("steps",))


def _source_document(source: Source) -> Any:
    match source:
        case Constant(value):
            return {"const": value}
        case Key(key):
            return {"key": key}
        case AnyKey():
            return "key"
        case Item(item):
            return "item" if item is None else {"item": item}
        case Literal():
            return "literal"
        case Omit():
            return "omit"


def _variables_document(variables: tuple[Variable, ...]) -> dict[str, Any]:
    return {variable.name: _variable_document(variable) for variable in variables}


def _variable_document(variable: Variable) -> dict[str, Any]:
    notes = _without_empty({"description": variable.description, "pointer": variable.pointer}, keep=())
    if variable.schema is None:
        return notes
    if not variable.schema or {"description", "pointer", "schema"} & variable.schema.keys():
        return {"schema": dict(variable.schema), **notes}
    return {**variable.schema, **notes}


def _without_empty(document: dict[str, Any], keep: tuple[str, ...]) -> dict[str, Any]:
    empty: tuple[Any, ...] = (None, "", False, [], {})
    return {name: value for name, value in document.items() if name in keep or value not in empty}


def _problem(routine: str, details: ErrorDetails, origin: Origin) -> Problem:
    path: Path = details["loc"]
    kind, got, suggestion = details["type"], details["input"], None
    if kind == "extra_forbidden":
        known = _fields_at(path[:-1])
        message = f"unknown field {shown(path[-1])}, expected one of {', '.join(known)}"
        suggestion = nearest(str(path[-1]), known)
    elif kind == "missing":
        message = "this field is required"
    elif kind in _EXPECTED:
        message = f"expected {_EXPECTED[kind]}, got {shown(got)}"
    else:
        message = details["msg"]
    return problem_at(routine, path, message, origin, suggestion)


def _fields_at(path: Path) -> list[str]:
    """Return the fields of the form at a path."""
    form: type[_Form] = _RoutineForm
    if path == ("thought",):
        form = _ThoughtForm
    elif path:
        form = _RepetitionForm if path[-1] == "for_each" else _StepForm if path[-2] == "steps" else _BranchForm
    return [field.alias or name for name, field in form.model_fields.items()]
