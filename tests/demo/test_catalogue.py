from __future__ import annotations

import sys

import pytest

from routine_grammar.agent.tools import ServerConfig, ToolServers
from routine_grammar.api import CompiledRoutine, compile_routine
from routine_grammar.demo.catalogue import demo_folder, demo_routines, demo_tools
from routine_grammar.routine import AnyKey, Constant, Key, MemoryKey, Omit, Routine, check, to_text

OWN_TOOLS = {"get_expense_report", "check_policy", "return_report", "find_approver", "request_approval", "pay_report"}
PATH = MemoryKey("memory_input_repo_path", {"type": "string"})


def named(name: str) -> Routine:
    return next(routine for routine in demo_routines() if routine.name == name)


def compiled(name: str) -> CompiledRoutine:
    return compile_routine(named(name), demo_tools())


def test_the_routines_and_tools() -> None:
    assert [routine.name for routine in demo_routines()] == ["expense_approval", "meeting_times", "repository_review"]
    assert all(routine.description for routine in demo_routines())
    assert {tool.name for tool in demo_tools()} >= OWN_TOOLS
    assert (demo_folder() / "tools.json").is_file()


@pytest.mark.parametrize("routine", demo_routines(), ids=lambda routine: routine.name)
def test_each_routine_fits_its_tools_and_compiles(routine: Routine) -> None:
    assert check(routine, demo_tools()) == ()
    assert compile_routine(routine, demo_tools()).lark
    read_back = Routine.parse(to_text(routine))
    assert read_back == routine


def test_the_review_only_reads_and_binds_every_argument() -> None:
    tools = {tool.name: tool for tool in demo_tools()}
    steps = [(step, tools[str(step.tool)]) for step in named("repository_review")]
    assert all(tool.read_only for _, tool in steps)
    free = [
        (tool.name, name, tool.parameter_schema(name)["type"], step.arguments.get(name))
        for step, tool in steps
        for name in tool.parameters
        if not isinstance(step.arguments.get(name), Constant | Key | Omit)
    ]
    # A number of lines is all that a model chooses, and only among the Routine's own.
    assert free == [(tool, "context_lines", "integer", AnyKey()) for tool in ("git_diff_unstaged", "git_diff")]


def test_the_review_lets_a_model_choose_a_branch_and_a_key() -> None:
    review = compiled("repository_review")
    keys = [PATH, MemoryKey("memory_input_narrow_view", {"type": "integer"}), MemoryKey("memory_1_status", {"type": "string"})]
    turn = review.turn("1", keys)
    assert turn.tools == ("git_diff_unstaged", "git_show")
    call = '<tool_call>\n{"name": "git_diff_unstaged", "arguments": %s}\n</tool_call>'
    assert turn.accepts(call % '{"repo_path": "memory_input_repo_path", "context_lines": "memory_input_narrow_view"}')
    assert not turn.accepts(call % '{"repo_path": "memory_input_repo_path", "context_lines": "memory_input_repo_path"}')
    assert not turn.accepts(call % '{"repo_path": "memory_input_repo_path", "context_lines": 99}')


def test_the_meeting_needs_a_header_where_two_steps_share_a_tool() -> None:
    meeting = compiled("meeting_times")
    assert meeting.graph.is_headed("1")
    turn = meeting.turn("1", ["memory_input_first_office"])
    arguments = '{"source_timezone": "Asia/Tokyo", "time": "14:00", "target_timezone": "memory_input_first_office"}'
    call = f'<tool_call>\n{{"name": "convert_time", "arguments": {arguments}}}\n</tool_call>'
    assert turn.accepts(f"Branch 1-1 Step 1\n{call}")
    assert not turn.accepts(f"Step 2\n{call}")


def test_the_approval_takes_an_approver_and_no_other_person() -> None:
    approval = compiled("expense_approval")
    keys = ["memory_input_report_id", "memory_1_employee", "memory_2-2_1_approver"]
    turn = approval.turn("2-2_1-1_1", keys)
    rest = '"report_id": "memory_input_report_id", "message": {"summary": "Two dinners.", "tone": "formal"}, "priority": 2'
    call = '<tool_call>\n{"name": "request_approval", "arguments": {"approver": "%s", %s}}\n</tool_call>'
    assert turn.accepts(call % ("memory_2-2_1_approver", rest))
    assert not turn.accepts(call % ("memory_1_employee", rest))


async def test_the_record_is_what_the_servers_list() -> None:
    names = ("git", "time")
    configs = [ServerConfig(name, sys.executable, ("-m", f"mcp_server_{name}")) for name in names]
    recorded = {tool.name: tool for tool in demo_tools()}
    used = {step.tool for routine in demo_routines() for step in routine} - OWN_TOOLS
    async with ToolServers(configs) as servers:
        listed = {tool.name: tool for tool in servers.tools}
    assert {name: listed[str(name)].parameters.keys() for name in used} == {
        name: recorded[str(name)].parameters.keys() for name in used
    }
