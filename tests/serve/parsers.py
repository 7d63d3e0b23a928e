"""vLLM's own parsers on texts of ours: small tokenizers for each dialect, and feeding a text whole or in pieces."""

from __future__ import annotations

import json
import random
import re
import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any

from tokenizers import AddedToken, Tokenizer

from routine_grammar.demo.tokenizer import END_OF_MESSAGE, demo_tokenizer_json

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what vLLM imports warns of itself
    from transformers import PreTrainedTokenizerFast
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.parser import ParserManager

WAYS = ("characters", "tokens", "cuts", "at once")
Calls = list[tuple[str, str]]
# vLLM's parser of a dialect, and the tokens of the vocabularies to try: its markers, and where the parser can do without, none.
PARSERS = {
    "hermes": "hermes",
    "llama3_json": "llama3_json",
    "mistral": "mistral",
    "mistral_v3": "mistral",
    "qwen3_coder": "qwen3_coder",
}
TAGS = ("<tool_call>", "</tool_call>")
VOCABULARIES: dict[str, tuple[tuple[str, ...], ...]] = {
    "hermes": (TAGS, ()),
    "llama3_json": (("<|python_tag|>",),),
    "mistral": (("[TOOL_CALLS]", "[ARGS]"),),
    "mistral_v3": (("[TOOL_CALLS]",),),
    "qwen3_coder": (TAGS, ()),
}


@cache
def tokenizer(*markers: str) -> Any:
    """The demo model's tokenizer with exactly these markers as tokens of their own."""
    document = json.loads(demo_tokenizer_json())
    document["added_tokens"] = [token for token in document["added_tokens"] if token["content"].startswith("<|")]
    made = Tokenizer.from_str(json.dumps(document))
    made.add_tokens([AddedToken(marker, special=False, normalized=False) for marker in markers])
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=END_OF_MESSAGE)


@cache
def parser_class(parser: str, *markers: str) -> Any:
    """The parser that vLLM's server composes."""
    return ParserManager.get_parser(tool_parser_name=parser, enable_auto_tools=True, tokenizer=tokenizer(*markers))


def request(tools: list[dict[str, Any]]) -> Any:
    return ChatCompletionRequest(messages=[{"role": "user", "content": "x"}], model="m", tools=tools, tool_choice="auto")


def pieces(text: str, how: str, tokens: Any) -> Iterator[tuple[str, list[int]]]:
    """A text as a server streams it, with the ids of its tokens and of the one that ends it; no token of its own is cut."""
    ids = tokens.encode(text, add_special_tokens=False)
    if how == "at once":
        yield text, [*ids, tokens.eos_token_id]
        return
    if how == "cuts":  # as a model streams it that cuts its text into other tokens than a tokenizer does
        yield from _cut(text, tokens, random.Random(text))
        return
    said, waiting = "", list[int]()
    for number, token in enumerate(ids, 1):
        waiting.append(token)
        now = tokens.decode(ids[:number], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if now.endswith("\ufffd"):
            continue
        new, said = now[len(said) :], now
        for place, char in enumerate(new if how == "characters" and token not in tokens.added_tokens_decoder else [new]):
            yield char, [] if place else waiting
        waiting = []
    yield "", [tokens.eos_token_id]
    assert said == text


def _cut(text: str, tokens: Any, rng: random.Random) -> Iterator[tuple[str, list[int]]]:
    own = {token.content: number for number, token in tokens.added_tokens_decoder.items()}
    for part in re.split("(" + "|".join(map(re.escape, own)) + ")", text):
        while part:
            size = len(part) if part in own else rng.choice((1, 2, 3, 4, 6, 9))
            yield part[:size], [own.get(part, 0)]
            part = part[size:]
    yield "", [tokens.eos_token_id]


def whole(parser: Any, asked: Any, text: str, tokens: Any) -> tuple[str, Calls, list[str]]:
    """Content, calls and ids, parsed whole."""
    ids = tokens.encode(text, add_special_tokens=False)
    _, content, calls = parser.parse(text, asked, True, ids)
    return content or "", [(call.name, call.arguments) for call in calls or ()], [call.id for call in calls or ()]


def streamed(parser: Any, asked: Any, text: str, tokens: Any, how: str) -> tuple[str, Calls, list[str]]:
    """Content, calls and ids, put together from a stream."""
    content, calls, ids = "", dict[int, tuple[str, str]](), dict[int, str]()
    parts = list(pieces(text, how, tokens))
    for number, (piece, token_ids) in enumerate(parts, 1):
        prompt: list[int] | None = [] if number == 1 else None
        delta = parser.parse_delta(piece, token_ids, asked, prompt, finished=number == len(parts))
        content += (delta.content or "") if delta else ""
        for part in delta.tool_calls or () if delta else ():
            name, arguments = calls.get(part.index, ("", ""))
            calls[part.index] = name + (part.function.name or ""), arguments + (part.function.arguments or "")
            if part.id:
                assert ids.setdefault(part.index, part.id) == part.id
    return content, [calls[index] for index in sorted(calls)], [ids[index] for index in sorted(ids)]


def calls_written(dialect: str, text: str, schemas: dict[str, Any]) -> list[tuple[str, Any]]:
    """The calls that a text of a turn's grammar has, read by its dialect's own rules and not by a parser of vLLM's."""
    if dialect == "qwen3_coder":
        found = re.findall(r"<function=([^>]*)>\n(.*?)</function>\n</tool_call>", text, re.DOTALL)
        return [(name, dict(_blocks(body, schemas[name]["properties"]))) for name, body in found]
    if dialect == "hermes":
        listed = [json.loads(body) for body in re.findall(r"<tool_call>\n(.*?)\n</tool_call>", text, re.DOTALL)]
    elif dialect == "mistral":
        found = re.findall(r"\[TOOL_CALLS\](.*?)\[ARGS\](\{.*?\})(?=\[TOOL_CALLS\]|$)", text, re.DOTALL)
        return [(name, json.loads(body)) for name, body in found]
    elif dialect == "mistral_v3":
        _, marker, body = text.partition("[TOOL_CALLS]")
        listed = json.loads(body) if marker else []
    else:
        listed = _json_values(text) if text.startswith("{") else []
    return [(call["name"], call.get("arguments", call.get("parameters"))) for call in listed]


def _json_values(text: str) -> list[Any]:
    values, place = [], 0
    while place < len(text):
        value, place = json.JSONDecoder().raw_decode(text, place)
        values.append(value)
        assert text[place : place + 2] in ("; ", "")
        place += 2
    return values


def _blocks(body: str, properties: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in re.findall(r"<parameter=([^>]*)>\n(.*?)\n</parameter>\n", body, re.DOTALL):
        kind = properties[name].get("type")
        if value.startswith("memory_") or kind == "string":
            yield name, value
        elif kind is None:  # text or null
            yield name, None if value == "null" else value
        else:
            yield name, json.loads(value)
