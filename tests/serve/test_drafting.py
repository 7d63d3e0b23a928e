"""The launcher's flags for drafts: what they make of vLLM's, and what they can't be beside."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from routine_grammar.demo.model import demo_model_path
from routine_grammar.engines.vllm.drafts import (
    DEFAULT_DRAFTS,
    device_speculative_config,
    drafts_on_device,
    most_drafts,
    speculative_config,
)
from routine_grammar.engines.vllm.settings import EngineSettings, Spelling
from routine_grammar.errors import EngineError
from routine_grammar.serve import drafting
from routine_grammar.serve.drafting import add_flags
from routine_grammar.serve.launcher import _keeps_state


def parsed(*flags: str, **vllm: Any) -> Namespace:
    """The flags, beside what vLLM's own are by default or given."""
    parser = ArgumentParser()
    add_flags(parser)
    names = "speculative_config spec_method spec_model spec_tokens additional_config logits_processors async_scheduling"
    names += " enable_lora max_num_seqs max_num_batched_tokens tensor_parallel_size pipeline_parallel_size"
    return parser.parse_args(flags, Namespace(**{**dict.fromkeys(names.split()), "runner": "auto", **vllm}))


def apply_flags(args: Namespace, *, on_cpu: bool, keeps_state: bool = False) -> str | None:
    return drafting.apply_flags(args, on_cpu=on_cpu, keeps_state=lambda: keeps_state)


def engine(args: Namespace, async_scheduling: bool = False, **more: Any) -> Any:
    """An engine's configuration as the flags have it."""
    given = args.speculative_config
    default = {
        "use_v2_model_runner": False,
        "parallel_config": SimpleNamespace(pipeline_parallel_size=1),
        "device_config": SimpleNamespace(device_type="cpu"),
        "model_config": SimpleNamespace(has_inner_state=False),
    }
    return SimpleNamespace(
        **{**default, **more},
        speculative_config=SimpleNamespace(**{"model": None, **given}) if given else None,
        scheduler_config=SimpleNamespace(async_scheduling=async_scheduling),
        additional_config=args.additional_config,
    )


@pytest.mark.parametrize(
    ("flags", "on_cpu", "drafts"), [((), True, DEFAULT_DRAFTS), ((), False, 0), (("4",), False, 4), (("0",), True, 0)]
)
def test_forced_text_is_drafted_on_cpus_or_where_asked_for(
    flags: tuple[str, ...], on_cpu: bool, drafts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drafting, "has_second_runner", lambda: False)
    args = parsed(*(part for value in flags for part in ("--routine-drafts", value)))
    assert apply_flags(args, on_cpu=on_cpu) is None
    assert args.speculative_config == (speculative_config(drafts) if drafts else None)
    assert most_drafts(engine(args)) == drafts
    assert most_drafts(engine(args, async_scheduling=True)) == 0


def test_gpus_draft_by_themselves_where_their_runner_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafting, "has_second_runner", lambda: True)
    args = parsed("--routine-drafts", "4", "--grammar-device-memory", "64", async_scheduling=True)
    assert apply_flags(args, on_cpu=False) is None
    assert args.speculative_config == device_speculative_config(4)
    model = SimpleNamespace(has_inner_state=False, runner_type="generate", skip_tokenizer_init=False)
    second = engine(args, async_scheduling=True, use_v2_model_runner=True, model_config=model)
    assert (drafts_on_device(second), most_drafts(second)) == (True, 0)
    assert EngineSettings.of(second).device_memory == 64 << 20
    with pytest.raises(EngineError, match="it takes vLLM's second model runner"):
        most_drafts(engine(args))
    args = parsed("--routine-drafts", "4", "--grammar-device-memory", "0")
    assert apply_flags(args, on_cpu=False) is None
    assert (args.speculative_config, most_drafts(engine(args))) == (speculative_config(4), 4)
    with pytest.raises(EngineError, match="--grammar-device-memory: -1: expected MiB from 0 on"):
        apply_flags(parsed("--grammar-device-memory", "-1"), on_cpu=False)


