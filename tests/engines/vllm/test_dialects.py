"""Every dialect decoded by a real engine whose vocabulary has the markers of hermes and qwen3_coder, and those of no other."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from routine_grammar.grammar.dialects import dialect_names
from tests.grammar.dialect_calls import KEYS, TOOLS, compiled
from tests.scale import ENGINE_SCALE
from tests.serve.parsers import calls_written

if TYPE_CHECKING:
    from vllm import LLM

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("dialect", dialect_names())
def test_a_random_model_says_whole_calls(engine: LLM, dialect: str) -> None:
    turns = [compiled(dialect).turn(position, KEYS) for position in compiled(dialect).graph.positions]
    jobs = [turn for turn in turns for _ in range(3 * ENGINE_SCALE)]
    params = [turn.sampling_params(temperature=1.0, seed=seed, max_tokens=400) for seed, turn in enumerate(jobs)]
    schemas: dict[str, Any] = {tool.name: tool.input_schema for tool in TOOLS}
    calls = 0
    for turn, output in zip(jobs, engine.generate(["Begin."] * len(jobs), params, use_tqdm=False), strict=True):
        text = output.outputs[0].text
        assert turn.accepts(text), text
        found = calls_written(dialect, text, schemas)
        assert found or turn.may_end
        assert {name for name, _ in found} <= set(turn.tools)
        assert json.dumps(found)
        calls += len(found)
    assert calls > len(jobs) // 2
