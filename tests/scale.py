"""How large the drills are: `make drill` runs the same tests with ten times as many examples.

Real engines are slow: a test in one may be scaled by less, or have a number of its own.
"""

from __future__ import annotations

import os

SCALE = 10 if os.environ.get("ROUTINE_GRAMMAR_DRILL") else 1
ENGINE_SCALE = min(SCALE, 5)