def test_ours_and_a_users_own_speculation() -> None:
    ngram = {"method": "ngram", "num_speculative_tokens": 5}
    args = parsed(speculative_config=dict(ngram))
    assert apply_flags(args, on_cpu=True) is None
    assert (args.speculative_config, most_drafts(engine(args))) == (ngram, 5)
    args = parsed("--routine-drafts", "3", speculative_config=dict(ngram))
    assert apply_flags(args, on_cpu=True) is None
    assert most_drafts(engine(args)) == 3
    args = parsed("--routine-drafts", "0", speculative_config=dict(ngram))
    assert apply_flags(args, on_cpu=True) is None
    assert most_drafts(engine(args)) == 0


@pytest.mark.parametrize(
    ("vllm", "drafts"),
    [
        ({}, 15),
        ({"max_num_seqs": 64}, DEFAULT_DRAFTS),
        ({"max_num_seqs": 16, "max_num_batched_tokens": 128}, 7),
        ({"max_num_seqs": 64, "max_num_batched_tokens": 64}, 0),
    ],
)
def test_beside_lora_there_are_as_many_drafts_as_vllm_takes(vllm: dict[str, Any], drafts: int) -> None:
    args = parsed(enable_lora=True, **vllm)
    said = apply_flags(args, on_cpu=True)
    fewer = f"drafted by {drafts} tokens a pass, and not {DEFAULT_DRAFTS}, beside LoRA"
    assert said is None if drafts == DEFAULT_DRAFTS else fewer in str(said)
    assert args.speculative_config == (speculative_config(drafts) if drafts else None)
    with pytest.raises(EngineError, match=r"--routine-drafts: 128: at most \d+ beside LoRA"):
        apply_flags(parsed("--routine-drafts", "128", enable_lora=True, **vllm), on_cpu=True)


def test_less_speculation_than_drafts_asked_for_is_told() -> None:
    args = parsed("--routine-drafts", "16", speculative_config={"method": "ngram", "num_speculative_tokens": 5})
    assert "by 5 tokens a pass, and not 16" in str(apply_flags(args, on_cpu=True))


def test_our_own_speculative_configuration_is_taken_as_ours() -> None:
    args = parsed(speculative_config=speculative_config(5))
    assert apply_flags(args, on_cpu=False) is None
    assert (args.speculative_config, most_drafts(engine(args))) == (speculative_config(5), 5)


@pytest.mark.parametrize(
    ("vllm", "obstacle"),
    [
        ({"speculative_config": {"num_speculative_tokens": 3}}, "'no method'"),
        ({"spec_tokens": 3}, "'no method'"),
        ({"speculative_config": {"method": "eagle3", "model": "m"}}, "speculation by 'eagle3' can't be replaced"),
        ({"speculative_config": {"model": "a-draft-model"}}, "speculation by 'a-draft-model' can't be replaced"),
        ({"spec_method": "mtp"}, "speculation by 'mtp'"),
        ({"spec_model": "a-draft-model"}, "speculation by 'a-draft-model'"),
        ({"logits_processors": ["mine:Processor"]}, "logits processors of one's own"),
        ({"async_scheduling": True}, "--async-scheduling"),
        ({"runner": "pooling"}, "a pooling model decodes nothing"),
        ({"pipeline_parallel_size": 2}, "the stages of a pipeline"),
        (
            {"pipeline_parallel_size": 2, "speculative_config": {"method": "ngram", "num_speculative_tokens": 5}},
            "the stages of a pipeline",
        ),
    ],
)
def test_what_vllm_cannot_verify_is_refused_or_told(vllm: dict[str, Any], obstacle: str) -> None:
    args = parsed(**vllm)
    said = apply_flags(args, on_cpu=True)
    assert said is not None
    assert said.startswith("forced text is not drafted: ")
    assert obstacle in said
    assert args.speculative_config == vllm.get("speculative_config")
    with pytest.raises(EngineError, match=obstacle):
        apply_flags(parsed("--routine-drafts", "4", **vllm), on_cpu=True)
    assert apply_flags(parsed("--routine-drafts", "0", **vllm), on_cpu=True) is None


