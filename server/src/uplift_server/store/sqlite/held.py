"""Release held deliveries on SQLite."""

import json
import sqlite3
from collections.abc import Sequence

from uplift_server.store.hot_records import HeldRequest, Released
from uplift_server.store.sqlite import statements
from uplift_server.store.sqlite.order_groups import unblock_first


def release_held(connection: sqlite3.Connection, requests: Sequence[HeldRequest], *, now: int) -> list[Released]:
    """Make held deliveries due at `now`, oldest events first. Return one result per request, in request order."""
    results = []
    for endpoint, after, limit in requests:
        of_endpoint = {"endpoint_seq": endpoint, "now": now}
        if connection.execute(statements.IS_WAITING, of_endpoint).fetchone() is not None:
            results.append(Released(0, 0, is_blocked=True))
            continue
        oldest = {**of_endpoint, "after": after, "limit": limit}
        rows = connection.execute(statements.OLDEST_HELD, oldest).fetchall()
        due = [event_seq for event_seq, is_expired in rows if not is_expired]
        expired = [event_seq for event_seq, is_expired in rows if is_expired]
        for statement, event_seqs in ((statements.RELEASE_HELD, due), (statements.EXPIRE_HELD, expired)):
            if event_seqs:
                connection.execute(statement, {**of_endpoint, "event_seqs": json.dumps(event_seqs)})
        unblock_first(connection, endpoint, due, now=now)
        results.append(Released(len(due), len(expired), is_blocked=False))
    return results
