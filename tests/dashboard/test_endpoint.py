"""The page of an endpoint: state card, deliveries, subscription, activity, pausing and enabling."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.dashboard.visitors import Guest, PageResponse, member, operator
from tests.e2e.harness import TYPE, Server, serving, settled, wait_for
from tests.e2e.receiving import Receiver, after_failing, respond


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver on a real socket."""
    receiver = Receiver()
    yield receiver
    receiver.close()


class EndpointOwner:
    """Owner of an account with one endpoint."""

    def __init__(self, server: Server, url: str, **fields: Any) -> None:
        self.account, self.api = server.account()
        self.endpoint = self.api.endpoint(url, **fields)["id"]
        self.page = f"/accounts/{self.account}/endpoints/{self.endpoint}"
        self.guest = member(server, self.account)
        wait_for(lambda: self.deliveries()[0]["status"] != "pending", "the registration event is settled")

    def deliveries(self) -> list[Any]:
        """Return the deliveries, the newest first."""
        found: list[Any] = self.api.ok("GET", f"/v1/endpoints/{self.endpoint}/deliveries")["data"]
        return found

    def send(self, number: int) -> str:
        """Send an event and return the ID of its delivery."""
        event = self.api.send(number).json["id"]
        return str(self.api.ok("GET", f"/v1/events/{event}/deliveries")["data"][0]["id"])

    def get(self, tab: str = "", guest: Guest | None = None) -> PageResponse:
        """Get a tab."""
        return (guest or self.guest).get(f"{self.page}/{tab}" if tab else self.page)

    def post(self, action: str, **fields: str) -> PageResponse:
        """Submit a form of the page."""
        return self.guest.post(f"{self.page}/{action}", page=self.page, **fields)


def test_a_healthy_endpoint_is_shown_as_healthy(server: Server, receiver: Receiver) -> None:
    owner = EndpointOwner(server, receiver.url("/ok"))
    assert "No attempts yet" in owner.get().text
    settled(owner.api, owner.send(1))
    response = owner.get()
    assert "Healthy" in response.text
    assert "Last 2xx" in response.text
    assert 'class="card state healthy"' in response.html


def test_a_failing_endpoint_shows_cause_fix_and_next_steps(server: Server, receiver: Receiver) -> None:
    owner = EndpointOwner(server, receiver.url("/bad", respond(404)))
    settled(owner.api, owner.send(1))
    health = owner.api.ok("GET", f"/v1/endpoints/{owner.endpoint}")["health"]

    response = owner.get()
    assert "404: " in response.text
    assert "Correct the endpoint's URL, or deploy the route" in response.text
    assert f'<time datetime="{health["failing_since"]}"' in response.html
    if health["disable_at"] is None:
        # Failing endpoints of other tests can cause a mass failure on the shared server.
        assert "mass failure" in response.text
    else:
        assert f'<time datetime="{health["disable_at"]}"' in response.html
        assert "Warning" in response.text
    assert "Last 2xx response Never" in response.text
    in_list = owner.guest.get(f"/accounts/{owner.account}/endpoints")
    assert "404 Not Found" in in_list.text


def test_held_deliveries_are_kept_dropped_or_sent(server: Server, receiver: Receiver) -> None:
    owner = EndpointOwner(server, receiver.url("/p"))
    paused = owner.post("pause")
    assert (paused.status, paused.path) == (200, owner.page)
    assert "Endpoint paused" in paused.text
    held = [owner.send(number) for number in range(3)]
    response = owner.get()
    assert "The server holds this endpoint's deliveries." in response.text
    assert "Held: 3 deliveries" in response.text
    assert "3 deliveries held" in owner.guest.get(f"/accounts/{owner.account}/endpoints").text

    kept = owner.post("enable", held="keep")
    assert "stay held until you release or drop them" in kept.text
    assert "3 deliveries, kept until you release or drop them" in kept.text
    dropped = owner.post("enable", held="drop")
    assert "The server cancels the held deliveries" in dropped.text
    assert {settled(owner.api, each)["status"] for each in held} == {"cancelled"}

    owner.post("pause")
    last = owner.send(9)
    assert "The server sends the held deliveries" in owner.post("enable", held="send").text
    assert settled(owner.api, last)["status"] == "delivered"


def test_a_disabled_endpoint_shows_the_actor_and_cannot_be_paused(server: Server, receiver: Receiver) -> None:
    owner = EndpointOwner(server, receiver.url("/d"))
    owner.api.ok("POST", f"/v1/endpoints/{owner.endpoint}/disable")
    response = owner.get()
    assert "An operator of this service disabled the endpoint." in response.text
    assert "Ask the operator before" in response.text
    rejected = owner.post("pause")
    assert (rejected.status, rejected.path) == (200, owner.page)
    assert "first enable it" in rejected.problem
    assert owner.get().problem == ""


def test_deliveries_are_filtered_by_the_url_and_paginated(server: Server, receiver: Receiver) -> None:
    owner = EndpointOwner(server, receiver.url("/many"))
    sent = [owner.send(number) for number in range(27)]
    for delivery in sent:
        settled(owner.api, delivery)
    first = owner.get()
    assert first.html.count('href="/accounts/' + owner.account + "/deliveries/") == 25
    [older] = re.findall(r'href="([^"]+)" rel="next"', first.html)
    second = owner.guest.get(older.replace("&amp;", "&"))
    registration_event = ">webhook.<wbr>created</code>"
    assert registration_event in second.html
    assert registration_event not in owner.guest.get(f"{owner.page}?type={TYPE}&status=delivered").html
    past = owner.guest.get(f"{owner.page}?created_before=2020-01-01T00:00")
    assert "No matching deliveries" in past.text
    assert 'value="2020-01-01T00:00:00"' in past.html
    assert (
        registration_event in owner.guest.get(f"{owner.page}?type=webhook.created&created_after=2020-01-01T00:00").html
    )
    wrong = owner.guest.get(f"{owner.page}?created_after=then")
    assert (wrong.status, 'id="created_after-problem"' in wrong.html) == (422, True)
    assert "No matching deliveries" in owner.guest.get(f"{owner.page}?status=failed").text
    unknown = owner.guest.get(f"{owner.page}?type=no.such")
    assert (unknown.status, 'id="type-problem"' in unknown.html) == (422, True)


