"""The page of an endpoint: state card, deliveries, subscription and activity; pause and enable."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.dashboard.visitors import Guest, Seen, member, operator
from tests.e2e.harness import TYPE, Server, settled, wait_for
from tests.e2e.receiving import Receiver, after_failing, answer


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver on a real socket."""
    receiver = Receiver()
    yield receiver
    receiver.close()


class Owned:
    """An account with one endpoint and an owner."""

    def __init__(self, server: Server, url: str, **fields: Any) -> None:
        self.account, self.api = server.account()
        self.endpoint = self.api.endpoint(url, **fields)["id"]
        self.page = f"/accounts/{self.account}/endpoints/{self.endpoint}"
        self.guest = member(server, self.account)
        wait_for(lambda: self.deliveries()[0]["status"] != "pending", "the greeting is over")

    def deliveries(self) -> list[Any]:
        """Return the deliveries, the newest first."""
        found: list[Any] = self.api.ok("GET", f"/v1/endpoints/{self.endpoint}/deliveries")["data"]
        return found

    def send(self, number: int) -> str:
        """Send an event and return the ID of its delivery."""
        event = self.api.send(number).json["id"]
        return str(self.api.ok("GET", f"/v1/events/{event}/deliveries")["data"][0]["id"])

    def get(self, tab: str = "", guest: Guest | None = None) -> Seen:
        """Get a tab."""
        return (guest or self.guest).get(f"{self.page}/{tab}" if tab else self.page)

    def post(self, action: str, **fields: str) -> Seen:
        """Submit a form of the page."""
        return self.guest.post(f"{self.page}/{action}", page=self.page, **fields)


def test_a_healthy_endpoint_is_shown_as_healthy(server: Server, receiver: Receiver) -> None:
    owned = Owned(server, receiver.url("/ok"))
    assert "No attempts yet" in owned.get().text
    settled(owned.api, owned.send(1))
    seen = owned.get()
    assert "Healthy" in seen.text
    assert "Last 2xx" in seen.text
    assert 'class="card state healthy"' in seen.html


def test_a_failing_endpoint_shows_cause_fix_and_next_steps(server: Server, receiver: Receiver) -> None:
    owned = Owned(server, receiver.url("/bad", answer(404)))
    settled(owned.api, owned.send(1))
    health = owned.api.ok("GET", f"/v1/endpoints/{owned.endpoint}")["health"]

    seen = owned.get()
    assert "404: " in seen.text
    assert "Correct the endpoint's URL, or deploy the route" in seen.text
    assert f'<time datetime="{health["failing_since"]}"' in seen.html
    if health["disable_at"] is None:
        # Failing endpoints of other tests can cause a mass failure on the shared server.
        assert "mass failure" in seen.text
    else:
        assert f'<time datetime="{health["disable_at"]}"' in seen.html
        assert "Warning" in seen.text
    assert "Last 2xx response Never" in seen.text
    in_list = owned.guest.get(f"/accounts/{owned.account}/endpoints")
    assert "404: " in in_list.text


def test_held_deliveries_are_kept_dropped_or_sent(server: Server, receiver: Receiver) -> None:
    owned = Owned(server, receiver.url("/p"))
    paused = owned.post("pause")
    assert (paused.status, paused.path) == (200, owned.page)
    assert "Endpoint paused" in paused.text
    held = [owned.send(number) for number in range(3)]
    seen = owned.get()
    assert "The server holds the deliveries of this endpoint." in seen.text
    assert "Held: 3 deliveries" in seen.text
    assert "3 deliveries held" in owned.guest.get(f"/accounts/{owned.account}/endpoints").text

    kept = owned.post("enable", held="keep")
    assert "stay held until you release or drop them" in kept.text
    assert "3 deliveries, kept until you release or drop them" in kept.text
    dropped = owned.post("enable", held="drop")
    assert "The server cancels the held deliveries" in dropped.text
    assert {settled(owned.api, each)["status"] for each in held} == {"cancelled"}

    owned.post("pause")
    last = owned.send(9)
    assert "The server sends the held deliveries" in owned.post("enable", held="send").text
    assert settled(owned.api, last)["status"] == "delivered"


def test_a_disabled_endpoint_shows_the_actor_and_cannot_be_paused(server: Server, receiver: Receiver) -> None:
    owned = Owned(server, receiver.url("/d"))
    owned.api.ok("POST", f"/v1/endpoints/{owned.endpoint}/disable")
    seen = owned.get()
    assert "An operator of this service disabled the endpoint." in seen.text
    assert "Ask the operator before" in seen.text
    refused = owned.post("pause")
    assert refused.status == 409
    assert "first enable it" in refused.text
    assert f'hx-get="{owned.page}"' in refused.html


