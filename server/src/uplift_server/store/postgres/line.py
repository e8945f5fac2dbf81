"""The line between processes: a connection of its own for heartbeats and notifications."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

from sqlalchemy import Connection

from uplift_server.store import told_texts
from uplift_server.store.errors import Unavailable
from uplift_server.store.postgres.connection import DRIVER_ERRORS, Opener, Pair, Raw, Silence, is_repeatable, translated
from uplift_server.store.schema_processes import CHANNEL

R = TypeVar("R")

ANSWER_SECONDS_MAX: Final = 2.0
"""How long anything may take that goes over the line, and its opening: a heartbeat that comes later is worth
nothing."""
REPEATS_MAX: Final = 3
LOOK_SECONDS: Final = 0.05
"""How often a process looks for what others have told, where it is not notified."""
OVERLAP: Final = 1000
"""Numbers are given before they can be read: from so many before the last one on it is looked again."""


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
        self._found: frozenset[int] | None = None
        """The numbers of what the last look found."""
        self._last = 0
        """The highest one that was found."""

    async def tell(self, texts: Sequence[str]) -> None:
        """See the contract."""
        await self.write(lambda c: told_texts.add(c, texts, after=self._last))

    async def close(self) -> None:
        """See the contract."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        await super().close()

    async def _hear(self, _pair: Pair, /) -> None:
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_again())

    async def _look_again(self) -> None:
        while True:
            with contextlib.suppress(Unavailable):
                await self._look()
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        found = await self.write(lambda c: told_texts.since(c, self._last - OVERLAP))
        before, self._found = self._found, frozenset(found)
        self._last = max(found, default=self._last)
        # What stood there when it began to look was told in an earlier life.
        if before is not None:
            for seq, text in found.items():
                if seq not in before:
                    self.on_told(text)
