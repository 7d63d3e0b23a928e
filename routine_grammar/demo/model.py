"""The demo model: a small Qwen3-shaped model with random weights, made offline into the user's cache folder.

Out: a folder that transformers and vLLM load. It knows how Qwen3's weights are named, and needs neither torch nor
transformers. Its free text is noise: it shows what a grammar forces out of any model, not what a model can say.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from routine_grammar.demo.tokenizer import END_OF_MESSAGE, END_OF_TEXT, VOCABULARY_SIZE, demo_tokenizer_json
from routine_grammar.errors import EngineError

_SOURCES = ("model.py", "tokenizer.py", "chat_template.jinja")
_SEED = 20250720
_HIDDEN, _INTERMEDIATE, _LAYERS, _HEADS, _KEY_VALUE_HEADS, _HEAD_SIZE = 128, 256, 2, 4, 2, 32
_MAX_POSITIONS = 8192


def demo_model_path(progress: Callable[[str], None] | None = None) -> Path:
    """The demo model's folder under the user's cache folder; made there in under a second if it is not yet.

    The folder's name holds a hash of the recipe, so a new recipe makes a new folder and running servers keep theirs.
    Any number of processes may call this at once. `progress` gets one line when there is something to make. Raises
    `EngineError` where the cache folder can't be written.
    """
    cache = _cache_folder() / "routine_grammar"
    folder = cache / f"demo-model-{_recipe_hash()}"
    if folder.is_dir():
        return folder
    if progress is not None:
        progress(f"making the demo model in {folder}")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        _make_whole(folder)
    except OSError as error:
        raise EngineError(f"can't make the demo model in {folder}: {error} (XDG_CACHE_HOME chooses another place)") from error
    return folder


def write_demo_model(folder: Path) -> None:
    """Write the demo model into an existing folder: configuration, tokenizer, chat template and weights."""
    tokenizer = demo_tokenizer_json()
    token_ids = {token["content"]: token["id"] for token in json.loads(tokenizer)["added_tokens"]}
    template = Path(__file__).with_name("chat_template.jinja").read_bytes()
    (folder / "tokenizer.json").write_bytes(tokenizer)
    (folder / "chat_template.jinja").write_bytes(template)
    _write_json(folder / "tokenizer_config.json", _tokenizer_config())
    _write_json(folder / "config.json", _model_config(token_ids))
    _write_json(folder / "generation_config.json", _generation_config(token_ids))
    (folder / "model.safetensors").write_bytes(_safetensors(dict(_random_weights())))


def _cache_folder() -> Path:
    # The XDG specification says to ignore a relative path.
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return configured if configured.is_absolute() else Path.home() / ".cache"


def _recipe_hash() -> str:
    """Twelve hexadecimal digits over everything that the files depend on."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update(Path(__file__).with_name(name).read_bytes())
    for distribution in ("tokenizers", "numpy"):
        digest.update(f"{distribution} {importlib.metadata.version(distribution)}\n".encode())
    return digest.hexdigest()[:12]


def _make_whole(folder: Path) -> None:
    """Make `folder` appear with all its files at once; the first of several processes wins, the others use its."""
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as parent:
        unfinished = Path(parent) / folder.name
        unfinished.mkdir()
        write_demo_model(unfinished)
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise


def _model_config(token_ids: dict[str, int]) -> dict[str, object]:
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "dtype": "bfloat16",
        "vocab_size": VOCABULARY_SIZE,
        "hidden_size": _HIDDEN,
        "intermediate_size": _INTERMEDIATE,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": _KEY_VALUE_HEADS,
        "head_dim": _HEAD_SIZE,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": _MAX_POSITIONS,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": token_ids[END_OF_MESSAGE],
        "pad_token_id": token_ids[END_OF_TEXT],
    }


def _generation_config(token_ids: dict[str, int]) -> dict[str, object]:
    # Only where to end: a sampling default here would silently become every request's default.
    return {
        "eos_token_id": [token_ids[END_OF_MESSAGE], token_ids[END_OF_TEXT]],
        "pad_token_id": token_ids[END_OF_TEXT],
    }


def _tokenizer_config() -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_MESSAGE,
        "pad_token": END_OF_TEXT,
        "model_max_length": _MAX_POSITIONS,
        "clean_up_tokenization_spaces": False,
    }


def _random_weights() -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Name and values of every tensor that Qwen3 expects, with the spread that Qwen3 starts its training from."""
    # RandomState's stream is frozen by NumPy's policy; that of the newer generators may change with a release.
    generator = np.random.RandomState(_SEED)
    for name, shape in _tensor_shapes():
        if len(shape) == 1:
            yield name, np.ones(shape, dtype=np.float32)
        else:
            yield name, (0.02 * generator.standard_normal(shape)).astype(np.float32)


def _tensor_shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    queries, keys = _HEADS * _HEAD_SIZE, _KEY_VALUE_HEADS * _HEAD_SIZE
    yield "model.embed_tokens.weight", (VOCABULARY_SIZE, _HIDDEN)
    for layer in range(_LAYERS):
        prefix = f"model.layers.{layer}"
        yield f"{prefix}.input_layernorm.weight", (_HIDDEN,)
        yield f"{prefix}.self_attn.q_proj.weight", (queries, _HIDDEN)
        yield f"{prefix}.self_attn.k_proj.weight", (keys, _HIDDEN)
        yield f"{prefix}.self_attn.v_proj.weight", (keys, _HIDDEN)
        yield f"{prefix}.self_attn.o_proj.weight", (_HIDDEN, queries)
        yield f"{prefix}.self_attn.q_norm.weight", (_HEAD_SIZE,)
        yield f"{prefix}.self_attn.k_norm.weight", (_HEAD_SIZE,)
        yield f"{prefix}.post_attention_layernorm.weight", (_HIDDEN,)
        yield f"{prefix}.mlp.gate_proj.weight", (_INTERMEDIATE, _HIDDEN)
        yield f"{prefix}.mlp.up_proj.weight", (_INTERMEDIATE, _HIDDEN)
        yield f"{prefix}.mlp.down_proj.weight", (_HIDDEN, _INTERMEDIATE)
    yield "model.norm.weight", (_HIDDEN,)


def _safetensors(tensors: dict[str, NDArray[np.float32]]) -> bytes:
    """Tensors as a safetensors file of bfloat16: the header's length, the header as JSON, the values.

    Source: the format's description at https://huggingface.co/docs/safetensors.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    contents = [_bfloat16_bytes(values) for values in tensors.values()]
    start = 0
    for (name, values), content in zip(tensors.items(), contents, strict=True):
        end = start + len(content)
        header[name] = {"dtype": "BF16", "shape": list(values.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(contents)


def _bfloat16_bytes(values: NDArray[np.float32]) -> bytes:
    """The upper half of each float32, rounded to the nearest and ties to even; the values must be finite."""
    bits = values.view(np.uint32)
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    return (rounded >> 16).astype("<u2").tobytes()


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
