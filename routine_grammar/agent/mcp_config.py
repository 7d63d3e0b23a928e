"""An `mcpServers` file: which MCP servers there are, and how each is started or reached.

In: the usual JSON. Out: one config per server, environment variables filled in. What is wrong is a `ToolError` that names
the file, the server and the field. Secrets (headers, credentials and queries of URLs, variables) are in no message.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from routine_grammar.errors import ToolError
from routine_grammar.routine.documents import read_bytes

MAX_CONFIG_BYTES = 2**20
_STDIO = ("stdio",)
_HTTP = ("http", "streamable-http", "streamableHttp")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-((?:(?!\$\{)[^}])*))?\}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?")
_SECRET_NAME = re.compile(r"key|token|secret|passw|auth|cred|_pat$", re.IGNORECASE)
_SHORTEST_SECRET = 6  # what is shorter would be taken out of innocent words


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """How one server is started. `env` is added to the few variables that the SDK passes on, such as PATH and HOME."""

    name: str
    command: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: str | None = None

    @property
    def command_line(self) -> str:
        """The command with its arguments, as a shell would read it."""
        return shlex.join((self.command, *self.args))

    @property
    def where(self) -> str:
        """What names the server in a message, beside its name."""
        return self.command_line

    def without_secrets(self, text: str) -> str:
        """Return a text for a message, with the values of variables hidden whose names tell that they are secret."""
        return _hidden(text, (value for name, value in self.env.items() if _SECRET_NAME.search(name)))


@dataclass(frozen=True, slots=True)
class HttpServerConfig:
    """Where one server is reached over streamable HTTP, and the headers that every request to it has."""

    name: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        problem = _url_problem(self.url)
        if problem:
            raise ToolError(f"MCP server {self.name!r}, url: {problem}")
        for name, value in self.headers.items():
            if not _HEADER_NAME.fullmatch(name):
                raise ToolError(f"MCP server {self.name!r}, headers: {name[:80]!r} is no name of a header")
            if not _HEADER_VALUE.fullmatch(value):
                raise ToolError(f"MCP server {self.name!r}, headers.{name}: expected printable ASCII, with no space around it")

    @property
    def where(self) -> str:
        """The URL without credentials and query."""
        parts = urlsplit(self.url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()

    def without_secrets(self, text: str) -> str:
        """Return a text for a message, with the headers and what of the URL is secret hidden."""
        return _hidden(text, self._secrets())

    def _secrets(self) -> Iterator[str]:
        parts = urlsplit(self.url)
        yield from (parts.query, parts.password or "", unquote(parts.password or ""))
        yield from (value for _, value in parse_qsl(parts.query))
        for value in self.headers.values():
            yield from (value, *value.split())


AnyServerConfig = ServerConfig | HttpServerConfig


def load_mcp_config(path: str | Path) -> tuple[AnyServerConfig, ...]:
    """Read `{"mcpServers": {name: {"command", "args", "env", "cwd"} or {"url", "headers"}}}`.

    Servers marked "disabled" are left out. A relative `cwd` starts from this process's folder. In the values of `env`,
    `url` and `headers`, `${NAME}` and `${NAME:-default}` are filled in from the environment. Raises `ToolError` naming the
    file, the server and the field; also for any field that this format does not have.
    """
    path = Path(path)
    try:
        document = _ConfigFile.model_validate_json(read_bytes(path, MAX_CONFIG_BYTES))
    except OSError as error:
        raise ToolError(f"{path}: can't be read: {error.strerror or error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ToolError(f"{path}, {where}: {first['msg']}") from None  # pydantic's own message quotes what it got
    except ValueError as error:
        raise ToolError(f"{path}: {error}") from error
    entries = document.mcp_servers.items()
    return tuple(_server_config(path, name, entry) for name, entry in entries if not entry.disabled)


class _ServerEntry(BaseModel):
    """One server in the file. The last three fields are common there, and say nothing to a program without a screen."""

    model_config = ConfigDict(extra="forbid", strict=True)

    command: str | None = Field(default=None, min_length=1)
    args: list[str] = []
    env: dict[str, str] = {}
    cwd: str | None = None
    type: str | None = None
    disabled: bool = False
    url: str | None = None
    headers: dict[str, str] = {}
    description: str | None = None
    auto_approve: list[str] = Field(default=[], alias="autoApprove")
    always_allow: list[str] = Field(default=[], alias="alwaysAllow")


class _ConfigFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    mcp_servers: dict[str, _ServerEntry] = Field(alias="mcpServers")


def _server_config(path: Path, name: str, entry: _ServerEntry) -> AnyServerConfig:
    where = f"{path}, mcpServers.{name}"
    kind = entry.type or ("http" if entry.url is not None else "stdio")
    if kind == "sse":
        raise ToolError(f"{where}.type: MCP's HTTP+SSE transport is deprecated and not supported; expected 'http' or 'stdio'")
    if kind not in (*_STDIO, *_HTTP):
        raise ToolError(f"{where}.type: unknown transport {kind!r}; expected 'stdio' or 'http'")
    reached = kind in _HTTP
    for other in ("command", "args", "env", "cwd") if reached else ("url", "headers"):
        if getattr(entry, other):
            needs = "a server that is reached by a url" if reached else "a server that a command starts"
            raise ToolError(f"{where}.{other}: {needs} has none (type {kind!r})")
    if not reached:
        if entry.command is None:
            raise ToolError(f"{where}.command: missing; expected the program that starts the server, or a url")
        return ServerConfig(name, entry.command, tuple(entry.args), _filled_all(f"{where}.env", entry.env), entry.cwd)
    if entry.url is None:
        raise ToolError(f"{where}.url: missing; expected where the server is reached")
    url, headers = _filled(f"{where}.url", entry.url), _filled_all(f"{where}.headers", entry.headers)
    try:
        return HttpServerConfig(name, url, headers)
    except ToolError as error:
        raise ToolError(f"{path}, {error}") from None


def _filled_all(where: str, values: Mapping[str, str]) -> dict[str, str]:
    return {name: _filled(f"{where}.{name}", value) for name, value in values.items()}


def _filled(where: str, text: str) -> str:
    """The text with its variables filled in; raises `ToolError` that names a missing one, and shows no value."""

    def value(match: re.Match[str]) -> str:
        name, default = match.groups()
        found = os.environ.get(name)
        if default is not None:
            return found or default
        if found is None:
            raise ToolError(f"{where}: the environment variable {name!r} is not set; set it, or write ${{{name}:-default}}")
        return found

    # What a variable holds is not looked into: it may well have a "${" of its own.
    if "${" in _VARIABLE.sub("", text):
        raise ToolError(f"{where}: a '${{' that begins no variable; expected ${{NAME}} or ${{NAME:-default}}")
    return _VARIABLE.sub(value, text)


def _url_problem(url: str) -> str | None:
    try:
        parts: SplitResult | None = urlsplit(url)
        usable = parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # such as a port that is no number
        usable = False
    # urlsplit passes over some of these in silence.
    plain = url.isascii() and url.isprintable() and " " not in url
    return None if usable and plain else "expected an address such as https://example.org/mcp"


def _hidden(text: str, secrets: Iterator[str]) -> str:
    for secret in sorted({each for each in secrets if len(each) >= _SHORTEST_SECRET}, key=len, reverse=True):
        text = text.replace(secret, "…")
    return text
