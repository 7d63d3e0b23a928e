"""The vLLM general plugin."""


def register() -> None:
    """Nothing yet."""
