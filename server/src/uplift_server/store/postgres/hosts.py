"""The hosts of a database's address, where it names several: whoever says nothing hides nobody.

The driver goes through them one after the other, in one time for all. So a primary whose machine is gone would hide the
standby that has taken its place: here the next one is asked beside it, as RFC 8305 has it for addresses.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

import asyncpg

from uplift_server.core.operations.postgres_urls import split_postgres_url
from uplift_server.store.errors import Misaddressed
from uplift_server.store.postgres.connection_errors import mistake

# What says nothing of the others: unreachable, silent, closed at once, full, without a disk or a certificate for its
# name, about to start or stop, or a standby.
_GOES_ON: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.PostgresSystemError,
    asyncpg.InsufficientResourcesError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TargetServerAttributeNotMatched,
)
_HOST: Final = re.compile(r"(?:\[(?P<address>[^\]]+)\]|(?P<name>/.+|[^:]+))(?::(?P<port>\d+))?")
_WRITES: Final = frozenset({"primary", "read-write"})
"""Values of target_session_attrs by which a server is chosen that can be written to."""

LATE_SECONDS: Final = 0.3
"""After how long the next host is asked, too. What all of them may take is the caller's to say."""

Place = Mapping[str, Any]
"""What the driver is told beside the address: nothing, where that names one host."""


class Hosts:
    """Where connections may lead."""

    def __init__(self, url: str) -> None:
        self.known = _places(url)
        """In the order in which they are asked: the place first that the last connection led to."""
        # The driver splits the URL with urlsplit, and ignores its hosts if a place has one.
        self.url = url if self.known == [{}] else str(split_postgres_url(url)._replace(hosts=""))
        """The URL to pass to the driver with a place."""

    async def first(self, connect: Callable[[Place], Awaitable[asyncpg.Connection]]) -> asyncpg.Connection:
        """The first connection that one of them gives; the next is asked once the one before has failed, or is late.

        Raises what the driver does: before all what lasts until it is mended.
        """
        failures: list[BaseException] = []
        won: asyncpg.Connection | None = None
        asked: dict[asyncio.Task[asyncpg.Connection], Place] = {}
        left = list(self.known)
        try:
            while left or asked:
                if left:
                    place = left.pop(0)
                    asked[asyncio.ensure_future(connect(place))] = place
                done, _ = await asyncio.wait(
                    asked, timeout=LATE_SECONDS if left else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    place = asked.pop(task)
                    error = task.exception()
                    if error is None:
                        self._note_answer(place)
                        won = task.result()
                        return won
                    if not isinstance(error, _GOES_ON):
                        raise error
                    failures.append(error)
        finally:
            try:
                await _give_up(asked)
            except asyncio.CancelledError:
                if won is not None:
                    won.terminate()
                raise
        raise max(failures, key=_weight)

    def _note_answer(self, place: Place) -> None:
        """A connection leads there: the next one is likely to."""
        self.known.remove(place)
        self.known.insert(0, place)


async def _give_up(asked: Collection[asyncio.Task[asyncpg.Connection]]) -> None:
    for task in asked:
        task.cancel()
        task.add_done_callback(_let_go)
    if asked:
        # Not one of them itself: whoever is cancelled while it waits would take that for the task's end.
        await asyncio.wait(asked)


def _let_go(task: asyncio.Task[asyncpg.Connection]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().terminate()


def _weight(failure: BaseException) -> int:
    if isinstance(failure, asyncpg.TargetServerAttributeNotMatched):
        return 0
    return 2 if isinstance(mistake(failure), Misaddressed) else 1


def _places(url: str) -> list[Place]:
    parts = split_postgres_url(url)
    given = dict(parse_qsl(parts.query))
    hosts = (parts.hosts or given.get("host", "")).split(",")
    ports = ("" if parts.hosts else given.get("port", "")).split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    found = [_HOST.fullmatch(host) for host in hosts]
    if len(hosts) == 1 or len(ports) != len(hosts) or not all(found):
        return [{}]  # What is wrong there the driver tells.
    # Whoever can only be read would be gone to again and again, once the primary was away for a moment.
    wanted = given.get("target_session_attrs")
    more = {} if wanted in _WRITES else {"target_session_attrs": "primary"}
    return [_place(each, port, more) for each, port in zip(found, ports, strict=True) if each is not None]


def _place(found: re.Match[str], port: str, more: Place) -> Place:
    place: dict[str, Any] = {"host": unquote(found["address"] or found["name"]), **more}
    if own := found["port"] or port:
        place["port"] = int(own)
    return place
