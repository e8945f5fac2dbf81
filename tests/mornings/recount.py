"""Recomputes the numbers of the dashboard from the rows of the database, in its own SQL.

It reads only events, deliveries, attempts and endpoints, and not the rollups, totals and health that the pages use.
"""

import sqlite3
import time
from bisect import bisect_right
from collections import Counter
from contextlib import closing
from math import ceil
from pathlib import Path
from typing import Any, Final

from uplift_server.core.operations.statistics import DURATION_BOUNDS_US

STATES: Final = (None, "paused", "disabled")
"""The name of each stored state. None: the endpoint is enabled, and its health decides the name."""
PENDING, DELIVERED, FAILED, HELD, CANCELLED = range(5)
HOUR_MS: Final = 3_600_000
PERIODS_MS: Final = {"1h": HOUR_MS, "24h": 24 * HOUR_MS, "7d": 7 * 24 * HOUR_MS, "30d": 30 * 24 * HOUR_MS}


class Recount:
    """The numbers of the whole fleet, of an account, or of an endpoint, at one time."""

    def __init__(self, database: Path, *, account: str | None = None, endpoint: str | None = None) -> None:
        """`account` and `endpoint` are IDs, such as `acc_…`."""
        self._path = database
        self._copy = sqlite3.connect(":memory:")
        self._scope, self._values = "1 = 1", []
        if endpoint is not None:
            self._scope, self._values = "p.id = ?", [bytes.fromhex(endpoint.removeprefix("ep_"))]
        elif account is not None:
            self._scope = "p.account_seq = (SELECT seq FROM accounts WHERE id = ?)"
            self._values = [bytes.fromhex(account.removeprefix("acc_"))]

    def close(self) -> None:
        """Delete the copy."""
        self._copy.close()

    def refresh(self) -> None:
        """Copy the database. All numbers are those of the copy, until the next call."""
        with closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)) as connection:
            connection.backup(self._copy)
        self._copy.execute("CREATE INDEX attempts_of_endpoint ON attempts (endpoint_seq, seq)")

    def _all(self, query: str, *values: Any) -> list[Any]:
        return self._copy.execute(query.format(scope=self._scope), [*self._values, *values]).fetchall()

    def _number(self, query: str, *values: Any) -> int:
        return int(self._all(query, *values)[0][0] or 0)

    def failing_endpoints(self) -> int:
        """Enabled endpoints whose last attempt of an ordinary delivery failed."""
        return len(self.last_failures())

    def failing_accounts(self) -> int:
        """Accounts that have failing endpoints."""
        failing = self.last_failures()
        rows = self._all("SELECT p.id, p.account_seq FROM endpoints p WHERE {scope}")
        return len({account for endpoint, account in rows if f"ep_{endpoint.hex()}" in failing})

    def last_failures(self) -> dict[str, tuple[int, int | None]]:
        """The outcome and the status code of the last attempt of each enabled endpoint whose last attempt failed."""
        rows = self._all(
            "SELECT p.id, a.outcome, a.status_code FROM endpoints p JOIN attempts a ON a.seq ="
            " (SELECT max(l.seq) FROM attempts l WHERE l.endpoint_seq = p.seq AND l.trigger <> 3)"
            " WHERE {scope} AND p.state = 0 AND a.outcome <> 0"
        )
        return {f"ep_{row[0].hex()}": (row[1], row[2]) for row in rows}

    def deliveries(self, status: int, *, behind_failing: bool = False) -> int:
        """Deliveries with a status, without test deliveries. `behind_failing`: only those to failing endpoints."""
        failing = (
            " AND p.state = 0 AND (SELECT outcome FROM attempts l WHERE l.endpoint_seq = p.seq AND l.trigger <> 3"
            " ORDER BY l.seq DESC LIMIT 1) <> 0"
        )
        return self._number(
            "SELECT count(*) FROM deliveries d JOIN endpoints p ON p.seq = d.endpoint_seq"
            " WHERE {scope} AND d.status = ? AND d.trigger <> 3" + (failing if behind_failing else ""),
            status,
        )

    def accepted(self, period: str, *, status: int | None = None) -> int:
        """Deliveries of events that were accepted in a period that ends now: all, or those with a status."""
        return self._number(
            "SELECT count(*) FROM deliveries d JOIN endpoints p ON p.seq = d.endpoint_seq"
            " JOIN events e ON e.seq = d.event_seq WHERE {scope} AND e.created_at >= ? AND d.trigger <> 3"
            + ("" if status is None else f" AND d.status = {status}"),
            self._start(period),
        )

    def attempts(self, period: str, *, failed: bool = False, succeeded: bool = False, first: bool = False) -> int:
        """Attempts in a period that ends now: all, or the failed, the successful, or the first ones."""
        return self._number(
            "SELECT count(*) FROM attempts a JOIN endpoints p ON p.seq = a.endpoint_seq"
            " WHERE {scope} AND a.started_at >= ? AND a.trigger <> 3"
            + (" AND a.outcome <> 0" if failed else "")
            + (" AND a.outcome = 0" if succeeded else "")
            + (" AND a.number = 1" if first else ""),
            self._start(period),
        )

    def states(self) -> dict[str, int]:
        """Endpoints by state, and enabled ones by the result of the last attempt of an ordinary delivery."""
        rows = self._all(
            "SELECT p.state, (SELECT l.outcome FROM attempts l WHERE l.endpoint_seq = p.seq AND l.trigger <> 3"
            " ORDER BY l.seq DESC LIMIT 1) FROM endpoints p WHERE {scope} AND p.deleted_at IS NULL"
        )
        return Counter(
            STATES[state] or ("unknown" if last is None else "failing" if last else "healthy") for state, last in rows
        )

    def failing_endpoints_with(self, failures: int) -> int:
        """Enabled endpoints with at least this many failed attempts since their last success."""
        return self._number(
            "SELECT count(*) FROM endpoints p WHERE {scope} AND p.state = 0 AND"
            " (SELECT count(*) FROM attempts a WHERE a.endpoint_seq = p.seq AND a.trigger <> 3 AND a.outcome <> 0"
            " AND a.seq > (SELECT coalesce(max(l.seq), 0) FROM attempts l"
            " WHERE l.endpoint_seq = p.seq AND l.trigger <> 3 AND l.outcome = 0)) >= ?",
            failures,
        )

    def failing_since(self) -> int:
        """Earliest end of a failed attempt since the last success of its endpoint, for enabled endpoints (Unix ms)."""
        return self._number(
            "SELECT min(a.started_at + a.duration_us / 1000) FROM endpoints p JOIN attempts a ON a.endpoint_seq = p.seq"
            " WHERE {scope} AND p.state = 0 AND a.trigger <> 3 AND a.outcome <> 0 AND a.seq >"
            " (SELECT coalesce(max(l.seq), 0) FROM attempts l"
            " WHERE l.endpoint_seq = p.seq AND l.trigger <> 3 AND l.outcome = 0)"
        )

    def oldest_due(self) -> int:
        """When the oldest waiting delivery of a failing endpoint became due (Unix ms); 0 if none is due."""
        return self._number(
            "SELECT min(d.due_at) FROM deliveries d JOIN endpoints p ON p.seq = d.endpoint_seq"
            " WHERE {scope} AND d.status = 0 AND d.lease_owner = 0 AND d.due_at <= ? AND p.state = 0 AND 0 <>"
            " (SELECT outcome FROM attempts l WHERE l.endpoint_seq = p.seq AND l.trigger <> 3"
            " ORDER BY l.seq DESC LIMIT 1)",
            int(time.time() * 1000),
        )

    def latency_ms(self, period: str, share: float) -> tuple[float, float] | None:
        """The bounds (ms) of the histogram bucket that contains the quantile `share` of the durations of attempts."""
        durations = [
            row[0]
            for row in self._all(
                "SELECT a.duration_us FROM attempts a JOIN endpoints p ON p.seq = a.endpoint_seq"
                " WHERE {scope} AND a.started_at >= ? AND a.trigger <> 3 ORDER BY a.duration_us",
                self._start(period),
            )
        ]
        if not durations:
            return None
        number = bisect_right(DURATION_BOUNDS_US, durations[ceil(share * len(durations)) - 1])
        bounds = (0, *DURATION_BOUNDS_US, DURATION_BOUNDS_US[-1])
        return bounds[number] / 1000, bounds[number + 1] / 1000

    @staticmethod
    def _start(period: str) -> int:
        # Every bad morning in `building.py` is shorter than the shortest period, so the alignment of the statistics
        # buckets does not matter.
        return int(time.time() * 1000) - PERIODS_MS[period]
