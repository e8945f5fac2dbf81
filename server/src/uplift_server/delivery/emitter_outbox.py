"""The reader of an emitter outbox: sends its rows to the server as events, and deletes the accepted rows.

An emitter outbox is a table in an emitter's database. The reader works in turns, and each turn is one transaction. In a
turn, the reader locks the oldest rows, sends them in one request, and deletes them if the server accepts the request.
If the reader or the server crashes, a later turn resends the rows with the same IDs. Only one reader has a turn at a
time. Otherwise, a reader could send a row before another reader sends an earlier row with the same ordering key.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import structlog

from uplift_server.core.events.emitter_outbox import BatchRejection, batch_body, blocked, in_order, oversized, rejected
from uplift_server.core.limits import (
    OUTBOX_BACKOFF_SECONDS_MAX,
    OUTBOX_BACKOFF_SECONDS_MIN,
    OUTBOX_BATCH_BYTES_MAX,
    OUTBOX_BATCH_ROWS_MAX,
    OUTBOX_POLL_SECONDS_MAX,
    OUTBOX_POLL_SECONDS_MIN,
    OUTBOX_UNBLOCK_EVERY_SECONDS,
)
from uplift_server.store.errors import Misaddressed, Unavailable
from uplift_server.store.postgres.emitter_outbox import EmitterOutbox, Turn

STATUS_EVERY_SECONDS: Final = 60.0
"""The interval, in seconds, between two log messages about the state of the outbox."""
_log = structlog.get_logger()

SendBatch = Callable[[bytes, int], Awaitable[BatchRejection | None]]
"""A function that sends a batch to the server. Its arguments are the request body and the number of events.

