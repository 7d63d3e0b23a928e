"""From a new process to the first mask, step by step: `python -m benchmarks.restart` in a process of its own each time.

In, on standard input: a payload. Out: the milliseconds of each step, as one line of JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from benchmarks.results import Measurement, quantiles

ARM = "routine_grammar"
ROOT = Path(__file__).parents[1]


def measure(payload: str, times: int, *, large: bool, advance: Callable[[str], None]) -> list[Measurement]:
    """Start so many processes, one after the other. `advance` is told of each."""
    found: dict[str, list[float]] = {}
    command = [sys.executable, "-m", "benchmarks.restart", *(["--large"] if large else [])]
    for number in range(times):
        ran = subprocess.run(command, input=payload, capture_output=True, text=True, check=True, cwd=ROOT)
        for step, took in json.loads(ran.stdout.splitlines()[-1]).items():
            found.setdefault(step, []).append(took)
        advance(f"restart {number + 1}")
    return [quantiles("restart", ARM, step, "ms", took) for step, took in found.items()]


def main() -> None:
    """Take the steps, and tell how long each took."""
    payload, took, begin = sys.stdin.read(), dict[str, float](), perf_counter()

    def lap(step: str) -> None:
        nonlocal begin
        took[step] = 1e3 * (perf_counter() - begin)
        begin = perf_counter()

    import torch

    assert torch.__version__
    lap("torch imported")
    from routine_grammar.automaton.automaton import Automaton
    from routine_grammar.grammar.payload import load_program
    from routine_grammar.grammar.usual import usual_terminals
    from routine_grammar.masks.distinct import rows_of
    from routine_grammar.masks.matcher import Matcher
    from routine_grammar.masks.stored import make_ready
    from routine_grammar.masks.vocabulary import Vocabulary
    from routine_grammar.warm_up import warm_up

    lap("our modules imported")
    warm_up()
    lap("machine code loaded")
    from benchmarks.vocabularies import demo_tokenization, largest_tokenization

    given = (largest_tokenization if "--large" in sys.argv else demo_tokenization)().vocabulary
    begin = perf_counter()  # how the tokenizer itself is loaded is not ours
    vocabulary = Vocabulary(given.tokens, given.special, given.eos, given.encode)
    make_ready(vocabulary, usual_terminals())
    lap("rows of the vocabulary read")
    Matcher(rows_of(Automaton(load_program(payload), vocabulary.special), vocabulary)).row()
    lap("first mask")
    print(json.dumps(took))


if __name__ == "__main__":
    main()
