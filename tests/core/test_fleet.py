"""The problems of the fleet: when each problem appears, its extent, and the next step."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.operations.fleet import (
    CauseGroup,
    FleetProblem,
    FleetState,
    LimitedEndpoint,
    Onset,
    find_onset,
    fleet_problems,
)
from uplift_server.core.operations.severity import Severity
from uplift_server.core.scheduling.waiting import HeldUpBy

NOW = 1_764_000_000_000
MINUTE = 60_000
HEALTHY = FleetState(now=NOW, enabled=202, in_flight=12, in_flight_max=1000, pending=40)


def cause(code: str, title: str, endpoints: int, *, accounts: int = 1) -> CauseGroup:
    return CauseGroup(code, title, "Fix it.", endpoints, accounts, 100 * endpoints, NOW - MINUTE, NOW - 5 * MINUTE)


CERTIFICATES = cause("tls_certificate_expired", "TLS certificate expired", 38, accounts=12)
REFUSED = cause("connection_refused", "Connection refused", 1)
FAILING = replace(HEALTHY, failing=39, accounts=13, causes=(CERTIFICATES, REFUSED), pending_failing=80_120)
LIMITED = LimitedEndpoint(
    "acc_1", "ep_1", "https://hot.example/hook", "1 concurrent request", 300, NOW - 5 * MINUTE - 1
)


def only(state: FleetState) -> FleetProblem:
    [found] = fleet_problems(state)
    return found


def test_without_problems_the_list_is_empty() -> None:
    assert fleet_problems(HEALTHY) == []
    # Waiting for a probe is not a delay by the server, and a delay below a minute is normal.
    waiting = {HeldUpBy.PROBE: NOW - 999 * MINUTE, HeldUpBy.SERVER: NOW - MINUTE, HeldUpBy.ENDPOINT: NOW - 9 * MINUTE}
    assert fleet_problems(replace(HEALTHY, oldest_due_at=waiting)) == []


def test_failing_endpoints_are_named_with_causes_and_backlog() -> None:
    found = only(FAILING)
    assert (found.code, found.severity) == ("endpoints_failing", Severity.CRITICAL)
    assert found.title == "39 of 202 endpoints are failing"
    assert "13 accounts" in found.extent
    assert "38 × TLS certificate expired, 1 × Connection refused" in found.extent  # noqa: RUF001
    assert "80,120 deliveries" in found.extent


def test_only_the_leading_causes_are_named() -> None:
    causes = tuple(cause(f"status_{status}", f"Status {status}", 10) for status in range(500, 505))
    found = only(replace(FAILING, failing=50, causes=causes))
    assert "10 × Status 502, 2 more causes." in found.extent  # noqa: RUF001
    assert "Status 503" not in found.extent


def test_one_of_many_failing_endpoints_needs_attention() -> None:
    found = only(replace(HEALTHY, failing=1, accounts=1, causes=(REFUSED,)))
    assert (found.severity, found.title) == (Severity.ATTENTION, "1 of 202 endpoints is failing")
    assert "Fix it." in found.next_step


def test_endpoints_that_the_server_disabled_count_as_broken() -> None:
    found = only(replace(HEALTHY, disabled=2, accounts=1, causes=(replace(REFUSED, endpoints=2),)))
    assert found.title == "2 of 204 endpoints are failing or disabled"


@pytest.mark.parametrize(
    ("code", "step"),
    [
        ("dns", "name servers"),
        ("tls_certificate_expired", "trusted certificates"),
        ("connection_refused", "firewall"),
        ("connect_timeout", "firewall"),
        ("no_route", "firewall"),
        ("status_502", "proxy or a provider"),
    ],
)
def test_the_next_step_of_a_mass_failure_follows_its_leading_cause(code: str, step: str) -> None:
    state = replace(
        HEALTHY, failing=179, accounts=20, causes=(cause(code, "Title", 179),), mass_failure=True,
        onset=Onset(NOW - 5 * MINUTE, 2 * MINUTE),
    )  # fmt: skip
    found = only(state)
    assert (found.code, found.severity) == ("mass_failure", Severity.CRITICAL)
    assert "179 of 202 endpoints" in found.title
    assert "within 2 min" in found.extent
    assert step in found.next_step


def test_a_mass_failure_without_a_leading_cause_has_a_general_next_step() -> None:
    causes = (cause("dns", "Host name does not resolve", 50), cause("status_500", "500 Internal Server Error", 50))
    found = only(replace(HEALTHY, failing=100, causes=causes, mass_failure=True))
    assert "Compare the causes" in found.next_step


def test_a_late_server_and_an_endpoint_at_its_limit_are_different_problems() -> None:
    late = replace(HEALTHY, oldest_due_at={HeldUpBy.SERVER: NOW - 4 * MINUTE})
    found = only(late)
    assert (found.code, found.severity) == ("server_late", Severity.CRITICAL)
    assert "4 min late" in found.title
    assert "12 attempts are in flight. The limit is 1,000 attempts in flight." in found.extent
    assert "CPU" in found.next_step
    assert "UPLIFT_MAX_IN_FLIGHT" in only(replace(late, in_flight=1000)).next_step

    found = only(replace(HEALTHY, limited=(LIMITED,)))
    assert (found.code, found.severity) == ("endpoints_at_limit", Severity.ATTENTION)
    assert found.title == "1 endpoint is at its concurrency or rate limit"
    for part in ("https://hot.example/hook", "1 concurrent request", "300 pending", "the oldest 5 min late"):
        assert part in found.extent


@pytest.mark.parametrize(("commits", "p99_ms", "is_slow"), [(10, 500, True), (9, 500, False), (1000, 249, False)])
def test_slow_commits_need_attention(commits: int, p99_ms: float, *, is_slow: bool) -> None:
    found = fleet_problems(replace(HEALTHY, commits=commits, commit_p99_ms=p99_ms))
    assert [each.code for each in found] == (["database_slow"] if is_slow else [])


def test_a_failing_database_is_not_also_slow() -> None:
    found = only(replace(HEALTHY, database_problem="Check the disk.", commits=99, commit_p99_ms=900))
    assert (found.code, found.next_step) == ("database_failing", "Check the disk.")


def test_an_event_stream_that_fails_or_waits_is_critical() -> None:
    found = only(replace(HEALTHY, has_stream=True, stream_problem="no leader", stream_oldest_at=1))
    assert (found.code, found.severity) == ("stream_failing", Severity.CRITICAL)
    assert "no leader" in found.next_step

    waiting = replace(HEALTHY, has_stream=True, stream_messages=1200, stream_oldest_at=NOW - 2 * MINUTE)
    found = only(waiting)
    assert (found.code, found.severity, found.since) == ("stream_late", Severity.CRITICAL, NOW - 2 * MINUTE)
    assert "1,200 messages" in found.title
    assert "2 min" in found.extent
    assert fleet_problems(replace(waiting, stream_oldest_at=NOW - MINUTE)) == []


@pytest.mark.parametrize("has_stream", [True, False])
def test_without_the_database_events_are_accepted_only_through_a_stream(*, has_stream: bool) -> None:
    found = only(replace(HEALTHY, has_stream=has_stream, database_problem="Check the disk."))
    assert ("keeps accepted events" in found.extent) is has_stream
    assert ("rejects events" in found.extent) is not has_stream


@pytest.mark.parametrize(("attempts", "failures", "fails"), [(20, 2, True), (19, 19, False), (100, 5, False)])
def test_attempts_that_fail_because_of_the_server_are_critical(attempts: int, failures: int, *, fails: bool) -> None:
    found = fleet_problems(replace(HEALTHY, attempts=attempts, own_failures=failures))
    assert [each.code for each in found] == (["egress_failing"] if fails else [])


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (replace(HEALTHY, heartbeat_overdue_ms=20_000, sends=False, sending_stopped=True), "heartbeat_expired"),
        (replace(HEALTHY, has_worker=False, sends=False, sending_stopped=True), "no_worker"),
        (replace(HEALTHY, sending_stopped=True, sends=False), "sending_stopped"),
        (replace(HEALTHY, sends=False), "workers_unavailable"),
    ],
)
def test_a_server_that_does_not_send_has_one_problem(state: FleetState, code: str) -> None:
    found = only(state)
    assert (found.code, found.severity) == (code, Severity.CRITICAL)


def test_the_worst_problem_is_first() -> None:
    state = replace(
        FAILING, enabled=1000, limited=(LIMITED,), commits=99, commit_p99_ms=900, sending_stopped=True
    )  # fmt: skip
    severities = [each.severity for each in fleet_problems(state)]
    assert severities == [Severity.CRITICAL, *[Severity.ATTENTION] * 3]


@given(failing=st.integers(0, 300), disabled=st.integers(0, 300), healthy=st.integers(0, 300), mass=st.booleans())
def test_a_failing_endpoint_is_always_a_problem(failing: int, disabled: int, healthy: int, *, mass: bool) -> None:
    state = FleetState(now=NOW, failing=failing, disabled=disabled, enabled=failing + healthy, mass_failure=mass)
    assert bool(fleet_problems(state)) == bool(failing + disabled)


def test_the_onset_ignores_an_endpoint_that_failed_earlier() -> None:
    assert find_onset([]) is None
    assert find_onset([NOW]) == Onset(NOW, 0)
    early, begun = NOW - 55 * MINUTE, [NOW + second * 1000 for second in range(10)]
    assert find_onset([early, *begun, NOW + 20 * MINUTE]) == Onset(NOW, 5_000)
