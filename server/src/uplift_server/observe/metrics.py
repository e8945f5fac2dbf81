"""Every metric: one table with the name, kind, meaning and labels of each, and how it follows from a snapshot.

A label has a few values, all of which are known here: no metric ever names an account, an endpoint or a URL.
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
"""By label value where there is a label, and texts by label where that is all there is; None: not known now."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. Times are seconds and sizes bytes, as the ends of their names say."""

    name: str
    kind: MetricKind
    help: str
    """What it counts or measures, for the exposition and the documentation."""
    value: Callable[[Snapshot], Value]
    label: str | None = None
    across_processes: Literal["sum", "max", "each"] = "sum"
    """What becomes one number of those of across_processes processes on one database; of each: nothing does."""


def _stored(value: Callable[[DatabaseReading, Snapshot], Value]) -> Callable[[Snapshot], Value]:
    """What follows from the database's answer; None where there was none."""
    return lambda snapshot: None if snapshot.stored is None else value(snapshot.stored, snapshot)


def _on_disk(value: Callable[[Disk], int]) -> Callable[[Snapshot], Value]:
    return lambda snapshot: None if snapshot.disk is None else value(snapshot.disk)


def _age_s(at_ms: int | None, snapshot: Snapshot) -> float:
    return 0.0 if at_ms is None else max(0, snapshot.at - at_ms) / 1000


