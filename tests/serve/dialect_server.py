"""A server for one dialect: a model of random weights whose tokens and chat template are of that family's kind.

It is started as crowded as a server can be: little memory for keys and values, short chunks of prompts, a cache of prefixes,
a reasoning parser, a LoRA adapter. What a request uses of it is the request's own choice.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from routine_grammar.demo.model import write_demo_model
from tests.engines.vllm.small_engine import adapter
from tests.serve.parsers import VOCABULARIES, tokenizer
from tests.servers import running_server

MODEL, ADAPTED = "small", "adapted"
THINKING = ("<think>", "</think>")
CHUNK = 128  # tokens of prompts in one step
MAX_LENGTH = 2048
BLOCKS = 80  # of 32 tokens: few more than the longest request needs

# A call as each family's templates write it; Mistral's refuse ids of any other form.
CALLS = {
    "hermes": """{{ '<tool_call>\\n{"name": "' ~ f.name ~ '", "arguments": ' ~ f.arguments | tojson ~ '}\\n</tool_call>' }}""",
    "llama3_json": """{{ '{"name": "' ~ f.name ~ '", "parameters": ' ~ f.arguments | tojson ~ '}<|python_tag|>' }}""",
    "mistral": """{{ '[TOOL_CALLS]' ~ f.name ~ '[ARGS]' ~ f.arguments | tojson }}""",
    "mistral_v3": """{{ '[TOOL_CALLS][{"name": "' ~ f.name ~ '", "arguments": ' ~ f.arguments | tojson ~ '}]' }}""",
    "qwen3_coder": """{{ '<tool_call>\\n<function=' ~ f.name ~ '>\\n' -}}
        {%- for name, value in f.arguments.items() -%}
            {{- '<parameter=' ~ name ~ '>\\n' ~ value ~ '\\n</parameter>\\n' -}}
        {%- endfor -%}
        {{- '</function>\\n</tool_call>' }}""",
}
NINE = """{%- if call.id | length != 9 or not call.id.isalnum() -%}
            {{- raise_exception('a call id has nine letters and digits') -}}
        {%- endif -%}"""
TEMPLATE = """{%%- for tool in tools or [] -%%}{{- tool | tojson ~ '\\n' -}}{%%- endfor -%%}
{%%- for message in messages -%%}
    {{- '<|im_start|>' ~ message.role ~ '\\n' ~ (message.content or '') -}}
    {%%- for call in message.tool_calls or [] -%%}
        {%%- set f = call.function -%%}
        %s
        {{- %s -}}
    {%%- endfor -%%}
    {{- '<|im_end|>\\n' -}}
{%%- endfor -%%}
{{- '<|im_start|>assistant\\n' -}}
{%%- if enable_thinking is defined and not enable_thinking -%%}{{- '<think>\\n\\n</think>\\n\\n' -}}{%%- endif -%%}
"""


def write_model(folder: Path, dialect: str) -> None:
    """Write a model of a dialect's family."""
    folder.mkdir()
    write_demo_model(folder)
    markers = [marker for marker in VOCABULARIES[dialect][0] if marker not in THINKING]
    tokenizer(*markers, *THINKING).backend_tokenizer.save(str(folder / "tokenizer.json"))
    call = CALLS[dialect].removeprefix("{{").removesuffix("}}")
    nine = NINE if dialect.startswith("mistral") else ""
    (folder / "chat_template.jinja").write_text(TEMPLATE % (nine, call), encoding="utf-8")


@contextmanager
def dialect_server(folder: Path, dialect: str, routines: Path, tools: Path, *flags: str) -> Iterator[str]:
    """A server of that dialect's model, which its launcher finds out by itself: its base URL."""
    write_model(folder / "model", dialect)
    (folder / "adapter").mkdir()
    adapter(folder / "adapter")
    options = {
        "model": folder / "model",
        "served-model-name": MODEL,
        "routines": routines,
        "tools": tools,
        "dtype": "bfloat16",
        "max-model-len": MAX_LENGTH,
        "max-num-seqs": 16,
        "gpu-memory-utilization": 0.2,  # on a CPU too: of all memory, while other servers run
        "max-num-batched-tokens": CHUNK,
        "block-size": 32,
        "num-gpu-blocks-override": BLOCKS,
        "reasoning-parser": "qwen3",
        "lora-modules": json.dumps({"name": ADAPTED, "path": str(folder / "adapter")}),
        "max-lora-rank": 8,
    }
    command = [sys.executable, "-m", "routine_grammar.serve"]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    switches = ("--enforce-eager", "--enable-lora", "--enable-prefix-caching", "--enable-prompt-tokens-details")
    with running_server((*command, *switches, *flags)) as base_url:
        yield base_url
