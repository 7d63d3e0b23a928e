"""Routines drawn at random, of every form, that pass their checks with the tools recorded here."""

from __future__ import annotations

import random
from typing import Any

from routine_grammar.routine import Branch, Constant, Item, Omit, Repetition, Routine, Source, Step, Tool, Variable, check

TEXT: dict[str, Any] = {"type": "string"}
MOST = 3


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


_ROWS = _object({"rows": {"type": "array", "items": {"type": "string"}}}, "rows")
TOOLS = (
    Tool("list_rows", "List the rows.", _object({}), _ROWS),
    Tool("read_row", "Read a row.", _object({"row": {"type": "string"}, "deep": {"type": "boolean"}}, "row")),
    Tool("note", "Write a note.", _object({"text": TEXT, "level": {"enum": ["low", "high"]}}, "text")),
    Tool("pick", "Pick a size.", _object({"size": {"type": "integer"}})),
    Tool("wait", "Wait.", _object({})),
)


def random_routine(rng: random.Random, name: str = "drawn", most_steps: int = 30) -> Routine:
    """A Routine of 1 to `most_steps` steps, its branches nested up to three deep, in which every step can be reached."""
    while True:
        steps = _Drawing(rng, rng.randint(1, most_steps)).mainline()
        routine = Routine(name, "Drawn at random.", (Variable("topic", TEXT),), steps)
        if not check(routine, TOOLS):
            return routine


class _Drawing:
    def __init__(self, rng: random.Random, most_steps: int) -> None:
        self._rng = rng
        self._left = most_steps

    def mainline(self) -> tuple[Step, ...]:
        steps: list[Step] = []
        while self._left > 0:
            steps.append(self._step(0, str(len(steps) + 1), False, is_first=not steps))
        return tuple(steps)

    def _block(self, depth: int, prefix: str, looped: bool) -> tuple[Step, ...]:
        """At least one step, the first with a call; the last may finish."""
        steps = [self._step(depth, f"{prefix}1", looped, is_first=True)]
        while self._left > 0 and self._rng.random() < 0.4:
            steps.append(self._step(depth, f"{prefix}{len(steps) + 1}", looped, is_first=False))
        return tuple(steps)

    def _step(self, depth: int, step_id: str, looped: bool, *, is_first: bool) -> Step:
        self._left -= 1
        form = self._rng.choice(("call", "call", "branches", "check", "for_each", "parallel", "on_error", "finish", "runs"))
        if depth == 3 or self._left < 3 or (is_first and form in ("check", "runs", "finish")):
            form = "call"
        below = f"{step_id}-1_"
        match form:
            case "branches" | "check":
                return self._call(looped, has_tool=form == "branches", branches=self._branches(depth, step_id, looped))
            case "for_each" if not looped:
                repetition = Repetition(f"memory_{step_id}_rows", MOST)
                branch = Branch(for_each=repetition, steps=self._block(depth + 1, below, True))
                return Step("", "list", tool="list_rows", outputs=(Variable("rows", pointer="/rows"),), branches=(branch,))
            case "parallel":
                self._left -= 2
                calls = tuple(self._call(looped, optional=self._rng.random() < 0.3) for _ in range(self._rng.randint(2, 3)))
                return self._call(looped, branches=(Branch(parallel=True, steps=calls),))
            case "on_error":
                return self._call(looped, branches=(Branch(on_error=True, steps=self._block(depth + 1, below, looped)),))
            case "runs":
                return Step("", "run", branches=(Branch(runs="inner", steps=self._block(depth + 1, below, looped)),))
            case "finish" if depth:
                return self._call(looped, finish=self._rng.random() < 0.5)
        return self._call(looped)

    def _branches(self, depth: int, step_id: str, looped: bool) -> tuple[Branch, ...]:
        count = self._rng.randint(1, 3)
        listed = [
            Branch(f"case {number}", steps=self._block(depth + 1, f"{step_id}-{number}_", looped))
            for number in range(1, count + 1)
        ]
        if count > 1 and self._rng.random() < 0.4:
            listed[-1] = Branch(otherwise=True, steps=listed[-1].steps)
        return tuple(listed)

    def _call(self, looped: bool, *, has_tool: bool = True, **fields: Any) -> Step:
        if not has_tool:
            return Step("", "look", **fields)
        tool = self._rng.choice(("read_row", "note", "pick", "wait"))
        arguments: dict[str, Source] = {}
        match tool:
            case "read_row" if looped:
                arguments["row"] = Item()
            case "note":
                arguments["level"] = self._rng.choice((Constant("high"), Omit()))
            case "pick" if self._rng.random() < 0.5:
                arguments["size"] = Constant(self._rng.randrange(100))
        return Step("", tool, tool=tool, arguments=arguments, **fields)
