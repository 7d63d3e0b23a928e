"""What an engine is told of our grammars: an entry of vLLM's `additional_config`, which reaches all of its processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from routine_grammar.errors import EngineError

ENTRY = "routine_grammar"
DEFAULT_DEVICE_MEMORY = 256 << 20


class Spelling(StrEnum):
    """How forced text may be written: by the tokens that the tokenizer would choose, or by any that spell it."""

    CANONICAL = "canonical"
    ANY = "any"


class GrammarBackend(StrEnum):
    """Who enforces structured requests that are none of ours: vLLM's own backend, ours, or ours where it can."""

    VLLM = "vllm"
    OURS = "ours"
    AUTO = "auto"


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """`drafts`: at most so many forced tokens a request and pass, where vLLM speculates; None: as many as it does.

    `device_memory`: so many bytes of each GPU are for tables of grammars; 0: hosts alone follow them. `device_drafts`: forced
    text is proposed where vLLM's `ngram_gpu` is configured.
    """

    drafts: int | None = None
    spelling: Spelling = Spelling.CANONICAL
    backend: GrammarBackend = GrammarBackend.VLLM
    device_memory: int = DEFAULT_DEVICE_MEMORY
    device_drafts: bool = False

    @classmethod
    def of(cls, vllm_config: Any) -> EngineSettings:
        """The settings in a configuration of vLLM's; raises `EngineError` for what they can't be."""
        config = vllm_config.additional_config
        entry = config.get(ENTRY, {}) if isinstance(config, Mapping) else {}
        where = f"additional_config[{ENTRY!r}]"
        if not isinstance(entry, Mapping):
            raise EngineError(f"{where} is {entry!r:.80}: expected a mapping")
        if unknown := entry.keys() - cls.__slots__:
            raise EngineError(f"{where} has {sorted(unknown)[0]!r:.80}: there are {', '.join(map(repr, cls.__slots__))}")
        drafts = entry.get("drafts")
        if drafts is not None and (not isinstance(drafts, int) or drafts < 0):
            raise EngineError(f"{where}['drafts'] is {drafts!r:.80}: expected a number from 0 on")
        for name, kinds in (("spelling", Spelling), ("backend", GrammarBackend)):
            if name in entry and entry[name] not in list(kinds):
                expected = " or ".join(map(repr, map(str, kinds)))
                raise EngineError(f"{where}[{name!r}] is {entry[name]!r:.80}: expected {expected}")
        memory, on_device = entry.get("device_memory", DEFAULT_DEVICE_MEMORY), entry.get("device_drafts", False)
        if not isinstance(memory, int) or memory < 0:
            raise EngineError(f"{where}['device_memory'] is {memory!r:.80}: expected a number of bytes from 0 on")
        if not isinstance(on_device, bool):
            raise EngineError(f"{where}['device_drafts'] is {on_device!r:.80}: expected true or false")
        spelling, backend = entry.get("spelling", Spelling.CANONICAL), entry.get("backend", GrammarBackend.VLLM)
        return cls(drafts, Spelling(spelling), GrammarBackend(backend), memory, on_device)

    def entry(self) -> dict[str, Any]:
        """What makes these settings, as an entry of `additional_config`."""
        told = {"drafts": self.drafts, "spelling": str(self.spelling), "backend": str(self.backend)}
        return {ENTRY: {**told, "device_memory": self.device_memory, "device_drafts": self.device_drafts}}
