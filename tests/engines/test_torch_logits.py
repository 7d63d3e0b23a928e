from __future__ import annotations

import json

import pytest
import torch

from routine_grammar import Vocabulary, compile_schema
from routine_grammar.demo.model import demo_model_path
from routine_grammar.engines.torch_logits import GrammarLogitsProcessor
from routine_grammar.errors import EngineError

SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["a", "b"]}, "count": {"type": "integer"}},
    "required": ["name", "count"],
    "additionalProperties": False,
}


@pytest.mark.filterwarnings("ignore")
def test_transformers_generates_under_a_grammar() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = str(demo_model_path())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    grammar = compile_schema(SCHEMA)
    matchers = [grammar.matcher(vocabulary, budget=40), None, grammar.matcher(vocabulary, budget=40)]
    prompt = tokenizer(["Begin."] * 3, return_tensors="pt")
    torch.manual_seed(0)
    processor = GrammarLogitsProcessor(matchers)
    output = model.generate(
        **prompt, do_sample=True, max_new_tokens=40, logits_processor=[processor], pad_token_id=tokenizer.pad_token_id
    )
    texts = tokenizer.batch_decode(output[:, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    for text in (texts[0], texts[2]):
        value = json.loads(text)
        assert value["name"] in ("a", "b")
        assert isinstance(value["count"], int)
    assert not grammar.accepts(texts[1])


def test_a_free_sequence_keeps_its_logits_and_a_wrong_token_is_an_error() -> None:
    tokens = [bytes((byte,)) for byte in range(256)] + [b""]
    vocabulary = Vocabulary(tokens, {}, [256])
    processor = GrammarLogitsProcessor([compile_schema({"const": "x"}).matcher(vocabulary), None])
    scores = torch.randn(2, 300)
    before = scores.clone()
    ids = torch.zeros((2, 1), dtype=torch.int64)
    processor(ids, scores)
    assert torch.equal(scores[1], before[1])
    assert scores[0].isfinite().nonzero().flatten().tolist() == [ord('"')]
    with pytest.raises(EngineError, match="token 65 is not allowed"):
        processor(torch.cat([ids, torch.full((2, 1), 65)], dim=1), scores)
    with pytest.raises(EngineError, match="do not go on from those of the last call"):
        processor(ids, scores)
    with pytest.raises(EngineError, match="scores of 256 tokens, and matchers of a vocabulary of 257"):
        processor(ids, scores[:, :256])
    with pytest.raises(EngineError, match="1 sequences, and 2 matchers"):
        processor(ids[:1], scores[:1])
