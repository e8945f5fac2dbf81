"""Duties: what one process does for all of them, and who may take it over."""

from enum import StrEnum
from typing import Final

LEASE_MS: Final = 5_000
"""For how long a duty is taken. Whoever has it takes it anew with every heartbeat."""
LEASE_TRUSTED_MS: Final = 4_000
"""How long after asking for it a process may act on a duty it got: it stops before another can have it."""


class SingletonJob(StrEnum):
    """What would be done twice, or in vain, if every process did it."""

    OUTAGE_GUARD = "mass_failure"
    """Judging whether most endpoints fail at once."""
    STATISTICS = "numbers"
    """Counting what was added."""
    OUTBOX = "outbox"
    """Sending mails."""
    SECRET_EXPIRY = "overlaps"  # noqa: S105 - a name
    """Erasing replaced secrets."""
    RETENTION = "retention"
    """Removing what is too old."""


def can_take_lease(held_by: int, until: int, *, by: int, now_ms: int) -> bool:
    """Whether a process may have a duty now that one (0: nobody) has until an instant (Unix ms)."""
    return held_by in (0, by) or until <= now_ms
