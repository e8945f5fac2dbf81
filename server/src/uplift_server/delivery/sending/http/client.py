"""The HTTP client of the engine: sends requests over pooled connections, and enforces timeouts."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

import structlog
import uvloop

from uplift_server.core.http.addresses import AddressPolicy
from uplift_server.core.http.exchange import Exchange, Failure
from uplift_server.delivery.sending.http.attempt import Attempt, Opening
from uplift_server.delivery.sending.http.connection import BufferedConnection, Connection, ConnectionOwner
from uplift_server.delivery.sending.http.connector import Connector
from uplift_server.delivery.sending.http.failures import AttemptFailed, FilesExhausted, one_line, seconds, sent_twice
from uplift_server.delivery.sending.http.pool import Pool
from uplift_server.delivery.sending.http.request import Done, Request
from uplift_server.delivery.sending.http.resolver import Resolver
from uplift_server.delivery.sending.http.settings import SenderSettings
from uplift_server.delivery.targets import Target

_SWEEP_SECONDS_MAX = 0.05
_SWEEP_SECONDS_MIN = 0.005
_FILES_WAIT_SECONDS = 0.1
_FILES_SECONDS_MAX = 1.0
"""The maximum time that an attempt waits for a file descriptor, in seconds. `LEASE_LEFT_MS_MIN` includes this time."""
_FILES_LOG_SECONDS = 60.0
_CLOSE_SECONDS_MAX = 2.0
"""The maximum time that `Sender.close` waits for the end of connections, in seconds."""
_CLOSE_BATCH = 16
"""The number of idle connections to close together if no file descriptor is left."""
_log = structlog.get_logger()


def _unix_ms() -> int:
    return time.time_ns() // 1_000_000


def _timeout_text(attempt: Attempt, stage: str) -> str:
    return f"no complete response within {seconds(attempt.timeout_ms)}: still {stage}"


class Sender(ConnectionOwner):
    """Sends requests over keep-alive connections, on the event loop that calls `start`.

    A request over an open connection needs no task, future or timer. A periodic check enforces all timeouts, at most 50
    ms late.
    """

    def __init__(
        self,
        settings: SenderSettings,
        policy: AddressPolicy,
        resolver: Resolver,
        *,
        clock_ms: Callable[[], int] = _unix_ms,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a sender. The caller must close the resolver.

        The sender uses `clock_ms` (Unix ms) only for `Exchange.started_at`. Raises ValueError if the egress proxy or an
        egress address is not valid, and OSError if `ca_file` cannot be read.
        """
        self._settings = settings
        self._clock_ms = clock_ms
        self._monotonic = monotonic
        self._connection_age_max = settings.connection_age_ms_max / 1000
        shortest_ms = min(settings.attempt_timeout_ms, settings.keep_alive_ms)
        self._sweep_seconds = max(_SWEEP_SECONDS_MIN, min(_SWEEP_SECONDS_MAX, shortest_ms / 1000 / 10))
        self._connector = Connector(settings, policy, resolver, self._create_connection, monotonic)
        self._pool = Pool(settings)
        # The attempts in flight, grouped by timeout. Attempts with the same timeout are in start order, so the first
        # one times out first.
        self._attempts: dict[int, dict[Attempt, None]] = {}
        self._connections: set[Connection] = set()
        self._connection_type: type[Connection] = Connection
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._opening = 0
        self._files_logged_at = -_FILES_LOG_SECONDS
        self._closing = False
        self._all_lost: asyncio.Event | None = None

    @property
    def in_flight(self) -> int:
        """The number of requests in flight."""
        return sum(map(len, self._attempts.values()))

    @property
    def idle_connections(self) -> int:
        """The number of idle connections."""
        return len(self._pool)

    async def start(self) -> None:
        """Use the running event loop for all requests."""
        self._loop = asyncio.get_running_loop()
        self._connection_type = Connection if isinstance(self._loop, uvloop.Loop) else BufferedConnection

    async def close(self) -> None:
        """Make all requests in flight fail with `Failure.EGRESS`, and close all connections."""
        self._closing = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        attempts = [attempt for same in self._attempts.values() for attempt in same]
        tasks = [attempt.task for attempt in attempts if attempt.task is not None]
        for attempt in attempts:
            self._abort(attempt, Failure.EGRESS, "the sender was closed")
        for connection in list(self._connections):
            connection.abort()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._connections:
            self._all_lost = asyncio.Event()
            # uvloop does not report the end of a connection whose start was cancelled.
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS_MAX):
                    await self._all_lost.wait()

    def send(self, request: Request, done: Done) -> None:
        """Send an HTTP/1.1 request.

        `done` is called exactly once with the exchange, in a later iteration of the event loop. Raises RuntimeError
        before `start` and after `close`.
        """
        if self._loop is None or self._closing:
            raise RuntimeError("the sender is not running")
        now = self._monotonic()
        timeout_ms = self._settings.attempt_timeout_ms if request.timeout_ms is None else request.timeout_ms
        attempt = Attempt(request, done, self._clock_ms(), now, timeout_ms)
        same = self._attempts.get(timeout_ms)
        if same is None:
            same = self._attempts[timeout_ms] = {}
        same[attempt] = None
        connection = self._pool.take(request.target, now)
        if connection is None:
            attempt.task = self._loop.create_task(self._open(attempt))
        else:
            attempt.connection = connection
            connection.start(attempt, reused=True)
        if self._sweep is None:
            self._arm_sweep()

    # ConnectionOwner

    def opened(self, connection: Connection) -> None:
        self._connections.add(connection)

    def finished(self, connection: Connection, attempt: Attempt, exchange: Exchange, now: float) -> None:
        if exchange.tls_ms is not None and exchange.failure is None:
            self._connector.remember_session(connection)
        if connection.is_open:
            self._pool.put(connection, now)
        self._finish(attempt, exchange)

    def stale(self, attempt: Attempt) -> None:
        attempt.connection = None
        attempt.retried = True
        assert self._loop is not None
        attempt.task = self._loop.create_task(self._open(attempt))

    def ended(self, connection: Connection) -> None:
        self._pool.discard(connection)

    def lost(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if self._all_lost is not None and not self._connections:
            self._all_lost.set()

    # Opening

    def _create_connection(self, target: Target, opening: Opening) -> Connection:
        retire_at = self._monotonic() + self._connection_age_max
        return self._connection_type(self, target, opening, retire_at, self._monotonic)

    async def _open(self, attempt: Attempt) -> None:
        self._opening += 1
        try:
            if self._opening + len(self._connections) > self._settings.connections_max:
                self._pool.close_oldest(1)
            await self._open_within_limit(attempt)
        finally:
            self._opening -= 1

    async def _open_within_limit(self, attempt: Attempt) -> None:
        opening = attempt.opening = Opening()
        try:
            connection = await self._connect(attempt, opening)
        except AttemptFailed as failed:
            self._fail(attempt, failed.failure, failed.text)
            return
        except Exception as error:
            # After a defect, the attempt must still call `done`, and must not count against the receiver.
            self._report_defect("connection not opened", error)
            self._fail(attempt, Failure.EGRESS, f"internal error: {type(error).__name__}")
            return
        attempt.task = None
        if not connection.is_open:
            self._fail(attempt, Failure.PROTOCOL, "the receiver ended the connection before the request was sent")
            return
        attempt.connection = connection
        connection.start(attempt, reused=False)

    async def _connect(self, attempt: Attempt, opening: Opening) -> Connection:
        """Open a connection for an attempt. If no file descriptor is left, close idle connections and retry."""
        retry_until = self._monotonic() + _FILES_SECONDS_MAX
        while True:
            try:
                return await self._connector.open(attempt.request.target, opening)
            except FilesExhausted:
                now = self._monotonic()
                closed = self._pool.close_oldest(_CLOSE_BATCH)
                if now >= self._files_logged_at + _FILES_LOG_SECONDS:
                    self._files_logged_at = now
                    _log.warning("out of file descriptors", idle_connections_closed=closed, in_flight=self.in_flight)
                if now >= retry_until:
                    raise
            await asyncio.sleep(_FILES_WAIT_SECONDS)
            # The receiver did not cause the wait for file descriptors, so restart the timeout of the attempt.
            same = self._attempts[attempt.timeout_ms]
            del same[attempt]
            attempt.started, attempt.started_at = self._monotonic(), self._clock_ms()
            same[attempt] = None

    # Endings

    def _arm_sweep(self) -> None:
        assert self._loop is not None
        self._sweep = self._loop.call_later(self._sweep_seconds, self._on_sweep)

    def _on_sweep(self) -> None:
        now = self._monotonic()
        for timeout_ms, same in list(self._attempts.items()):
            started_last = now - timeout_ms / 1000
            while same:
                attempt = next(iter(same))
                if attempt.started > started_last:
                    break
                self._abort(attempt, Failure.TIMEOUT, None)
            else:
                del self._attempts[timeout_ms]
        self._pool.expire(now)
        if self._closing:
            return
        self._sweep = None
        if self._attempts or len(self._pool):
            self._arm_sweep()

    def _abort(self, attempt: Attempt, failure: Failure, text: str | None) -> None:
        connection = attempt.connection
        if connection is not None:
            connection.fail(failure, text or _timeout_text(attempt, connection.stage()))
            return
        opening, task = attempt.opening, attempt.task
        if task is not None:
            task.cancel()
        self._fail(attempt, failure, text or _timeout_text(attempt, opening.stage if opening else "waiting to start"))

    def _fail(self, attempt: Attempt, failure: Failure, text: str) -> None:
        opening = attempt.opening or Opening()
        exchange = Exchange(
            attempt.started_at,
            int((self._monotonic() - attempt.started) * 1e6),
            failure=failure,
            error=one_line(text),
            remote_address=opening.remote_address,
            dns_ms=opening.dns_ms,
            connect_ms=opening.connect_ms,
            tls_ms=opening.tls_ms,
            bytes_sent=attempt.bytes_sent,
        )
        self._finish(attempt, exchange)

    def _finish(self, attempt: Attempt, exchange: Exchange) -> None:
        del self._attempts[attempt.timeout_ms][attempt]
        if attempt.repeated:
            exchange = exchange._replace(repeated=True, error=sent_twice(exchange.error))
        try:
            attempt.done(attempt.request, exchange)
        except Exception as error:
            self._report_defect("request callback failed", error)

    def _report_defect(self, message: str, error: Exception) -> None:
        assert self._loop is not None
        self._loop.call_exception_handler({"message": message, "exception": error})
