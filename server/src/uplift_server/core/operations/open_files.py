"""Divides the file descriptors among connections from callers, connections to receivers, and other uses."""

from typing import Final, NamedTuple

OWN_FILES: Final = 128
"""Number of file descriptors that are reserved for uses other than connections from callers and to receivers, such as
the database, the log, name servers and email."""
CALLERS_MIN: Final = 256
CALLERS_MAX: Final = 10_000
FILES_MIN: Final = 256
"""Minimum number of file descriptors. With fewer descriptors, the server does not start."""


class FileShares(NamedTuple):
    """The number of descriptors for each use."""

    callers: int
    """Maximum number of connections to the API and the dashboard."""
    receivers: int
    """Maximum number of connections to receivers, including idle connections."""
    in_flight: int
    """Maximum number of attempts in flight. Each attempt needs one of the connections to receivers."""


def files_needed(in_flight: int, idle: int) -> int:
    """Return the number of descriptors that attempts in flight, idle connections, callers and all other uses need."""
    return OWN_FILES + CALLERS_MIN + in_flight + idle


def divide_files(limit: int, in_flight: int, idle: int) -> FileShares:
    """Divide `limit` file descriptors (at least FILES_MIN) between callers and receivers.

    First reserve OWN_FILES descriptors for other uses. Callers get at least a quarter of the remaining descriptors, up
    to CALLERS_MAX, so that the API stays reachable.
    """
    free = limit - OWN_FILES
    callers = min(CALLERS_MAX, max(free // 4, free - in_flight - idle))
    receivers = min(free - callers, in_flight + idle)
    return FileShares(callers, receivers, min(in_flight, receivers))
