"""The message bus between processes: a connection of its own for heartbeats and notifications."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import structlog
from sqlalchemy import Connection

from uplift_server.store.errors import Unavailable
from uplift_server.store.postgres.connection import DRIVER_ERRORS, Opener, Pair, Raw, Silence, is_repeatable, translated
from uplift_server.store.schema_processes import CHANNEL

R = TypeVar("R")
_log = structlog.get_logger()

ANSWER_SECONDS_MAX: Final = 2.0
"""How long anything may take that goes over the line, and its opening: a heartbeat that comes later is worth
nothing."""
REPEATS_MAX: Final = 3
UNHEARD: Final = "set UPLIFT_DATABASE_DIRECT_URL to the address of the database without the pooler"


def new_message_bus(url: str) -> "PostgresMessageBus":
    """A message bus over a database. Through a pooler, it receives no notifications."""
    return PostgresMessageBus(Opener(url))


class PostgresMessageBus:
    """Implements MessageBus. Connects on first use, and again after a failure."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._pair: Pair | None = None
        self._hears = False
        """Whether this connection receives messages."""
        self._has_warned = False
        self._turn = asyncio.Lock()
        self._receive: Callable[[str], None] | None = None

    def listen(self, receive: Callable[[str], None]) -> None:
        """See MessageBus."""
        self._receive = receive

    async def write(self, body: Callable[[Connection], R]) -> R:
        """See MessageBus."""

        async def write(pair: Pair) -> R:
            async with pair.transaction():
                return await pair.sql.run_sync(body)

        return await self._run(write)

    async def publish(self, texts: Sequence[str]) -> None:
        """See MessageBus."""

        async def publish(pair: Pair) -> None:
            async with pair.alone():
                await pair.raw.execute("SELECT pg_notify($1, text) FROM unnest($2::text[]) text", CHANNEL, list(texts))

        await self._run(publish)

    async def close(self) -> None:
        """See MessageBus."""
        async with self._turn:
            await self._drop()

    async def _run(self, work: Callable[[Pair], Awaitable[R]]) -> R:
        async with self._turn:
            for repeats in range(REPEATS_MAX + 1):
                try:
                    return await self._answered(work)
                except DRIVER_ERRORS as error:
                    if self._pair is not None and not self._pair.is_clean:
                        await self._drop()
                    if not is_repeatable(error) or repeats == REPEATS_MAX:
                        raise translated(error) from error
                except asyncio.CancelledError:
                    await self._drop()
                    raise
            raise Unavailable("other transactions were in the way")

    async def _answered(self, work: Callable[[Pair], Awaitable[R]]) -> R:
        """Raises TimeoutError where the database does not answer in time."""
        if self._pair is None or self._pair.raw.is_closed():
            await self._drop()
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                self._pair = await self._opener.pair()
        pair = self._pair
        silence = Silence(pair, ANSWER_SECONDS_MAX)
        try:
            if not self._hears:
                await self._hear(pair)
                self._hears = True
            return await work(pair)
        except DRIVER_ERRORS as error:
            if silence.is_over:
                raise TimeoutError from error
            raise
        finally:
            silence.end()

    async def _hear(self, pair: Pair, /) -> None:
        if not self._opener.is_pooled:
            await pair.raw.add_listener(CHANNEL, self._told)
        elif not self._has_warned:
            self._has_warned = True
            _log.warning("no notifications through the pooler: processes wait up to 2 s longer", remedy=UNHEARD)

    async def _drop(self) -> None:
        pair, self._pair, self._hears = self._pair, None, False
        if pair is not None:
            await pair.close()

    def _told(self, _connection: Raw | Any, _sender: int, _channel: str, text: object) -> None:
        if self._receive is not None:
            self._receive(str(text))
