"""The agent side: MCP tools, variable memory, and the loop that executes a Routine against any OpenAI-compatible server."""
