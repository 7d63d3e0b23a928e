"""The database of runs: its tables, and how SQLite and PostgreSQL are opened. Knows no Routine.

In: a URL of SQLAlchemy's. Out: an engine whose transactions are durable when they end, on tables of this version. Anything that
is wrong with a database is a `JournalError` that names it, without its password.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Float,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    event,
    insert,
    literal_column,
    select,
    text,
)
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from routine_grammar.errors import JournalError

VERSION = 1
CONNECTIONS = 10
WAIT_S = 120.0
_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
_LOCK = 0x726F7574  # of PostgreSQL, held while tables are made
_NOW = {
    "sqlite": "((julianday('now') - 2440587.5) * 86400.0)",
    "postgresql": "extract(epoch from clock_timestamp())::double precision",
}

metadata = MetaData()
# JSON is kept as text: PostgreSQL's own type has neither U+0000 nor lone surrogates, and nothing here looks into it.
about_table = Table("routine_grammar", metadata, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))
runs_table = Table(
    "runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("routine", Text, nullable=False),
    Column("about", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("position", Text, nullable=False),
    Column("ended", Text),
    Column("wish", Text, nullable=False, default=""),
    Column("events", Integer, nullable=False, default=0),
    Column("created", Float(53), nullable=False),
    Column("updated", Float(53), nullable=False),
    Column("worker", Text, nullable=False, default=""),
    Column("leased_until", Float(53), nullable=False, default=0.0),
    Index("runs_by_owner", "owner", "created"),
    Index("runs_to_take", "status", "leased_until"),
)
events_table = Table(
    "run_events",
    metadata,
    Column("run", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("at", Float(53), nullable=False),
    Column("document", Text, nullable=False),
)
values_table = Table(
    "run_values",
    metadata,
    Column("run", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("place", BigInteger, nullable=False),
    Column("chars", BigInteger, nullable=False),
    Column("type", Text),
    Column("value", Text, nullable=False),
)


async def open_database(url: str) -> AsyncEngine:
    """Open a database by its URL, such as `sqlite:///runs.db` or `postgresql://user@host/name`, and make its tables.

    Raises `JournalError` where it can't be opened or is of another version.
    """
    engine = _engine(url)
    try:
        await _make_tables(engine)
    except (SQLAlchemyError, OSError) as error:
        await engine.dispose()
        raise JournalError(f"{shown(engine)}: can't be used: {_cause(error)}") from error
    except JournalError:
        await engine.dispose()
        raise
    return engine


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction: what it writes is durable when it ends; raises `JournalError` where the database fails."""
    try:
        async with engine.begin() as connection:
            yield connection
    except (SQLAlchemyError, OSError) as error:
        raise JournalError(f"{shown(engine)}: {_cause(error)}") from error


def now(engine: AsyncEngine) -> ColumnElement[float]:
    """The time in seconds by the database's clock, which all of its clients share."""
    return literal_column(_NOW[engine.dialect.name], Float(53))


def shown(engine: AsyncEngine) -> str:
    """The database for a message."""
    return engine.url.render_as_string(hide_password=True)


def to_json(value: Any) -> str:
    """JSON text that any database keeps as it is."""
    whole = json.dumps(value, ensure_ascii=False)
    try:
        whole.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return json.dumps(value)
    return whole


def _engine(url: str) -> AsyncEngine:
    scheme, rest, address = url.partition("://")
    options: dict[str, Any] = {"pool_size": CONNECTIONS, "max_overflow": 0, "pool_timeout": WAIT_S}
    if scheme.partition("+")[0] == "sqlite":
        options["pool_size"] = 1  # it has one writer
        options["connect_args"] = {"timeout": WAIT_S}
    try:
        engine = create_async_engine(_DRIVERS.get(scheme, scheme) + rest + address, **options)
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise JournalError(f"{scheme[:40]!r} is no database: {error}; expected sqlite:///FILE or postgresql://…") from error
    except ModuleNotFoundError as error:
        raise JournalError(
            f"{scheme}: the package {error.name!r} is missing: pip install 'routine_grammar[postgresql]'"
        ) from error
    if engine.dialect.name not in _NOW:
        raise JournalError(f"{engine.dialect.name} databases are not supported; expected sqlite or postgresql")
    if engine.dialect.name == "sqlite":
        _set_up_sqlite(engine)
    return engine


def _set_up_sqlite(engine: AsyncEngine) -> None:
    """Have transactions begin where we say so and be on the disk when they end."""

    @event.listens_for(engine.sync_engine, "connect")
    def connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # else the driver begins transactions by itself, and later
        for setting in ("journal_mode=WAL", "synchronous=FULL"):
            cursor = connection.cursor()
            cursor.execute(f"PRAGMA {setting}")
            cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


async def _make_tables(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        await connection.run_sync(metadata.create_all)
        found = await connection.scalar(select(about_table.c.value).where(about_table.c.name == "version"))
        if found is None:
            await connection.execute(insert(about_table).values(name="version", value=str(VERSION)))
        elif found != str(VERSION):
            raise JournalError(f"{shown(engine)}: its tables are of version {found}; expected {VERSION}")


def _cause(error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    return " ".join(str(cause).split())[:300] or type(cause).__name__