METRICS: Final[tuple[Metric, ...]] = (
    Metric("uplift_build_info", "info", "The program: its version, Python's, and the revision of the database's schema",
           lambda s: {"version": s.version, "python": s.python, "revision": s.revision}, across_processes="each"),
    # ---- events in
    Metric("uplift_events_accepted_total", "counter", "Events that were stored and answered 202",
           lambda s: s.engine.accepted),
    Metric("uplift_events_repeated_total", "counter",
           "Events that had been accepted before, under the same idempotency key or id", lambda s: s.engine.duplicates),
    Metric("uplift_events_refused_total", "counter",
           "Events answered 503: more waited than the server takes at once (full), the database could not store them in"
           " time (store), or the server was about to stop (stopping)",
           lambda s: {each.text: s.engine.rejected[each] for each in Rejection}, "reason"),
    Metric("uplift_accept_duration_seconds", "histogram",
           "How long requests waited until their events were stored", lambda s: s.engine.accept_durations),
    # ---- attempts and deliveries
    Metric("uplift_attempts_total", "counter", "Attempts by outcome, tests and replays among them",
           lambda s: {each.text: s.engine.attempts[each] for each in Outcome}, "outcome"),
    Metric("uplift_attempts_failed_here_total", "counter",
           "Attempts that failed by no fault of the receiver: blocked by the address policy, or the way out was down",
           lambda s: s.engine.own_failures),
    Metric("uplift_requests_repeated_total", "counter",
           "Requests sent twice within an attempt, because a reused connection ended without a response",
           lambda s: s.engine.requests_repeated),
    Metric("uplift_attempt_duration_seconds", "histogram",
           "How long attempts took, from the look-up to the end of the response",
           lambda s: s.engine.attempt_durations),
    Metric("uplift_first_attempt_delay_seconds", "histogram",
           "From acceptance to the beginning of the first attempt, the time an endpoint was off included",
           lambda s: s.engine.first_attempt_delays),
    Metric("uplift_delivery_delay_seconds", "histogram",
           "From acceptance to delivery, of what was delivered by the schedule", lambda s: s.engine.delivery_delays),
    Metric("uplift_deliveries_ended_total", "counter", "Deliveries by what they ended as",
           lambda s: {each.text: s.engine.ended[each] for each in ENDED}, "status"),
    Metric("uplift_rows_set_aside_total", "counter",
           "Rows that the database rejected because they contradict stored rows: an event that was not accepted"
           " (event), the record of an attempt whose outcome was stored (attempt), an outcome (delivery), the health of"
           " endpoints (health)",
           lambda s: {each.text: s.engine.set_aside[each] for each in SetAside}, "kind"),
    Metric("uplift_attempts_in_flight", "gauge", "Attempts in flight", lambda s: s.in_flight),
    Metric("uplift_attempts_in_flight_max", "gauge", "How many may be (UPLIFT_MAX_IN_FLIGHT)",
           lambda s: s.in_flight_max),
    Metric("uplift_deliveries_in_memory", "gauge", "Deliveries that wait in this process's memory for their turn",
           lambda s: s.in_memory),
    Metric("uplift_sending_stopped", "gauge",
           "1 while nothing is sent, since outcomes cannot be written or the server is about to stop",
           lambda s: int(s.sending_stopped), across_processes="each"),
    Metric("uplift_processes", "gauge",
           "Processes that share the database and work, by role: those that do everything (all), take requests (api)"
           " or deliver (worker). Not workers that start or are about to stop; a command that works on the database is"
           " one of api. None while this process itself is not heard of, and so does not know",
           lambda s: s.processes, "role", across_processes="max"),
    # ---- what waits
    Metric("uplift_deliveries_waiting", "gauge",
           "Deliveries in the database by what they are: due, due later (later), leased by a process (leased), held"
           " for an endpoint that is off (held). Each is counted up to 100,000",
           _stored(lambda r, _: r.waiting), "kind", across_processes="max"),
    Metric("uplift_deliveries_pending", "gauge",
           "Deliveries that are due or will be, in flight or not: all of them, as numbers by the hour have them a"
           " second or two later, while a worker runs",
           _stored(lambda r, _: r.pending), across_processes="max"),
    Metric("uplift_oldest_due_age_seconds", "gauge",
           "For how long the oldest due delivery that is not leased has waited, by what holds it up: this server"
           " (server), an endpoint that is sent as much as it may be (endpoint), or that is only probed (probe). 0:"
           " none waits",
           _stored(lambda r, s: {name: _age_s(at, s) for name, at in r.oldest_due_at.items()}),
           "held_up_by", across_processes="max"),
    Metric("uplift_replays", "gauge", "Replays that are not finished, by state", _stored(lambda r, _: r.replays),
           "state", across_processes="max"),
    # ---- endpoints
    Metric("uplift_accounts", "gauge", "Accounts", lambda s: s.accounts, across_processes="max"),
    Metric("uplift_endpoints", "gauge",
           "Endpoints by state; enabled ones by their health: unknown, healthy, failing, warned",
           lambda s: s.endpoints, "state", across_processes="max"),
    Metric("uplift_endpoints_probed", "gauge", "Endpoints that fail so often that single attempts only are made",
           lambda s: s.probed),
    Metric("uplift_mass_failure", "gauge",
           "1 while so many endpoints fail at once that nobody is warned or disabled", lambda s: int(s.mass_failure),
           across_processes="max"),
    # ---- the database
    Metric("uplift_store_up", "gauge", "1 if the latest reads and writes of the database succeeded in time",
           lambda s: int(s.store_up), across_processes="each"),
    Metric("uplift_store_reading_age_seconds", "gauge", "How old what was read from the database for metrics is",
           _stored(lambda r, s: _age_s(r.read_at, s)), across_processes="each"),
    Metric("uplift_store_commit_duration_seconds", "histogram", "How long transactions took, with their commit",
           lambda s: s.store.commits),
    Metric("uplift_store_writes_total", "counter", "Writes those transactions were made of",
           lambda s: s.store.writes),
    Metric("uplift_store_commits_failed_total", "counter", "Transactions the database did not take",
           lambda s: s.store.failed),
    Metric("uplift_store_writes_waiting", "gauge", "Writes that wait for their transaction to begin",
           lambda s: s.writes_waiting),
    Metric("uplift_database_bytes", "gauge", "The size of the SQLite database",
           _on_disk(lambda disk: disk.database), across_processes="max"),
    Metric("uplift_database_disk_free_bytes", "gauge", "What is free on its disk", _on_disk(lambda disk: disk.free),
           across_processes="max"),
    Metric("uplift_database_disk_size_bytes", "gauge", "The size of that disk", _on_disk(lambda disk: disk.size),
           across_processes="max"),
    Metric("uplift_oldest_event_age_seconds", "gauge", "How long ago the oldest event that is kept was accepted",
           _stored(lambda r, s: _age_s(r.oldest_event_at, s)), across_processes="max"),
    # ---- beside the way of events
    Metric("uplift_retention_removed_rows_total", "counter",
           "Rows that were removed since they were older than UPLIFT_RETENTION, by table, without what goes with them;"
           " deliveries: those that go before an old partition is dropped",
           lambda s: s.engine.removed, "table"),
    Metric("uplift_retention_round_age_seconds", "gauge",
           "How long ago retention last looked through everything, or first began to",
           lambda s: None if s.engine.retention_round_at is None else _age_s(s.engine.retention_round_at, s),
           across_processes="each"),
    Metric("uplift_mails_waiting", "gauge", "Mails in the outbox that are not sent yet, counted up to 10,000",
           _stored(lambda r, _: r.emails_waiting), across_processes="max"),
    Metric("uplift_oldest_mail_age_seconds", "gauge", "For how long the oldest of them has waited; 0: none does",
           _stored(lambda r, s: _age_s(r.oldest_email_at, s)), across_processes="max"),
    Metric("uplift_log_lines_dropped_total", "counter", "Log lines that were not written",
           lambda s: s.log_lines_dropped),
)  # fmt: skip


def samples_of(metric: Metric) -> Iterable[str]:
    """The names under which a metric's samples are found, as queries name them."""
    if metric.kind == "histogram":
        return (f"{metric.name}_bucket", f"{metric.name}_sum", f"{metric.name}_count")
    return (metric.name,)
