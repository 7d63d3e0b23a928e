"""The planner's flat JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from routine_grammar.errors import RoutineError
from routine_grammar.routine import Branch, Routine, Step, routine_to_flat, to_flat_json, to_json, to_text, to_yaml
from tests.routine.strategies import routines

PLANNED: list[dict[str, Any]] = [
    {"step": "1", "name": "Look up", "description": "Find the employee.", "tool": "find_employee", "type": "node"},
    {"step": "2", "name": "Check the grade", "description": "Decide by grade.", "tool": "", "type": "branch"},
    {
        "step": "2-1_1",
        "name": "Ask",
        "description": "If the grade is 7 or more, ask the director.",
        "tool": "ask",
        "type": "branchnode",
    },
    {"step": "2-1_2", "name": "Reply", "description": "Tell them.", "tool": "reply", "type": "finish"},
    {"step": "2-2_1", "name": "Record", "description": "If the grade is lower", "tool": "record", "type": "branchnode"},
    {"step": 3, "name": "Close", "description": "", "tool": "close", "type": "finish"},
]
READ = Routine(
    "plan",
    steps=(
        Step("", "Look up", "Find the employee.", "find_employee"),
        Step(
            "",
            "Check the grade",
            "Decide by grade.",
            branches=(
                Branch(
                    "the grade is 7 or more",
                    steps=(
                        Step("", "Ask", "ask the director.", "ask"),
                        Step("", "Reply", "Tell them.", "reply", finish=True),
                    ),
                ),
                Branch("the grade is lower", steps=(Step("", "Record", "", "record"),)),
            ),
        ),
        Step("", "Close", "", "close", finish=True),
    ),
)


def test_what_a_planner_writes_is_read(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(PLANNED))
    assert Routine.load(file) == READ
    assert Routine.parse(json.dumps(PLANNED)).name == "routine"
    assert Routine.parse(json.dumps({"name": "plan", "steps": PLANNED})) == READ


def test_rows_are_written_as_a_planner_writes_them() -> None:
    flat = routine_to_flat(READ)
    assert flat["name"] == "plan"
    rows = [{**row, "step": str(row["step"])} for row in PLANNED]
    for row in rows:
        if not row["tool"]:
            del row["tool"]
    assert [{"description": "", **row} for row in flat["steps"]] == rows
    assert len(to_flat_json(READ).splitlines()) == len(PLANNED) + 5


def test_a_branch_is_told_by_the_id_and_not_by_the_type() -> None:
    rows = [{**row, "type": "node"} if row["type"] == "branchnode" else row for row in PLANNED]
    assert Routine.parse(json.dumps({"name": "plan", "steps": rows})) == READ


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(routines())
def test_no_form_loses_anything(routine: Routine) -> None:
    flat = Routine.parse(to_flat_json(routine))
    assert flat == routine
    again = Routine.parse(to_text(Routine.parse(to_flat_json(Routine.parse(to_yaml(flat))))))
    assert again == routine
    assert Routine.parse(to_json(again)) == routine


def test_yaml_rows_have_lines() -> None:
    text = "\n".join(
        (
            "- {step: 1, name: a, tool: t, type: node}",
            "- {step: 2, name: b, type: branch}",
            "- {step: 2-1_1, name: c, description: 'If x, y', tool: 5, type: branchnode}",
        )
    )
    with pytest.raises(RoutineError, match=r"<text>:3: .*Branch 2-1 Step 1, field tool: expected text"):
        Routine.parse(text)
    with pytest.raises(RoutineError, match=r"<text>:2: row 2: Step 3 is out of order; expected Step 2 here"):
        Routine.parse(text.replace("step: 2,", "step: 3,"))


def changed(index: int, **fields: Any) -> list[Any]:
    rows: list[Any] = [dict(row) for row in PLANNED]
    rows[index] |= fields
    return rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (changed(0, type="nod"), r"row 1: type \"nod\" is none of node, branch, branchnode, finish; did you mean 'node'\?"),
        (changed(0, type=None), "row 1: type null is none of"),
        (changed(0, step="one"), "row 1: 'one' is no step id"),
        (changed(0, step=True), "row 1: expected the id of a step as `step`, got true"),
        (changed(0, step=[1]), r"row 1: expected the id of a step as `step`, got \[1\]"),
        (changed(1, tool="grade"), "row 2: a row of type branch only announces a check; expected no tool"),
        (changed(2, description="Ask the director."), "row 3: expected the description 'If <condition>, …'"),
        (changed(2, description=None), "row 3: expected the description 'If <condition>, …'"),
        (changed(2, branches=[]), 'row 3: unknown field "branches"'),
        (changed(2, toool="ask"), "row 3: unknown field \"toool\"; did you mean 'tool'"),
        (changed(2, step="2-2_1"), "row 3: Branch 2-2 Step 1 is out of order; expected Branch 2-1 Step 1 here"),
        (changed(3, step="4-1_1", description="If x"), "row 4: Branch 4-1 Step 1 stands before Step 4"),
        (changed(0, tool=""), "expected the name of a tool, got an empty one"),
        (changed(3, **{"if": "x"}), "field if: unknown"),
        ([*PLANNED, 7], r"row 7: expected \{step, name, description, tool, type\}, got 7"),
    ],
)
def test_what_is_wrong_with_rows_is_told(rows: list[Any], message: str) -> None:
    with pytest.raises(RoutineError, match=message) as caught:
        Routine.parse(json.dumps(rows))
    assert len(caught.value.problems) == 1
