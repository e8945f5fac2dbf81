"""The message bus on PostgreSQL: a separate connection for heartbeats and notifications."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import structlog
from sqlalchemy import Connection

from uplift_server.store.errors import Unavailable
from uplift_server.store.postgres.connection import (
    DRIVER_ERRORS,
    ConnectionTimeout,
    Opener,
    Pair,
    Raw,
    is_retryable,
    store_error,
)
from uplift_server.store.schema_processes import CHANNEL

R = TypeVar("R")
_log = structlog.get_logger()

OPERATION_SECONDS_MAX: Final = 2.0
"""Timeout for an operation, and for opening the connection, in seconds.

A heartbeat that takes longer would be too late.
"""
RETRIES_MAX: Final = 3
REMEDY_NOTIFICATIONS: Final = "set UPLIFT_DATABASE_DIRECT_URL to the URL of the database without the pooler"


def new_message_bus(url: str) -> "PostgresMessageBus":
    """Return a message bus for a database. Through a pooler, the bus can send but not receive notifications."""
    return PostgresMessageBus(Opener(url))


class PostgresMessageBus:
    """The message bus on PostgreSQL. It connects on first use, and again after an error."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._pair: Pair | None = None
        self._listens = False
        """Whether the current connection receives notifications."""
        self._has_logged = False
        self._turn = asyncio.Lock()
        self._receive: Callable[[str], None] | None = None

    def listen(self, receive: Callable[[str], None]) -> None:
        """Pass all future messages to `receive`, including messages from this process. Messages can be lost."""
        self._receive = receive

    async def write(self, body: Callable[[Connection], R]) -> R:
        """Run a function in a transaction on the bus's connection, so that it does not wait for other writes.

        Raises Unavailable.
        """

        async def write(pair: Pair) -> R:
            async with pair.transaction():
                return await pair.sql.run_sync(body)

        return await self._run(write)

    async def publish(self, texts: Sequence[str]) -> None:
        """Send messages to all processes on this database. Raises Unavailable."""

        async def publish(pair: Pair) -> None:
            async with pair.statement_scope():
                await pair.raw.execute("SELECT pg_notify($1, text) FROM unnest($2::text[]) text", CHANNEL, list(texts))

        await self._run(publish)

    async def close(self) -> None:
        """Disconnect from the database."""
        async with self._turn:
            await self._drop()

    async def _run(self, work: Callable[[Pair], Awaitable[R]]) -> R:
        async with self._turn:
            for repeats in range(RETRIES_MAX + 1):
                try:
                    return await self._run_in_time(work)
                except DRIVER_ERRORS as error:
                    if self._pair is not None and not self._pair.is_clean:
                        await self._drop()
                    if not is_retryable(error) or repeats == RETRIES_MAX:
                        raise store_error(error) from error
                except asyncio.CancelledError:
                    await self._drop()
                    raise
            raise Unavailable("other transactions blocked the operation")

    async def _run_in_time(self, work: Callable[[Pair], Awaitable[R]]) -> R:
        """Run `work` on the connection.

        Raises TimeoutError if the database does not respond within OPERATION_SECONDS_MAX.
        """
        if self._pair is None or self._pair.raw.is_closed():
            await self._drop()
            async with asyncio.timeout(OPERATION_SECONDS_MAX):
                self._pair = await self._opener.pair()
        pair = self._pair
        timeout = ConnectionTimeout(pair, OPERATION_SECONDS_MAX)
        try:
            if not self._listens:
                await self._listen(pair)
                self._listens = True
            return await work(pair)
        except DRIVER_ERRORS as error:
            if timeout.is_expired:
                raise TimeoutError from error
            raise
        finally:
            timeout.cancel()

    async def _listen(self, pair: Pair, /) -> None:
        if not self._opener.is_pooled:
            await pair.raw.add_listener(CHANNEL, self._notified)
        elif not self._has_logged:
            self._has_logged = True
            _log.warning(
                "PostgreSQL notifications unavailable through pooler",
                delay_ms_max=2_000,
                how_to_fix=REMEDY_NOTIFICATIONS,
            )

    async def _drop(self) -> None:
        pair, self._pair, self._listens = self._pair, None, False
        if pair is not None:
            await pair.close()

    def _notified(self, _connection: Raw | Any, _sender: int, _channel: str, text: object) -> None:
        if self._receive is not None:
            self._receive(str(text))
