"""Singleton jobs: work that one process does for the whole cluster, under a leader lease."""

from enum import StrEnum
from typing import Final

LEASE_MS: Final = 5_000
"""Duration of a lease. The holder renews the lease with every heartbeat."""
LEASE_TRUSTED_MS: Final = 4_000
"""How long a process runs the job after it requested the lease. The time is shorter than LEASE_MS, so the process stops
the job before another process can take the lease."""


class SingletonJob(StrEnum):
    """A job that exactly one process does. The database stores it as a string."""

    OUTAGE_GUARD = "mass_failure"
    """Detects mass failures."""
    STATISTICS = "numbers"
    """Updates the statistics."""
    OUTBOX = "outbox"
    """Sends emails."""
    SECRET_EXPIRY = "overlaps"  # noqa: S105 - a name
    """Deletes replaced secrets, and warns about client certificates that expire soon."""
    RETENTION = "retention"
    """Deletes old data."""
    ERASURE = "erasure"
    """Erases events."""
    OPERATIONAL_EVENTS = "operational_events"
    """Sends operational events."""
    EVENT_STREAM = "event_stream"
    """Stores the events of the NATS stream. Only processes that use the stream take this job."""


def can_take_lease(held_by: int, until: int, *, by: int, now_ms: int) -> bool:
    """Return whether process `by` may take the lease that process `held_by` holds until `until` (Unix ms).

    If `held_by` is 0, no process holds the lease.
    """
    return held_by in (0, by) or until <= now_ms
