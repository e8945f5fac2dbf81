"""The Fleet page: backlog, problems and live updates."""

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


def test_operators_start_at_the_fleet_page(server: Server) -> None:
    page = operator(server).get("/")
    assert (page.status, page.path) == (200, "/operator")
    for figure in ("Oldest due", "Scheduled", "Held", "In flight", "Circuit open", "First-attempt success rate", "p95"):
        assert figure in page.text


def test_endpoints_with_an_open_circuit_are_listed(server: Server) -> None:
    account, acting, endpoint = failing(server)
    page = operator(server).get("/operator")
    assert f'href="/accounts/{account}/endpoints/{endpoint["id"]}"' in page.html
    assert NOWHERE in page.text
    assert "<i>hook" not in page.html
    assert "<b>Academy" not in page.html
    acting.ok("POST", f"/v1/endpoints/{endpoint['id']}/pause")
    assert endpoint["id"] not in operator(server).get("/operator").html


def test_due_deliveries_of_open_circuits_are_explained(server: Server) -> None:
    _, acting, endpoint = failing(server)
    for number in range(20):
        acting.send(number)

    def is_explained() -> bool:
        return "all due deliveries are waiting for a probe" in operator(server).get("/operator").text

    wait_for(is_explained, "the page explains the due deliveries")
    acting.ok("POST", f"/v1/endpoints/{endpoint['id']}/pause")


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
    assert "Oldest due" not in page.text


def test_the_page_shows_a_failing_endpoint_live(server: Server, page: Page) -> None:
    sign_in_operator(page)
    account, acting, endpoint = failing(server)
    # The live page updates.
    link = page.locator(f'a[href="/accounts/{account}/endpoints/{endpoint["id"]}"]')
    expect(link).to_be_visible(timeout=20_000)
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
            return page if "10 endpoints began to fail within the same hour" in page.text else None

        page = wait_for(find_page, "the page shows the mass failure")
        assert page is not None
        assert "Mass failure: many endpoints began to fail at once." in page.text
        assert f'href="/operator/accounts/{account}"' in guest.get("/operator/endpoints?filter=failing").html
        # All pages show it to operators, but not to members.
        banner = "Mass failure: 10 endpoints have been failing since"
        for path in ("/operator/mail", f"/accounts/{account}/overview"):
            assert banner in guest.get(path).text
            assert banner not in member(server, account).get(path).text