@pytest.mark.parametrize("number", ["-1", "129"])
def test_numbers_out_of_bounds_are_refused(number: str) -> None:
    with pytest.raises(EngineError, match=f"--routine-drafts: {number}: expected 0 to 128"):
        apply_flags(parsed(f"--routine-drafts={number}"), on_cpu=True)


def test_settings_travel_in_the_additional_configuration() -> None:
    args = parsed("--routine-spelling", "any", additional_config={"other": 1})
    apply_flags(args, on_cpu=True)
    assert args.additional_config["other"] == 1
    assert EngineSettings.of(engine(args)) == EngineSettings(DEFAULT_DRAFTS, Spelling.ANY)
    with pytest.raises(EngineError, match="additional-config has 'routine_grammar'"):
        apply_flags(parsed(additional_config={"routine_grammar": {}}), on_cpu=True)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (3, "is 3: expected a mapping"),
        ({"draft": 3}, "has 'draft': there are 'drafts', 'spelling'"),
        ({"drafts": -1}, r"\['drafts'\] is -1"),
        ({"spelling": "free"}, r"\['spelling'\] is 'free': expected 'canonical' or 'any'"),
    ],
)
def test_settings_that_cannot_be_are_refused(entry: Any, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        EngineSettings.of(SimpleNamespace(additional_config={"routine_grammar": entry}))


def test_without_an_entry_settings_are_the_default() -> None:
    assert EngineSettings.of(SimpleNamespace(additional_config={})) == EngineSettings()
    assert EngineSettings.of(SimpleNamespace(additional_config=object())).spelling is Spelling.CANONICAL


def test_models_that_keep_a_state_are_not_drafted_on_cpus() -> None:
    args = parsed()
    assert "models that keep one" in str(apply_flags(args, on_cpu=True, keeps_state=True))
    assert (args.speculative_config, most_drafts(engine(args))) == (None, 0)
    ngram = {"method": "ngram", "num_speculative_tokens": 5}
    args = parsed(speculative_config=dict(ngram))
    assert "models that keep one" in str(apply_flags(args, on_cpu=True, keeps_state=True))
    assert (args.speculative_config, EngineSettings.of(engine(args)).drafts) == (ngram, 0)
    with pytest.raises(EngineError, match="--routine-drafts: on CPUs, vLLM loses the state"):
        apply_flags(parsed("--routine-drafts", "4"), on_cpu=True, keeps_state=True)
    assert apply_flags(parsed("--routine-drafts", "4"), on_cpu=False, keeps_state=True) is None


def test_engines_that_are_made_without_the_launcher_refuse_what_it_does() -> None:
    args = parsed("--routine-drafts", "4")
    apply_flags(args, on_cpu=True)
    stateful = SimpleNamespace(has_inner_state=True)
    with pytest.raises(EngineError, match="on CPUs, vLLM loses the state"):
        most_drafts(engine(args, model_config=stateful))
    assert most_drafts(engine(args, model_config=stateful, device_config=SimpleNamespace(device_type="cuda"))) == 4
    with pytest.raises(EngineError, match="the stages of a pipeline"):
        most_drafts(engine(args, parallel_config=SimpleNamespace(pipeline_parallel_size=2)))
    assert most_drafts(engine(args, use_v2_model_runner=True)) == 0


@pytest.mark.engine
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "keeps"), [({"architectures": ["Mamba2ForCausalLM"], "model_type": "mamba2"}, True), (None, False)]
)
def test_vllm_tells_whether_a_model_keeps_a_state(kind: dict[str, Any] | None, keeps: bool, tmp_path: Path) -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    (tmp_path / "config.json").write_text(json.dumps(kind))
    model = demo_model_path() if kind is None else tmp_path
    args = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser()).parse_args(["--model", str(model)])
    assert _keeps_state(args) is keeps
    args.model = str(tmp_path / "none")
    assert _keeps_state(args) is False
