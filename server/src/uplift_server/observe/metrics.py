"""Every metric: name, kind, help and label, and its value in a snapshot.

A label has a few values that are all known here. No metric names an account, an endpoint or a URL.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import ENDED
from uplift_server.observe.counters import Histogram, Rejection, SetAside
from uplift_server.observe.snapshot import DatabaseReading, Disk, Snapshot

PREFIX: Final = "uplift_"

MetricKind = Literal["counter", "gauge", "histogram", "info"]
Value = float | Histogram | Mapping[str, float] | Mapping[str, str] | None
"""A number, numbers by label value, or texts by label; None: unknown now."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric. The end of its name is its unit: seconds or bytes."""

    name: str
    kind: MetricKind
    help: str
    """For the exposition and the documentation."""
    value: Callable[[Snapshot], Value]
    label: str | None = None
    across_processes: Literal["sum", "max", "each"] = "sum"
    """How to combine the values of several processes on one database; `each`: do not combine."""


def _stored(value: Callable[[DatabaseReading, Snapshot], Value]) -> Callable[[Snapshot], Value]:
    """Return a function of the last database reading; None if there is none."""
    return lambda snapshot: None if snapshot.stored is None else value(snapshot.stored, snapshot)


def _on_disk(value: Callable[[Disk], int]) -> Callable[[Snapshot], Value]:
    return lambda snapshot: None if snapshot.disk is None else value(snapshot.disk)


def _age_s(at_ms: int | None, snapshot: Snapshot) -> float:
    return 0.0 if at_ms is None else max(0, snapshot.at - at_ms) / 1000


