"""Random Routines of every form, carried out by the random-weights model: an interpreter of the plan allows every path."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from routine_grammar.agent.calls import CheckedCall, ToolCall, check_calls, lists_written, written_values
from routine_grammar.agent.memory import VariableMemory
from routine_grammar.agent.tools import ToolResult
from routine_grammar.api import CompiledRoutine, Turn, compile_routine
from routine_grammar.routine import START
from tests.engines.vllm.test_engine import parsed_calls
from tests.routine.interpreter import Option, World, beginning
from tests.routine.random_routines import MOST, TOOLS, random_routine
from tests.scale import SCALE

if TYPE_CHECKING:
    from vllm import LLM

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore")]

MAX_TURNS = 60
KINDS = ("repeated", "several in a turn", "failed", "ended", "branched")


@dataclass
class Run:
    """A Routine under way, and what the interpreter allows next."""

    compiled: CompiledRoutine
    world: World
    options: list[Option]
    position: str = START
    memory: VariableMemory = field(default_factory=VariableMemory)
    turns: int = 0
    done: bool = False

    def turn(self) -> Turn:
        """The next turn, once the lists of a repetition that is over are stored."""
        for written in lists_written(self.compiled.graph, self.position, self.memory):
            self.memory.put(*written)
        return self.compiled.turn(self.position, self.memory.live_keys())

    def take(self, content: str, calls: Sequence[Any], rng: random.Random) -> Counter[str]:
        """Go on by what was decoded; return what kinds of ways were met."""
        self.turns += 1
        if not calls:
            assert any(option.step is None for option in self.options)
            self.done = True
            return Counter(["ended"])
        graph = self.compiled.graph
        made = [ToolCall(str(place), call.function.name, call.function.arguments) for place, call in enumerate(calls)]
        checked = check_calls(graph, self.compiled.scope.tools, self.memory, self.position, content, made)
        met = Counter({"several in a turn": len(checked) > 1, "branched": len(self.options) > 1})
        for each in checked:
            fitting = [o for o in self.options if o.step == each.step and o.item == each.taken.position.item]
            assert fitting, (self.position, each.step.id)
            met["repeated"] += each.taken.position.item is not None
            self.options = fitting[0].behind()
        for each in checked:
            result = self._result(each, rng)
            met["failed"] += result.is_error
            for written in written_values(graph, each.taken, self.compiled.scope.tools[str(each.step.tool)], result):
                self.memory.put(*written)
        self.position = str(checked[-1].taken.position)
        self.done = self.turns == MAX_TURNS or not any(option.step for option in self.options)
        return met

    def _result(self, call: CheckedCall, rng: random.Random) -> ToolResult:
        step, item = call.step, call.taken.position.item
        if step.handles_errors and (step.id, item) in self.world.failing:
            return ToolResult("it failed", is_error=True)
        if step.tool == "list_rows":
            length = self.world.lengths.get(f"memory_{step.id}_rows", 1)
            return ToolResult("", {"rows": [f"row {rng.randrange(100)}" for _ in range(length)]})
        return ToolResult(f"{step.tool}: done")


def begun(seed: int) -> Run:
    """A random Routine at its start, in a random world."""
    rng = random.Random(seed)
    compiled = compile_routine(random_routine(rng, f"drawn_{seed}"), TOOLS)
    lengths = {loop.over: rng.randint(0, MOST) for loop in compiled.graph.loops.values()}
    failing = frozenset((step.id, item) for step in compiled.routine for item in (None, 0, 1, 2) if rng.random() < 0.5)
    world = World(lengths, failing)
    run = Run(compiled, world, beginning(compiled.routine, world))
    run.memory.put("memory_input_topic", "gardens", {"type": "string"})
    return run


def test_every_path_of_random_routines_is_legal(engine: LLM) -> None:
    rng = random.Random(0)
    runs = [begun(seed) for seed in range(30 * SCALE)]
    met: Counter[str] = Counter()
    while waiting := [run for run in runs if not run.done]:
        turns = [run.turn() for run in waiting]
        params = [turn.sampling_params(temperature=1.0, seed=rng.randrange(1 << 30), max_tokens=160) for turn in turns]
        outputs = engine.generate(["Begin."] * len(params), params, use_tqdm=False)
        for run, turn, output in zip(waiting, turns, outputs, strict=True):
            text = output.outputs[0].text
            assert turn.accepts(text)
            content, calls = parsed_calls(engine, text)
            met += run.take(content or "", calls, rng)
    assert all(met[kind] > 2 for kind in KINDS), met
