"""The Fleet page: backlog, problems and live updates."""

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from tests.dashboard.operators import sign_in_operator
from tests.dashboard.page_checks import check_page
from tests.dashboard.visitors import PageResponse, member, operator
from tests.e2e.harness import OPERATOR_KEY, Api, Server, serving, wait_for

TYPE = "movement.analytics.created"
NOWHERE = "http://127.0.0.1:1/<i>hook</i>"


def failing(server: Server) -> tuple[str, Api, dict[str, Any]]:
    """Return an account with a failing endpoint: its ID, a client, and the endpoint."""
    account, _ = server.account("Rapids <b>Academy</b>")
    acting = server.api(OPERATOR_KEY, account)
    endpoint: dict[str, Any] = acting.endpoint(NOWHERE)
    for number in range(3):
        acting.send(number)

    def circuit_is_open() -> bool:
        health = acting.ok("GET", f"/v1/endpoints/{endpoint['id']}")["health"]
        return bool(health["status"] == "failing" and health["next_probe_at"])

    wait_for(circuit_is_open, "the circuit is open")
    return account, acting, endpoint


def figure(page: PageResponse, name: str) -> str:
    """Return the exact value of a figure."""
    found = re.search(rf'data-figure="{name}" data-value="([^"]*)"', page.html)
    assert found is not None, name
    return found[1]


def test_operators_start_at_the_fleet_page(server: Server) -> None:
    page = operator(server).get("/")
    assert (page.status, page.path) == (200, "/operator")
    for name in (
        "failing_endpoints", "pending", "pending_failing", "held", "circuit_open", "in_flight", "deliveries",
        "attempts", "failed_attempts", "first_attempt_rate", "p95_ms",
    ):  # fmt: skip
        figure(page, name)


def test_failing_endpoints_are_shown_with_cause_and_backlog(server: Server) -> None:
    account, acting, endpoint = failing(server)
    for number in range(20):
        acting.send(number)
    guest = operator(server)

    def find_page() -> PageResponse | None:
        page = guest.get(f"/operator/endpoints?filter=failing&account={account}")
        # The registration event and the first three events may have failed, or may wait for a probe.
        return page if re.search(r'data-figure="pending" data-value="2[0-4]"', page.html) else None

    page = wait_for(find_page, "the list shows the pending deliveries")
    assert page is not None
    assert 'data-cause="connection_refused"' in page.html or 'data-cause="connect' in page.html
    assert f'href="/accounts/{account}/endpoints/{endpoint["id"]}"' in page.html
    assert NOWHERE in page.text
    assert "<i>hook" not in page.html
    assert "<b>Academy" not in page.html

    fleet = guest.get("/operator")
    assert 'class="card state critical"' in fleet.html or 'class="card state attention"' in fleet.html
    assert 'data-problem="endpoints_failing"' in fleet.html or 'data-problem="mass_failure"' in fleet.html
    assert int(figure(fleet, "failing_endpoints")) >= 1
    assert int(figure(fleet, "pending")) >= int(figure(fleet, "pending_failing")) >= 20
    assert int(figure(fleet, "circuit_open")) >= 1
    # The filter Failing also lists warned endpoints and endpoints that the server disabled.
    assert not re.search(r'data-figure="endpoints_failing"[^>]*><a', fleet.html)
    # Without a period in the URL, the page shows the last hour while there is a problem.
    assert '<a href="?period=1h" aria-current="page">' in fleet.html

    overview = guest.get(f"/accounts/{account}/overview")
    assert 'class="card state critical"' in overview.html
    assert "deliveries are pending; the oldest has been due for" in overview.text
    assert figure(overview, "failing_endpoints") == "1"
    assert 20 <= int(figure(overview, "pending")) <= 24
    assert "Pending" in guest.get(f"/accounts/{account}/endpoints/{endpoint['id']}").text
    assert "Pending" in guest.get(f"/accounts/{account}/endpoints").text
    acting.ok("POST", f"/v1/endpoints/{endpoint['id']}/pause")
    assert endpoint["id"] not in guest.get(f"/operator/endpoints?filter=failing&account={account}").html


def test_unfinished_replays_are_listed(server: Server) -> None:
    account, acting, endpoint = failing(server)
    replay = acting.ok("POST", "/v1/replays", {"endpoint": endpoint["id"], "status": ["failed", "cancelled"]})
    acting("POST", f"/v1/replays/{replay['id']}/pause")
    page = operator(server).get("/operator")
    current = acting.ok("GET", f"/v1/replays/{replay['id']}")
    shown = f'href="/accounts/{account}/replays/{replay["id"]}"' in page.html
    assert shown == (current["state"] in ("running", "paused"))


@pytest.mark.parametrize("period", ["1h", "24h", "7d", "30d", "nonsense"])
def test_the_page_shows_the_selected_period(server: Server, period: str) -> None:
    page = operator(server).get(f"/operator?period={period}")
    assert page.status == 200
    chosen = period if period != "nonsense" else "24h"
    assert f'<a href="?period={chosen}" aria-current="page">' in page.html


def test_members_do_not_see_the_fleet(server: Server) -> None:
    account, _ = server.account()
    page = member(server, account).get("/operator")
    assert page.status == 404
    assert "Failing endpoints" not in page.text


def test_the_page_shows_a_failing_endpoint_live(server: Server, page: Page) -> None:
    sign_in_operator(page)
    _, acting, endpoint = failing(server)
    # The live page updates.
    link = page.locator("tr[data-cause] a")
    expect(link.first).to_be_visible(timeout=20_000)
    check_page(page)
    acting.ok("DELETE", f"/v1/endpoints/{endpoint['id']}")


def test_a_mass_failure_is_shown_to_operators_only(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        account, acting = server.account("Rapids")
        for number in range(10):
            acting.endpoint(f"http://127.0.0.1:1/{number}")
        acting.send(1)
        guest = operator(server)

        def find_page() -> PageResponse | None:
            page = guest.get("/operator")
            return page if "Mass failure: 10 of 10 endpoints are failing" in page.text else None

        page = wait_for(find_page, "the page shows the mass failure")
        assert page is not None
        assert 'class="card state critical"' in page.html
        assert "Half of them began to fail within" in page.text
        assert f'href="/operator/accounts/{account}"' in guest.get("/operator/endpoints?filter=failing").html
        entry = guest.get("/operator/audit-log?action=mass_failure.began").text
        assert "10 \N{MULTIPLICATION SIGN} Connection refused" in entry
        # All pages show a banner to operators, but not to members.
        banner = ": many endpoints are failing. Until the mass failure ends"
        for path in ("/operator/mail", f"/accounts/{account}/overview"):
            assert banner in guest.get(path).text
            assert banner not in member(server, account).get(path).text
