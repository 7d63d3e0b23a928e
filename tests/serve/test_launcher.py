"""Starts that come to nothing: told apart by exit code and message, and nothing left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from routine_grammar.serve import launcher

SERVE = (sys.executable, "-m", "routine_grammar.serve")


def children(pid: int) -> list[int]:
    """The processes below one, at any remove."""
    found = []
    with suppress(OSError):  # it, or one of its threads, has ended meanwhile
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                for child in map(int, (task / "children").read_text().split()):
                    found += [child, *children(child)]
    return found


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


@pytest.mark.engine
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes as Linux lists them")
def test_a_start_can_be_stopped_and_leaves_no_process() -> None:
    with subprocess.Popen((*SERVE, "--port", "0"), stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr
        below: list[int] = []
        for _ in server.stderr:  # the launcher says every ten seconds that it is starting, vLLM more
            below = children(server.pid)
            if any("EngineCore" in command_of(pid) for pid in below):
                break
        server.send_signal(signal.SIGTERM)
        said = server.stderr.read()
        assert server.wait(60) == 128 + signal.SIGINT
    assert "routine_grammar: stopped" in said
    assert below
    assert not [pid for pid in below if "EngineCore" in command_of(pid)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--routines", "none.yaml"), "--routines needs the tools that they use"),
        (("--routines", "none.yaml", "--tools", "none.json"), "none.yaml"),
        (("--mcp", "none.json"), "none.json"),
        (("--no-such-flag",), "unrecognized arguments: --no-such-flag"),
        (("--mcp", "a.json", "--tools", "b.json"), ""),
        (("--port", "99999"), "argument --port: 99999 is no port"),
        (("--model", "/no/such/folder"), "argument --model: /no/such/folder: no such folder"),
        (("--port", "8000", "a-model"), "give the model 'a-model' before all flags, or as --model"),
    ],
)
def test_what_is_wrong_with_the_arguments_is_told(tmp_path: Path, arguments: Sequence[str], message: str) -> None:
    server = subprocess.run((*SERVE, *arguments), cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert server.returncode == 2
    assert message in server.stderr
    assert "Traceback" not in server.stderr


def test_an_answer_is_awaited_from_the_server_itself_and_from_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert launcher._answers(f"http://127.0.0.1:{server.server_port}/pyproject.toml")
        thread.join()
    assert not launcher._answers(f"http://127.0.0.1:{server.server_port}/")