It returns None if the server accepts the batch, or the reason why the server rejects it. It raises ServerUnavailable.
"""


class ServerUnavailable(Exception):
    """The server neither accepted nor rejected a batch. If `is_permanent` is true, a retry would probably also fail."""

    def __init__(self, failure: Exception, *, is_permanent: bool, retry_after_seconds: float | None = None) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.is_permanent = is_permanent
        self.retry_after_seconds = retry_after_seconds


class _Turn(NamedTuple):
    """The result of one turn, which is a transaction that sends a batch of rows."""

    sent: int = 0
    rejected: int = 0
    has_more: bool = False
    """Whether more rows are waiting. If so, the next turn starts immediately."""
    has_response: bool = False
    """Whether the server accepted or rejected a request."""
    is_own: bool = True
    """Whether this reader had access to the outbox. If not, another reader was using the outbox."""


class OutboxReader:
    """Reads one emitter outbox, and sends its rows to the server, until `stop` is called."""

    def __init__(self, outbox: EmitterOutbox, send: SendBatch) -> None:
        self._outbox = outbox
        self._send = send
        self.sent = 0
        self.rejected = 0
        self._rows_max = OUTBOX_BATCH_ROWS_MAX
        self._proven: set[str] = set()
        """The systems that have worked: `source` and `server`.

        Until a system has worked, a permanent error of this system, such as a wrong setting, stops the reader.
        """
        self._outage: tuple[str, bool] | None = None
        """The system whose failure the reader has logged, and whether the failure is permanent. None if both work."""
        self._failures = 0
        self._status_at = time.monotonic() + STATUS_EVERY_SECONDS
        self._unblock_at = 0.0
        self._unblock_from: str | None = None
        self._changed = asyncio.Event()
        self._stopped = asyncio.Event()
        outbox.listen(self._changed.set)

    def stop(self) -> None:
        """End `run` when the current turn ends."""
        self._stopped.set()
        self._changed.set()

    async def run(self, *, once: bool = False) -> None:
        """Send rows until `stop` is called. If `once` is true, return when the outbox has no rows to send.

        Raises Unavailable or ServerUnavailable. If `once` is false, the call raises only permanent errors, such as a
        wrong setting, of a database or a server that has not worked yet. It retries after all other errors.
        """
        idle_seconds = OUTBOX_POLL_SECONDS_MIN
        while not self._stopped.is_set():
            self._changed.clear()
            try:
                await self._log_status()
                turn = await self._take_turn()
            except (Unavailable, ServerUnavailable) as error:
                if once or (_is_permanent(error) and _system(error) not in self._proven):
                    raise
                await self._back_off(error)
                continue
            if not once and "source" not in self._proven:
                _log.info("outbox connected", database=self._outbox.database, table="uplift_outbox")
            self._note(turn)
            if once and turn.is_own and not turn.has_more:
                return
            if turn.has_more or turn.sent:
                idle_seconds = OUTBOX_POLL_SECONDS_MIN
            if not turn.has_more:
                await _wait(self._changed, idle_seconds)
                idle_seconds = min(idle_seconds * 2, OUTBOX_POLL_SECONDS_MAX)

    async def _take_turn(self) -> _Turn:
        async with self._outbox.turn() as turn:
            if turn is None:
                return _Turn(is_own=False)
            has_more = await self._unblock(turn)
            page = await turn.take(self._rows_max, OUTBOX_BATCH_BYTES_MAX)
            waiting = blocked(page.rows)
            if waiting:
                await turn.block(waiting)
            has_more |= bool(waiting)
            rows = in_order(page.rows)
            problems = dict(oversized(rows))
            has_response = bool(rows) and not problems
            if has_response:
                rejection = await self._send(batch_body(rows), len(rows))
                if rejection is None:
                    await turn.delete([row.id for row in rows])
                    self._rows_max = min(self._rows_max * 2, OUTBOX_BATCH_ROWS_MAX)
                    return _Turn(sent=len(rows), has_more=has_more or page.has_more, has_response=True)
                problems |= rejected(rows, rejection)
                if not problems:
                    self._rows_max = len(rows) // 2
                    return _Turn(has_more=True, has_response=True)
            if problems:
                await turn.reject(problems)
            return _Turn(rejected=len(problems), has_more=has_more or bool(problems), has_response=has_response)

    async def _unblock(self, turn: Turn) -> bool:
        """Unblock a batch of the rows that no longer wait for an earlier row. Return whether more rows may be left.

        After all rows have been checked, do nothing for OUTBOX_UNBLOCK_EVERY_SECONDS.
        """
        if time.monotonic() < self._unblock_at:
            return False
        self._unblock_from = await turn.unblock(self._unblock_from)
        if self._unblock_from is not None:
            return True
        self._unblock_at = time.monotonic() + OUTBOX_UNBLOCK_EVERY_SECONDS
        return False

    def _note(self, turn: _Turn) -> None:
        """Update the totals with the numbers of sent and rejected rows. Log rejections and the end of an outage."""
        self._proven.add("source")
        if turn.has_response:
            self._proven.add("server")
        self.sent += turn.sent
        self.rejected += turn.rejected
        if turn.rejected:
            fix = "see the column `problem` of the table `uplift_outbox`"
            _log.warning("outbox rows rejected", rows=turn.rejected, how_to_fix=fix)
        if self._outage is not None and (turn.has_response or self._outage[0] == "source"):
            _log.info("outbox recovered", failures=self._failures)
            self._outage = None
        if self._outage is None:
            self._failures = 0

    async def _back_off(self, error: Unavailable | ServerUnavailable) -> None:
        """Wait after a failure. Jitter prevents readers from retrying at the same time."""
        outage = _system(error), _is_permanent(error)
        if self._outage != outage:
            self._outage = outage
            write = _log.error if _is_permanent(error) else _log.warning
            write("outbox waiting", unavailable=_system(error), error=str(error))
        seconds = min(OUTBOX_BACKOFF_SECONDS_MAX, OUTBOX_BACKOFF_SECONDS_MIN * 2 ** min(self._failures, 10))
        seconds *= 0.5 + random.random() / 2  # noqa: S311 - no secret
        asked = error.retry_after_seconds if isinstance(error, ServerUnavailable) else None
        self._failures += 1
        await _wait(self._stopped, max(seconds, min(asked or 0.0, OUTBOX_BACKOFF_SECONDS_MAX)))

    async def _log_status(self) -> None:
        if time.monotonic() < self._status_at:
            return
        self._status_at = time.monotonic() + STATUS_EVERY_SECONDS
        status = await self._outbox.status()
        _log.info(
            "outbox status",
            sent=self.sent,
            waiting=status.waiting,
            blocked=status.blocked,
            rejected=status.rejected,
            oldest_age_seconds=round(status.oldest_seconds, 1),
        )


def _system(error: Unavailable | ServerUnavailable) -> str:
    return "server" if isinstance(error, ServerUnavailable) else "source"


def _is_permanent(error: Unavailable | ServerUnavailable) -> bool:
    return error.is_permanent if isinstance(error, ServerUnavailable) else isinstance(error, Misaddressed)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
