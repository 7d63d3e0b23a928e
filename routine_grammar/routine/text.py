"""The text form of a Routine, line by line as `grammars/routine.lark` has it, to its document and back.

Only the headers' ids tell where a step belongs. Text before `<routines>` and after `</routines>` is passed over. What a
line can't hold bare is written as a JSON string, so that writing and reading back changes nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from lark import Token, Tree, UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from routine_grammar.errors import RoutineError
from routine_grammar.routine.documents import Document, parse_json
from routine_grammar.routine.ids import Path, header_of, path_of, step_id_of
from routine_grammar.routine.model import (
    AnyKey,
    Branch,
    Constant,
    Header,
    Item,
    Key,
    Literal,
    Omit,
    Routine,
    Source,
    Step,
    Thought,
    Variable,
)
from routine_grammar.routine.outline import Outline, default_name
from routine_grammar.routine.parsers import load_parser
from routine_grammar.routine.problems import MAX_REPORTED

MAX_LINES = 10_000

_BEGINNINGS = (
    "a line that begins with Step <n>., Branch <id> Step <i>., Argument, Output, Finish, "
    "Optional, Routine:, Description:, Input, Thought: or Header:"
)
_EXPECTED = {
    "BARE_NAME": "the step's name",
    "COLON": "':'",
    "IF": "'If <condition>,'",
    "OTHERWISE": "'Otherwise,'",
    "ON": "'On error,'",
    "FOR": "'For each item of <key> (at most <n>),'",
    "IN": "'In parallel,'",
    "MOST": "'(at most <n>)'",
    "TOOL": "the tool's name",
    "LABEL": "the parameter's name",
    "NAME": "a name",
    "AT": "'at <JSON Pointer>'",
    "POINTER": "a JSON Pointer",
    "LPAR": "'(<description>)'",
    "NOTE": "a description",
    "RPAR": "')'",
    "KEY": "a memory key",
    "JSON": "a JSON value",
    "INT": "a whole number",
    "LINEAR": "'linear'",
    "BRANCH": "'branch'",
    "WORD": "auto or always",
    "REST": "a text",
    "CONSTANT": "'constant <JSON>'",
    "LITERAL": "'literal'",
    "OMIT": "'omit'",
    "ANY": "'any key'",
    "ITEM": "'item'",
    "$END": "the end of the line",
}
_ENDS_LIKE_A_USE = re.compile(r"([Uu]se the .*tool|[Rr]un the .*routine)\.?$")


def read_text(text: str, file: str) -> Document:
    """Read the text form into a document; raises `RoutineError` with one line per problem."""
    lines = text.split("\n")
    if len(lines) > MAX_LINES:
        raise RoutineError(f"{file}: {len(lines)} lines, expected at most {MAX_LINES}")
    reader = _Reader(file)
    for number, line in _inside_tags(lines):
        reader.read(number, line)
    return reader.document()


def _inside_tags(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Yield the lines that say something, each with its number."""
    stripped = [line.strip() for line in lines]
    first = stripped.index("<routines>") + 1 if "<routines>" in stripped else 0
    for number, line in enumerate(stripped[first:], first + 1):
        if line == "</routines>":
            return
        if line:
            yield number, line


