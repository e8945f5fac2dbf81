"""Notifications to the other processes.

Notifications can be lost, so every process also polls the database for changes.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterable, Sequence
from enum import StrEnum
from functools import partial
from typing import Any, Final

import structlog

from uplift_server.delivery.cluster.state import ClusterState
from uplift_server.delivery.ports import Clock
from uplift_server.store.contract import MESSAGE_BYTES_MAX, MessageBus
from uplift_server.store.errors import Unavailable

GATHER_MS: Final = 3
"""How long to gather notifications before they are sent, in ms. One message per event would halve the throughput."""
GATHER_STORED_MS: Final = 50
"""How long to gather notifications for listen streams, in ms."""
TEXTS_MAX: Final = 1_000
"""Maximum number of queued messages. The notifier drops further messages."""
NUMBERS_MAX: Final = MESSAGE_BYTES_MAX // 20 - 10
"""Maximum number of row numbers in one notification. The size of a notification is limited, and a row number has up to
19 digits."""
_log = structlog.get_logger()


class NotificationKind(StrEnum):
    """The kinds of notifications between processes."""

    DUE = "due"
    """The database contains due deliveries of some endpoints. Fields: sender, endpoints."""
    WORKERS_CHANGED = "moved"
    """A worker started, stopped, or published a new view of the workers."""
    COMMANDS = "commands"
    """A process stored a command or a result for another process."""
    LISTENED = "listened"
    """A process announces the accounts whose listen streams it serves. Fields: sender, accounts."""
    STORED = "stored"
    """A process stored events for accounts with listen streams. Fields: sender, accounts."""
    SESSION_ENDED = "ended"
    """The streams of a listen session must end if they began before a time.

    Fields: sender, session, reason, time (Unix ms).
    """
    ERASED = "erased"
    """Events were erased. Fields: the erased events that have leased deliveries, and the endpoints whose last error was
    erased."""


class Notifier:
    """Gathers notifications and combines them into a few messages."""

    def __init__(self, bus: MessageBus, state: ClusterState, clock: Clock) -> None:
        self._bus = bus
        self._state = state
        self._clock = clock
        self._due: dict[int, None] = {}
        self._stored: dict[int, None] = {}
        self._texts: list[str] = []
        self._scheduled = False
        """Whether a flush is scheduled or running."""
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()

    def notify_due(self, endpoint_seqs: Iterable[int]) -> None:
        """Notify the owners of these endpoints that the database contains due deliveries."""
        self._due.update(dict.fromkeys(endpoint_seqs))
        self._schedule()

    def notify_listened(self, account_seqs: Iterable[int]) -> None:
        """Announce the accounts that have listen streams in this process."""
        self._send(NotificationKind.LISTENED, self._state.process_id, list(account_seqs)[:NUMBERS_MAX])

    def notify_stored(self, account_seq: int) -> None:
        """Wake the listen streams of an account in other processes."""
        if not self._stored:
            self._clock.call_at(self._clock.now_ms() + GATHER_STORED_MS, self._schedule)
        self._stored[account_seq] = None

    def notify_session_ended(self, session_id: str, why: str, at: int) -> None:
        """End the streams of a listen session in the other processes.

        Streams that began at or after `at` (Unix ms) do not end.
        """
        self._send(NotificationKind.SESSION_ENDED, self._state.process_id, session_id, why, at)

    def notify_workers_changed(self) -> None:
        """Announce that a worker started, stopped, or published a new view of the workers."""
        self._send(NotificationKind.WORKERS_CHANGED)

    def notify_commands(self) -> None:
        """Announce that this process stored a command or a result for another process."""
        self._send(NotificationKind.COMMANDS)

    def notify_erased(self, event_seqs: Sequence[int], endpoint_seqs: Sequence[int]) -> None:
        """Notify the other processes of erased events.

        The other processes then drop the events' leased deliveries, and clear the endpoints' last errors.
        """
        half = NUMBERS_MAX // 2
        for at in range(0, max(len(event_seqs), len(endpoint_seqs)), half):
            self._send(NotificationKind.ERASED, event_seqs[at : at + half], endpoint_seqs[at : at + half])

    async def close(self) -> None:
        """Send the queued notifications and stop."""
        self._closed = True
        await self._flush()

    def _send(self, kind: NotificationKind, *parts: object) -> None:
        if len(self._texts) < TEXTS_MAX:
            self._texts.append(_text(kind, *parts))
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled and not self._closed:
            self._scheduled = True
            self._clock.call_at(self._clock.now_ms() + GATHER_MS, partial(self._begin, self._flush))

    def _begin(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = asyncio.create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _flush(self) -> None:
        due, self._due = list(self._due), {}
        stored, self._stored = list(self._stored), {}
        texts, self._texts = self._texts, []
        for kind, numbers in ((NotificationKind.DUE, due), (NotificationKind.STORED, stored)):
            for at in range(0, len(numbers), NUMBERS_MAX):
                texts.append(_text(kind, self._state.process_id, numbers[at : at + NUMBERS_MAX]))
        try:
            if texts:
                await self._bus.publish(texts)
        except Unavailable as error:
            _log.info("notifications to other processes lost", cause=str(error))
        finally:
            self._scheduled = False
            if self._due or self._stored or self._texts:
                self._schedule()


def _text(kind: NotificationKind, *parts: object) -> str:
    return json.dumps((kind.value, *parts), separators=(",", ":"))
