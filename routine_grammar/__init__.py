"""Routines compiled to grammars that an LLM decodes under, token by token."""
