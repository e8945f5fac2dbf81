"""A PostgreSQL connection for synchronous tests, with the dialect and driver of the server."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import asyncpg as dialect
from sqlalchemy.util import greenlet_spawn


class _Cursor(dialect.AsyncAdapt_asyncpg_cursor):
    """A cursor that runs the event loop for every statement."""

    def execute(self, operation: Any, parameters: Any = None) -> Any:
        if self._adapt_connection.loop.is_running():
            return super().execute(operation, parameters)
        return self._adapt_connection.run(self._prepare_and_execute(operation, parameters))

    def executemany(self, operation: Any, seq_of_parameters: Any) -> Any:
        return self._adapt_connection.run(self._executemany(operation, seq_of_parameters))


class _Connection(dialect.AsyncAdapt_asyncpg_connection):
    _cursor_cls = _Cursor
    loop: asyncio.AbstractEventLoop

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def close(self) -> None:
        self.run(self._connection.close())

    terminate = close


@contextmanager
def connected(url: str) -> Iterator[sa.Connection]:
    """Open a connection on which every statement is a transaction."""
    loop = asyncio.new_event_loop()
    raw = loop.run_until_complete(asyncpg.connect(url))

    def make() -> _Connection:
        adapted = _Connection(engine.dialect.dbapi, raw)
        adapted.loop = loop
        return adapted

    engine = sa.create_engine(
        "postgresql+asyncpg://", creator=make, poolclass=sa.StaticPool, isolation_level="AUTOCOMMIT"
    )
    connection = loop.run_until_complete(greenlet_spawn(engine.connect))
    yield connection
    connection.close()
    engine.dispose()
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
