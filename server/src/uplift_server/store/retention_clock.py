"""The time of the last retention check, stored to detect clock jumps across restarts."""

from typing import Final

from sqlalchemy import Connection

from uplift_server.core.operations.retention import clock_jumped
from uplift_server.store import server_values

_NAME: Final = "retention clock"


def observe(connection: Connection, *, now: int, retention_ms: int) -> int | None:
    """Store the current time (Unix ms). If the clock jumped, return the stored time instead."""
    last_seen_at = server_values.get(connection, [_NAME]).get(_NAME)
    if last_seen_at is not None and clock_jumped(last_seen_at, now, retention_ms):
        return last_seen_at
    accept(connection, now=now)
    return None


def accept(connection: Connection, *, now: int) -> None:
    """Store the current time (Unix ms) without a check."""
    server_values.replace(connection, _NAME, {_NAME: now})
