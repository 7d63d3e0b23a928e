from __future__ import annotations

import json
from typing import Any

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
    with pytest.raises(EngineError, match="1 sequences, and 2 matchers for 2"):
        processor(ids[:1], scores[:1])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "ways", [{"num_beams": 4}, {"num_beams": 4, "num_return_sequences": 3}, {"num_return_sequences": 3, "do_sample": True}]
)
def test_beams_follow_their_histories(ways: dict[str, Any]) -> None:
    """Two grammars and a free prompt, each in several sequences; beams change places as others overtake them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = str(demo_model_path())
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    grammars = [compile_schema(SCHEMA), None, compile_schema({"type": "array", "items": {"enum": ["red", "green", "blue"]}})]
    prompt = tokenizer(["Begin.", "Then", "Go on, please."], return_tensors="pt", padding=True)
    torch.manual_seed(1)
    matchers = [None if grammar is None else grammar.matcher(vocabulary, budget=24) for grammar in grammars]
    moved = list[bool]()

    class Watching(GrammarLogitsProcessor):
        def _follow(self, sequences: list[list[int]], seen: list[list[int]]) -> None:
            moved.append(True)
            super()._follow(sequences, seen)

    output = model.generate(
        **prompt, max_new_tokens=24, logits_processor=[Watching(matchers)], pad_token_id=tokenizer.pad_token_id, **ways
    )
    texts = tokenizer.batch_decode(output[:, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    of_each = ways.get("num_return_sequences", 1)
    assert len(texts) == 3 * of_each
    for number, text in enumerate(texts):
        grammar = grammars[number // of_each]
        assert grammar is None or grammar.accepts(text), text
    assert bool(moved) is ("num_beams" in ways)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ways", [{}, {"num_beams": 3}, {"num_return_sequences": 2, "do_sample": True}])
def test_outlines_generates_under_a_grammar(ways: dict[str, Any]) -> None:
    import outlines
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from routine_grammar.engines.outlines import OutlinesGrammarProcessor

    folder = str(demo_model_path())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    grammar = compile_schema(SCHEMA)
    generator = outlines.Generator(
        outlines.from_transformers(model, tokenizer), processor=OutlinesGrammarProcessor(grammar, tokenizer, budget=24)
    )
    torch.manual_seed(2)
    single = generator("Begin.", max_new_tokens=24, **ways)
    batch = generator.batch(["Begin.", "And then go on."], max_new_tokens=24, **ways)
    found = [single, *batch]
    texts = [text for each in found for text in ([each] if isinstance(each, str) else each)]
    assert len(texts) == 3 * ways.get("num_return_sequences", 1)
    assert all(grammar.accepts(text) for text in texts), texts
