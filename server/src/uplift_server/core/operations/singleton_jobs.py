"""Singleton jobs: each job runs in only one process of a cluster, the holder of a leader lease."""

from enum import StrEnum
from typing import Final

LEASE_MS: Final = 5_000
"""Duration of the lease on a singleton job, in ms. The process that holds the lease renews it with every heartbeat."""
LEASE_TRUSTED_MS: Final = 4_000
"""How long, in ms, a process runs a singleton job after its last request for the lease.

This time is shorter than LEASE_MS, so the process stops the job before another process can take the lease.
"""


class SingletonJob(StrEnum):
    """A job that at most one process runs at a time. The database stores the job as a string."""

    OUTAGE_GUARD = "mass_failure"
    """Detects mass failures."""
    STATISTICS = "numbers"
    """Updates the statistics."""
    OUTBOX = "outbox"
    """Sends emails."""
    SECRET_EXPIRY = "overlaps"  # noqa: S105 - a name
    """Deletes old secrets when their overlap ends, and warns about client certificates that expire soon."""
    RETENTION = "retention"
    """Deletes data that is older than the retention period."""
    ERASURE = "erasure"
    """Erases the events that erasure requests select."""
    OPERATIONAL_EVENTS = "operational_events"
    """Creates operational events."""
    EVENT_STREAM = "event_stream"
    """Stores the events from the NATS stream. Only processes that use the stream run this job."""


def can_take_lease(held_by: int, until: int, *, by: int, now_ms: int) -> bool:
    """Return whether process `by` may take the lease that process `held_by` holds until `until` (Unix ms).

    If `held_by` is 0, no process holds the lease.
    """
    return held_by in (0, by) or until <= now_ms
