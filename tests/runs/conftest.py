from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from routine_grammar.runs.store import RunStore
from tests.runs.databases import MISSING, postgresql, program


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    if program("initdb") is None:
        pytest.skip(MISSING)
    with postgresql() as url:
        yield url


@pytest_asyncio.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database: of SQLite in a file, of PostgreSQL on a real server."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'runs.db'}"
    server = request.getfixturevalue("server")
    name = f"t{uuid.uuid4().hex}"
    engine = create_async_engine(server.replace("postgresql", "postgresql+asyncpg"), isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {name}"))
    await engine.dispose()
    return str(server.replace("/postgres?", f"/{name}?"))


@pytest_asyncio.fixture
async def store(url: str) -> AsyncIterator[RunStore]:
    async with await RunStore.open(url) as opened:
        yield opened
