"""A model of random weights over a real vocabulary of 131,072 tokens: tekken, as the mistral-common package has it.

Out: a folder that vLLM loads, made once under the user's cache folder. The demo model's shape, with a larger head.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.vocabularies import tekken_file
from routine_grammar.demo.model import demo_model_path
from routine_grammar.engines.vllm.environment import hide_broken_packages
from routine_grammar.masks.vocabulary import byte_stand_ins

NAME = "tekken-131072"
_SPECIAL = {"<unk>": 0, "<s>": 1, "</s>": 2, "<tool_call>": 20, "</tool_call>": 21}
_SEED = 131072


def large_model_path() -> Path:
    """The model's folder; made on first use, in about half a minute. Raises `FileNotFoundError` without mistral-common."""
    demo = demo_model_path()
    folder = demo.parent / f"{demo.name}-{NAME}"
    if not folder.is_dir():
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        _write_model(unfinished, demo)
        unfinished.rename(folder)
    return folder


def _write_model(folder: Path, demo: Path) -> None:
    hide_broken_packages()  # before transformers is imported
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    document = tekken_tokenizer()
    (folder / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    shutil.copy(demo / "chat_template.jinja", folder)
    said = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    shape = json.loads((demo / "config.json").read_text(encoding="utf-8"))
    size = max(document["model"]["vocab"].values()) + 1
    shape |= {"vocab_size": size, "eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0}
    torch.manual_seed(_SEED)
    model = Qwen3ForCausalLM(Qwen3Config(**{k: v for k, v in shape.items() if k not in ("architectures", "model_type")}))
    model.to(torch.bfloat16).save_pretrained(folder)


def tekken_tokenizer() -> dict[str, Any]:
    """The vocabulary as a Hugging Face `tokenizer.json`: byte-level BPE with the merges that its ranks imply."""
    recorded = json.loads(tekken_file().read_text(encoding="utf-8"))
    size, special = (recorded["config"][name] for name in ("default_vocab_size", "default_num_special_tokens"))
    ranks = {base64.b64decode(entry["token_bytes"]): entry["rank"] for entry in recorded["vocab"][: size - special]}
    letters = byte_stand_ins()

    def spelled(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    added = [
        {"id": token, "content": text, "special": not text.endswith("tool_call>"), "normalized": False}
        | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        for text, token in _SPECIAL.items()
    ]
    split = {"type": "Split", "pattern": {"Regex": recorded["config"]["pattern"]}, "behavior": "Isolated", "invert": False}
    bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, bytes_]},
        "decoder": bytes_,
        "model": {
            "type": "BPE",
            "vocab": _SPECIAL | {spelled(token): rank + special for token, rank in ranks.items()},
            "merges": [[spelled(left), spelled(right)] for left, right in merges(ranks)],
        },
    }


def merges(ranks: Mapping[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """The two tokens that each token was merged of, in the order of ranks: what byte-pair encoding below its rank leaves."""
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            parts = _encoded(ranks, token, rank)
            if len(parts) == 2:
                yield parts[0], parts[1]


def _encoded(ranks: Mapping[bytes, int], token: bytes, below: int) -> list[bytes]:
    """A token cut by the merges of lower rank."""
    parts = [token[place : place + 1] for place in range(len(token))]
    while len(parts) > 1:
        joined = [ranks.get(parts[place] + parts[place + 1], below) for place in range(len(parts) - 1)]
        best = min(joined)
        if best >= below:
            break
        place = joined.index(best)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts
