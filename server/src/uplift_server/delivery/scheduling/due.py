"""Endpoints with due deliveries in the database, for the dispatcher."""

import asyncio

from uplift_server.core.scheduling.due_times import DueTimes


class DueEndpoints:
    """Endpoints with deliveries that are due now (`backlog`) or at a known time."""

    def __init__(self) -> None:
        self.backlog: dict[int, None] = {}
        """Endpoints with due deliveries to lease. The dispatcher starts with the first."""
        self.changed = asyncio.Event()
        """Set to wake the dispatcher."""
        self.needs_scan = True
        """Whether due times may be unknown, so that the database must be scanned."""
        self._times = DueTimes()

    def note_due(self, endpoint_seq: int, due_at: int = 0) -> None:
        """Lease deliveries of an endpoint at a due time (Unix ms), or now if it is 0."""
        if self._times.note(endpoint_seq, due_at):
            self.changed.set()

    def note_backlog(self, endpoint_seq: int) -> None:
        """Lease due deliveries of an endpoint when its lane has room."""
        self.backlog[endpoint_seq] = None

    def wake(self) -> None:
        """Wake the dispatcher, because an endpoint of the backlog has room."""
        self.changed.set()

    def scan(self) -> None:
        """Scan the database for due deliveries now."""
        self.needs_scan = True
        self.changed.set()

    def take(self, now_ms: int) -> None:
        """Move the endpoints whose due time has come into the backlog."""
        for endpoint_seq in self._times.take(now_ms):
            self.note_backlog(endpoint_seq)

    @property
    def next_at(self) -> int | None:
        """The next due time (Unix ms)."""
        return self._times.next_at
