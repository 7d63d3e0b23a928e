"""Automaton and vocabulary to token rows, and the matcher of one sequence. Knows no engine and no GPU."""
