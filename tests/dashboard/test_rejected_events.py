"""Rejected events in the dashboard: of an account, and of all accounts for operators."""

import time
from typing import Any
from urllib.parse import quote, urlencode
from uuid import uuid4

from tests.dashboard.visitors import Guest, member, operator
from tests.e2e.harness import Server
from tests.rejected_events import PROBLEM, reject

HOUR_MS = 3_600_000
PATH = "/operator/rejected-events"


def shown(guest: Guest, path: str) -> str:
    """Return the text of a page."""
    page = guest.get(path)
    assert page.status == 200
    assert "<b>" not in page.html
    return page.text


def test_members_see_the_rejected_events_of_their_account(server: Server) -> None:
    account, _ = server.account("Rapids")
    other, _ = server.account("Otters")
    guest, path = member(server, account, "member"), f"/accounts/{account}/rejected-events"
    assert path not in guest.get(f"/accounts/{account}/events").html
    assert "No rejected events" in shown(guest, path)
    errors = [{"field": "type", "code": "event_type_unknown", "message": "The <b>type</b> is `unknown`."}]
    rejected = reject(server.place, account, event_type="<b>typo</b>", problem={**PROBLEM, "errors": errors})
    reject(server.place, other, event_type="theirs")

    assert path in guest.get(f"/accounts/{account}/events").html
    text = shown(guest, path)
    for part in ("<b>typo</b>", "athlete-7", "The <b>type</b> is unknown .", "uplift.events.club-17", "412 bytes"):
        assert part in text
    assert rejected in guest.get(path).html
    assert "theirs" not in text
    assert guest.get(PATH).status == 404


def test_a_problem_of_the_whole_event_has_no_field(server: Server) -> None:
    account, _ = server.account("Fieldless")
    errors = [{"field": "", "code": "type_object", "message": "The event must be a JSON object."}]
    reject(server.place, account, problem={**PROBLEM, "errors": errors})
    text = shown(member(server, account), f"/accounts/{account}/rejected-events")
    assert "The event must be a JSON object." in text
    assert ": The event must" not in text


def test_filters(server: Server) -> None:
    account, _ = server.account("Filtered")
    guest, path = member(server, account), f"/accounts/{account}/rejected-events"
    now = int(time.time() * 1000)
    reject(server.place, account, event_type="early.type", at=now - 30_000)
    reject(server.place, account, event_type="late.type")
    text = shown(guest, f"{path}?event_type=late.type")
    assert ("late.type" in text, "early.type" in text) == (True, False)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now / 1000 - 15))
    for name, expected in (("since", (True, False)), ("until", (False, True))):
        text = shown(guest, f"{path}?{name}={moment}")
        assert ("late.type" in text, "early.type" in text) == expected
    assert "No matching rejected events" in shown(guest, f"{path}?event_type=no.such")
    reject(server.place, account, event_type="known.id", event_id="0197f0c2", idempotency_key="<b>")
    for query in ("event_id=0197f0c2", "idempotency_key=%3Cb%3E"):
        text = shown(guest, f"{path}?{query}")
        assert ("known.id" in text, "late.type" in text) == (True, False)
    assert "--event-id 0197f0c2 --idempotency-key '<b>'" in shown(
        guest, f"{path}?event_id=0197f0c2&idempotency_key=%3Cb%3E"
    )
    assert guest.get(f"{path}?since=yesterday").status == 422


def test_a_search_leads_to_rejected_events(server: Server) -> None:
    account, _ = server.account("Searched")
    other, _ = server.account("Unrelated")
    event, key = str(uuid4()), f"key {uuid4()}"
    reject(server.place, account, event_id=event, idempotency_key=key)
    own, everyone = member(server, account), operator(server)
    for name, text in (("event_id", event), ("idempotency_key", key)):
        query = urlencode({name: text})
        path = f"/accounts/{account}/rejected-events?{query}"
        assert path in own.get(f"/accounts/{account}/search?{urlencode({'q': text})}").html
        assert (
            "/rejected-events?"
            not in member(server, other).get(f"/accounts/{other}/search?{urlencode({'q': text})}").html
        )
        assert text in shown(own, path)
        for search in ("search?q", "trace?id"):
            found = everyone.get(f"/operator/{search}={quote(text)}")
            assert f"{PATH}?{query}" in found.html
    assert (
        f"/accounts/{account}/rejected-events?event_id={event}"
        in own.get(f"/accounts/{account}/events?id={event}").html
    )
    assert "/rejected-events?" not in everyone.get(f"/operator/trace?id={uuid4()}").html


def test_operators_see_all_accounts_and_unknown_ones(server: Server) -> None:
    name = f"Club {uuid4().hex}"
    account, _ = server.account(name)
    guest: Any = operator(server)
    mine, unknown = (reject(server.place, each, subject=f"uplift.events.{each}") for each in (account, None))
    html = guest.get(PATH).html
    assert (mine in html, unknown in html, f"/accounts/{account}/rejected-events" in html) == (True, True, True)
    assert "Unknown" in shown(guest, PATH)
    html = guest.get(f"{PATH}?account={account}").html
    assert (mine in html, unknown in html) == (True, False)
    assert guest.get(f"{PATH}?account=no-such-club").status == 422


def test_the_fleet_counts_the_last_24_hours(server: Server) -> None:
    guest = operator(server)

    def count() -> int:
        html = guest.get("/operator").html
        assert PATH in html
        return int(html.split('data-figure="rejected_events" data-value="')[1].split('"')[0])

    now = int(time.time() * 1000)
    reject(server.place, None, at=now - 25 * HOUR_MS)
    before = count()
    reject(server.place, None)
    assert count() == before + 1
