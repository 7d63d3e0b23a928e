"""vLLM adapter: the general plugin, the backend multiplexer, and every private patch (in patches.py)."""
