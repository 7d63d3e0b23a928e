"""The examples of the README and of the docs run, and say what is said they say."""

from __future__ import annotations

import doctest
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = [file.read_text(encoding="utf-8") for file in sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```$", "\n".join((README, *DOCS)), re.DOTALL | re.MULTILINE)
    assert found
    return found


@pytest.mark.parametrize("block", blocks("pycon"))
def test_python_examples(block: str) -> None:
    test = doctest.DocTestParser().get_doctest(block, {}, "README.md", "README.md", 0)
    told: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=told.append)
    assert not told, "".join(told)


@pytest.mark.parametrize("block", blocks("console"))
def test_console_examples(block: str) -> None:
    command, _, expected = block.partition("\n")
    words = shlex.split(command.removeprefix("$ "))
    assert words[0] == "python"
    ran = subprocess.run([sys.executable, *words[1:]], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ran.stdout == expected, ran.stderr


@pytest.mark.server
@pytest.mark.parametrize("block", blocks("bash"))
def test_the_request_to_paste(block: str, base_url: str) -> None:
    words = shlex.split(block)
    assert words[0] == "curl"
    body = words[words.index("-d") + 1]
    answer = httpx.post(f"{base_url}/chat/completions", content=body, headers={"Content-Type": "application/json"}, timeout=60)
    assert answer.json()["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "git_status"


@pytest.mark.server
@pytest.mark.filterwarnings("ignore")
def test_the_clients(base_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for block in blocks("python"):
        exec(compile(block.replace("http://127.0.0.1:8000/v1", base_url), "docs/clients.md", "exec"), names)
    assert names["chat"].graph.routine.name == "meeting_times"
    assert [call.step.id for call in names["calls"]] == ["1"]
    assert '{"timezone": "memory_input_' in capsys.readouterr().out
    assert names["call"]["name"] == "convert_time"


@pytest.mark.parametrize("block", blocks("yaml"))
def test_routines_shown_are_those_of_the_examples(block: str) -> None:
    name = block.partition("\n")[0].removeprefix("name: ")
    assert (ROOT / "docs" / "examples" / f"{name}.yaml").read_text(encoding="utf-8") == block


def test_it_is_short_enough_to_be_read() -> None:
    assert len(README.splitlines()) <= 150
