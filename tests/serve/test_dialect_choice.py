"""The tool parser that a server takes by default, read off the model's files."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from routine_grammar.demo.model import demo_model_path
from routine_grammar.errors import EngineError
from routine_grammar.serve import launcher
from routine_grammar.serve.dialect_choice import dialect_of_model

TAGGED = "{{ '<tool_call>\\n' }}{% for t in tools %}...{% endfor %}</tool_call>"
CODER = "<tool_call>\n<function=example>\n<parameter=a>\n"


def model(folder: Path, template: str | None = None, tokens: tuple[str, ...] = (), **files: Any) -> str:
    config: dict[str, Any] = {"added_tokens_decoder": {str(n): {"content": token} for n, token in enumerate(tokens)}}
    if template is not None:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content, encoding="utf-8")
    return str(folder)


@pytest.mark.parametrize(
    ("template", "tokens", "dialect"),
    [
        (CODER, ("<tool_call>",), "qwen3_coder"),
        (TAGGED, ("<tool_call>", "</tool_call>"), "hermes"),
        (TAGGED, ("<|python_tag|>",), "hermes"),  # Hermes 3: a Llama by its tokens
        (None, ("<tool_call>",), "hermes"),
        ("{{ '[TOOL_CALLS]' }}", (), "mistral"),
        (None, ("[TOOL_CALLS]", "[ARGS]"), "mistral"),
        ("no calls", ("<|python_tag|>",), "llama3_json"),
        ([{"name": "default", "template": "x"}, {"name": "tool_use", "template": TAGGED}], (), "hermes"),
    ],
)
def test_template_and_tokens_tell(tmp_path: Path, template: Any, tokens: tuple[str, ...], dialect: str) -> None:
    assert dialect_of_model(model(tmp_path, template, tokens)) == dialect


def test_all_files_of_a_folder_are_read(tmp_path: Path) -> None:
    assert dialect_of_model(model(tmp_path, chat_template__jinja=CODER)) == "qwen3_coder"
    (tmp_path / "chat_template.jinja").unlink()
    assert dialect_of_model(model(tmp_path, tekken__json='{"special_tokens": [{"token_str": "[TOOL_CALLS]"}]}')) == "mistral"


def test_a_template_that_is_given_is_the_one_that_counts(tmp_path: Path) -> None:
    folder = model(tmp_path, CODER, ("<tool_call>",))
    (tmp_path / "own.jinja").write_text(TAGGED, encoding="utf-8")
    assert dialect_of_model(folder, str(tmp_path / "own.jinja")) == "hermes"


def test_a_model_that_says_nothing_asks_for_the_flag(tmp_path: Path) -> None:
    for name in (model(tmp_path, "no calls"), "somebody/unheard-of", "/no/such/folder"):
        with pytest.raises(EngineError, match="give --tool-call-parser llama3_json, mistral, qwen3_coder or hermes"):
            dialect_of_model(name)


@pytest.mark.parametrize(
    ("name", "dialect"),
    [
        ("Qwen/Qwen3-Coder-30B-A3B-Instruct", "qwen3_coder"),
        ("Qwen/Qwen2.5-7B-Instruct", "hermes"),
        ("NousResearch/Hermes-3-Llama-3.1-8B", "hermes"),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama3_json"),
        ("mistralai/Mistral-Small-3.2-24B-Instruct-2506", "mistral"),
    ],
)
def test_without_files_well_known_names_tell(name: str, dialect: str) -> None:
    assert dialect_of_model(name) == dialect


def own(**flags: Any) -> argparse.Namespace:
    names = ("model", "config", "tokenizer", "chat_template")
    return argparse.Namespace(**{name: flags.get(name) for name in names})


def test_the_launcher_takes_the_models_own(tmp_path: Path) -> None:
    folder = model(tmp_path, CODER)
    assert launcher._dialect(own()) == "hermes"  # the demo model's
    assert dialect_of_model(str(demo_model_path())) == "hermes"
    assert launcher._dialect(own(model=folder)) == "qwen3_coder"
    config = tmp_path / "flags.yaml"
    config.write_text(f"model: {folder}\n")
    assert launcher._dialect(own(config=str(config))) == "qwen3_coder"
    config.write_text(f"model: {folder}\ntool-call-parser: mistral\n")
    assert launcher._dialect(own(config=str(config))) == "mistral"
