"""Grammars that a device follows by itself: vLLM's second model runner masks by tables that lie on it."""
