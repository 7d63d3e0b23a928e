"""The arms: how a request of the workload is constrained, on which server, and when its answer is a valid call."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jsonschema

from benchmarks.serving.load import Answer
from benchmarks.serving.servers import NUMBERS_OF_DRAFTS, Kind
from benchmarks.vocabularies import Tokenization
from benchmarks.workload import Case
from routine_grammar.grammar.ebnf import grammar_to_ebnf

MAX_TOKENS = 400
FREE, XGRAMMAR, GUIDANCE, REQUIRED = "unconstrained", "vLLM xgrammar", "vLLM guidance", "tool_choice=required"
UNDRAFTED, OURS = "ours without drafts", "ours"
PEERS = (XGRAMMAR, GUIDANCE)
ANY_SPELLING = "ours with any spelling"
FEW_DRAFTS = {f"ours with {count} drafts": kind for kind, count in NUMBERS_OF_DRAFTS.items()}  # at most so many a pass
ARMS = (FREE, XGRAMMAR, GUIDANCE, REQUIRED, UNDRAFTED, OURS)  # those that are measured where none are named
SERVER_OF = {
    FREE: Kind.XGRAMMAR,
    XGRAMMAR: Kind.XGRAMMAR,
    GUIDANCE: Kind.GUIDANCE,
    REQUIRED: Kind.XGRAMMAR,
    UNDRAFTED: Kind.UNDRAFTED,
    OURS: Kind.DRAFTED,
    ANY_SPELLING: Kind.ANY_SPELLING,
    **FEW_DRAFTS,
}
_PROMPT = "Please begin."


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether an answer is a valid call, and if not, whether it was merely cut off."""

    valid: bool
    cut_off: bool


@dataclass(frozen=True)
class Arm:
    """An arm over some turns of one size, with what constrains a request of each."""

    name: str
    turns: Sequence[Case]
    constraints: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, name: str, turns: Sequence[Case], tokenization: Tokenization) -> Arm:
        """The arm of a name, one of ARMS."""
        return cls(name, turns, tuple(_constraint(name, turn, tokenization) for turn in turns))

    @property
    def server(self) -> Kind:
        """The kind of server that it runs on."""
        return SERVER_OF[self.name]

    def request(self, model: str, number: int, seed: str) -> dict[str, Any]:
        """The body of a request: turns one after the other, each request with a seed of its own.

        But in any spelling: seeded requests are not drafted there.
        """
        turn = number % len(self.turns)
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": "user", "content": _PROMPT}],
            "max_tokens": MAX_TOKENS,
            "temperature": 1,
        }
        if self.name != ANY_SPELLING:
            body["seed"] = random.Random(f"{seed} {number}").getrandbits(31)
        return {**body, **self.constraints[turn]}

    def judge(self, answer: Answer) -> Outcome:
        """Hold an answer against its turn; without a constraint nothing is asked of it."""
        case = self.turns[answer.number % len(self.turns)]
        match self.name:
            case "unconstrained":
                valid = True
            case "tool_choice=required":
                valid = bool(answer.calls) and all(_fits(call, case.tools) for call in answer.calls)
            case _:
                valid = case.grammar.accepts(answer.content)
        return Outcome(valid, not valid and answer.reason == "length")


def _constraint(name: str, case: Case, tokenization: Tokenization) -> dict[str, Any]:
    """What constrains a request of a turn; without a constraint it is as long as a call."""
    match name:
        case "unconstrained":
            lengths = [len(tokenization.encode(sample)) for sample in case.samples]
            return {"max_tokens": sum(lengths) // len(lengths), "ignore_eos": True}
        case "vLLM xgrammar":
            return {"structured_outputs": {"grammar": grammar_to_ebnf(case.grammar.tree)}}
        case "vLLM guidance":
            return {"structured_outputs": {"grammar": case.grammar.lark_for("llguidance", tokenization.vocabulary)}}
        case "tool_choice=required":
            tools = [{**tool, "function": {**tool["function"], "strict": True}} for tool in case.tools]
            return {"tools": tools, "tool_choice": "required", "parallel_tool_calls": False}
        case "ours without drafts":
            return {"structured_outputs": {"grammar": case.grammar.payload}, "vllm_xargs": {"routine_drafts": 0}}
        case _:
            return {"structured_outputs": {"grammar": case.grammar.payload}}


def _fits(call: Mapping[str, str], tools: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a tool call is one of a tool that was offered, with arguments of its schema."""
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
    try:
        jsonschema.validate(json.loads(call["arguments"]), schemas[call["name"]])
    except (json.JSONDecodeError, KeyError, jsonschema.ValidationError):
        return False
    return True
