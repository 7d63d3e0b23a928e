"""How masks reach logits in vLLM: as vLLM's own functions would have it, whoever is in a pass."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from routine_grammar.api import compile_schema
from tests.scale import SCALE

if TYPE_CHECKING:
    from vllm import LLM

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore")]

COLUMNS = 90


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@settings(max_examples=100 * SCALE, deadline=None)
@given(
    # Whether each is constrained, as one is at least, and how many drafts it has.
    batch=st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=1, max_size=6).filter(lambda batch: any(dict(batch))),
    order=st.randoms(use_true_random=False),
)
def test_logits_are_masked_as_vllm_masks_them(
    engine: LLM, dtype: torch.dtype, batch: Sequence[tuple[bool, int]], order: Any
) -> None:
    from vllm.v1.worker import gpu_model_runner

    masked = gpu_model_runner.apply_grammar_bitmask
    names = [f"r{number}" for number in range(len(batch))]
    constrained = [name for name, (is_held, _) in zip(names, batch, strict=True) if is_held]
    order.shuffle(constrained)
    drafts = {name: [5] * count for name, (_, count) in zip(names, batch, strict=True) if count}
    generator = np.random.default_rng(order.getrandbits(32))
    rows = generator.integers(-(2**31), 2**31, (sum(1 + len(drafts.get(name, ())) for name in constrained), 3), np.int64)
    rows[generator.random(rows.shape) < 0.4] = 0
    rows = rows.astype(np.int32)
    rows.flags.writeable = order.random() < 0.5
    slots = sum(1 + count for _, count in batch)
    logits = torch.from_numpy(generator.standard_normal((slots, COLUMNS), np.float32)).to(dtype)
    expected = logits.clone()
    pass_ = (
        SimpleNamespace(scheduled_spec_decode_tokens=drafts),
        SimpleNamespace(grammar_bitmask=rows, structured_output_request_ids=constrained),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        masked(*pass_, SimpleNamespace(req_ids=names), logits)
    masked.__wrapped__(*pass_, SimpleNamespace(req_ids=names), expected)
    assert masked is not masked.__wrapped__
    assert torch.equal(logits, expected)
    assert logits.isneginf().any()


def test_rows_are_filled_as_vllm_fills_them(engine: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of grammars of ours, of one that has ended, of one whose request still thinks; beside vLLM's own, and with drafts."""
    from vllm.v1.structured_output import ConstraintBounds
    from vllm.v1.structured_output.backend_types import StructuredOutputOptions

    grammars = [compile_schema(schema) for schema in ({"type": "integer"}, {"enum": ["one", "other"]}, True)]
    engine.generate("x", grammars[0].sampling_params(max_tokens=8), use_tqdm=False)  # which makes the backend, and its rows
    manager: Any = engine.llm_engine.engine_core.engine_core.structured_output_manager
    compiled = manager.backend.compile_grammar
    integer, ended, words, anything = (
        compiled(StructuredOutputOptions.GRAMMAR, grammars[number].payload) for number in (0, 0, 1, 2)
    )
    tokenizer = engine.get_tokenizer()
    assert ended.accept_tokens("ended", [*tokenizer.encode("7"), tokenizer.eos_token_id])
    assert ended.is_terminated()
    theirs = compiled(StructuredOutputOptions.REGEX, "a+b")
    held = {"integer": integer, "words": words, "ended": ended, "thinks": anything, "theirs": theirs}
    requests = {
        name: SimpleNamespace(name=name, structured_output_request=SimpleNamespace(grammar=grammar))
        for name, grammar in held.items()
    }

    def bounds_of(request: Any, *_: Any) -> Any:
        return ConstraintBounds(1, 1) if request.name == "thinks" else ConstraintBounds(0, 0)

    drafts = words.forced_tokens(2)
    assert drafts
    with monkeypatch.context() as patch:
        patch.setattr(manager, "reasoner_cls", object)
        patch.setattr(manager, "_get_constraint_bounds", bounds_of)
        for names, drafted in (
            (["integer", "words", "ended", "thinks"], {}),
            (["thinks", "words"], {}),
            (list(held), {}),
            (["words", "integer"], {"words": drafts}),
            (["integer"], {"integer": [-1]}),
        ):
            expected = type(manager).grammar_bitmask.__wrapped__(manager, requests, names, drafted).copy()
            manager._grammar_bitmask.fill_(3)
            assert np.array_equal(manager.grammar_bitmask(requests, names, drafted), expected), names
        assert manager.grammar_bitmask(requests, [], {}) is None
