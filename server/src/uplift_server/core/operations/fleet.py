"""The problems in the fleet (the server and all endpoints), each with its extent and the next step to fix it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from uplift_server.core.durations import format_span
from uplift_server.core.operations.severity import Severity, of_endpoints
from uplift_server.core.scheduling.waiting import HeldUpBy

MS_PER_SECOND: Final = 1000
LATE_MS: Final = 60_000
"""Time in ms after which a due delivery counts as late."""
SLOW_COMMIT_MS: Final = 250
COMMITS_MIN: Final = 10
"""Minimum number of recent commits before the server reports a slow database."""
OWN_FAILURE_SHARE: Final = 0.05
OWN_FAILURE_ATTEMPTS_MIN: Final = 20
"""Minimum number of recent attempts before the server reports that it causes failures itself."""
CAUSES_NAMED_MAX: Final = 3
LIMITED_NAMED_MAX: Final = 5
LEADING_CAUSE_SHARE: Final = 0.6
"""Minimum share of the failing endpoints, from 0 to 1, that one cause must have to determine the next step."""


class Onset(NamedTuple):
    """The shortest period in which half of the failing endpoints began to fail."""

    at: int
    """Start of the period (Unix ms)."""
    half_within_ms: int


def find_onset(failing_since: Sequence[int]) -> Onset | None:
    """Return the shortest period in which half of the endpoints began to fail, or None if no endpoint is failing.

    A few endpoints that began to fail earlier do not change the period. `failing_since` contains Unix times in ms.
    """
    begun = sorted(failing_since)
    if not begun:
        return None
    half = (len(begun) + 1) // 2
    spans = [(begun[first + half - 1] - begun[first], begun[first]) for first in range(len(begun) - half + 1)]
    within, at = min(spans)
    return Onset(at, within)


@dataclass(frozen=True, slots=True)
class CauseGroup:
    """The failing endpoints that share one cause. Times are Unix ms."""

    code: str
    title: str
    how_to_fix: str
    endpoints: int
    accounts: int
    pending: int
    oldest_due_at: int | None
    since: int
    """When the first endpoint with this cause began to fail."""


class LimitedEndpoint(NamedTuple):
    """An endpoint whose rate limit or concurrency limit delays its deliveries."""

    account: str
    endpoint: str
    url: str
    limit: str
    """The limit as text, such as `16 concurrent requests`."""
    pending: int
    oldest_due_at: int


@dataclass(frozen=True, slots=True)
class FleetState:
    """The state of the server and its endpoints. Times are Unix ms."""

    now: int
    failing: int = 0
    """Number of enabled endpoints whose last attempt failed."""
    disabled: int = 0
    """Number of endpoints that the server disabled because they failed."""
    enabled: int = 0
    accounts: int = 0
    """Number of accounts with failing or disabled endpoints."""
    causes: Sequence[CauseGroup] = ()
    """The causes of the failures. The cause with the most endpoints is first."""
    pending: int | None = None
    """Number of pending deliveries. None until the server has counted them after an upgrade."""
    pending_failing: int = 0
    """Number of pending deliveries to failing endpoints."""
    oldest_due_at: Mapping[HeldUpBy, int] = field(default_factory=dict)
    """For each cause of a delay: the due time of the oldest waiting delivery."""
    limited: Sequence[LimitedEndpoint] = ()
    """Endpoints whose own limit has delayed a delivery for longer than LATE_MS.

    The endpoint with the oldest delivery is first.
    """
    in_flight: int = 0
    in_flight_max: int = 0
    heartbeat_overdue_ms: int | None = None
    has_worker: bool = True
    """Whether there is a process whose role includes sending deliveries."""
    sends: bool = True
    """Whether any process can begin an attempt."""
    sending_stopped: bool = False
    """Whether this process has stopped sending, because it cannot store outcomes."""
    database_problem: str | None = None
    """Why database reads or writes fail, and how to fix the problem."""
    has_stream: bool = False
    """Whether the server accepts events through an event stream, even if the database is unavailable."""
    stream_problem: str | None = None
    """Why the server cannot use the event stream. None if there is no problem."""
    stream_messages: int = 0
    """Number of messages with events that are not in the database yet."""
    stream_oldest_at: int | None = None
    """When the server accepted the oldest event that is not in the database yet."""
    commits: int = 0
    """Number of commits by this process in the last 1 to 2 minutes."""
    commit_p99_ms: float = 0
    attempts: int = 0
    """Number of attempts that this process has made since the first failure that `own_failures` counts."""
    own_failures: int = 0
    """Number of this process's attempts that failed because of this server, in a recent period of at most 4 minutes."""
    mass_failure: bool = False
    onset: Onset | None = None

    @property
    def broken(self) -> int:
        """Number of endpoints that are failing or that the server disabled."""
        return self.failing + self.disabled

    @property
    def delivering(self) -> int:
        """Number of endpoints that are enabled or that the server disabled."""
        return self.enabled + self.disabled


