"""Each check: a Routine that it refuses, with its message, and one that it lets pass."""

from __future__ import annotations

from typing import Any

import pytest

from routine_grammar.errors import SchemaError
from routine_grammar.routine import (
    AnyKey,
    Branch,
    Constant,
    Graph,
    Key,
    Literal,
    MemoryKey,
    Routine,
    Source,
    Step,
    Tool,
    Variable,
    check,
    key_is_compatible,
    key_types,
)

TEXT: dict[str, Any] = {"type": "string"}
COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
FOUND: dict[str, Any] = {
    "type": "object",
    "properties": {"path": TEXT, "lines": {"type": "array", "items": COUNT, "minItems": 2}, "open": {}},
}


def tool(name: str, output: dict[str, Any] | None = None, **parameters: Any) -> Tool:
    return Tool(name, "", {"type": "object", "properties": parameters, "required": list(parameters)}, output)


TOOLS = (
    tool("git_status", repo_path=TEXT),
    tool("git_log", repo_path=TEXT, max_count=COUNT),
    tool("find", FOUND, query=TEXT),
    tool("count", {"type": "object", "properties": {"result": COUNT}}),
    tool("note", value={}),
)
INPUTS = (Variable("repo_path", TEXT), Variable("limit", COUNT), Variable("anything"))


def step(tool: str | None, *branches: Branch, outputs: tuple[Variable, ...] = (), finish: bool = False, **a: Source) -> Step:
    return Step("", "s", tool=tool, arguments=a, outputs=outputs, branches=branches, finish=finish)


def problems(*steps: Step, inputs: tuple[Variable, ...] = INPUTS, tools: tuple[Tool, ...] = TOOLS) -> list[str]:
    return [str(problem) for problem in check(Routine("r", inputs=inputs, steps=steps), tools)]


COUNTED = (Variable("count", pointer="/result"),)
PATH = Key("memory_input_repo_path")

GOOD: dict[str, tuple[Step, ...]] = {
    "every argument is optional to name": (step("git_log"),),
    "a key of an input": (step("git_status", repo_path=PATH),),
    "a constant": (step("git_log", max_count=Constant(5)),),
    "a literal": (step("git_log", repo_path=Literal()),),
    "the text of a tool without an output schema": (step("git_status"), step("git_log", repo_path=Key("memory_1_result"))),
    "a part of a result": (step("find", outputs=(Variable("path", pointer="/path"),)), step("note", value=AnyKey())),
    "a key of a typed part": (
        step("find", outputs=(Variable("path", pointer="/path"),)),
        step("git_status", repo_path=Key("memory_1_path")),
    ),
    "an item that must exist": (
        step("find", outputs=(Variable("lines", pointer="/lines"),)),
        step("git_log", max_count=Key("memory_1_lines_1")),
    ),
    "any key": (step("git_log", repo_path=AnyKey(), max_count=AnyKey()),),
    "a key of no type for a parameter of any type": (step("note", value=Key("memory_input_anything")),),
    "a key written in the same branch": (
        step(None, Branch("x", steps=(step("count", outputs=COUNTED), step("git_log", max_count=Key("memory_1-1_1_count"))))),
    ),
    "a key written before all branches": (
        step("count", Branch("x", steps=(step("git_log", max_count=Key("memory_1_count")),)), outputs=COUNTED),
    ),
    "a key that the other branch ends without": (
        step(
            None,
            Branch("x", steps=(step("count", outputs=COUNTED),)),
            Branch(otherwise=True, steps=(step("note", finish=True),)),
        ),
        step("git_log", max_count=Key("memory_1-1_1_count")),
    ),
    "branches that all finish but may not be taken": (
        step("note", Branch("x", steps=(step("note", finish=True),))),
        step("note"),
    ),
    "a narrower declared type": (step("find", outputs=(Variable("found", {"type": "object", "required": ["path"]}),)),),
}


@pytest.mark.parametrize("case", GOOD)
def test_a_sound_routine_has_no_problem(case: str) -> None:
    assert problems(*GOOD[case]) == []


