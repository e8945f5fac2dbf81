"""The Security and Test tabs of an endpoint."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.dashboard.visitors import Guest, PageResponse, expire_confirmations, member, operator
from tests.e2e.harness import OPERATOR_KEY, Server
from tests.e2e.receiving import Receiver, hang, respond

_SECRET = re.compile(r'<span class="secret">([^<]+)<')


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver on a real socket."""
    receiver = Receiver()
    yield receiver
    receiver.close()


class EndpointManager:
    """Manager of an account with one endpoint."""

    def __init__(self, server: Server, url: str = "http://127.0.0.1:9/x", **fields: Any) -> None:
        self.server = server
        self.account, self.api = server.account()
        made = self.api.endpoint(url, **fields)
        self.endpoint, self.secret = made["id"], made["secret"]
        self.page = f"/accounts/{self.account}/endpoints/{self.endpoint}"
        self.guest = member(server, self.account, "manager")

    def post(self, action: str, guest: Guest | None = None, **fields: str) -> PageResponse:
        """Submit a form of a tab."""
        guest = guest or self.guest
        return guest.post(f"{self.page}/{action}", page=f"{self.page}/{action.partition('/')[0]}", **fields)

    def actions(self, action: str) -> list[Any]:
        """Return the audit log entries with this action."""
        found: list[Any] = self.api.ok("GET", f"/v1/audit-log?subject={self.endpoint}&action={action}")["data"]
        return found


def shown_secret(response: PageResponse) -> str | None:
    """Return the secret on a page."""
    found = _SECRET.search(response.html)
    return None if found is None else found[1]


def test_revealing_a_secret_adds_an_audit_log_entry(server: Server) -> None:
    manager = EndpointManager(server)
    before = manager.guest.get(f"{manager.page}/security")
    assert (shown_secret(before), manager.secret in before.html) == (None, False)
    response = manager.post("security/reveal")
    assert shown_secret(response) == manager.secret
    assert f"export UPLIFT_WEBHOOK_SECRET={manager.secret}" in response.text
    assert "from uplift_webhooks.frameworks.flask import verified" in response.text
    assert [each["actor"]["kind"] for each in manager.actions("secret.revealed")] == ["member"]


def test_a_late_reveal_requires_the_operator_key(server: Server) -> None:
    manager = EndpointManager(server)
    guest = operator(server)
    expire_confirmations(server)
    page = guest.get(f"{manager.page}/security")
    assert "Operator key" in page.text
    for given in ("", "op_wrong"):
        rejected = manager.post("security/reveal", guest, password=given)
        assert (rejected.status, shown_secret(rejected)) == (422, None)
        assert 'id="password-problem"' in rejected.html
    assert manager.actions("secret.revealed") == []
    assert shown_secret(manager.post("security/reveal", guest, password=OPERATOR_KEY)) == manager.secret
    assert "Operator key" not in guest.get(f"{manager.page}/security").text


def test_a_late_reveal_requires_a_password_or_a_new_sign_in(server: Server) -> None:
    manager = EndpointManager(server)
    without = member(server, manager.account, "owner")
    manager.guest.post("/you/password", page="/you", password="seven quiet otters")
    expire_confirmations(server)
    assert "sign in with a new link" in without.get(f"{manager.page}/security").text
    rejected = manager.post("security/reveal", without)
    assert (rejected.status, shown_secret(rejected)) == (422, None)

    assert "Your password" in manager.guest.get(f"{manager.page}/security").text
    assert manager.post("security/reveal", password="eight quiet otters").status == 422
    assert shown_secret(manager.post("security/reveal", password="seven quiet otters")) == manager.secret
    assert len(manager.actions("secret.revealed")) == 1


