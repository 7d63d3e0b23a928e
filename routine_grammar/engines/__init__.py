"""Adapters to inference engines, one module or folder each. They know grammars, and nothing of Routines."""
