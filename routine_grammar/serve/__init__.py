"""The server: a launcher for vLLM's OpenAI server, and our HTTP routes."""