def test_deliveries_are_filtered_by_the_url_and_paginated(server: Server, receiver: Receiver) -> None:
    owned = Owned(server, receiver.url("/many"))
    sent = [owned.send(number) for number in range(27)]
    for delivery in sent:
        settled(owned.api, delivery)
    first = owned.get()
    assert first.html.count('href="/accounts/' + owned.account + "/deliveries/") == 25
    [older] = re.findall(r'href="([^"]+)" rel="next"', first.html)
    second = owned.guest.get(older.replace("&amp;", "&"))
    owned.api.ok("POST", f"/v1/endpoints/{owned.endpoint}/disable")
    assert 'rel="next"' not in owned.post("pause").html
    greeting = "<code>webhook.created</code>"
    assert greeting in second.html
    assert greeting not in owned.guest.get(f"{owned.page}?type={TYPE}&status=delivered").html
    past = owned.guest.get(f"{owned.page}?created_before=2020-01-01T00:00")
    assert "No matching deliveries" in past.text
    assert 'value="2020-01-01T00:00:00"' in past.html
    assert greeting in owned.guest.get(f"{owned.page}?type=webhook.created&created_after=2020-01-01T00:00").html
    wrong = owned.guest.get(f"{owned.page}?created_after=then")
    assert (wrong.status, 'id="created_after-problem"' in wrong.html) == (422, True)
    assert "No matching deliveries" in owned.guest.get(f"{owned.page}?status=failed").text
    unknown = owned.guest.get(f"{owned.page}?type=no.such")
    assert (unknown.status, 'id="type-problem"' in unknown.html) == (422, True)


def test_the_subscription_lists_matching_types_and_masks_secrets(server: Server, receiver: Receiver) -> None:
    owned = Owned(server, receiver.url("/s"), event_types=["athlete.*"], headers={"X-Jwt": "geheim", "Accept": "<b>"})
    seen = owned.get("subscription")
    assert "athlete.created" in seen.text
    assert "movement.analytics.created" not in seen.text
    assert "X-Jwt: ********" in seen.text
    assert "geheim" not in seen.html
    assert "Accept: &lt;b&gt;" in seen.html


def test_the_activity_tab_lists_changes_for_permitted_roles(server: Server, receiver: Receiver) -> None:
    owned = Owned(server, receiver.url("/a"))
    owned.api.ok("PATCH", f"/v1/endpoints/{owned.endpoint}", {"description": "<i>new</i>", "event_types": [TYPE]})
    owned.post("pause")
    seen = owned.get("activity")
    assert "endpoint.created" in seen.text
    assert f"event types: all → {TYPE}" in seen.text
    assert "description: none → <i>new</i>" in seen.text
    assert "<i>" not in seen.html
    actions = [seen.text.index(f"endpoint.{what}") for what in ("paused", "changed", "created")]
    assert actions == sorted(actions)
    manager = member(server, owned.account, "manager")
    assert "Activity" not in owned.get(guest=manager).text
    assert owned.get("activity", manager).status == 403


def test_forbidden_actions_are_hidden_from_members_and_rejected(server: Server, receiver: Receiver) -> None:
    owned = Owned(server, receiver.url("/m"))
    reader = member(server, owned.account, "member")
    seen = owned.get(guest=reader)
    assert (seen.status, "Pause" in seen.text, "Security" in seen.text, "Send test event" in seen.text) == (
        200,
        False,
        False,
        True,
    )
    assert "Delete" not in owned.get("subscription", reader).text
    for action in ("pause", "enable", "delete"):
        assert reader.post(f"{owned.page}/{action}", token=seen.token).status == 403
    assert owned.api.ok("GET", f"/v1/endpoints/{owned.endpoint}")["state"] == "enabled"


def test_an_operator_sees_the_page(server: Server, receiver: Receiver) -> None:
    owned = Owned(server, receiver.url("/o"))
    seen = owned.get(guest=operator(server))
    assert "You are viewing this account as an operator" in seen.text
    assert "Pause" in seen.text


def test_forms_with_a_wrong_token_change_nothing(server: Server, receiver: Receiver) -> None:
    owned = Owned(server, receiver.url("/t"))
    for action in ("pause", "enable", "delete", "edit", "test", "security/rotate", "security/reveal"):
        assert owned.guest.post(f"{owned.page}/{action}", token="0" * 32).status == 403, action
    assert owned.api.ok("GET", f"/v1/endpoints/{owned.endpoint}")["state"] == "enabled"


def test_charts_show_the_period_of_the_url(server: Server, receiver: Receiver) -> None:
    owned = Owned(server, receiver.url("/c", after_failing(1)))
    for number in range(3):
        settled(owned.api, owned.send(number))

    def counted() -> Seen | None:
        seen = owned.get()
        return seen if "4 delivered" in seen.text else None

    seen = wait_for(counted, "the deliveries are counted", every=0.3)
    assert "Last 24 hours" in seen.text
    assert 'aria-label="Deliveries by status: 4 delivered"' in seen.html
    assert "Server error 4" in seen.text
    assert "timeout: 15" in seen.text
    week = owned.guest.get(f"{owned.page}?period=7d&status=delivered")
    assert "Last 7 days" in week.text
    assert f'href="{owned.page}?period=30d&amp;status=delivered"' in week.html
    assert '<input type="hidden" name="period" value="7d">' in week.html
    in_list = owned.guest.get(f"/accounts/{owned.account}/endpoints")
    assert "50.0 %" in in_list.text
    assert 'class="spark"' in in_list.html
    assert "Last 24 hours" in owned.guest.get(f"{owned.page}?period=1y").text