BAD: dict[str, tuple[tuple[Step, ...], list[str]]] = {
    "an unknown tool": (
        (step("git_statu", repo_path=PATH),),
        ["routine 'r', Step 1, field tool: unknown tool 'git_statu'; did you mean 'git_status'?"],
    ),
    "an unknown parameter": (
        (step("git_status", repo_pth=PATH),),
        ["Step 1, field arguments.repo_pth: tool 'git_status' has no parameter 'repo_pth'; did you mean 'repo_path'?"],
    ),
    "a constant that does not fit": (
        (step("git_log", max_count=Constant(-1)),),
        ["field arguments.max_count: constant -1 does not fit the parameter: -1 is less than the minimum of 0"],
    ),
    "no memory key": (
        (step("git_status", repo_path=Key("repo_path")),),
        ["'repo_path' is no memory key; expected memory_<step id>_<output>"],
    ),
    "an undeclared input": (
        (step("git_status", repo_path=Key("memory_input_repo_pth")),),
        ["the Routine has no input 'repo_pth'; did you mean 'memory_input_repo_path'?"],
    ),
    "an undeclared output": (
        (step("git_status"), step("git_status", repo_path=Key("memory_1_status"))),
        ["nothing writes memory_1_status: Step 1 has no output 'status'; did you mean 'memory_1_result'?"],
    ),
    "a key of itself": (
        (step("git_status", repo_path=Key("memory_1_result")),),
        ["memory_1_result is not written on every path before: this very step writes it"],
    ),
    "a key written later": (
        (step("git_status", repo_path=Key("memory_2_result")), step("git_status")),
        ["memory_2_result is not written on every path before: Step 2 writes it, which does not come before"],
    ),
    "a key of a sibling branch": (
        (
            step(
                None,
                Branch("x", steps=(step("git_status"),)),
                Branch("y", steps=(step("git_status", repo_path=Key("memory_1-1_1_result")),)),
            ),
        ),
        ["Branch 1-2 Step 1, field arguments.repo_path: ", "Branch 1-1 Step 1 writes it, which does not come before"],
    ),
    "a key missing where no branch is taken": (
        (step("note", Branch("x", steps=(step("git_status"),))), step("git_status", repo_path=Key("memory_1-1_1_result"))),
        ["Branch 1-1 Step 1 writes it, which is not done when no branch of Step 1 is taken"],
    ),
    "a key missing in the other branch": (
        (
            step("note", Branch("x", steps=(step("git_status"),)), Branch(otherwise=True, steps=(step("note"),))),
            step("git_status", repo_path=Key("memory_1-1_1_result")),
        ),
        ["Branch 1-1 Step 1 writes it, which is not done when Branch 1-2 is taken"],
    ),
    "a key missing in a nested branch": (
        (
            step(None, Branch(otherwise=True, steps=(step("note", Branch("x", steps=(step("git_status"),))),))),
            step("git_status", repo_path=Key("memory_1-1_1-1_1_result")),
        ),
        ["which is not done when no branch of Branch 1-1 Step 1 is taken"],
    ),
    "a key of another type": (
        (step("git_log", repo_path=Key("memory_input_limit")),),
        ['the type of memory_input_limit does not fit the parameter: expected {"type": "string"}, got {"type": "integer"'],
    ),
    "a key of no type": (
        (step("git_log", repo_path=Key("memory_input_anything")),),
        ["does not fit the parameter", "got one of no declared type"],
    ),
    "an item that may not exist": (
        (
            step("find", outputs=(Variable("lines", pointer="/lines"),)),
            step("git_log", max_count=Key("memory_1_lines_2")),
        ),
        ["memory_1_lines_2 may not exist: its list is not declared to have 3 items (minItems)"],
    ),
    "no key of the type": (
        (step("note", value=Literal()), step("find", query=AnyKey())),
        ["Step 2, field arguments.query: no key fits the parameter's type", "always written before: memory_1_result"],
    ),
    "a pointer to nothing": (
        (step("find", outputs=(Variable("x", pointer="/paht"),)),),
        ["field outputs.x: pointer '/paht' names nothing in the result of tool 'find'", "there are path, lines, open"],
    ),
    "a type that the tool never gives": (
        (step("find", outputs=(Variable("x", COUNT, pointer="/path"),)),),
        ["field outputs.x: the declared type", "is none of tool 'find'"],
    ),
    "a step after finish": (
        (step("note", finish=True), step("note"), step("note")),
        ["Step 2: can never be reached: Step 1 finishes the Routine"],
    ),
    "a step after branches that all finish": (
        (
            step(
                None,
                Branch("x", steps=(step("note", finish=True),)),
                Branch(otherwise=True, steps=(step("note", finish=True),)),
            ),
            step("note"),
        ),
        ["Step 2: can never be reached: Step 1 has an otherwise, and all its branches finish"],
    ),
    "an unreachable step in a branch": (
        (step("note", Branch("x", steps=(step("note", finish=True), step("note")))),),
        ["Branch 1-1 Step 2: can never be reached"],
    ),
    "a branch without a condition": (
        (step("note", Branch(None, steps=(step("note"),))),),
        ["Step 1, field branches.1: a branch needs a condition"],
    ),
    "an empty branch": (
        (step("note", Branch("x", steps=())),),
        ["Step 1, field branches.1.steps: a branch needs at least one step"],
    ),
    "two outputs of one name": (
        (step("note", outputs=(Variable("x"), Variable("x"))),),
        ["Step 1, field outputs.x: 'x' is declared twice"],
    ),
    "a bad output name": (
        (step("note", outputs=(Variable("X 1"),)),),
        ['"X 1" is no name of an input or output'],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_each_problem_is_told(case: str) -> None:
    steps, expected = BAD[case]
    inputs = () if case == "no key of the type" else INPUTS
    tools = (*TOOLS[:4], tool("note", {"type": "object"}, value={}))
    found = problems(*steps, inputs=inputs, tools=tools)
    assert len(found) == 1, found
    for part in expected:
        assert part in found[0]


def test_two_tools_of_one_name() -> None:
    assert problems(step("find"), tools=(*TOOLS, TOOLS[2], TOOLS[2])) == [
        "routine 'r', field tools: two tools are named 'find'"
    ]


def test_a_schema_that_cannot_be_applied_is_a_problem() -> None:
    broken = tool("t", x={"$ref": "#/$defs/nothing"})
    found = problems(step("t", x=Constant(1)), step("t", x=Key("memory_input_limit")), tools=(broken,))
    assert len(found) == 2
    assert all("a schema can't be applied" in problem for problem in found)


def test_all_problems_come_at_once_with_their_lines() -> None:
    routine = Routine.parse(
        "name: r\nsteps:\n- name: a\n  tool: git_log\n  arguments:\n    max_count: {const: x}\n    repo: literal\n"
        "- name: b\n  tool: git_stats\n"
    )
    found = check(routine, TOOLS)
    assert [(problem.step, problem.field, problem.line) for problem in found] == [
        ("1", "arguments.max_count", 6),
        ("1", "arguments.repo", 7),
        ("2", "tool", 9),
    ]
    assert str(found[0]).startswith("<text>:6: routine 'r', Step 1, field arguments.max_count: constant")


def test_an_unknown_tool_hides_no_other_problem_and_makes_none() -> None:
    found = problems(step("nothing"), step("git_log", repo_path=Key("memory_1_result"), max_count=AnyKey()), inputs=())
    assert found == ["routine 'r', Step 1, field tool: unknown tool 'nothing'"]


def test_key_types() -> None:
    routine = Routine("r", inputs=INPUTS, steps=(step("count", outputs=COUNTED), step("git_status"), step("nothing")))
    assert key_types(Graph.of(routine), TOOLS) == {
        "memory_input_repo_path": TEXT,
        "memory_input_limit": COUNT,
        "memory_input_anything": None,
        "memory_1_count": COUNT,
        "memory_2_result": TEXT,
    }


@pytest.mark.parametrize(
    ("key", "schema", "expected"),
    [
        (MemoryKey("k", TEXT), TEXT, True),
        (MemoryKey("k", TEXT), COUNT, False),
        (MemoryKey("k"), TEXT, False),
        (MemoryKey("k"), {}, True),
        (MemoryKey("k", TEXT, value="abc"), {"minLength": 3}, True),
        (MemoryKey("k", TEXT, value="ab"), {"minLength": 3}, False),
        (MemoryKey("k", value=None), {"type": "null"}, True),
        (MemoryKey("k", COUNT, value=None), COUNT, False),
    ],
)
def test_key_is_compatible(key: MemoryKey, schema: dict[str, Any], expected: bool) -> None:
    assert key_is_compatible(key, schema) is expected


def test_a_key_for_an_inapplicable_schema() -> None:
    with pytest.raises(SchemaError):
        key_is_compatible(MemoryKey("k", value=1), {"$ref": "#/nothing"})
