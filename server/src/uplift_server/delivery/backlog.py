"""Backlogs of received events that are not stored yet, and the limits on these backlogs."""

from uplift_server.core.limits import (
    ACCEPTS_BODY_BYTES_MAX,
    ACCEPTS_WAITING_MAX,
    ACCEPTS_WAITING_ROWS_MAX,
    ACCOUNT_ACCEPTS_BODY_BYTES_MAX,
    ACCOUNT_ACCEPTS_WAITING_MAX,
    ACCOUNT_ACCEPTS_WAITING_ROWS_MAX,
)


class Backlog:
    """The total size of the requests that are not stored yet: the numbers of events, body bytes and rows."""

    __slots__ = ("body_bytes", "events", "rows")

    def __init__(self) -> None:
        self.events = self.body_bytes = self.rows = 0

    def add(self, events: int, body_bytes: int, rows: int) -> None:
        """Add the size of a request. To subtract the size, pass negative numbers."""
        self.events += events
        self.body_bytes += body_bytes
        self.rows += rows


def full_queue(total: Backlog, account: Backlog, events: int, rows: int) -> str | None:
    """Return the reason why the backlog has no room for a request, or None if it has room.

    Both the total backlog and the backlog of the request's account have limits.
    """
    if (
        total.events + events > ACCEPTS_WAITING_MAX
        or total.body_bytes >= ACCEPTS_BODY_BYTES_MAX
        or (total.rows and total.rows + rows > ACCEPTS_WAITING_ROWS_MAX)
    ):
        return "the queue for storing events and deliveries is full"
    if (
        account.events + events > ACCOUNT_ACCEPTS_WAITING_MAX
        or account.body_bytes >= ACCOUNT_ACCEPTS_BODY_BYTES_MAX
        or account.rows + rows > ACCOUNT_ACCEPTS_WAITING_ROWS_MAX
    ):
        return "the account has used its share of the queue for storing events and deliveries"
    return None