class FleetProblem(NamedTuple):
    """A fleet problem. A problem's code never changes."""

    code: str
    severity: Severity
    title: str
    extent: str
    next_step: str
    since: int | None = None
    """When the problem began (Unix ms). None if unknown."""


def fleet_problems(state: FleetState) -> list[FleetProblem]:
    """Return the problems, worst first. An empty list means that deliveries are on time and no endpoint is failing."""
    found = [
        *_stopped(state),
        *_stream(state),
        *_database(state),
        *_endpoints(state),
        *_late(state),
        *_egress(state),
    ]
    return sorted(found, key=lambda each: each.severity is not Severity.CRITICAL)


def _stopped(state: FleetState) -> Iterator[FleetProblem]:
    if state.heartbeat_overdue_ms is not None:
        yield FleetProblem(
            "heartbeat_expired",
            Severity.CRITICAL,
            f"The heartbeat of this process is {span(state.heartbeat_overdue_ms)} old",
            "The values on this page may be outdated.",
            "Check the connection of this process to the database. The process rejoins automatically.",
        )
    elif not state.has_worker:
        yield FleetProblem(
            "no_worker",
            Severity.CRITICAL,
            "No worker is running",
            "The server sends no deliveries. Accepted events wait in the database.",
            "Start a process with --role worker or --role all.",
        )
    elif state.sending_stopped:
        yield FleetProblem(
            "sending_stopped",
            Severity.CRITICAL,
            "Sending has stopped",
            "The server cannot store the results of attempts.",
            "Check the server's log, and the disk of the database.",
        )
    elif not state.sends:
        yield FleetProblem(
            "workers_unavailable",
            Severity.CRITICAL,
            "All workers are starting or stopping",
            "The server sends no deliveries. Accepted events wait in the database.",
            "If no worker is ready after a minute, check the logs of the workers.",
        )


def _stream(state: FleetState) -> Iterator[FleetProblem]:
    if state.stream_problem is not None:
        yield FleetProblem(
            "stream_failing",
            Severity.CRITICAL,
            "The event stream is unavailable",
            "The server rejects events. The senders must repeat their requests.",
            f"Run uplift-server doctor to check the NATS servers. Cause: {state.stream_problem}.",
        )
    elif state.stream_oldest_at is not None and state.now - state.stream_oldest_at > LATE_MS:
        yield FleetProblem(
            "stream_late",
            Severity.CRITICAL,
            f"The events of {counted(state.stream_messages, 'message')} are not in the database yet",
            f"The oldest event has waited in the event stream for {span(state.now - state.stream_oldest_at)}.",
            "Check the database and the log of the workers. Make sure that a worker with UPLIFT_NATS_URL is running.",
            state.stream_oldest_at,
        )


def _database(state: FleetState) -> Iterator[FleetProblem]:
    if state.database_problem is not None:
        yield FleetProblem(
            "database_failing",
            Severity.CRITICAL,
            "The database is failing",
            "The event stream keeps accepted events. The server cannot store the results of attempts."
            if state.has_stream
            else "The server rejects events, or cannot store the results of attempts.",
            state.database_problem,
        )
    elif state.commits >= COMMITS_MIN and state.commit_p99_ms >= SLOW_COMMIT_MS:
        yield FleetProblem(
            "database_slow",
            Severity.ATTENTION,
            f"The database is slow: commits take up to {span(state.commit_p99_ms)}",
            f"99% of the last {number(state.commits)} commits of this process took at most"
            f" {span(state.commit_p99_ms)}.",
            "Check the load and the latency of the database server, or of the disk for SQLite.",
        )


def _endpoints(state: FleetState) -> Iterator[FleetProblem]:
    if not state.broken:
        return
    what = "failing or disabled" if state.disabled else "failing"
    those = f"{number(state.broken)} of {number(state.delivering)} endpoints {_verb(state.broken)} {what}"
    titles = Counter[str]()
    for each in state.causes:
        titles[each.title] += each.endpoints
    named = named_causes(titles)
    extent = [f"{counted(state.accounts, 'account')}.", f"{named}." if named else ""]
    if state.pending_failing:
        extent.append(
            f"{counted(state.pending_failing, 'delivery')} {_verb(state.pending_failing)} pending for these endpoints."
        )
    if not state.mass_failure:
        yield FleetProblem(
            "endpoints_failing",
            of_endpoints(state.broken, state.delivering),
            those,
            " ".join(filter(None, extent)),
            _fix(state.causes),
            min((each.since for each in state.causes), default=None),
        )
        return
    if state.onset is not None:
        extent.insert(
            0, f"Half of them began to fail within {span(max(1000, state.onset.half_within_ms))} of each other."
        )
    yield FleetProblem(
        "mass_failure",
        Severity.CRITICAL,
        f"Mass failure: {those}",
        " ".join(filter(None, extent)),
        f"{_mass_failure_step(state)} Until the mass failure ends, the server does not warn about or disable"
        " endpoints.",
        None if state.onset is None else state.onset.at,
    )


