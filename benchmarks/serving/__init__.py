"""`python -m benchmarks serve`: load on servers of OpenAI's API, ours and vLLM's, under the same grammars."""
