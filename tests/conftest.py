"""Fixtures shared by all tests: the demo's Routines and tools, one real vLLM engine and one real server a session."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from routine_grammar import Vocabulary, compile_routine
from routine_grammar.api import CompiledRoutine
from routine_grammar.demo.catalogue import demo_routines, demo_tools
from routine_grammar.engines.vllm.environment import hide_broken_packages
from routine_grammar.jit import builds
from routine_grammar.warm_up import warm_up
from tests.compatibility import record
from tests.scale import SCALE
from tests.servers import ONE_CORE, running_server

if TYPE_CHECKING:
    from vllm import LLM

# The tests are the same each time, so that a change is judged by itself; the drills look for what nobody has seen yet.
settings.register_profile("routine_grammar", derandomize=SCALE == 1)
settings.load_profile("routine_grammar")

# Before any test imports transformers, which asks once what is installed: as the launcher does for its own process.
hide_broken_packages()

# vLLM binds every engine to the same core; of several processes that run tests each has one of its own.
if worker := os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw"):
    cores = sorted(os.sched_getaffinity(0))
    os.environ.setdefault(ONE_CORE, str(cores[int(worker) % len(cores)]))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-compatibility", action="store_true", help="write docs/compatibility.md by what its tests say")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with files that start engines or servers: they take longest, and workers are to end together."""
    long = {item.path for item in items if item.get_closest_marker("engine") or item.get_closest_marker("server")}
    items.sort(key=lambda item: item.path not in long)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    record(item, report)
    return report


@pytest.fixture(scope="session")
def demo() -> dict[str, CompiledRoutine]:
    """The demo Routines, compiled."""
    return {routine.name: compile_routine(routine, demo_tools()) for routine in demo_routines()}


@pytest.fixture(scope="session")
def engine() -> Iterator[LLM]:
    """A real vLLM engine in this process, with the demo model."""
    from routine_grammar.demo.model import demo_model_path
    from routine_grammar.engines.vllm.environment import prepare

    model = str(demo_model_path())
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        environment.setenv("VLLM_LOGGING_LEVEL", "ERROR")
        before = dict(os.environ)
        prepare(model, demo=True)
        from vllm import LLM

        llm = LLM(model, enforce_eager=True, max_model_len=4096, max_num_seqs=32, dtype="bfloat16", seed=0)
        yield llm
        for name in os.environ.keys() - before.keys():
            environment.delenv(name)


@pytest.fixture(scope="session")
def vocabulary(engine: LLM) -> Vocabulary:
    """The demo model's vocabulary."""
    return Vocabulary.from_tokenizer(engine.get_tokenizer())


@pytest.fixture(scope="session")
def base_url() -> Iterator[str]:
    """A real server process with the demo model: its base URL, `…/v1`."""
    with running_server() as url:
        yield url


@pytest.fixture(autouse=True, scope="module")
def _all_machine_code_is_made_ahead() -> Iterator[None]:
    """Nothing that tests do compiles what `warm_up` has not: so no request waits for a compiler."""
    warm_up()
    before = builds()
    yield
    assert {name: number for name, number in builds().items() if number != before.get(name, 0)} == {}
