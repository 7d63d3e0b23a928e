"""The text, YAML and JSON forms hold everything a Routine has."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routine_grammar.errors import RoutineError
from routine_grammar.routine import (
    AnyKey,
    Constant,
    Header,
    Key,
    Literal,
    Routine,
    Step,
    Thought,
    Variable,
    routine_from_document,
    routine_to_document,
    to_json,
    to_text,
    to_yaml,
)
from routine_grammar.routine.documents import read_yaml
from tests.routine.strategies import routines

YAML = """\
name: triage_repository
description: Tell what changed.
inputs:
  repo_path: {type: string, description: path of the repository}
  anything: {schema: {}, description: of any type}
  untyped:
thought: {linear: 5}
header: always
steps:
  - name: Look at the status
    description: check whether anything changed.
    tool: git_status
    arguments:
      repo_path: {key: memory_input_repo_path}
      limit: {const: 5}
      left: key
      right: literal
    outputs:
      status: {type: string, pointer: /text, description: what changed}
      all: {description: of no declared type}
    branches:
      - if: there are changes
        steps:
          - {name: Show changes, tool: git_diff, finish: true}
      - otherwise: true
        steps:
          - name: Check the log
            branches:
              - if: it is long
                steps: [{name: Show the log, tool: git_log}]
  - {name: Report, tool: summary}
"""

TEXT = """\
Some words before.
<routines>
Routine: triage_repository
Description: Tell what changed.
Input repo_path (path of the repository): {"type": "string"}
Input anything (of any type): {}
Input untyped
Thought: linear 5, branch 256.
Header: always.
Step 1. Look at the status: check whether anything changed. Use the git_status tool.
    Argument repo_path: key memory_input_repo_path
    Argument limit: constant 5
    Argument left: any key
    Argument right: literal
    Output status at /text (what changed): {"type": "string"}
    Output all (of no declared type)
    Branch 1-1 Step 1. Show changes: If there are changes, use the git_diff tool.
        Finish.
    Branch 1-2 Step 1. Check the log: Otherwise,
        Branch 1-2_1-1 Step 1. Show the log: If it is long, use the git_log tool.