def test_the_subscription_lists_matching_types_and_masks_secrets(server: Server, receiver: Receiver) -> None:
    owner = EndpointOwner(
        server, receiver.url("/s"), event_types=["athlete.*"], headers={"X-Jwt": "geheim", "Accept": "<b>"}
    )
    response = owner.get("subscription")
    assert "athlete.created" in response.text
    assert "movement.analytics.created" not in response.text
    assert "X-Jwt: ********" in response.text
    assert "geheim" not in response.html
    assert "Accept: &lt;b&gt;" in response.html


def test_the_activity_tab_lists_changes_for_permitted_roles(server: Server, receiver: Receiver) -> None:
    owner = EndpointOwner(server, receiver.url("/a"))
    owner.api.ok("PATCH", f"/v1/endpoints/{owner.endpoint}", {"description": "<i>new</i>", "event_types": [TYPE]})
    owner.post("pause")
    response = owner.get("activity")
    assert "endpoint.created" in response.text
    assert f"event types: all → {TYPE}" in response.text
    assert "description: none → <i>new</i>" in response.text
    assert "<i>" not in response.html
    actions = [response.text.index(f"endpoint.{what}") for what in ("paused", "changed", "created")]
    assert actions == sorted(actions)
    manager = member(server, owner.account, "manager")
    assert "Activity" not in owner.get(guest=manager).text
    assert owner.get("activity", manager).status == 403


def test_operators_and_members_see_that_the_server_disabled_an_endpoint(tmp_path: Path, receiver: Receiver) -> None:
    with serving(tmp_path / "data", UPLIFT_GONE_DISABLES_ENDPOINT="true") as server:
        owner = EndpointOwner(server, receiver.url("/gone"))
        receiver.url("/gone", respond(410))
        owner.send(1)
        wait_for(
            lambda: owner.api.ok("GET", f"/v1/endpoints/{owner.endpoint}")["state"] == "disabled", "it is disabled"
        )
        response = owner.get("activity")
        accounts = operator(server).get(f"/operator/accounts?search={owner.account}")
    assert (response.status, "endpoint.disabled" in response.text) == (200, True)
    assert re.search(r"failing since:\s*<time datetime=", response.html)
    assert "1 failing or disabled" in accounts.text
    assert "Healthy" not in accounts.text


def test_forbidden_actions_are_hidden_from_members_and_rejected(server: Server, receiver: Receiver) -> None:
    owner = EndpointOwner(server, receiver.url("/m"))
    reader = member(server, owner.account, "member")
    response = owner.get(guest=reader)
    assert (
        response.status,
        "Pause" in response.text,
        "Security" in response.text,
        "Send test event" in response.text,
    ) == (
        200,
        False,
        False,
        True,
    )
    assert "Delete" not in owner.get("subscription", reader).text
    for action in ("pause", "enable", "delete"):
        assert reader.post(f"{owner.page}/{action}", token=response.token).status == 403
    assert owner.api.ok("GET", f"/v1/endpoints/{owner.endpoint}")["state"] == "enabled"


def test_an_operator_sees_the_page(server: Server, receiver: Receiver) -> None:
    owner = EndpointOwner(server, receiver.url("/o"))
    response = owner.get(guest=operator(server))
    assert "You are viewing this account as an operator" in response.text
    assert "Pause" in response.text


def test_forms_with_a_wrong_token_change_nothing(server: Server, receiver: Receiver) -> None:
    owner = EndpointOwner(server, receiver.url("/t"))
    for action in ("pause", "enable", "delete", "edit", "test", "security/rotate", "security/reveal"):
        assert owner.guest.post(f"{owner.page}/{action}", token="0" * 32).status == 403, action
    assert owner.api.ok("GET", f"/v1/endpoints/{owner.endpoint}")["state"] == "enabled"


def test_charts_show_the_period_of_the_url(server: Server, receiver: Receiver) -> None:
    owner = EndpointOwner(server, receiver.url("/c", after_failing(1)))
    for number in range(3):
        settled(owner.api, owner.send(number))

    def counted() -> PageResponse | None:
        response = owner.get()
        return response if "4 delivered" in response.text else None

    response = wait_for(counted, "the deliveries are counted", every=0.3)
    assert "Last 24 hours" in response.text
    assert 'aria-label="Deliveries by status: 4 delivered"' in response.html
    assert "Server error 4" in response.text
    assert "timeout: 15" in response.text
    owner.api.ok("PATCH", f"/v1/endpoints/{owner.endpoint}", {"attempt_timeout": "25s"})
    assert "timeout: 25" in owner.get().text
    week = owner.guest.get(f"{owner.page}?period=7d&status=delivered")
    assert "Last 7 days" in week.text
    assert f'href="{owner.page}?period=30d&amp;status=delivered"' in week.html
    assert '<input type="hidden" name="period" value="7d">' in week.html
    in_list = owner.guest.get(f"/accounts/{owner.account}/endpoints")
    assert "50.0%" in in_list.text
    assert 'class="spark"' in in_list.html
    assert "Last 24 hours" in owner.guest.get(f"{owner.page}?period=1y").text
