"""A server that takes over structured requests of any client, and hands over what is not for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from routine_grammar.api import compile_lark, compile_schema
from tests.servers import running_server

pytestmark = [pytest.mark.engine]
MODEL = "routine-demo"
ASK: list[Any] = [{"role": "user", "content": "Go on."}]
PALINDROMES = 'start: p\np: "a" p "a" | "b" p "b" | "c"\n'
WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "minLength": 12}, "days": {"type": "integer", "minimum": 1, "maximum": 14}},
    "required": ["city", "days"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    flags = ("--grammar-backend", "auto", "--structured-outputs-config.backend", "guidance")
    command = [sys.executable, "-m", "routine_grammar.serve", *flags]
    with running_server(command) as base_url:
        yield base_url


def said(url: str, **options: Any) -> str:
    body = {"model": MODEL, "messages": ASK, "max_tokens": 60, "temperature": 1.0, **options}
    answer = httpx.post(f"{url}/chat/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    (choice,) = answer.json()["choices"]
    assert choice["finish_reason"] == "stop", choice
    return str(choice["message"]["content"])


def test_schemas_and_grammars_of_any_client_end_whole(url: str) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "weather", "schema": WEATHER}}
    for seed in range(4):
        assert compile_schema(WEATHER).accepts(said(url, response_format=form, seed=seed))
        text = said(url, structured_outputs={"grammar": 'start: "(" start ")" | /[a-z]{2,9}/'}, max_tokens=20, seed=seed)
        assert compile_lark('start: "(" start ")" | /[a-z]{2,9}/').accepts(text)
    client = openai.OpenAI(base_url=url, api_key="none")
    streamed = client.completions.create(
        model=MODEL, prompt="x", max_tokens=60, stream=True, extra_body={"structured_outputs": {"json": WEATHER}}
    )
    assert compile_schema(WEATHER).accepts("".join(chunk.choices[0].text for chunk in streamed))


def test_what_only_a_parser_can_tell_apart_is_vllms(url: str) -> None:
    body = {"model": MODEL, "messages": ASK, "max_tokens": 30, "structured_outputs": {"grammar": PALINDROMES}}
    answer = httpx.post(f"{url}/chat/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    text = answer.json()["choices"][0]["message"]["content"]
    assert set(text) <= set("abc")
    assert text == text[::-1] or answer.json()["choices"][0]["finish_reason"] == "length"
