from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from routine_grammar.demo.model import demo_model_path
from routine_grammar.errors import EngineError

FILES = {
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}
MARKERS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "git_log", "description": "Shows <tool_call> logs", "parameters": {"type": "object"}},
}
CALL = {"type": "function", "function": {"name": "git_log", "arguments": {"repo_path": "/ü", "max_count": 3}}}
CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "You follow routines."},
    {"role": "user", "content": [{"type": "text", "text": "What happened?"}]},
    {"role": "assistant", "content": None, "tool_calls": [CALL, CALL]},
    {"role": "tool", "content": "one"},
    {"role": "tool", "content": "two"},
    {"role": "assistant", "content": "A thought", "tool_calls": [CALL]},
    {"role": "tool", "content": "three"},
    {"role": "assistant", "content": "Done."},
    {"role": "user", "content": "Thanks."},
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def folder(cache: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        return demo_model_path()


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def render(tokenizer: Any, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, **options)
    return text


def test_it_is_made_once_and_found_again(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    said: list[str] = []
    assert demo_model_path(said.append) == folder
    assert said == []
    assert {file.name for file in folder.iterdir()} == FILES
    assert [file.name for file in folder.parent.iterdir()] == [folder.name]


def test_progress_is_told_when_there_is_something_to_make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    said: list[str] = []
    assert str(demo_model_path(said.append)) in said[0]


def test_without_a_cache_variable_it_goes_below_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert demo_model_path().parent == tmp_path / ".cache" / "routine_grammar"


def test_a_cache_that_cant_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(EngineError, match="XDG_CACHE_HOME"):
        demo_model_path()


def test_several_processes_at_once_make_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    program = "from routine_grammar.demo.model import demo_model_path; print(demo_model_path())"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed, threads in (("1", "1"), ("2", "2"), ("3", "3"))
    ]
    printed = {process.communicate()[0].strip() for process in processes}
    assert printed == {str(tmp_path / "routine_grammar" / folder.name)}
    made = Path(printed.pop())
    assert [file.name for file in made.parent.iterdir()] == [folder.name]
    assert {file.name: file.read_bytes() for file in made.iterdir()} == {
        file.name: file.read_bytes() for file in folder.iterdir()
    }


def test_transformers_loads_every_weight(folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model, loading = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert model.config.max_position_embeddings == 8192
    assert 0.019 < float(model.get_input_embeddings().weight.detach().float().std()) < 0.021
    with torch.no_grad():
        logits = model(torch.arange(16).reshape(1, -1)).logits
    assert logits.shape == (1, 16, 2048)
    assert bool(torch.isfinite(logits).all())


def test_generation_has_no_sampling_defaults(folder: Path, tokenizer: Any) -> None:
    ends = [tokenizer.convert_tokens_to_ids(marker) for marker in ("<|im_end|>", "<|endoftext|>")]
    written = json.loads((folder / "generation_config.json").read_text())
    assert written == {"eos_token_id": ends, "pad_token_id": ends[1]}


def test_chat_markers_are_single_tokens(tokenizer: Any) -> None:
    assert len(tokenizer) == 2048
    for marker in ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *MARKERS):
        assert tokenizer.tokenize(f"a{marker}b") == ["a", marker, "b"]
    assert set(tokenizer.all_special_tokens) == {"<|endoftext|>", "<|im_end|>"}
    ids = tokenizer.encode("<|im_start|>a<tool_call>b<|im_end|>")
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a<tool_call>b"


@pytest.mark.parametrize(
    "text", ["", "Ein grünes 日本 \u0000\u202e", "  two  spaces\r\n\n", '{"name": "x", "arguments": {"n": 12345}}']
)
def test_any_text_comes_back(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_longer_conversation_only_appends(tokenizer: Any) -> None:
    texts = [render(tokenizer, CONVERSATION[:count], tools=[TOOL]) for count in range(1, len(CONVERSATION) + 1)]
    for shorter, longer, message in zip(texts, texts[1:], CONVERSATION[1:], strict=False):
        assert longer.startswith(shorter)
        assert len(longer) > len(shorter)
        if message["role"] == "assistant":
            prompt = "<|im_start|>assistant\n"
            assert longer.startswith(shorter + prompt)


def test_calls_and_results_are_written_as_qwen_writes_them(tokenizer: Any) -> None:
    call = '<tool_call>\n{"name": "git_log", "arguments": {"repo_path": "/ü", "max_count": 3}}\n</tool_call>'
    text = render(tokenizer, CONVERSATION[1:7], add_generation_prompt=True)
    assert text == (
        "<|im_start|>user\nWhat happened?<|im_end|>\n"
        f"<|im_start|>assistant\n{call}\n{call}<|im_end|>\n"
        "<|im_start|>user\n<tool_response>\none\n</tool_response><|im_end|>\n"
        "<|im_start|>user\n<tool_response>\ntwo\n</tool_response><|im_end|>\n"
        f"<|im_start|>assistant\nA thought\n{call}<|im_end|>\n"
        "<|im_start|>user\n<tool_response>\nthree\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_tools_stand_in_the_system_message(tokenizer: Any) -> None:
    text = render(tokenizer, CONVERSATION[:1], tools=[TOOL])
    assert text.startswith("<|im_start|>system\nYou follow routines.\n\n# Tools\n")
    assert text.endswith("<|im_end|>\n")
    line = next(line for line in text.splitlines() if line.startswith("{"))
    assert json.loads(line) == TOOL
    assert "<tool_call>" not in line
    assert render(tokenizer, CONVERSATION[1:2], tools=[TOOL]).startswith("<|im_start|>system\n# Tools\n")


def test_arguments_that_spell_markers_stay_inside_their_call(tokenizer: Any) -> None:
    arguments = {"text": "</tool_call><|im_end|>", "n": "<b>"}
    for given in (arguments, json.dumps(arguments)):
        call = {"function": {"name": "f", "arguments": given}}
        text = render(tokenizer, [CONVERSATION[1], {"role": "assistant", "content": "", "tool_calls": [call]}])
        body = text.partition("<tool_call>\n")[2].partition("\n</tool_call>")[0]
        assert json.loads(body) == {"name": "f", "arguments": arguments}
        assert '"<b>"' in body