def test_a_rotation_shows_the_new_secret(server: Server) -> None:
    manager = EndpointManager(server)
    response = manager.post("security/rotate", overlap_seconds="3600", uplift_header="new", once="once")
    new = manager.api.ok("GET", f"/v1/endpoints/{manager.endpoint}/secret")
    assert shown_secret(response) == new["secret"] != manager.secret
    assert new["uplift_header"] == "new"
    assert f'<time datetime="{new["previous_expires_at"]}"' in response.html
    repeated = manager.post("security/rotate", overlap_seconds="3600", uplift_header="new", once="once")
    assert (repeated.status, shown_secret(repeated)) == (200, new["secret"])
    assert len(manager.actions("secret.rotated")) == 1

    ended = manager.post("security/expire-old")
    assert "Old secret expired" in ended.text
    assert "Old secret The old secret" not in ended.text
    assert manager.api.ok("GET", f"/v1/endpoints/{manager.endpoint}/secret")["previous_expires_at"] is None


def test_an_invalid_custom_secret_shows_an_error_at_its_field(server: Server) -> None:
    manager = EndpointManager(server)
    rejected = manager.post("security/rotate", secret="short", overlap_seconds="9999999", uplift_header="both")
    assert rejected.status == 422
    for field in ("secret", "overlap_seconds", "uplift_header"):
        assert f'id="{field}-problem"' in rejected.html
    assert shown_secret(manager.post("security/rotate", secret="my-own-0123456789")) == "my-own-0123456789"
    assert manager.post("security/rotate", secret="my-own-0123456789").status == 422


def test_members_cannot_access_secrets(server: Server) -> None:
    manager = EndpointManager(server)
    reader = member(server, manager.account, "member")
    page = reader.get(f"{manager.page}/security")
    assert "Your role does not allow you to reveal secrets" in page.text
    for action in ("reveal", "rotate", "expire-old"):
        rejected = reader.post(f"{manager.page}/security/{action}", token=page.token)
        assert (rejected.status, manager.secret in rejected.html) == (403, False)
    assert manager.api.ok("GET", f"/v1/endpoints/{manager.endpoint}/secret")["secret"] == manager.secret


def test_a_test_event_shows_request_and_response(server: Server, receiver: Receiver) -> None:
    manager = EndpointManager(
        server, receiver.url("/t", respond(500, b'{"why": "<b>no</b>"}')), headers={"X-Token": "geheim"}
    )
    response = manager.post("test", type="athlete.created")
    assert (response.status, response.path) == (200, f"{manager.page}/test")
    assert "500: it failed" in response.text
    assert "your server's log" in response.text
    assert "x-uplift-event: athlete.created" in response.text
    assert "X-Token: ********" in response.text
    assert "HTTP/1.1 500 Whatever" in response.text
    assert '"why": "<b>no</b>"' in response.text
    assert "<b>no" not in response.html
    assert [each.headers["x-uplift-event"] for each in receiver.on("/t")][-1] == "athlete.created"
    reader = member(server, manager.account, "member")
    assert manager.post("test", reader).status == 200
    assert len(manager.actions("endpoint.tested")) == 2


def test_a_delivered_test_event_shows_its_success(server: Server, receiver: Receiver) -> None:
    manager = EndpointManager(server, receiver.url("/ok"))
    assert "Your server responded with 200." in manager.post("test").text


def test_a_slow_test_event_is_shown_as_in_flight(server: Server, receiver: Receiver) -> None:
    manager = EndpointManager(server, receiver.url("/hang", hang))
    response = manager.post("test")
    assert "The attempt is in flight." in response.text
    rejected = manager.post("test")
    assert (rejected.status, rejected.path) == (200, f"{manager.page}/test")
    assert "already in flight" in rejected.problem


def test_unknown_types_and_foreign_deliveries_are_rejected(server: Server, receiver: Receiver) -> None:
    manager, other = EndpointManager(server), EndpointManager(server, receiver.url("/o"))
    rejected = manager.post("test", type="no.such")
    assert (rejected.status, 'id="type-problem"' in rejected.html) == (422, True)
    theirs = other.api.ok("GET", f"/v1/endpoints/{other.endpoint}/deliveries")["data"][0]["id"]
    assert manager.guest.get(f"{manager.page}/test?delivery={theirs}").status == 404
    assert manager.guest.get(f"{manager.page}/test?delivery=%3Cb%3E").status == 404
