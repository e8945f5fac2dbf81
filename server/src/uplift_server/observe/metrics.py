"""The definitions of all metrics: name, kind, help, label, and a function that reads the value from a snapshot.

Each label has a fixed set of values. No label identifies an account, an endpoint or a URL.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.events.operational import OperationalKind
from uplift_server.core.lifecycle import ENDED
from uplift_server.observe.counters import Histogram, Rejection, SetAside
from uplift_server.observe.snapshot import DatabaseReading, Disk, Snapshot

PREFIX: Final = "uplift_"

MetricKind = Literal["counter", "gauge", "histogram", "info"]
Value = float | Histogram | Mapping[str, float] | Mapping[str, str] | None
"""The value of a metric: a number, a histogram, a number for each label value, or a string for each label.

None if the value is unknown.
"""


@dataclass(frozen=True, slots=True)
class Metric:
    """The definition of a metric. If the metric has a unit, its name ends with `seconds` or `bytes`."""

    name: str
    kind: MetricKind
    help: str
    """The help text in `/metrics` and in the documentation."""
    value: Callable[[Snapshot], Value]
    label: str | None = None
    across_processes: Literal["sum", "max", "each"] = "sum"
    """How to combine the values from processes that share a database. `each` means that the values stay separate."""


def _stored(value: Callable[[DatabaseReading, Snapshot], Value]) -> Callable[[Snapshot], Value]:
    """Return a function that applies `value` to the database reading in a snapshot.

    The function returns None if the snapshot has no database reading.
    """
    return lambda snapshot: None if snapshot.stored is None else value(snapshot.stored, snapshot)


def _on_disk(value: Callable[[Disk], int]) -> Callable[[Snapshot], Value]:
    return lambda snapshot: None if snapshot.disk is None else value(snapshot.disk)


def _age_s(at_ms: int | None, snapshot: Snapshot) -> float:
    return 0.0 if at_ms is None else max(0, snapshot.at - at_ms) / 1000


METRICS: Final[tuple[Metric, ...]] = (
    Metric("uplift_build_info", "info", "Server and Python versions, and the database schema revision",
           lambda s: {"version": s.version, "python": s.python, "revision": s.revision}, across_processes="each"),
    # ---- ingest
    Metric("uplift_events_accepted_total", "counter", "Events that the server stored and accepted with 202",
           lambda s: s.engine.accepted),
    Metric("uplift_events_repeated_total", "counter",
           "Repeated events, which the server recognized by idempotency key or ID", lambda s: s.engine.duplicates),
    Metric("uplift_events_refused_total", "counter",
           "Events rejected with 503, by reason: full (the queue is full), store (the database failed or was"
           " too slow), stopping (the server is stopping), or stream (the event stream is full, failed or was"
           " too slow)",
           lambda s: {each.text: s.engine.rejected[each] for each in Rejection}, "reason"),
    Metric("uplift_accept_duration_seconds", "histogram", "Seconds from a request until its events are committed",
           lambda s: s.engine.accept_durations),
    Metric("uplift_filter_budget_exceeded_total", "counter",
           "Filter evaluations that exceeded the comparison limit. The endpoint receives the event",
           lambda s: s.engine.filter_budget_exceeded),
    Metric("uplift_stream_up", "gauge",
           "1 if the process can use the event stream in NATS, otherwise 0. Absent if NATS is not configured",
           lambda s: None if s.stream_up is None else int(s.stream_up), across_processes="each"),
    Metric("uplift_stream_messages", "gauge", "Messages in the event stream whose events are not in the database yet",
           lambda s: None if s.stream is None else s.stream.messages, across_processes="max"),
    Metric("uplift_stream_oldest_age_seconds", "gauge",
           "Age in seconds of the oldest event in the event stream. 0 if there is none",
           lambda s: None if s.stream is None else _age_s(s.stream.oldest_at, s), across_processes="max"),
    Metric("uplift_stream_publish_duration_seconds", "histogram",
           "Seconds from a request until the event stream acknowledges its events",
           lambda s: s.engine.stream_durations),
    Metric("uplift_rejected_events_total", "counter",
           "Events that the server rejected after they were published to the event stream",
           lambda s: s.engine.rejected_events),
    # ---- attempts and deliveries
    Metric("uplift_attempts_total", "counter", "Attempts by outcome, including test deliveries and replays",
           lambda s: {each.text: s.engine.attempts[each] for each in Outcome}, "outcome"),
    Metric("uplift_attempts_failed_here_total", "counter",
           "Attempts that failed because of this server: the address policy blocked a host, or the egress IP or egress"
           " proxy failed", lambda s: s.engine.own_failures),
    Metric("uplift_requests_repeated_total", "counter",
           "Requests that the server repeated within an attempt, because a reused connection closed without a response",
           lambda s: s.engine.requests_repeated),
    Metric("uplift_token_requests_total", "counter",
           "Token requests for endpoints, by result: succeeded (the server received a token) or failed",
           lambda s: {"succeeded": s.engine.tokens_received, "failed": s.engine.token_requests_failed}, "result"),
    Metric("uplift_attempt_duration_seconds", "histogram",
           "Duration of attempts in seconds, from the DNS lookup to the end of the response",
           lambda s: s.engine.attempt_durations),
    Metric("uplift_first_attempt_delay_seconds", "histogram",
           "Seconds from event acceptance to the start of the first attempt, including any time during"
           " which the endpoint was paused or disabled", lambda s: s.engine.first_attempt_delays),
    Metric("uplift_delivery_delay_seconds", "histogram",
           "Seconds from event acceptance to success, at the first attempt or a retry. Excludes resends and replays",
           lambda s: s.engine.delivery_delays),
    Metric("uplift_deliveries_ended_total", "counter", "Completed deliveries by final status",
           lambda s: {each.text: s.engine.ended[each] for each in ENDED}, "status"),
    Metric("uplift_rows_set_aside_total", "counter",
           "Rows that the server did not store because they conflict with stored rows, by kind: event (the event"
           " is rejected), attempt (only the outcome is stored), delivery (the outcome is not stored), or health (the"
           " endpoint's new health is not stored)",
           lambda s: {each.text: s.engine.set_aside[each] for each in SetAside}, "kind"),
    Metric("uplift_attempts_in_flight", "gauge", "Attempts in flight", lambda s: s.in_flight),
    Metric("uplift_attempts_in_flight_max", "gauge", "Maximum number of attempts in flight (UPLIFT_MAX_IN_FLIGHT)",
           lambda s: s.in_flight_max),
    Metric("uplift_deliveries_in_memory", "gauge", "Deliveries queued in this process's memory",
           lambda s: s.in_memory),
    Metric("uplift_sending_stopped", "gauge",
           "1 if the process has stopped sending because it cannot store outcomes or is shutting down, otherwise 0",
           lambda s: int(s.sending_stopped), across_processes="each"),
    Metric("uplift_processes", "gauge",
           "Active processes that use the database, by role: all, api or worker. Excludes workers that are"
           " starting or stopping. Commands that use the database have the role api. Absent if this process's"
           " heartbeat has expired",
           lambda s: s.processes, "role", across_processes="max"),
    # ---- backlog
    Metric("uplift_deliveries_waiting", "gauge",
           "Deliveries in the database by kind: due, later (scheduled for later), leased (by a process), held"
           " (for a paused or disabled endpoint), or blocked (by an earlier delivery of an ordered endpoint)."
           " Each count stops at 100,000",
           _stored(lambda r, _: r.waiting), "kind", across_processes="max"),
    Metric("uplift_deliveries_pending", "gauge",
           "Pending deliveries, including deliveries in flight. The value is up to 5 seconds old while a"
           " worker is running, or up to 15 seconds if the worker is busy",
           _stored(lambda r, _: r.pending), across_processes="max"),
    Metric("uplift_oldest_due_age_seconds", "gauge",
           "Age in seconds of the oldest due delivery that is not leased, by cause of the delay: server (this"
           " server), endpoint (the endpoint's concurrency or rate limit), or probe (the endpoint's open circuit"
           " breaker). 0 if there is no such delivery",
           _stored(lambda r, s: {name: _age_s(at, s) for name, at in r.oldest_due_at.items()}),
           "held_up_by", across_processes="max"),
    Metric("uplift_replays", "gauge", "Unfinished replays by state", _stored(lambda r, _: r.replays),
           "state", across_processes="max"),
    # ---- endpoints
    Metric("uplift_accounts", "gauge", "Accounts", lambda s: s.accounts, across_processes="max"),
    Metric("uplift_endpoints", "gauge",
           "Endpoints by state. The state of an enabled endpoint is its health: unknown, healthy, failing or warned",
           lambda s: s.endpoints, "state", across_processes="max"),
    Metric("uplift_endpoints_failing", "gauge",
           "Endpoints that are failing, or that the server disabled for failing, by the last attempt's outcome",
           lambda s: s.failing, "outcome", across_processes="max"),
    Metric("uplift_deliveries_pending_failing", "gauge", "Pending deliveries to the endpoints in"
           " uplift_endpoints_failing", lambda s: s.pending_failing, across_processes="max"),
    Metric("uplift_endpoints_at_limit", "gauge",
           "Endpoints whose concurrency or rate limit has delayed a due delivery for more than 1 minute",
           lambda s: s.at_limit),
    Metric("uplift_client_certificates_expiring", "gauge",
           "Endpoints whose client certificate has expired or expires within 7 days",
           lambda s: s.certificates_expiring, across_processes="max"),
    Metric("uplift_endpoints_probed", "gauge", "Endpoints with an open circuit breaker", lambda s: s.probed,
           across_processes="max"),
    Metric("uplift_mass_failure", "gauge",
           "1 during a mass failure, otherwise 0. During a mass failure, the server does not warn about or"
           " disable endpoints",
           lambda s: int(s.mass_failure), across_processes="max"),
    Metric("uplift_operational_events_total", "counter",
           "Operational events by type. An event for both the account and the operations account counts once",
           lambda s: {kind.type_name: s.engine.operational_events[kind] for kind in OperationalKind}, "type"),
    # ---- the database
    Metric("uplift_store_up", "gauge", "1 if the latest database reads and writes succeeded in time, otherwise 0",
           lambda s: int(s.store_up), across_processes="each"),
    Metric("uplift_store_reading_age_seconds", "gauge",
           "Age in seconds of the metrics that the process reads from the database",
           _stored(lambda r, s: _age_s(r.read_at, s)), across_processes="each"),
    Metric("uplift_store_commit_duration_seconds", "histogram",
           "Duration of database transactions in seconds, including the commit",
           lambda s: s.store.commits),
    Metric("uplift_store_writes_total", "counter", "Writes in committed database transactions",
           lambda s: s.store.writes),
    Metric("uplift_store_commits_failed_total", "counter", "Failed database transactions", lambda s: s.store.failed),
    Metric("uplift_store_writes_waiting", "gauge", "Writes queued for a database transaction",
           lambda s: s.writes_waiting),
    Metric("uplift_database_bytes", "gauge", "Size of the SQLite database in bytes",
           _on_disk(lambda disk: disk.database), across_processes="max"),
    Metric("uplift_database_disk_free_bytes", "gauge", "Free bytes on the disk that holds the SQLite database",
           _on_disk(lambda disk: disk.free), across_processes="max"),
    Metric("uplift_database_disk_size_bytes", "gauge", "Size of the disk that holds the SQLite database, in bytes",
           _on_disk(lambda disk: disk.size), across_processes="max"),
    Metric("uplift_oldest_event_age_seconds", "gauge", "Age in seconds of the oldest stored event. 0 if there is none",
           _stored(lambda r, s: _age_s(r.oldest_event_at, s)), across_processes="max"),
    # ---- background work
    Metric("uplift_retention_removed_rows_total", "counter",
           "Rows that retention deleted, by table. Excludes dependent rows, and deliveries that were deleted"
           " together with their partition",
           lambda s: s.engine.removed, "table"),
    Metric("uplift_retention_round_age_seconds", "gauge",
           "Seconds since the process's last completed retention pass, or since the start of its first pass",
           lambda s: None if s.engine.retention_round_at is None else _age_s(s.engine.retention_round_at, s),
           across_processes="each"),
    Metric("uplift_mails_waiting", "gauge", "Unsent emails in the outbox. The count stops at 10,000."
           " 0 if email is not configured",
           _stored(lambda r, _: r.emails_waiting), across_processes="max"),
    Metric("uplift_oldest_mail_age_seconds", "gauge",
           "Age in seconds of the oldest unsent email. 0 if there is none or email is not configured",
           _stored(lambda r, s: _age_s(r.oldest_email_at, s)), across_processes="max"),
    Metric("uplift_log_lines_dropped_total", "counter",
           "Log lines that the process dropped because the program that reads the log was too slow or a write failed",
           lambda s: s.log_lines_dropped),
)  # fmt: skip


def samples_of(metric: Metric) -> Iterable[str]:
    """Return the names under which Prometheus stores a metric's samples."""
    if metric.kind == "histogram":
        return (f"{metric.name}_bucket", f"{metric.name}_sum", f"{metric.name}_count")
    return (metric.name,)
