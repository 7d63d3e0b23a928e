"""A run as a chat, which sends nothing itself."""

from __future__ import annotations

import pytest

from routine_grammar.agent.calls import ToolCall
from routine_grammar.agent.chat import RoutineChat
from routine_grammar.agent.completions import Reply
from routine_grammar.agent.tools import ToolResult
from routine_grammar.demo.catalogue import demo_tools
from routine_grammar.errors import RunError
from routine_grammar.routine import Routine

CLOCK = """
name: clock
inputs: {zone: {type: string}}
steps:
  - {name: Ask for the time, tool: get_current_time, arguments: {timezone: {key: memory_input_zone}}}
  - {name: Ask again, tool: get_current_time}
"""
ASKED = Reply("", (ToolCall("call_1", "get_current_time", '{"timezone": "memory_input_zone"}'),), "tool_calls")


def test_a_chat_goes_no_further_behind_a_tool_that_failed() -> None:
    chat = RoutineChat(Routine.parse(CLOCK), demo_tools(), inputs={"zone": "Nowhere"})
    (call,) = chat.take(ASKED)
    assert call.arguments == {"timezone": "Nowhere"}
    assert "boom" in chat.give(call, ToolResult("boom", is_error=True))
    for refused in (chat.request, lambda: chat.take(ASKED)):
        with pytest.raises(RunError, match="Step 1: tool 'get_current_time' failed: boom"):
            refused()
