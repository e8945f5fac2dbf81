"""Writes the outcomes of attempts to SQLite."""

import sqlite3
from collections import Counter
from collections.abc import Sequence

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.store.hot_records import HealthRow, Settlement
from uplift_server.store.sqlite import replay_statements, statements
from uplift_server.store.sqlite.replay_statements import DeliveryKey
from uplift_server.store.sqlite.statements import EndpointHealthRow, SettledRow


def settle(
    connection: sqlite3.Connection,
    settlements: Sequence[Settlement],
    health: Sequence[HealthRow],
    *,
    process_id: int = 0,
) -> frozenset[tuple[int, int]]:
    """Write attempt outcomes and endpoint health.

    Skip the settlements that are not valid (see `store.contract`). Return the event and endpoint numbers of their
    deliveries.
    """
    rows = [
        SettledRow(
            s.status, s.due_at, s.attempts_made, s.scheduled_attempts, s.last_outcome, s.failed_reason, s.completed_at,
            s.event_seq, s.endpoint_seq, s.fence, s.attempts_made - (s.attempt is not None),
        )
        for s in settlements
    ]  # fmt: skip
    lost: set[tuple[int, int]] = set()
    connection.execute("SAVEPOINT settle")
    if statements.SETTLE.run(connection, rows) != len(rows):
        # At least one settlement is not valid. Find such settlements with one statement per settlement.
        connection.execute("ROLLBACK TO settle")
        for row in rows:
            if statements.SETTLE.run(connection, [row]) == 0:
                lost.add((row.event_seq, row.endpoint_seq))
    connection.execute("RELEASE settle")
    attempts = [s.attempt for s in settlements if s.attempt is not None]
    if lost:
        attempts = [attempt for attempt in attempts if (attempt.event_seq, attempt.endpoint_seq) not in lost]
    statements.INSERT_ATTEMPTS.run(connection, attempts)
    statements.UPDATE_HEALTH.run(connection, [EndpointHealthRow(*row, process_seq=process_id) for row in health])
    replayed = [s for s in settlements if s.replay_seq is not None and (s.event_seq, s.endpoint_seq) not in lost]
    if replayed:
        _count(connection, replayed)
    return frozenset(lost)


def _count(connection: sqlite3.Connection, replayed: Sequence[Settlement]) -> None:
    """Add the ended attempts to the progress of their replays.

    Remove the replay number from the deliveries.
    """
    replay_statements.LEAVE_REPLAY.run(connection, [DeliveryKey(s.event_seq, s.endpoint_seq) for s in replayed])
    ended = Counter(s.replay_seq for s in replayed)
    delivered = Counter(s.replay_seq for s in replayed if s.last_outcome == Outcome.DELIVERED)
    for replay_seq, count in ended.items():
        connection.execute(
            replay_statements.COUNT_REPLAYED,
            {"replay_seq": replay_seq, "delivered": delivered[replay_seq], "failed": count - delivered[replay_seq]},
        )