METRICS: Final[tuple[Metric, ...]] = (
    Metric("uplift_build_info", "info", "Version of the server and of Python, revision of the database schema",
           lambda s: {"version": s.version, "python": s.python, "revision": s.revision}, across_processes="each"),
    # ---- ingest
    Metric("uplift_events_accepted_total", "counter", "Events that were stored and accepted with 202",
           lambda s: s.engine.accepted),
    Metric("uplift_events_repeated_total", "counter",
           "Repeated events that were accepted before, by idempotency key or ID", lambda s: s.engine.duplicates),
    Metric("uplift_events_refused_total", "counter",
           "Events rejected with 503, by reason: the queue is full (full), the database failed or was too slow"
           " (store), the server is stopping (stopping)",
           lambda s: {each.text: s.engine.rejected[each] for each in Rejection}, "reason"),
    Metric("uplift_accept_duration_seconds", "histogram", "Time from a request to the commit of its events",
           lambda s: s.engine.accept_durations),
    # ---- attempts and deliveries
    Metric("uplift_attempts_total", "counter", "Attempts by outcome, including tests and replays",
           lambda s: {each.text: s.engine.attempts[each] for each in Outcome}, "outcome"),
    Metric("uplift_attempts_failed_here_total", "counter",
           "Attempts that failed through no fault of the receiver: the address policy blocked them, or the egress IP"
           " or egress proxy failed", lambda s: s.engine.own_failures),
    Metric("uplift_requests_repeated_total", "counter",
           "Requests sent twice within an attempt, because a reused connection ended without a response",
           lambda s: s.engine.requests_repeated),
    Metric("uplift_attempt_duration_seconds", "histogram",
           "Duration of attempts, from the DNS lookup to the end of the response",
           lambda s: s.engine.attempt_durations),
    Metric("uplift_first_attempt_delay_seconds", "histogram",
           "Time from acceptance to the start of the first attempt, including the time when the endpoint was paused"
           " or disabled", lambda s: s.engine.first_attempt_delays),
    Metric("uplift_delivery_delay_seconds", "histogram", "Time from acceptance to delivery by the retry schedule",
           lambda s: s.engine.delivery_delays),
    Metric("uplift_deliveries_ended_total", "counter", "Ended deliveries by status",
           lambda s: {each.text: s.engine.ended[each] for each in ENDED}, "status"),
    Metric("uplift_rows_set_aside_total", "counter",
           "Rows that the database rejected because they contradict stored rows: an event that was not accepted"
           " (event), the record of an attempt whose outcome was stored (attempt), an outcome (delivery), the health"
           " of endpoints (health)", lambda s: {each.text: s.engine.set_aside[each] for each in SetAside}, "kind"),
    Metric("uplift_attempts_in_flight", "gauge", "Attempts in flight", lambda s: s.in_flight),
    Metric("uplift_attempts_in_flight_max", "gauge", "Concurrency limit of attempts (UPLIFT_MAX_IN_FLIGHT)",
           lambda s: s.in_flight_max),
    Metric("uplift_deliveries_in_memory", "gauge", "Deliveries that wait in the memory of this process",
           lambda s: s.in_memory),
    Metric("uplift_sending_stopped", "gauge",
           "1 if the process sends nothing, because outcomes cannot be stored or it is stopping",
           lambda s: int(s.sending_stopped), across_processes="each"),
    Metric("uplift_processes", "gauge",
           "Active processes on the database by role: all, api or worker. Workers that start or stop do not count;"
           " commands that use the database count as api. Empty if this process has lost its heartbeat",
           lambda s: s.processes, "role", across_processes="max"),
    # ---- backlog
    Metric("uplift_deliveries_waiting", "gauge",
           "Deliveries in the database by kind: due, scheduled for later (later), leased by a process (leased), held"
           " for a paused or disabled endpoint (held). The maximum of each is 100,000",
           _stored(lambda r, _: r.waiting), "kind", across_processes="max"),
    Metric("uplift_deliveries_pending", "gauge",
           "Pending deliveries, including those in flight. Follows the hourly statistics, 1 to 2 seconds late while"
           " a worker runs", _stored(lambda r, _: r.pending), across_processes="max"),
    Metric("uplift_oldest_due_age_seconds", "gauge",
           "Age of the oldest due delivery that is not leased, by cause of the delay: this server (server), the"
           " endpoint's concurrency or rate limit (endpoint), its open circuit breaker (probe). 0 if there is none",
           _stored(lambda r, s: {name: _age_s(at, s) for name, at in r.oldest_due_at.items()}),
           "held_up_by", across_processes="max"),
    Metric("uplift_replays", "gauge", "Unfinished replays by state", _stored(lambda r, _: r.replays),
           "state", across_processes="max"),
    # ---- endpoints
    Metric("uplift_accounts", "gauge", "Accounts", lambda s: s.accounts, across_processes="max"),
    Metric("uplift_endpoints", "gauge", "Endpoints by state; enabled ones by health: unknown, healthy, failing, warned",
           lambda s: s.endpoints, "state", across_processes="max"),
    Metric("uplift_endpoints_probed", "gauge", "Endpoints with an open circuit breaker", lambda s: s.probed),
    Metric("uplift_mass_failure", "gauge",
           "1 during a mass failure of endpoints, while warnings and disabling are suspended",
           lambda s: int(s.mass_failure), across_processes="max"),
    # ---- the database
    Metric("uplift_store_up", "gauge", "1 if the latest reads and writes of the database succeeded in time",
           lambda s: int(s.store_up), across_processes="each"),
    Metric("uplift_store_reading_age_seconds", "gauge", "Age of the database values in these metrics",
           _stored(lambda r, s: _age_s(r.read_at, s)), across_processes="each"),
    Metric("uplift_store_commit_duration_seconds", "histogram", "Duration of transactions, including the commit",
           lambda s: s.store.commits),
    Metric("uplift_store_writes_total", "counter", "Writes in committed transactions", lambda s: s.store.writes),
    Metric("uplift_store_commits_failed_total", "counter", "Transactions that failed", lambda s: s.store.failed),
    Metric("uplift_store_writes_waiting", "gauge", "Writes that wait for a transaction", lambda s: s.writes_waiting),
    Metric("uplift_database_bytes", "gauge", "Size of the SQLite database",
           _on_disk(lambda disk: disk.database), across_processes="max"),
    Metric("uplift_database_disk_free_bytes", "gauge", "Free space on the disk of the database",
           _on_disk(lambda disk: disk.free), across_processes="max"),
    Metric("uplift_database_disk_size_bytes", "gauge", "Size of the disk of the database",
           _on_disk(lambda disk: disk.size), across_processes="max"),
    Metric("uplift_oldest_event_age_seconds", "gauge", "Age of the oldest stored event",
           _stored(lambda r, s: _age_s(r.oldest_event_at, s)), across_processes="max"),
    # ---- background work
    Metric("uplift_retention_removed_rows_total", "counter",
           "Rows older than UPLIFT_RETENTION that were deleted, by table, without dependent rows; deliveries: those"
           " deleted before an old partition is dropped", lambda s: s.engine.removed, "table"),
    Metric("uplift_retention_round_age_seconds", "gauge",
           "Time since retention last finished a complete pass, or since its first start",
           lambda s: None if s.engine.retention_round_at is None else _age_s(s.engine.retention_round_at, s),
           across_processes="each"),
    Metric("uplift_mails_waiting", "gauge", "Emails in the outbox that are not sent yet. The maximum is 10,000",
           _stored(lambda r, _: r.emails_waiting), across_processes="max"),
    Metric("uplift_oldest_mail_age_seconds", "gauge", "Age of the oldest unsent email. 0 if there is none",
           _stored(lambda r, s: _age_s(r.oldest_email_at, s)), across_processes="max"),
    Metric("uplift_log_lines_dropped_total", "counter", "Log lines that were dropped", lambda s: s.log_lines_dropped),
)  # fmt: skip


def samples_of(metric: Metric) -> Iterable[str]:
    """The names of a metric's samples in queries."""
    if metric.kind == "histogram":
        return (f"{metric.name}_bucket", f"{metric.name}_sum", f"{metric.name}_count")
    return (metric.name,)
