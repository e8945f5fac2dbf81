"""Announces this process's listen streams to the other processes, and wakes the listen streams of other processes.

An announcement lists the accounts that have listen streams. Each process repeats its announcement once per heartbeat
interval. An announcement expires if the process does not repeat it.
"""

import asyncio
from collections.abc import Iterable
from typing import Final

from uplift_server.core.operations.cluster import HEARTBEAT_INTERVAL_MS
from uplift_server.delivery.cluster.notifier import Notifier
from uplift_server.delivery.listening.audience import Audience
from uplift_server.delivery.listening.streams import EndReason
from uplift_server.delivery.ports import Clock

EXPIRES_AFTER_MS: Final = 5_000
"""How long an announcement stays valid after the process last sent it, in ms."""


class ClusteredAnnouncer:
    """Implements the `Announcer` interface by sending notifications to the other processes."""

    def __init__(self, notifier: Notifier, audience: Audience, clock: Clock) -> None:
        self._notifier = notifier
        self._audience = audience
        self._clock = clock
        self._announced: dict[int, tuple[frozenset[int], int]] = {}
        """For each process, the accounts that it announced and the expiry of the announcement (Unix ms)."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Repeat the announcement, and remove the expired announcements of other processes.

        Run until the process stops or the task is cancelled.
        """
        while not stopping.is_set():
            await self._clock.wait(stopping, HEARTBEAT_INTERVAL_MS)
            if self._audience.here:
                self._notifier.notify_listened(self._audience.here)
            now = self._clock.now_ms()
            if any(until <= now for _, until in self._announced.values()):
                self._announced = {process: each for process, each in self._announced.items() if each[1] > now}
                self._update()

    def streams_changed(self) -> None:
        """Announce that an account's first stream in this process started, or that its last stream ended."""
        self._notifier.notify_listened(self._audience.here)

    def events_stored(self, account_seq: int) -> None:
        """Wake the streams of an account in other processes."""
        if self._audience.listens_elsewhere(account_seq):
            self._notifier.notify_stored(account_seq)

    def session_ended(self, session_id: bytes, why: EndReason, at: int) -> None:
        """End the streams of a listen session in the other processes.

        Streams that began at or after `at` (Unix ms) do not end.
        """
        self._notifier.notify_session_ended(session_id.hex(), why.value, at)

    def listened_elsewhere(self, process_id: int, account_seqs: Iterable[int]) -> None:
        """Replace the previous announcement of another process with these accounts."""
        self._announced[process_id] = frozenset(account_seqs), self._clock.now_ms() + EXPIRES_AFTER_MS
        self._update()

    def _update(self) -> None:
        self._audience.set_elsewhere(frozenset().union(*(accounts for accounts, _ in self._announced.values())))
