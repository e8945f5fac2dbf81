"""The database of an emitter with an outbox."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from tests.postgres import PostgresServer, name_of

from uplift_server.store.postgres.emitter_outbox import SQL

INSERT = """
INSERT INTO uplift_outbox (account, type, data, ordering_key, expires_at)
VALUES ($1, $2, $3, $4, $5::text::timestamptz) RETURNING id
"""


def new_outbox(server: PostgresServer) -> str:
    """Return the URL of a new database with an empty outbox."""
    url = server.new_database(empty=True)
    server.execute(SQL, name_of(url))
    return url


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Connect to a database."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def insert(
    connection: asyncpg.Connection,
    data: str = "{}",
    *,
    key: str | None = None,
    account: str = "acc_1",
    event_type: str = "test.numbered",
    expires_at: str | None = None,
) -> str:
    """Insert a row. Return its ID."""
    return str(await connection.fetchval(INSERT, account, event_type, data, key, expires_at))


async def rows(connection: asyncpg.Connection) -> list[Any]:
    """Return all rows, in the order of their positions."""
    found: list[Any] = await connection.fetch("SELECT * FROM uplift_outbox ORDER BY position")
    return found
