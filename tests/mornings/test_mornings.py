"""On a bad morning, the dashboard names the cause, extent and next step, and every number matches the rows."""

import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

import pytest
from tests.dashboard.visitors import Guest, operator
from tests.e2e.harness import wait_for

from .building import BREAKER_FAILURES, MORNINGS, Expected, World, bad_morning, fleet_with_problem
from .recount import DELIVERED, HELD, PENDING, Recount

_FIGURE: Final = re.compile(r'data-figure="([a-z0-9_]+)" data-value="([^"]*)"')
_CAUSE: Final = re.compile(r'<tr data-cause="([a-z0-9_]+)">(.*?)</tr>', re.DOTALL)
_PROBLEM: Final = re.compile(r'data-problem="([a-z_]+)" data-severity="([a-z]+)"')
OF_THE_PROCESS: Final = {"in_flight"}
"""Numbers on the pages that cannot be computed from rows."""
ENDED_WITHIN_MS: Final = 1_000
"""The maximum time from the end of a failed attempt to the time that the server records for it."""
FIGURES_MIN: Final = 3
"""The minimum number of figures on each page that are compared with the rows."""
STATES_SHOWN: Final = ("healthy", "failing", "warned", "unknown", "paused", "disabled")
CAUSE_FIGURES: Final = ("cause_endpoints", "cause_accounts", "cause_pending", "cause_since", "cause_oldest_due")
PERIODS: Final = ("1h", "24h", "7d", "30d")


@pytest.fixture(scope="module", params=MORNINGS, ids=lambda morning: morning.name)
def morning(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Expected, World]]:
    """Build each morning once."""
    with bad_morning(request.param, tmp_path_factory.mktemp("morning") / "data") as world:
        yield request.param.expected, world


@pytest.mark.timeout(240)
def test_an_operator_reads_cause_extent_and_next_step(morning: tuple[Expected, World]) -> None:
    expected, world = morning
    fleet = fleet_with_problem(world, expected)

    assert fleet["status"] == expected.severity
    page = operator(world.server).get("/operator")
    problem = next(each for each in fleet["problems"] if each["code"] == expected.problem)
    assert problem["severity"] == expected.severity
    assert (expected.problem, expected.severity) in _PROBLEM.findall(page.html)
    for text in (problem["title"], problem["next_step"]):
        assert text in page.text
    if expected.cause is not None:
        leading = fleet["failing"][0]
        assert (leading["cause"], leading["endpoints"], leading["accounts"]) == (
            expected.cause, expected.endpoints, expected.accounts,
        )  # fmt: skip
        assert f"{expected.endpoints} \N{MULTIPLICATION SIGN} {leading['title']}" in page.text
        assert leading["how_to_fix"] in page.text
        found = world.server.api().list_all(f"/v1/endpoints?cause={expected.cause}")
        assert {each["id"] for each in found} == set(world.broken)
    elif expected.endpoints:
        assert all(endpoint in page.html for endpoint in world.broken)
        [account] = {number for number, each in world.endpoints if each in world.broken}
        overview = operator(world.server).get(f"/accounts/{world.accounts[account]}/overview")
        assert "No endpoints are failing, but deliveries are late." in overview.text


def test_every_number_matches_the_rows_before_and_after_a_restart(morning: tuple[Expected, World]) -> None:
    expected, world = morning
    world.slow_down()
    _check_numbers(world)
    world.server.kill()
    world.server.start()
    _check_numbers(world)
    if expected.cause is not None:
        assert fleet_with_problem(world, expected)


def _check_numbers(world: World) -> None:
    guest, database = operator(world.server), world.server.place.file
    account = next((number for number, each in world.endpoints if each in world.broken), 0)
    endpoint = world.broken[0] if world.broken else world.endpoints[0][1]
    account_path = f"/accounts/{world.accounts[account]}"
    scopes = {
        "/operator": Recount(database),
        f"{account_path}/overview": Recount(database, account=world.accounts[account]),
        f"{account_path}/endpoints/{endpoint}": Recount(database, endpoint=endpoint),
    }
    for path, recount in scopes.items():
        with closing(recount):
            for period in PERIODS:
                _check_page(guest, path, period, recount)


