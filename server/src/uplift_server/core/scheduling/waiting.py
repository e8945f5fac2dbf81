"""What a pending delivery waits for while no attempt of it is in flight."""

from enum import StrEnum
from typing import NamedTuple


class WaitingFor(StrEnum):
    """What has to come first."""

    SCHEDULE = "schedule"
    """The instant at which it is due."""
    PROBE = "probe"
    """It is due, but its endpoint fails so often that single attempts only are made."""
    TURN = "turn"
    """It is due, and others come before it."""
    WORKER = "worker"
    """Another process handles it: an attempt is in flight, or it waits for its turn there."""


class HeldUpBy(StrEnum):
    """What keeps what is due for an endpoint from being attempted."""

    SERVER = "server"
    """The endpoint could take more: it is this server's turn."""
    ENDPOINT = "endpoint"
    """As much is in flight to it as it may have, or as its rate limit allows."""
    PROBE = "probe"
    """It fails so often that single attempts only are made."""


class Waiting(NamedTuple):
    """What it waits for, and the earliest instant (Unix ms) at which it may be attempted, as far as that is known."""

    what: WaitingFor
    until: int | None


def waiting_for(*, due_at: int | None, next_probe_at: int | None, now_ms: int) -> Waiting:
    """What a delivery waits for. Instants are Unix ms.

    `due_at` is None for one that was due before and waits in memory; `next_probe_at` is set while the endpoint's
    breaker is open, and is past while the probe is in flight.
    """
    if due_at is not None and due_at > max(now_ms, next_probe_at or 0):
        return Waiting(WaitingFor.SCHEDULE, due_at)
    if next_probe_at is not None:
        return Waiting(WaitingFor.PROBE, next_probe_at)
    return Waiting(WaitingFor.TURN, due_at)
