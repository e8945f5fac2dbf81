"""The reasons why pending deliveries are waiting."""

from enum import StrEnum
from typing import NamedTuple


class WaitingFor(StrEnum):
    """The reason why a pending delivery is waiting. The API uses these values."""

    SCHEDULE = "schedule"
    """The delivery waits for its due time."""
    PROBE = "probe"
    """The delivery is due, but the endpoint's circuit breaker is open."""
    ORDER = "order"
    """The delivery waits until an earlier delivery of its order group has ended."""
    TURN = "turn"
    """The delivery is due, but the server sends other deliveries first."""
    WORKER = "worker"
    """Another process is sending the delivery, or has the delivery in its queue."""


class HeldUpBy(StrEnum):
    """The reasons why an endpoint's due deliveries are late. A metric uses the values as labels."""

    SERVER = "server"
    """The server sends fewer deliveries than the endpoint could accept."""
    ENDPOINT = "endpoint"
    """The endpoint has reached its concurrency limit or rate limit."""
    PROBE = "probe"
    """The endpoint's circuit breaker is open."""


class Waiting(NamedTuple):
    """The reason why a delivery is waiting, and the earliest time (Unix ms) of its next attempt, if known."""

    what: WaitingFor
    until: int | None


def waiting_for(*, due_at: int | None, next_probe_at: int | None, now_ms: int) -> Waiting:
    """Return the reason why a delivery is waiting. Times are Unix ms.

    `due_at` is None if the delivery is due and waiting in memory. `next_probe_at` is set while the endpoint's breaker
    is open, and is in the past while the probe is in flight.
    """
    if due_at is not None and due_at > max(now_ms, next_probe_at or 0):
        return Waiting(WaitingFor.SCHEDULE, due_at)
    if next_probe_at is not None:
        return Waiting(WaitingFor.PROBE, next_probe_at)
    return Waiting(WaitingFor.TURN, due_at)