def _check_page(guest: Guest, path: str, period: str, recount: Recount) -> None:
    wrong: dict[str, Any] = {}

    def matches() -> bool:
        wrong.clear()
        wrong.update(_differences(guest, path, period, recount))
        return not wrong

    try:
        wait_for(matches, "all numbers match", 30, every=0.5)
    except AssertionError:
        pytest.fail(f"{path}?period={period}: (shown, least, most) {wrong}")


def _differences(guest: Guest, path: str, period: str, recount: Recount) -> dict[str, Any]:
    """Return the numbers on a page that are outside the bounds that the rows gave before and after the request."""
    before = _bounds(recount, period)
    page = guest.get(f"{path}?period={period}")
    after = _bounds(recount, period)
    assert page.status == 200
    shown = dict(_FIGURE.findall(_CAUSE.sub("", page.html)))
    compared = set(shown) & set(before)
    assert len(compared) >= FIGURES_MIN, f"{path} shows only {sorted(compared)}"
    unknown = set(shown) - set(before) - OF_THE_PROCESS
    assert not unknown, f"numbers without a recount: {unknown}"
    found = {name: wrong for name in compared if (wrong := _wrong(shown[name], before[name], after[name]))}
    outcomes = {outcome for outcome, _ in recount.last_failures().values()}
    for code, row in _CAUSE.findall(page.html) if len(outcomes) == 1 else ():
        figures = dict(_FIGURE.findall(row))
        assert set(figures) == set(CAUSE_FIGURES)
        for name, value in figures.items():
            if wrong := _wrong(value, before[name], after[name]):
                found[f"{code} {name}"] = wrong
    return found


Bounds = tuple[float, float] | None
"""The least and the greatest value of a number; None if the page shows none."""


def _wrong(shown: str, before: Bounds, after: Bounds) -> tuple[str, Bounds, Bounds] | None:
    """Return a number and its bounds if the number is outside them, else None."""
    known = [each for each in (before, after) if each is not None]
    if shown == "":
        return None if len(known) < 2 else (shown, before, after)
    is_right = known and min(each[0] for each in known) <= float(shown) <= max(each[1] for each in known)
    return None if is_right else (shown, before, after)


def _bounds(recount: Recount, period: str) -> dict[str, Bounds]:
    """Return the bounds of each number on the pages."""
    recount.refresh()
    firsts = recount.attempts(period, first=True)
    rate = recount.attempts(period, first=True, succeeded=True) / firsts if firsts else None
    since, due = recount.failing_since(), recount.oldest_due()
    latencies = {"p50_ms": recount.latency_ms(period, 0.5), "p95_ms": recount.latency_ms(period, 0.95)}
    states = recount.states()
    exact: dict[str, float] = {
        **{f"endpoints_{name}": states[name] for name in STATES_SHOWN},
        "cause_endpoints": recount.failing_endpoints(),
        "cause_accounts": recount.failing_accounts(),
        "cause_pending": recount.deliveries(PENDING, behind_failing=True),
        "failing_endpoints": recount.failing_endpoints(),
        "pending": recount.deliveries(PENDING),
        "pending_failing": recount.deliveries(PENDING, behind_failing=True),
        "held": recount.deliveries(HELD),
        "deliveries": recount.accepted(period),
        "delivered": recount.accepted(period, status=DELIVERED),
        "attempts": recount.attempts(period),
        "failed_attempts": recount.attempts(period, failed=True),
    }
    return {
        **{name: (number, number) for name, number in exact.items()},
        # After timeouts, a circuit breaker may also open with fewer failures.
        "circuit_open": (recount.failing_endpoints_with(BREAKER_FAILURES), recount.failing_endpoints()),
        "cause_oldest_due": (due, due) if due else None,
        "cause_since": (since, since + ENDED_WITHIN_MS) if since else None,
        "first_attempt_rate": None if rate is None else (rate - 0.0005, rate + 0.0005),
        # Three significant digits are shown.
        **{name: each and (each[0] * 0.99, each[1] * 1.01) for name, each in latencies.items()},
    }
