"""The reasons why pending deliveries are waiting."""

from enum import StrEnum
from typing import NamedTuple


class WaitingFor(StrEnum):
    """The condition for the next attempt. The API uses these values."""

    SCHEDULE = "schedule"
    """The due time."""
    PROBE = "probe"
    """The delivery is due, but the endpoint's circuit breaker is open."""
    ORDER = "order"
    """Another delivery of its order group, which has to end first."""
    TURN = "turn"
    """The delivery is due, but others come first."""
    WORKER = "worker"
    """Another process has the delivery: in flight or in its queue."""


class HeldUpBy(StrEnum):
    """The cause of the delay of an endpoint's due deliveries. The values are labels of a metric."""

    SERVER = "server"
    """The server: the endpoint has free capacity."""
    ENDPOINT = "endpoint"
    """The endpoint's concurrency limit or rate limit."""
    PROBE = "probe"
    """The endpoint's open circuit breaker."""


class Waiting(NamedTuple):
    """The condition, and the earliest time (Unix ms) of the next attempt, if known."""

    what: WaitingFor
    until: int | None


def waiting_for(*, due_at: int | None, next_probe_at: int | None, now_ms: int) -> Waiting:
    """Return why a delivery is waiting. Times are Unix ms.

    `due_at` is None if the delivery is due and waiting in memory. `next_probe_at` is set while the endpoint's breaker
    is open. It is in the past while the probe is in flight.
    """
    if due_at is not None and due_at > max(now_ms, next_probe_at or 0):
        return Waiting(WaitingFor.SCHEDULE, due_at)
    if next_probe_at is not None:
        return Waiting(WaitingFor.PROBE, next_probe_at)
    return Waiting(WaitingFor.TURN, due_at)
