"""On a bad morning, the dashboard names cause, extent and next step, and every number matches the rows."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest
from tests.dashboard.visitors import Guest, operator
from tests.e2e.harness import wait_for

from .building import MORNINGS, Expected, World, bad_morning
from .recount import DELIVERED, HELD, PENDING, Recount

_FIGURE: Final = re.compile(r'data-figure="([a-z0-9_]+)" data-value="([^"]*)"')
_CAUSE: Final = re.compile(r'<tr data-cause="([a-z0-9_]+)">(.*?)</tr>', re.DOTALL)
_PROBLEM: Final = re.compile(r'data-problem="([a-z_]+)" data-severity="([a-z]+)"')
OF_THE_PROCESS: Final = {"in_flight"}
"""Numbers that no row has."""
LATENCIES: Final = {"p50_ms", "p95_ms"}
"""Latencies are counted by class."""
FIGURES_MIN: Final = 3
"""Each page shows at least this many numbers that the rows have."""
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
    within = 110 if expected.problem == "endpoints_at_limit" else 30
    fleet = wait_for(lambda: _named(expected, world), f"{expected.problem} is shown", within, every=0.5)

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


def test_every_number_matches_the_rows_before_and_after_a_restart(morning: tuple[Expected, World]) -> None:
    expected, world = morning
    world.slow_down()
    _check_numbers(world)
    world.server.kill()
    world.server.start()
    _check_numbers(world)
    if expected.cause is not None:
        assert _named(expected, world)


def _named(expected: Expected, world: World) -> Any:
    fleet = world.server.api().ok("GET", "/v1/fleet")
    return fleet if expected.problem in {each["code"] for each in fleet["problems"]} else None


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
    """Return the shown numbers that are not between the rows before and after the page."""
    before = _numbers(recount, period)
    page = guest.get(f"{path}?period={period}")
    after = _numbers(recount, period)
    assert page.status == 200
    shown = dict(_FIGURE.findall(_CAUSE.sub("", page.html)))
    compared = set(shown) & set(before)
    assert len(compared) >= FIGURES_MIN, f"{path} shows only {sorted(compared)}"
    unknown = set(shown) - set(before) - OF_THE_PROCESS - LATENCIES
    unknown = {name for name in unknown if not name.startswith("endpoints_")}
    assert not unknown, f"numbers without a recount: {unknown}"
    found: dict[str, Any] = {}
    for name in compared:
        least, most = sorted((before[name], after[name]))
        slack = 0.0005 if name.endswith("_rate") else 0
        if shown[name] == "" or not least - slack <= float(shown[name]) <= most + slack:
            found[name] = (shown[name], least, most)
    for code, row in _CAUSE.findall(page.html):
        figures = dict(_FIGURE.findall(row))
        found |= _cause_differences(code, figures, recount)
    return found


def _cause_differences(code: str, figures: Mapping[str, str], recount: Recount) -> dict[str, Any]:
    outcomes = {outcome for outcome, _ in recount.last_failures().values()}
    if len(outcomes) != 1:
        return {}
    expected = {
        "cause_endpoints": recount.failing_endpoints(),
        "cause_accounts": recount.failing_accounts(),
        "cause_pending": recount.deliveries(PENDING, behind_failing=True),
    }
    return {
        f"{code} {name}": (figures[name], number, number)
        for name, number in expected.items()
        if name in figures and int(figures[name]) != number
    }


def _numbers(recount: Recount, period: str) -> dict[str, float]:
    firsts = recount.attempts(period, first=True)
    first_successes = recount.attempts(period, first=True, succeeded=True)
    return {
        "failing_endpoints": recount.failing_endpoints(),
        "endpoints_failing": recount.failing_endpoints(),
        "circuit_open": recount.failing_endpoints(),
        "pending": recount.deliveries(PENDING),
        "pending_failing": recount.deliveries(PENDING, behind_failing=True),
        "held": recount.deliveries(HELD),
        "deliveries": recount.accepted(period),
        "delivered": recount.accepted(period, status=DELIVERED),
        "attempts": recount.attempts(period),
        "failed_attempts": recount.attempts(period, failed=True),
        "first_attempt_rate": first_successes / firsts if firsts else 0,
    }
