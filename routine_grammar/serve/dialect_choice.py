"""The tool-call dialect of a model, by its chat template and its special tokens: what `--tool-call-parser` is by default.

vLLM wants the parser's name among its arguments, before it loads anything: so the model's own files are read here, from its
folder or from Hugging Face's cache. Of a model that is in neither, the name decides, for the families that it names clearly;
nothing is downloaded for this. The parser itself refuses to start with a tokenizer that lacks its tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from routine_grammar.errors import EngineError

_FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")  # where chat templates are
_TOKENS = ("special_tokens_map.json", "added_tokens.json", "tokenizer.json", "tekken.json")
_NAMES = (  # in this order: the first that fits
    (r"qwen3[._-]?coder|qwen-?3\.5|qwen3-next-coder", "qwen3_coder"),
    (r"mistral|mixtral|ministral|devstral|magistral|codestral|pixtral", "mistral"),
    (r"hermes|qwen|qwq", "hermes"),
    (r"llama-?[34]", "llama3_json"),
)


def dialect_of_model(model: str, chat_template: str | None = None) -> str:
    """The name of the tool parser for a model (a folder, or a name on a hub) under a chat template, if one is given.

    Raises `EngineError` where nothing tells it.
    """
    local = Path(model).is_dir()
    files = list(_local(Path(model)) if local else _cached(model))
    templates = [_template(file) for file in files if file.name in _FILES]
    if chat_template is not None:
        templates = [Path(chat_template).read_text(encoding="utf-8") if Path(chat_template).is_file() else chat_template]
    # The template first: Hermes 3 is a Llama by its tokens.
    found = _by_content("\n".join(templates)) or _by_content("\n".join(map(_text, files)))
    if found is None and not local:
        found = next((parser for pattern, parser in _NAMES if re.search(pattern, model.rpartition("/")[2].lower())), None)
    if found is None:
        raise EngineError(
            f"nothing in the model {model!r:.200} tells how it writes tool calls (looked for <function=, [TOOL_CALLS], "
            "<|python_tag|> and <tool_call>): give --tool-call-parser llama3_json, mistral, qwen3_coder or hermes"
        )
    return found


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")


def _template(file: Path) -> str:
    """The chat templates that a file holds."""
    if file.suffix != ".json":
        return _text(file)
    try:
        said = json.loads(_text(file)).get("chat_template")
    except (ValueError, AttributeError):
        return ""
    return said if isinstance(said, str) else json.dumps(said)


def _by_content(text: str) -> str | None:
    """What the texts of a model's files say."""
    if "<tool_call>" in text and "<function=" in text:
        return "qwen3_coder"
    for marker, parser in (("[TOOL_CALLS]", "mistral"), ("<|python_tag|>", "llama3_json"), ("<tool_call>", "hermes")):
        if marker in text:
            return parser
    return None


def _local(folder: Path) -> Iterable[Path]:
    """A model's files in its folder."""
    yield from (file for name in (*_FILES, *_TOKENS) if (file := folder / name).is_file())


def _cached(model: str) -> Iterable[Path]:
    """A model's files in Hugging Face's cache."""
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        return
    for name in (*_FILES, *_TOKENS):
        try:
            path = try_to_load_from_cache(model, name)
        except HFValidationError:  # no name of a hub's
            return
        if isinstance(path, str):
            yield Path(path)
