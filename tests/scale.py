"""How large the drills are: `make drill` runs the same tests with 20 times as many examples."""

from __future__ import annotations

import os

SCALE = 20 if os.environ.get("ROUTINE_GRAMMAR_DRILL") else 1
