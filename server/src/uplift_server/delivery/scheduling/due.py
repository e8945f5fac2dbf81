"""Endpoints with due deliveries in the database, for the dispatcher."""

import asyncio

from uplift_server.core.scheduling.due_times import DueTimes


class DueEndpoints:
    """The endpoints whose deliveries are due now (`backlog`) or at a known time."""

    def __init__(self) -> None:
        self.backlog: dict[int, None] = {}
        """The endpoints with due deliveries to lease. The dispatcher starts with the first endpoint."""
        self.changed = asyncio.Event()
        """An event that wakes the dispatcher."""
        self.needs_scan = True
        """Whether due times can be unknown. If so, the dispatcher scans the database."""
        self._times = DueTimes()

    def note_due(self, endpoint_seq: int, due_at: int = 0) -> None:
        """Record when deliveries of an endpoint are due (Unix ms; 0 means now). The dispatcher then leases them."""
        if self._times.note(endpoint_seq, due_at):
            self.changed.set()

    def note_backlog(self, endpoint_seq: int) -> None:
        """Record that an endpoint has due deliveries. The dispatcher leases them when the lane has room."""
        self.backlog[endpoint_seq] = None

    def wake(self) -> None:
        """Wake the dispatcher, because the lane of an endpoint in the backlog has room."""
        self.changed.set()

    def scan(self) -> None:
        """Let the dispatcher scan the database for due deliveries now."""
        self.needs_scan = True
        self.changed.set()

    def take(self, now_ms: int) -> None:
        """Move the endpoints whose due time has arrived into the backlog."""
        for endpoint_seq in self._times.take(now_ms):
            self.note_backlog(endpoint_seq)

    @property
    def next_at(self) -> int | None:
        """The earliest due time of all endpoints (Unix ms), or None if no due time is known."""
        return self._times.next_at
