"""What a worker is told of a request whose grammar its device follows: where the table lies, and what of it is new.

In: a packed table and its block. Out: a message, which travels with the request's sampling parameters.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from routine_grammar.engines.vllm.device.memory import Block, Part
from routine_grammar.engines.vllm.device_patches import MESSAGE
from routine_grammar.engines.vllm.settings import EngineSettings
from routine_grammar.masks.flat.packed import PackedTable


class Thinking(NamedTuple):
    """The tokens by which a model's thoughts end: `end` is the last of them, `opening` the first of the text. -1: none."""

    end: int = -1
    opening: int = -1


class Placement(NamedTuple):
    """`table`, `listed` and `comb` are words of the device's memory, `parts` what is to be written there first.

    `budget` is how many tokens the text may have, with what is thought before it; `thinks`: the model does so first; `drafts`:
    so many forced tokens a pass.
    """

    table: int
    listed: int
    comb: int
    class_count: int
    start: int
    farthest: int
    budget: int
    thinks: bool
    thinking: Thinking
    drafts: int
    parts: tuple[Part, ...] = ()

    @classmethod
    def of(
        cls, table: PackedTable, block: Block, *, most_tokens: int, thinks: bool, thinking: Thinking, drafts: int
    ) -> Placement:
        """The placement of a request that may say `most_tokens` in all, the token that ends its text among them.

        That one is left room for, but where the text just fits; what is thought is not known yet, so there it always is.
        """
        budget = most_tokens - (thinks or table.shortest < most_tokens)
        return cls(
            table=block.begin,
            listed=block.begin + table.listed,
            comb=block.begin + table.comb,
            class_count=table.class_count,
            start=table.start,
            farthest=table.farthest,
            budget=budget,
            thinks=thinks,
            thinking=thinking,
            drafts=drafts,
        )


def placement_of(params: Any) -> Placement | None:
    """The placement in a request's sampling parameters, where it has one."""
    placement = (params.extra_args or {}).get(MESSAGE)
    return placement if isinstance(placement, Placement) else None


def words_of(vllm_config: Any, tokens: int) -> int:
    """How many words a device keeps for tables, those of the vocabulary's tokens in front among them."""
    return tokens + EngineSettings.of(vllm_config).device_memory // 8
