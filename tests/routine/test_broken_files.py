"""Every broken file is one `RoutineError`, soon, that says where and what was expected."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from routine_grammar.errors import RoutineError
from routine_grammar.routine import Routine

STEP = "name: r\nsteps:\n- {name: a, tool: t}\n"


def yaml_step(fields: str) -> str:
    return f"name: r\nsteps:\n- name: a\n  tool: t\n{fields}"


def deep_yaml(depth: int) -> str:
    return "name: r\nsteps: " + "[" * depth + "]" * depth


def deep_branches(depth: int) -> str:
    step: dict[str, object] = {"name": "a", "tool": "t"}
    for _ in range(depth):
        step = {"name": "a", "branches": [{"if": "x", "steps": [step]}]}
    return json.dumps({"name": "r", "steps": [step]})


def alias_bomb() -> str:
    lines = ["a: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"b{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    return "\n".join(lines)


BROKEN: dict[str, tuple[str, str | bytes, list[str]]] = {
    "empty": (".yaml", "", ["empty; expected a Routine"]),
    "blank": (".txt", " \n\n ", ["empty; expected a Routine"]),
    "only a comment": (".yaml", "# nothing\n", ["empty; expected a Routine"]),
    "not UTF-8": (".yaml", b"name: r\nsteps: \xff", [":2: not UTF-8: byte 0xff"]),
    "UTF-16": (".json", '{"name": "r"}'.encode("utf-16"), ["not UTF-8"]),
    "NUL": (".yaml", "name: r\nsteps\0: []", [":2: a NUL character"]),
    "NUL in text": (".txt", "Step 1. a\0: use the t tool.", [":1: a NUL character"]),
    "a control character": (".yaml", "name: r\x01", ["invalid YAML"]),
    "half a surrogate pair": (".json", '{"name": "\\ud800", "steps": []}', ["surrogate"]),
    "too large": (".yaml", "#" * (2**20 + 1), ["larger than 1048576 bytes"]),
    "a list at top": (".yaml", "- name: a", ["expected a mapping of fields, got [{"]),
    "a JSON list at top": (".json", "[]", ["expected a mapping of fields, got []"]),
    "a text at top": (".yaml", "just words", ['expected a mapping of fields, got "just words"']),
    "broken YAML": (".yaml", "name: r\nsteps: [", ["invalid YAML"]),
    "a tab": (".yaml", "name: r\n\tsteps: []", [":2: invalid YAML"]),
    "broken JSON": (".json", '{"name": "r",\n "steps": [}', [":2: invalid JSON at column 12"]),
    "NaN": (".json", '{"name": NaN}', ["NaN is no JSON number"]),
    "an infinite number": (".json", '{"name": 1e999}', ["out of range"]),
    "an infinite YAML number": (".yaml", "name: r\nsteps: 1e999", [":2: 1e999 is out of range"]),
    "a number of 10,000 digits": (".json", '{"name": ' + "9" * 10_000 + "}", ["invalid JSON"]),
    "a YAML number of 10,000 digits": (".yaml", "name: " + "9" * 10_000, [":1:"]),
    "duplicate YAML field": (".yaml", STEP + "name: s", [":4: duplicate field 'name'"]),
    "duplicate JSON field": (".json", '{"name": "r", "name": "s"}', ["duplicate field 'name'"]),
    "two documents": (".yaml", STEP + "---\nname: s", [":4: a second document"]),
    "a tag": (".yaml", "name: !!python/object:os.system x", ["tag 'tag:yaml.org,2002:python/object:os.system'"]),
    "an unknown alias": (".yaml", "name: *nobody", ["nobody"]),
    "an alias inside its anchor": (".yaml", "name: &a [*a]", ["alias *a stands inside its own anchor"]),
    "a field without a text name": (".yaml", "name: r\n5: x", [":2: expected a text as the name of a field"]),
    "a list as a field's name": (".yaml", "? [a]\n: x", ["expected a text as the name of a field"]),
    "an alias bomb": (".yaml", alias_bomb(), ["more than 100000 values"]),
    "deep YAML": (".yaml", deep_yaml(10_000), [":2: nested deeper than 128 levels"]),
    "deep JSON": (".json", "[" * 10_000 + "]" * 10_000, ["nested deeper than 128 levels"]),
    "deep JSON within Python's bounds": (".json", "[" * 500 + "]" * 500, ["nested deeper than 128 levels"]),
    "deep branches": (".json", deep_branches(17), ["Step 1: branches are nested deeper than 16"]),
    "wide YAML": (".yaml", "- a\n" * 250_000, ["more than 100000 values"]),
    "wide JSON": (".json", "[" + "1," * 500_000 + "1]", ["more than 100000 values"]),
    "a long word": (".yaml", "x" * 2**20, ["expected a mapping of fields"]),
    "1 MB of unknown fields": (".json", json.dumps({f"f{i}": 1 for i in range(70_000)}), ["unknown field", "more"]),
    "1 MB of text": (".txt", "word " * 200_000, [":1: expected a line that begins with"]),
    "1 MB of lines": (".txt", "a\n" * 500_000, ["expected at most 10000"]),
    "1 MB in a step": (".txt", "Step 1. a: " + "Use the x " * 100_000 + "\nStep 3.", [":2: expected"]),
    "1 MB of brackets": (".yaml", "[" * 2**20, ["nested deeper"]),
    "a missing name": (".yaml", "steps: [{name: a, tool: t}]", ["field name: this field is required"]),
    "no steps": (".yaml", "name: r\nsteps: []", ["field steps: expected at least one step"]),
    "a bad routine name": (".yaml", STEP.replace("name: r", "name: my routine", 1), ['"my routine" is no name of a Routine']),
    "a misspelt field": (".yaml", yaml_step("  argument: {}"), [":5: ", "Step 1", "did you mean 'arguments'?"]),
    "a misspelt top field": (".yaml", STEP + "input: {}", [":4: ", "did you mean 'inputs'?"]),
    "a misspelt branch field": (".yaml", yaml_step("  branches: [{iff: x, steps: []}]"), ["did you mean 'if'?"]),
    "a misspelt thought": (".yaml", STEP + "thought: {liner: 1}", ["field thought.liner", "did you mean 'linear'?"]),
    "yes": (".yaml", yaml_step("  finish: yes"), ['Step 1, field finish: expected true or false, got "yes"']),
    "a number as a tool": (".yaml", "name: r\nsteps: [{name: a, tool: 5}]", ["field tool: expected text, got 5"]),
    "a bad header": (".yaml", STEP + "header: sometimes", ['expected auto or always, got "sometimes"']),
    "a negative thought": (".yaml", STEP + "thought: {linear: -1}", ["field thought.linear: expected 0 to"]),
    "a bad argument": (".yaml", yaml_step("  arguments: {x: memory_1_y}"), ["expected {const: value}, {key: memory_…}"]),
    "two kinds of argument": (".yaml", yaml_step("  arguments: {x: {key: a, const: 1}}"), ["field arguments.x"]),
    "an output that is no schema": (".yaml", yaml_step("  outputs: {x: string}"), ["outputs.x: expected a JSON Schema"]),
    "an invalid schema": (".yaml", yaml_step("  outputs: {x: {type: text}}"), ["outputs.x: invalid JSON Schema at $.type"]),
    "schema and keywords": (".yaml", yaml_step("  outputs: {x: {schema: {}, type: string}}"), ["nothing beside it"]),
    "a bad pointer": (".yaml", yaml_step("  outputs: {x: {pointer: text}}"), ["begins with '/'"]),
    "a pointer of an input": (".yaml", STEP + "inputs: {x: {pointer: /a}}", ["expected no pointer"]),
    "a bad output name": (".yaml", yaml_step("  outputs: {Repo-Path: {}}"), ["did you mean 'repo_path'?"]),
    "an output named like an item": (".yaml", yaml_step("  outputs: {x_1: {}}"), ["not ending in '_' or '_<digits>'"]),
    "a step without a tool": (
        ".yaml",
        "name: r\nsteps: [{name: a}]",
        [":2: ", "Step 1: a step needs a tool, a routine to run, or branches"],
    ),
    "a check with arguments": (
        ".yaml",
        "name: r\nsteps: [{name: a, finish: true, branches: [{if: x, steps: [{name: b, tool: t}]}]}]",
        ["without a tool has no finish", "branches are never taken"],
    ),
    "a blank name": (".yaml", "name: r\nsteps: [{name: ' ', tool: ''}]", ["no name of a step", "expected the name of a tool"]),
    "a branch without a condition": (
        ".yaml",
        yaml_step("  branches:\n  - steps: []"),
        [":6: ", "branches.1: a branch needs a condition (if)", "a branch needs at least one step"],
    ),
    "an early otherwise": (
        ".yaml",
        yaml_step("  branches: [{otherwise: true, steps: [{name: b, tool: t}]}, {if: ' ', otherwise: true, steps: []}]"),
        ["branches.1.otherwise: only the last", "not both", "got an empty one"],
    ),
    "a step left out": (".txt", "Step 1. a: use the t tool.\nStep 3. b: c", [":2: Step 3 is out of order; expected Step 2"]),
    "a step twice": (".txt", "Step 1. a: use the t tool.\nStep 1. a: use the t tool.", [":2: Step 1 is out of order"]),
    "a branch left out": (
        ".txt",
        "Step 1. a: use the t tool.\nBranch 1-2 Step 1. b: If x, use the t tool.",
        [":2: Branch 1-2 Step 1 is out of order; expected Branch 1-1 Step 1 here"],
    ),
    "a branch of nothing": (".txt", "Branch 1-1 Step 1. b: If x, use the t tool.", ["stands before Step 1"]),
    "a branch without a condition in text": (
        ".txt",
        "Step 1. a: use the t tool.\nBranch 1-1 Step 1. b: use the t tool.",
        [":2: expected 'For each item of", "'If <condition>,', 'In parallel,'", "'Otherwise,'; got 'use the t tool.'"],
    ),
    "deep branches in text": (
        ".txt",
        "\n".join(
            ["Step 1. a: b"] + [f"Branch 1{'-1_1' * n}-1 Step 1. a: If x, use the t tool." for n in range(500)],
        ),
        [":18: branches are nested 17 deep"],
    ),
    "an argument of no step": (".txt", "Argument x: literal", ["before this one"]),
    "an argument twice": (
        ".txt",
        "Step 1. a: use the t tool.\nArgument x: literal\nArgument x: any key",
        [":3: 'x' is given twice in arguments"],
    ),
    "a bad constant": (".txt", "Step 1. a: use the t tool.\nArgument x: constant {", [":2: invalid JSON '{'"]),
    "a bad argument in text": (
        ".txt",
        "Step 1. a: use the t tool.\nArgument x: 5",
        ["'constant <JSON>', 'item', 'literal', 'omit'; got '5'"],
    ),
    "a schema in text that is none": (".txt", "Input x: 5\nStep 1. a: use the t tool.", [":1: ", "inputs.x", "got {"]),
    "a title twice": (".txt", "Routine: a\nRoutine: b", [":2: 'name' is given twice"]),
    "only tags": (".txt", "<routines>\n</routines>", ["expected at least one step"]),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_one_clear_error(tmp_path: Path, case: str) -> None:
    suffix, content, expected = BROKEN[case]
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    started = time.process_time()
    with pytest.raises(RoutineError) as caught:
        Routine.load(path)
    elapsed_s = time.process_time() - started
    message = str(caught.value)
    assert message.startswith(str(path))
    for part in expected:
        assert part in message
    assert len(message) < 100_000
    assert elapsed_s < 10  # a second on a quiet machine; what is quadratic takes minutes


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(RoutineError, match="can't be read: No such file"):
        Routine.load(tmp_path / "nothing.yaml")
    with pytest.raises(RoutineError, match="can't be read"):
        Routine.load(tmp_path)


def test_text_that_comes_from_no_file() -> None:
    with pytest.raises(RoutineError, match="longer than 1048576 characters"):
        Routine.parse(" " * 2**20 + "x")
    with pytest.raises(RoutineError, match=r"<text>:2: duplicate"):
        Routine.parse("name: r\nname: s")
    with pytest.raises(RoutineError, match=r"<text>:2: routine 'r', field stepz"):
        Routine.parse("name: r\nstepz: []")


def test_all_problems_of_shape_come_at_once() -> None:
    with pytest.raises(RoutineError) as caught:
        Routine.parse("name: r\nheader: x\nsteps:\n- nam: a\n  tool: 5\n- name: b\n  finish: 1\n")
    lines = [line.split(":")[1] for line in caught.value.problems]
    assert lines == ["2", "4", "4", "5", "7"]
    assert str(caught.value).startswith("routine 'r': 5 problems\n<text>:2: ")
