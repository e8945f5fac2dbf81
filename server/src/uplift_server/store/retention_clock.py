"""The time of the last retention check. The server stores it to detect clock jumps across restarts."""

from typing import Final

from sqlalchemy import Connection

from uplift_server.core.operations.retention import clock_jumped
from uplift_server.store import server_values

_NAME: Final = "retention clock"


def observe(connection: Connection, *, now: int, retention_ms: int) -> int | None:
    """Compare the time `now` (Unix ms) with the stored time of the last retention check.

    If the clock has jumped since then, return the stored time. Otherwise, store `now` and return None.
    """
    last_seen_at = server_values.get(connection, [_NAME]).get(_NAME)
    if last_seen_at is not None and clock_jumped(last_seen_at, now, retention_ms):
        return last_seen_at
    accept(connection, now=now)
    return None


def accept(connection: Connection, *, now: int) -> None:
    """Store `now` (Unix ms) as the time of the last retention check, even if the clock jumped."""
    server_values.replace(connection, _NAME, {_NAME: now})
