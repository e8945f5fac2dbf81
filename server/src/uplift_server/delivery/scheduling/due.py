"""Records which endpoints have due deliveries in the database, so that the dispatcher leases these deliveries."""

import asyncio

from uplift_server.core.scheduling.due_times import DueTimes


class DueEndpoints:
    """The endpoints that have due deliveries (`backlog`), and the known due times of other endpoints."""

    def __init__(self) -> None:
        self.backlog: dict[int, None] = {}
        """The endpoints that have due deliveries to lease, in the order in which the dispatcher handles them."""
        self.changed = asyncio.Event()
        """An asyncio event that is set to wake the dispatcher."""
        self.needs_scan = True
        """Whether the due times of some endpoints may be unknown. The dispatcher then scans the database."""
        self._times = DueTimes()

    def note_due(self, endpoint_seq: int, due_at: int = 0) -> None:
        """Record when deliveries of an endpoint are due (Unix ms; 0 means now).

        The dispatcher leases the deliveries at this time.
        """
        if self._times.note(endpoint_seq, due_at):
            self.changed.set()

    def note_backlog(self, endpoint_seq: int) -> None:
        """Record that an endpoint has due deliveries. The dispatcher leases them when the lane has room."""
        self.backlog[endpoint_seq] = None

    def wake(self) -> None:
        """Wake the dispatcher, for example because a lane has room again."""
        self.changed.set()

    def scan(self) -> None:
        """Make the dispatcher scan the database for due deliveries now."""
        self.needs_scan = True
        self.changed.set()

    def take(self, now_ms: int) -> None:
        """Move the endpoints whose deliveries are due now into the backlog."""
        for endpoint_seq in self._times.take(now_ms):
            self.note_backlog(endpoint_seq)

    @property
    def next_at(self) -> int | None:
        """The earliest due time of all endpoints (Unix ms), or None if no due time is known."""
        return self._times.next_at