class _Reader:
    """Builds the document of the lines read so far; `_step` is the step that detail lines belong to."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._outline = Outline()
        self._routine: dict[str, Any] = {"steps": self._outline.steps}
        self._step: tuple[str, dict[str, Any]] | None = None
        self._lines: dict[Path, int] = {}
        self._problems: list[str] = []

    def document(self) -> Document:
        """Return the document; raises `RoutineError` with one line per problem."""
        if self._problems:
            count = f"{len(self._problems)} malformed line{'s' if len(self._problems) != 1 else ''}"
            raise RoutineError(f"{self._file}: {count}", tuple(self._problems[:MAX_REPORTED]))
        self._routine.setdefault("name", default_name(self._file))
        return Document(self._routine, self._lines)

    def read(self, number: int, line: str) -> None:
        """Read one line into the document, or keep what is wrong with it."""
        try:
            tree = load_parser("routine", "line").parse(line, start="line")
            self._add(number, tree)
        except UnexpectedInput as error:
            self._problems.append(f"{self._file}:{number}: {_complaint(error, line)}")
        except ValueError as error:
            self._problems.append(f"{self._file}:{number}: {error}")

    def _add(self, number: int, tree: Tree[Token]) -> None:
        first = tree.children[0] if tree.children else None
        parts = {child.data: _value(child) for child in tree.children if isinstance(child, Tree)}
        match tree.data:
            case "step":
                self._add_step(number, step_id_of(" ".join(str(first)[:-1].split())), parts)
            case "argument":
                self._detail(number, _token_value(first), _source(parts), "arguments")
            case "output":
                self._detail(number, parts.pop("name"), _variable(parts), "outputs")
            case "finish" | "optional":
                self._detail(number, str(tree.data), True)
            case "input":
                self._set(number, self._routine, (), parts.pop("name"), _variable(parts), "inputs")
            case "thought":
                linear, branch = (int(str(token)) for token in tree.children)
                self._set(number, self._routine, (), "thought", {"linear": linear, "branch": branch})
            case kind:
                field = {"title": "name", "about": "description"}.get(kind, kind)
                self._set(number, self._routine, (), field, _token_value(first))

    def _add_step(self, number: int, step_id: str, parts: dict[str, Any]) -> None:
        self._step = None
        step = {"name": parts["step_name"], "description": parts.get("text", "")}
        step |= {field: parts[field] for field in ("tool", "routine") if field in parts}
        self._outline.place(step_id, step, _guard(parts))
        self._step = (step_id, step)
        self._lines[path_of(step_id)] = number

    def _detail(self, number: int, name: str, value: object, group: str | None = None) -> None:
        if self._step is None:
            raise ValueError("expected a well-formed Step or Branch line before this one")
        step_id, step = self._step
        self._set(number, step, path_of(step_id), name, value, group)

    def _set(self, number: int, fields: dict[str, Any], path: Path, name: str, value: object, group: str | None = None) -> None:
        """Set a field, or an entry of the group of that name; raises `ValueError` where it is there already."""
        if group is not None:
            fields, path = fields.setdefault(group, {}), (*path, group)
        if name in fields:
            raise ValueError(f"{name[:80]!r} is given twice" + (f" in {group}" if group else ""))
        fields[name] = value
        self._lines[(*path, name)] = number


def _value(tree: Tree[Token]) -> Any:
    values = [_token_value(child) for child in tree.children]
    return True if not values else values[0] if len(values) == 1 else values


def _guard(parts: Mapping[str, Any]) -> dict[str, Any]:
    """When the branch that a step begins is taken."""
    match parts:
        case {"for_each": [over, most]}:
            return {"for_each": {"over": over, "most": int(most)}}
        case {"condition": condition}:
            return {"if": condition}
    return {field: parts[field] for field in ("otherwise", "on_error", "parallel", "runs") if field in parts}


def _token_value(token: Tree[Token] | Token | None) -> Any:
    assert isinstance(token, Token)
    if token.type in {"QUOTED", "JSON"}:
        try:
            return parse_json(str(token))
        except ValueError as error:
            raise ValueError(f"invalid JSON {str(token)[:60]!r}: {error}") from error
    return str(token).strip("`") if token.type == "TOOL" else str(token).strip()


def _source(parts: dict[str, Any]) -> Any:
    match parts:
        case {"constant": value}:
            return {"const": value}
        case {"key": key}:
            return {"key": key}
        case {"item": str(key)}:
            return {"item": key}
    words = {"any_key": "key", "item": "item", "omit": "omit", "literal": "literal"}
    return next(word for rule, word in words.items() if rule in parts)


def _variable(parts: dict[str, Any]) -> dict[str, Any]:
    fields = {"schema": "schema", "note": "description", "pointer": "pointer"}
    return {field: parts[part] for part, field in fields.items() if part in parts}


def _complaint(error: UnexpectedInput, line: str) -> str:
    names: set[str] = set()
    if isinstance(error, UnexpectedCharacters):
        names = set(error.allowed or ())
    elif isinstance(error, UnexpectedToken):
        names = set(error.accepts or error.expected)
    at_end = isinstance(error, UnexpectedToken) and error.token.type == "$END"
    start = len(line) if at_end else max(error.column - 1, 0)
    expected = ", ".join(sorted(_EXPECTED[name] for name in names if name in _EXPECTED))
    got = repr(line[start : start + 60]) if start < len(line) else "the end of the line"
    return f"expected {_BEGINNINGS if start == 0 else expected or 'another text'}; got {got}"


def to_text(routine: Routine) -> str:
    """Return a Routine in its text form."""
    lines = ["<routines>", f"Routine: {_bare(routine.name)}"]
    if routine.description:
        lines.append(f"Description: {_bare(routine.description)}")
    lines += [f"Input {variable.name}{_variable_text(variable)}" for variable in routine.inputs]
    if routine.thought != Thought():
        lines.append(f"Thought: linear {routine.thought.linear}, branch {routine.thought.branch}.")
    if routine.header is not Header.AUTO:
        lines.append(f"Header: {routine.header.value}.")
    for step in routine.steps:
        lines += _step_lines(step, "", "")
    return "\n".join([*lines, "</routines>", ""])


def _step_lines(step: Step, indent: str, guard: str) -> Iterator[str]:
    body = guard + _body(step)
    yield f"{indent}{header_of(step.id)}. {_bare(step.name, ':')}" + (f": {body.strip()}" if body else "")
    deeper = indent + "    "
    for name, source in step.arguments.items():
        yield f"{deeper}Argument {_bare(name, ' :')}: {_source_text(source)}"
    for variable in step.outputs:
        yield f"{deeper}Output {variable.name}{_variable_text(variable)}"
    for field in ("optional", "finish"):
        if getattr(step, field):
            yield f"{deeper}{field.capitalize()}."
    for branch in step.branches:
        for place, inner in enumerate(branch.steps):
            yield from _step_lines(inner, deeper, "" if place else _guard_text(branch))


def _guard_text(branch: Branch) -> str:
    if branch.for_each is not None:
        return f"For each item of {_bare(branch.for_each.over, ' ')} (at most {branch.for_each.most}), "
    if branch.condition is not None:
        return f"If {_bare(branch.condition, ',')}, "
    if branch.runs is not None:
        return f"In the {_bare(branch.runs, ' ')} routine, "
    return "Otherwise, " if branch.otherwise else "On error, " if branch.on_error else "In parallel, "


def _body(step: Step) -> str:
    text = _bare(step.description) if step.description else ""
    if step.description and (_ENDS_LIKE_A_USE.search(text) or text[0] in ";," or text[-1] in ";,"):
        text = json.dumps(step.description, ensure_ascii=False)
    if step.tool is not None:
        verb, rest = "use", f"the {_bare(step.tool, ' `')} tool."
    elif step.routine is not None:
        verb, rest = "run", f"the {_bare(step.routine, ' `')} routine."
    else:
        return text
    if not text:
        return f"{verb} {rest}"
    return f"{text} {verb.capitalize()} {rest}" if text[-1] in '.!?"' else f"{text}; {verb} {rest}"


def _variable_text(variable: Variable) -> str:
    pointer = f" at {_bare(variable.pointer, ' (:')}" if variable.pointer else ""
    note = f" ({_bare(variable.description, '()')})" if variable.description else ""
    schema = "" if variable.schema is None else f": {json.dumps(variable.schema, ensure_ascii=False)}"
    return pointer + note + schema


def _source_text(source: Source) -> str:
    match source:
        case Constant(value):
            return f"constant {json.dumps(value, ensure_ascii=False)}"
        case Key(key):
            return f"key {_bare(key, ' ')}"
        case AnyKey():
            return "any key"
        case Item(item):
            return "item" if item is None else f"item of {_bare(item, ' ')}"
        case Literal():
            return "literal"
        case Omit():
            return "omit"


def _bare(text: str, taken: str = "") -> str:
    """Return a text as it is where a line can hold it, else as a JSON string; `taken` has another meaning there."""
    bare = text and text.isprintable() and text == text.strip() and not set(text) & {'"', *taken}
    return text if bare else json.dumps(text, ensure_ascii=False)
