"""Division of file descriptors among callers, receivers and other uses."""

from typing import Final, NamedTuple

OWN_FILES: Final = 128
"""Descriptors for the database, the log, name servers, email, and all other uses except callers and receivers."""
CALLERS_MIN: Final = 256
CALLERS_MAX: Final = 10_000
FILES_MIN: Final = 256
"""The server does not start with fewer descriptors."""


class FileShares(NamedTuple):
    """Descriptors by use."""

    callers: int
    """Connections to the API and the dashboard."""
    receivers: int
    """Connections to receivers, including idle ones."""
    in_flight: int
    """Attempts in flight; each needs one connection."""


def files_needed(in_flight: int, idle: int) -> int:
    """Descriptors for these attempts in flight and idle connections, for callers, and for everything else."""
    return OWN_FILES + CALLERS_MIN + in_flight + idle


def divide_files(limit: int, in_flight: int, idle: int) -> FileShares:
    """Divide a limit of at least FILES_MIN. Callers keep a quarter, so that the API stays reachable."""
    free = limit - OWN_FILES
    callers = min(CALLERS_MAX, max(free // 4, free - in_flight - idle))
    receivers = min(free - callers, in_flight + idle)
    return FileShares(callers, receivers, min(in_flight, receivers))
