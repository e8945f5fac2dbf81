"""Slow statements in PostgreSQL, so that transactions of a test overlap."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from uplift_server.store.postgres.connection import Opener


@asynccontextmanager
async def slow_statements(url: str, *statements: str, seconds: float = 0.3) -> AsyncIterator[None]:
    """Delay statements such as `INSERT ON members` before they change rows."""
    raw = await Opener(url).raw()
    await raw.execute(
        "CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END $$"
    )
    try:
        for number, statement in enumerate(statements):
            await raw.execute(f"CREATE TRIGGER pause_{number} BEFORE {statement} EXECUTE FUNCTION pause()")
        yield
    finally:
        await raw.execute("DROP FUNCTION pause CASCADE")
        await raw.close()
