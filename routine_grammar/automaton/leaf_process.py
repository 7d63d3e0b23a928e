"""Leaf automata compiled in a process of their own, where time and memory have bounds.

outlines-core determinises a pattern whole, and some short patterns need two to the power of their length in states:
`(?:a|b)*a(?:a|b){30}` would take all memory of the process that asks. The process lives on from leaf to leaf.
"""

from __future__ import annotations

import atexit
import os
import pickle
import subprocess
import sys
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from routine_grammar.automaton.leaf import LeafAutomaton, compile_leaf
from routine_grammar.errors import GrammarError, GrammarTooLargeError

MAX_CPU_S = 3
MAX_BYTES = 2 << 30
_MAX_WALL_S = 120  # a process that hangs for another reason than its own work
_PACKAGES = Path(__file__).parents[2]


def compile_leaf_apart(pattern: str) -> LeafAutomaton:
    """`compile_leaf` in the process for it; raises `GrammarTooLargeError` where it needs too much time or memory as well."""
    answer = _LeafProcess.of(os.getpid()).ask(pattern)
    if isinstance(answer, LeafAutomaton):
        return answer
    kind, message = answer
    raise (GrammarTooLargeError if kind == GrammarTooLargeError.__name__ else GrammarError)(message)


class _LeafProcess:
    """The process that compiles leaves for this one, started when it is first asked, and again after it had to end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self._end)

    @classmethod
    @cache
    def of(cls, pid: int) -> _LeafProcess:
        """The one of a process: what is forked has to start its own."""
        return cls()

    def ask(self, pattern: str) -> LeafAutomaton | tuple[str, str]:
        with self._lock:
            process = self._started()
            assert process.stdin
            assert process.stdout
            watch = threading.Timer(_MAX_WALL_S, process.kill)
            watch.start()
            try:
                pickle.dump(pattern, process.stdin)
                process.stdin.flush()
                answer: LeafAutomaton | tuple[str, str] = pickle.load(process.stdout)
                return answer
            except (EOFError, OSError, pickle.UnpicklingError):
                self._end()
                need = f"more than {MAX_CPU_S} s or {MAX_BYTES >> 30} GiB, the bounds"
                return GrammarTooLargeError.__name__, f"pattern {pattern[:200]!r} needs {need}, to be compiled"
            finally:
                watch.cancel()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self._end()
        if self._process is None:
            path = os.pathsep.join(filter(None, (str(_PACKAGES), os.environ.get("PYTHONPATH"))))
            self._process = subprocess.Popen(
                (sys.executable, "-c", f"from {__name__} import serve; serve()"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # an allocation that fails tells of itself there; what is asked tells it better
                env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C is for the process that asks
            )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            for pipe in (process.stdin, process.stdout):
                assert pipe
                with suppress(OSError):
                    pipe.close()
            process.wait()


def serve() -> None:
    """Compile pattern after pattern from standard input until it ends; answers stand on standard output."""
    import resource

    _lower(resource, resource.RLIMIT_AS, MAX_BYTES)
    _lower(resource, resource.RLIMIT_CORE, 0)
    asked, answers = sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            pattern = pickle.load(asked)
        except EOFError:
            return
        usage = resource.getrusage(resource.RUSAGE_SELF)
        _lower(resource, resource.RLIMIT_CPU, int(usage.ru_utime + usage.ru_stime) + 1 + MAX_CPU_S)
        answer: LeafAutomaton | tuple[str, str]
        try:
            answer = compile_leaf(pattern)
        except GrammarError as error:
            answer = type(error).__name__, str(error)
        pickle.dump(answer, answers)
        answers.flush()


def _lower(resource: Any, kind: int, soft: int) -> None:
    """Set a limit, where the machine does not have a lower one."""
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
