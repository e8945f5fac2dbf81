"""Connects to one of the hosts in a database URL.

The driver tries one host after another within one timeout. An unreachable primary could therefore use up the timeout
before the driver tries the standby that replaced it. This module starts the next attempt while the previous attempt is
still waiting, similar to RFC 8305.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

import asyncpg

from uplift_server.core.operations.postgres_urls import split_postgres_url
from uplift_server.store.errors import Misaddressed
from uplift_server.store.postgres.connection_errors import configuration_error

# Errors after which another host may accept the connection.
# The tried host is unreachable, overloaded, a standby, starting or stopping, or has a disk or certificate error.
_TRY_NEXT: Final = (
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
"""Values of target_session_attrs that select a writable server."""

NEXT_HOST_AFTER_SECONDS: Final = 0.3
"""The delay between the starts of two connection attempts, in seconds. The caller limits the total time."""

HostOptions = Mapping[str, Any]
"""The options that the driver needs for one host, in addition to the URL. Empty if the URL names only one host."""


class Hosts:
    """The hosts in a database URL, and the order in which to try them."""

    def __init__(self, url: str) -> None:
        self.known = _host_options(url)
        """The options for each host, in the order of connection attempts.

        The last host that accepted a connection comes first.
        """
        # The driver parses the URL with `urlsplit`, and ignores the hosts in it if the options contain a host.
        self.url = url if self.known == [{}] else str(split_postgres_url(url)._replace(hosts=""))
        """The URL for the driver.

        If the URL names several hosts, `url` contains none of them, because the options name the host.
        """

    async def connect(
        self, open_connection: Callable[[HostOptions], Awaitable[asyncpg.Connection]]
    ) -> asyncpg.Connection:
        """Return the first connection that succeeds.

        Raises the driver's error if all hosts fail, or immediately after an error that the other hosts are likely to
        return too. If several hosts fail, an error that indicates a wrong configuration takes precedence.
        """
        failures: list[BaseException] = []
        won: asyncpg.Connection | None = None
        attempts: dict[asyncio.Task[asyncpg.Connection], HostOptions] = {}
        remaining = list(self.known)
        try:
            while remaining or attempts:
                if remaining:
                    options = remaining.pop(0)
                    attempts[asyncio.ensure_future(open_connection(options))] = options
                done, _ = await asyncio.wait(
                    attempts,
                    timeout=NEXT_HOST_AFTER_SECONDS if remaining else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    options = attempts.pop(task)
                    error = task.exception()
                    if error is None:
                        self._move_to_front(options)
                        won = task.result()
                        return won
                    if not isinstance(error, _TRY_NEXT):
                        raise error
                    failures.append(error)
        finally:
            try:
                await _cancel_all(attempts)
            except asyncio.CancelledError:
                if won is not None:
                    won.terminate()
                raise
        raise max(failures, key=_priority)

    def _move_to_front(self, options: HostOptions) -> None:
        self.known.remove(options)
        self.known.insert(0, options)


async def _cancel_all(attempts: Collection[asyncio.Task[asyncpg.Connection]]) -> None:
    for task in attempts:
        task.cancel()
        task.add_done_callback(_terminate)
    if attempts:
        # Use `wait`: after `await` on an attempt, this task could not tell its own cancellation from the attempt's.
        await asyncio.wait(attempts)


def _terminate(task: asyncio.Task[asyncpg.Connection]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().terminate()


def _priority(failure: BaseException) -> int:
    if isinstance(failure, asyncpg.TargetServerAttributeNotMatched):
        return 0
    return 2 if isinstance(configuration_error(failure), Misaddressed) else 1


def _host_options(url: str) -> list[HostOptions]:
    parts = split_postgres_url(url)
    parameters = dict(parse_qsl(parts.query))
    hosts = (parts.hosts or parameters.get("host", "")).split(",")
    ports = ("" if parts.hosts else parameters.get("port", "")).split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    found = [_HOST.fullmatch(host) for host in hosts]
    if len(hosts) == 1 or len(ports) != len(hosts) or not all(found):
        return [{}]  # Let the driver parse the URL and report errors.
    # Require the primary. Otherwise, connections would stay with a read-only standby after a short outage.
    wanted = parameters.get("target_session_attrs")
    more = {} if wanted in _WRITES else {"target_session_attrs": "primary"}
    return [_options(each, port, more) for each, port in zip(found, ports, strict=True) if each is not None]


def _options(found: re.Match[str], port: str, more: HostOptions) -> HostOptions:
    options: dict[str, Any] = {"host": unquote(found["address"] or found["name"]), **more}
    if own := found["port"] or port:
        options["port"] = int(own)
    return options