def _fix(causes: Sequence[CauseGroup]) -> str:
    if len(causes) == 1:
        return f"Tell the {'account' if causes[0].accounts == 1 else 'accounts'}: {causes[0].how_to_fix}"
    return "View the failing endpoints by cause, and tell the accounts how to fix the causes."


_NETWORK: Final = "Check the network, the firewall and the egress proxy of this host."
_MASS_FAILURE_STEPS: Final = (
    (("dns",), "Check the name servers of this host with uplift-server doctor."),
    (("timestamp_too_",), "Check the clock of this host."),
    (("tls_",), "Check the clock and the trusted certificates of this host."),
    (("connect", "no_route", "response_timeout", "egress_failed", "no_address_family", "proxy_rule"), _NETWORK),
)
"""The next steps in a mass failure. Each entry contains prefixes of the leading cause's code, and the step for them."""


def _mass_failure_step(state: FleetState) -> str:
    causes = state.causes
    if not causes or causes[0].endpoints < LEADING_CAUSE_SHARE * sum(each.endpoints for each in causes):
        return "Compare the causes, and check the network, the name servers and the certificates of this host."
    for beginnings, step in _MASS_FAILURE_STEPS:
        if causes[0].code.startswith(beginnings):
            return step
    return "Compare the responses: the receivers may share a proxy or a provider."


def _late(state: FleetState) -> Iterator[FleetProblem]:
    late_at = state.oldest_due_at.get(HeldUpBy.SERVER)
    if late_at is not None and state.now - late_at > LATE_MS:
        attempts = f"{counted(state.in_flight, 'attempt')} {_verb(state.in_flight)} in flight."
        is_full = 0 < state.in_flight_max <= state.in_flight
        yield FleetProblem(
            "server_late",
            Severity.CRITICAL,
            f"The server cannot keep up: deliveries are {span(state.now - late_at)} late",
            f"{attempts} The limit is {counted(state.in_flight_max, 'attempt')} in flight.",
            "Increase UPLIFT_MAX_IN_FLIGHT, or start another worker."
            if is_full
            else "Check the CPU load of the workers and the response time of the database.",
        )
    if state.limited:
        count = len(state.limited)
        extent = [
            f"{each.url} (limit: {each.limit}): {number(each.pending)} pending, the oldest"
            f" {span(state.now - each.oldest_due_at)} late."
            for each in state.limited[:LIMITED_NAMED_MAX]
        ]
        yield FleetProblem(
            "endpoints_at_limit",
            Severity.ATTENTION,
            f"{counted(count, 'endpoint')} {_verb(count)} at {'its' if count == 1 else 'their'} concurrency or rate"
            " limit",
            " ".join(extent),
            "Increase the endpoint's limit, or ask the account's owner to make the receiver respond faster.",
        )


def _egress(state: FleetState) -> Iterator[FleetProblem]:
    if state.attempts >= OWN_FAILURE_ATTEMPTS_MIN and state.own_failures > OWN_FAILURE_SHARE * state.attempts:
        yield FleetProblem(
            "egress_failing",
            Severity.CRITICAL,
            "Attempts fail because of this server",
            f"In the last 4 minutes, {number(state.own_failures)} of {number(state.attempts)} attempts of this process"
            " failed because of this server.",
            "Check the egress IP, the egress proxy and the open file limit. The log shows the cause. Also look for"
            " hosts that resolve to blocked addresses.",
        )


# Texts


def _verb(count: int) -> str:
    return "is" if count == 1 else "are"


def named_causes(endpoints: Mapping[str, int]) -> str:
    """Return the most frequent causes with their counts, as text. `endpoints` maps cause titles to counts."""
    ordered = sorted(endpoints.items(), key=lambda each: (-each[1], each[0]))
    named = [f"{number(count)} \N{MULTIPLICATION SIGN} {title}" for title, count in ordered[:CAUSES_NAMED_MAX]]
    rest = len(ordered) - len(named)
    return ", ".join([*named, counted(rest, "more cause")] if rest else named)


def number(value: int) -> str:
    """Format a number with thousands separators."""
    return f"{value:,}"


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: `1 delivery`, `2 deliveries`."""
    if count == 1:
        return f"1 {noun}"
    return f"{number(count)} {noun[:-1]}ies" if noun.endswith("y") else f"{number(count)} {noun}s"


def span(duration_ms: float) -> str:
    """Format a duration in at most two units: `410 ms`, `12 s`, `3 h 12 min`."""
    return f"{max(0, duration_ms):.0f} ms" if duration_ms < MS_PER_SECOND else format_span(duration_ms / MS_PER_SECOND)