Step 2. Report: use the summary tool.
</routines>
Some words after.
"""

TRIAGE = Routine.parse(YAML)

SLOW_TO_DRAW = [HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=60, deadline=None, suppress_health_check=SLOW_TO_DRAW)
@given(routines(), st.sampled_from([to_text, to_yaml, to_json]))
def test_a_written_routine_reads_back_the_same(routine: Routine, write: object) -> None:
    assert callable(write)
    again = Routine.parse(write(routine))
    assert again == routine
    assert again.version == routine.version


def test_yaml_holds_every_field() -> None:
    first, second = TRIAGE.steps
    assert TRIAGE.inputs == (
        Variable("repo_path", {"type": "string"}, "path of the repository"),
        Variable("anything", {}, "of any type"),
        Variable("untyped"),
    )
    assert (TRIAGE.thought, TRIAGE.header) == (Thought(5, 256), Header.ALWAYS)
    assert first.arguments == {
        "repo_path": Key("memory_input_repo_path"),
        "limit": Constant(5),
        "left": AnyKey(),
        "right": Literal(),
    }
    assert first.outputs == (
        Variable("status", {"type": "string"}, "what changed", "/text"),
        Variable("all", None, "of no declared type"),
    )
    assert [step.id for step in TRIAGE] == ["1", "1-1_1", "1-2_1", "1-2_1-1_1", "2"]
    assert first.branches[0].steps[0].finish
    assert first.branches[1].otherwise
    assert second == Step("2", "Report", tool="summary")


def test_text_says_the_same_as_yaml() -> None:
    assert Routine.parse(TEXT) == TRIAGE
    assert to_text(TRIAGE) == TEXT.removeprefix("Some words before.\n").removesuffix("Some words after.\n")


def test_the_papers_text_form_is_read() -> None:
    routine = Routine.parse(
        "Step 1. Find the employee: look the employee up by name, use the `find` tool\n"
        "Step 2: Check the contract: is it open?\r\n"
        "  Branch 2-1 Step 1. Close it: If the contract is open, use the close tool.\n"
        "  Branch 2-1 Step 2. Write: Use the mail tool.\n"
        "  Branch 2-2 Step 1. Tell: Otherwise, tell why. Use the mail tool.\n"
        "Step 3. Report: Use the summary tool.\n"
    )
    assert routine.name == "routine"
    assert routine.step("1") == Step("1", "Find the employee", "look the employee up by name", "find")
    assert routine.step("2").tool is None
    assert [branch.condition for branch in routine.step("2").branches] == ["the contract is open", None]
    assert routine.step("2-2_1").description == "tell why."


def test_a_description_may_speak_of_tools() -> None:
    routine = Routine.parse("Step 1. A: if in doubt use the hammer tool, or ask. Use the x tool.")
    assert routine.step("1").description == "if in doubt use the hammer tool, or ask."


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".yaml", YAML),
        (".yml", YAML),
        (".json", to_json(TRIAGE)),
        (".txt", TEXT),
        (".md", TEXT),
        (".routine", YAML),
        ("", TEXT),
    ],
)
def test_load_reads_by_suffix_or_content(tmp_path: Path, suffix: str, content: str) -> None:
    path = tmp_path / f"triage{suffix}"
    path.write_text("\ufeff" + content, encoding="utf-8")
    routine = Routine.load(path)
    assert routine == TRIAGE
    assert routine.origin.file == str(path)


def test_a_text_without_a_title_is_named_by_its_file(tmp_path: Path) -> None:
    path = tmp_path / "hire.txt"
    path.write_text("Step 1. a: use the x tool.")
    assert Routine.load(str(path)).name == "hire"


def test_lines_are_remembered() -> None:
    yaml_lines = TRIAGE.origin
    assert yaml_lines.line_of(("steps", 0, "tool")) == 12
    assert yaml_lines.line_of(("steps", 0, "branches", 0, "steps", 0, "nothing here")) == 24
    assert Routine.parse(TEXT).origin.line_of(("steps", 0, "arguments", "limit")) == 12


def test_the_document_leaves_defaults_out() -> None:
    routine = Routine("r", steps=(Step("", "a", tool="t"),))
    assert routine_to_document(routine) == {"name": "r", "steps": [{"name": "a", "tool": "t"}]}
    assert routine_from_document(routine_to_document(routine)) == routine


def test_plain_yaml_scalars_are_read_as_json_reads_them() -> None:
    text = "[yes, on, 012, 1_000, 0x1f, 2020-01-01, 1:30, 1e3, -4, true, True, ~, null, '5', .5, +1, 'null']"
    assert read_yaml(text, "f").value == [
        *("yes", "on", "012", "1_000", "0x1f", "2020-01-01", "1:30"),
        *(1000.0, -4, True, True, None, None, "5", ".5", "+1", "null"),
    ]


def test_aliases_repeat_what_they_name() -> None:
    routine = Routine.parse(
        "name: r\nsteps:\n- {name: a, tool: t, outputs: {x: &path {type: string}}}\n- {name: b, tool: t, outputs: {x: *path}}\n"
    )
    assert routine.step("1").outputs == routine.step("2").outputs


def test_version_changes_with_the_content_only() -> None:
    assert TRIAGE.version == Routine.parse(TEXT).version
    assert len(TRIAGE.version) == 8
    assert TRIAGE.version != Routine.parse(YAML.replace("Report", "Tell")).version


def test_a_routine_of_1000_steps_is_read() -> None:
    routine = Routine("r", steps=tuple(Step("", f"s{i}", "d", "t", {"a": Literal()}) for i in range(1000)))
    for write in (to_text, to_yaml, to_json):
        assert Routine.parse(write(routine)) == routine


def test_all_malformed_lines_are_told_at_once() -> None:
    with pytest.raises(RoutineError) as caught:
        Routine.parse("Step 1. a: use the x tool.\nStep 3. b: c\nbla\n  Argument x: foo\nInput (x\nThought: 1")
    assert [line.split(":")[1] for line in caught.value.problems] == ["2", "3", "4", "5", "6"]
