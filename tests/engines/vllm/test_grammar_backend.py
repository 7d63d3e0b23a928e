"""Structured requests of any client, under `--grammar-backend`: what ours enforces, refuses and hands over."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from routine_grammar.api import compile_lark, compile_schema
from routine_grammar.engines.vllm.settings import EngineSettings, GrammarBackend

if TYPE_CHECKING:
    from vllm import LLM

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore")]
PROMPT = {"prompt_token_ids": [40, 41, 42]}
BOOKING = {
    "type": "object",
    "properties": {
        "day": {"type": "string", "format": "date"},
        "guests": {"type": "integer", "minimum": 1, "maximum": 12},
        "note": {"type": "string", "minLength": 20},
    },
    "required": ["day", "guests", "note"],
    "additionalProperties": False,
}
LIST_OF_ITSELF = {"anyOf": [{"type": "array", "items": {"$ref": "#"}}, {"type": "array", "prefixItems": [{"$ref": "#"}]}]}
SUMS = 'start: sum\nsum: part (" + " part)*\npart: /[0-9]{1,3}/ | "(" sum ")"\n'


def under(engine: LLM, monkeypatch: pytest.MonkeyPatch, backend: GrammarBackend) -> None:
    monkeypatch.setattr(engine.llm_engine.vllm_config, "additional_config", EngineSettings(backend=backend).entry())


def said(engine: LLM, most: int, **constraint: Any) -> tuple[list[str], list[str | None]]:
    """Texts and reasons to end of some samples under a constraint."""
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    given = StructuredOutputsParams(**constraint)
    params = [SamplingParams(max_tokens=most, temperature=1.0, seed=seed, structured_outputs=given) for seed in range(6)]
    samples = [output.outputs[0] for output in engine.generate([PROMPT] * 6, params, use_tqdm=False)]
    assert all(each.structured_outputs is given for each in params)  # the caller's own are left as they are
    return [sample.text for sample in samples], [sample.finish_reason for sample in samples]


@pytest.mark.parametrize("backend", [GrammarBackend.OURS, GrammarBackend.AUTO])
def test_what_ours_takes_ends_whole_within_its_budget(
    engine: LLM, monkeypatch: pytest.MonkeyPatch, backend: GrammarBackend
) -> None:
    under(engine, monkeypatch, backend)
    judge = Draft202012Validator(BOOKING, format_checker=FormatChecker())
    for schema in (BOOKING, json.dumps(BOOKING)):
        texts, reasons = said(engine, 90, json=schema)
        assert set(reasons) == {"stop"}
        for text in texts:
            judge.validate(json.loads(text))
            assert compile_schema(BOOKING).accepts(text)
    texts, reasons = said(engine, 12, regex=r"(?i:order) #\d{1,4}(, \w+)*")
    assert set(reasons) == {"stop"}
    assert all(re.fullmatch(r"(?i:order) #\d{1,4}(, \w+)*", text) for text in texts)
    texts, reasons = said(engine, 40, grammar=SUMS)
    assert set(reasons) == {"stop"}
    assert all(compile_lark(SUMS).accepts(text) for text in texts)
    texts, _ = said(engine, 20, choice=["yes", "no", "not yet"])
    assert set(texts) <= {"yes", "no", "not yet"}
    texts, reasons = said(engine, 30, json_object=True)
    assert set(reasons) == {"stop"}
    assert all(isinstance(json.loads(text), dict) for text in texts)


@pytest.mark.parametrize(
    ("constraint", "told"),
    [
        ({"grammar": 'root ::= "a"'}, "structured_outputs.grammar: EBNF is not supported"),
        ({"grammar": 'start: p\np: "a" p "a" | "b" p "b" | "a"?'}, "rule p calls itself"),
        ({"grammar": 'start: "a" start | start "b" | "c"'}, "rule start begins with itself"),
        (
            {"json": {"uniqueItems": True, "minItems": 9}},
            r"'uniqueItems' is not supported .*pointer '/uniqueItems'",
        ),
        ({"json": LIST_OF_ITSELF}, r"'\$ref' is not supported .*pointer '/anyOf/0/items/\$ref'"),
        ({"json": {"type": "strnig"}}, "at JSON pointer '/type'"),
        ({"regex": "a(?<=a)"}, "structured_outputs.regex: .*a look behind"),
        ({"structural_tag": "{}"}, "`structural_tag` is not supported"),
        ({"json": BOOKING, "whitespace_pattern": " ?"}, "`whitespace_pattern` is not supported"),
        ({"json": BOOKING}, "max_tokens is 8, and the shortest text that the grammar allows needs"),
    ],
)
def test_what_ours_can_not_take_is_refused(
    engine: LLM, monkeypatch: pytest.MonkeyPatch, constraint: dict[str, Any], told: str
) -> None:
    under(engine, monkeypatch, GrammarBackend.OURS)
    from vllm.exceptions import VLLMValidationError

    with pytest.raises(VLLMValidationError, match=f"under --grammar-backend ours, .*{told}"):
        said(engine, 8, **constraint)


def test_what_ours_can_not_take_is_handed_over(engine: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    under(engine, monkeypatch, GrammarBackend.AUTO)
    texts, _ = said(engine, 30, grammar='root ::= "yes" | "no"')
    assert set(texts) <= {"yes", "no"}


def test_vllm_keeps_its_own_by_default(engine: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    under(engine, monkeypatch, GrammarBackend.VLLM)
    _, reasons = said(engine, 8, json=BOOKING)
    assert set(reasons) == {"length"}
