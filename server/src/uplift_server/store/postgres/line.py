"""The line between processes: a connection of its own for heartbeats and notifications."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import structlog
from sqlalchemy import Connection

from uplift_server.store import told_texts
from uplift_server.store.errors import Refused, Unavailable
from uplift_server.store.postgres.connection import DRIVER_ERRORS, Opener, Pair, Raw, Silence, is_repeatable, translated
from uplift_server.store.schema_processes import CHANNEL

R = TypeVar("R")
_log = structlog.get_logger()

ANSWER_SECONDS_MAX: Final = 2.0
"""How long anything may take that goes over the line, and its opening: a heartbeat that comes later is worth
nothing."""
REPEATS_MAX: Final = 3
LOOK_SECONDS: Final = 0.05
"""How often a process looks for what others have told, where it is not notified."""


def line_to(url: str) -> "PostgresLine":
    """A line to a database, whatever stands between."""
    opener = Opener(url)
    return PolledLine(opener) if opener.is_pooled else PostgresLine(opener)


class PostgresLine:
    """See `store.contract.Line`. Opened when first used, and anew after it broke."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._pair: Pair | None = None
        self._hears = False
        """Whether it is told over this connection what others send."""
        self._turn = asyncio.Lock()
        self.on_told: Callable[[str], None] = lambda _text: None

    async def write(self, body: Callable[[Connection], R]) -> R:
        """See the contract."""

        async def write(pair: Pair) -> R:
            async with pair.transaction():
                return await pair.sql.run_sync(body)

        return await self._run(write)

    async def tell(self, texts: Sequence[str]) -> None:
        """See the contract."""

        async def tell(pair: Pair) -> None:
            await pair.raw.execute("SELECT pg_notify($1, text) FROM unnest($2::text[]) text", CHANNEL, list(texts))

        await self._run(tell)

    async def close(self) -> None:
        """See the contract."""
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
        await pair.raw.add_listener(CHANNEL, self._told)

    async def _drop(self) -> None:
        pair, self._pair, self._hears = self._pair, None, False
        if pair is not None:
            await pair.close()

    def _told(self, _connection: Raw | Any, _sender: int, _channel: str, text: object) -> None:
        self.on_told(str(text))


class PolledLine(PostgresLine):
    """The same through a pooler, which delivers no notifications: texts stand in a table for a while."""

    def __init__(self, opener: Opener) -> None:
        super().__init__(opener)
        self._looking: asyncio.Task[None] | None = None
        self._place: told_texts.Place | None = None
        """How far it was looked; None: not since this process began."""

    async def tell(self, texts: Sequence[str]) -> None:
        """See the contract."""
        await self.write(lambda c: told_texts.add(c, texts))

    async def close(self) -> None:
        """See the contract."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        await super().close()

    async def _hear(self, pair: Pair, /) -> None:
        if self._place is None:
            async with pair.transaction():
                self._place = await pair.sql.run_sync(told_texts.end)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_again(self._place))

    async def _look_again(self, place: told_texts.Place) -> None:
        while True:
            with contextlib.suppress(Unavailable, Refused):
                at = place
                found, place = await self.write(lambda c: told_texts.since(c, at))  # noqa: B023 - run before the next turn
                self._place = place
                for text in found:
                    self._take(text)
            await asyncio.sleep(LOOK_SECONDS)

    def _take(self, text: str) -> None:
        try:
            self.on_told(text)
        except Exception:
            # As with notifications, it is that text's misfortune alone.
            _log.exception("what another process told was not taken")
