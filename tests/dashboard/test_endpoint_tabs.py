"""The Security and Test tabs of an endpoint."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.dashboard.visitors import Guest, Seen, forget_confirmations, member, operator
from tests.e2e.harness import OPERATOR_KEY, Server
from tests.e2e.receiving import Receiver, answer, hang

_SECRET = re.compile(r'<span class="secret">([^<]+)<')


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver on a real socket."""
    receiver = Receiver()
    yield receiver
    receiver.close()


class Owned:
    """An account with one endpoint."""

    def __init__(self, server: Server, url: str = "http://127.0.0.1:9/x", **fields: Any) -> None:
        self.server = server
        self.account, self.api = server.account()
        made = self.api.endpoint(url, **fields)
        self.endpoint, self.secret = made["id"], made["secret"]
        self.page = f"/accounts/{self.account}/endpoints/{self.endpoint}"
        self.guest = member(server, self.account, "manager")

    def post(self, action: str, guest: Guest | None = None, **fields: str) -> Seen:
        """Submit a form of a tab."""
        guest = guest or self.guest
        return guest.post(f"{self.page}/{action}", page=f"{self.page}/{action.partition('/')[0]}", **fields)

    def actions(self, action: str) -> list[Any]:
        """Return the audit log entries with this action."""
        found: list[Any] = self.api.ok("GET", f"/v1/audit-log?subject={self.endpoint}&action={action}")["data"]
        return found


def shown(seen: Seen) -> str | None:
    """Return the secret on a page."""
    found = _SECRET.search(seen.html)
    return None if found is None else found[1]


def test_revealing_a_secret_adds_an_audit_log_entry(server: Server) -> None:
    owned = Owned(server)
    before = owned.guest.get(f"{owned.page}/security")
    assert (shown(before), owned.secret in before.html) == (None, False)
    seen = owned.post("security/reveal")
    assert shown(seen) == owned.secret
    assert f"export UPLIFT_WEBHOOK_SECRET={owned.secret}" in seen.text
    assert "from uplift_webhooks.frameworks.flask import verified" in seen.text
    assert [each["actor"]["kind"] for each in owned.actions("secret.revealed")] == ["member"]


def test_a_late_reveal_requires_the_operator_key(server: Server) -> None:
    """Confirm the identity of an operator."""
    owned = Owned(server)
    guest = operator(server)
    forget_confirmations(server)
    page = guest.get(f"{owned.page}/security")
    assert "Operator key" in page.text
    for given in ("", "op_wrong"):
        refused = owned.post("security/reveal", guest, password=given)
        assert (refused.status, shown(refused)) == (422, None)
        assert 'id="password-problem"' in refused.html
    assert owned.actions("secret.revealed") == []
    assert shown(owned.post("security/reveal", guest, password=OPERATOR_KEY)) == owned.secret
    assert "Operator key" not in guest.get(f"{owned.page}/security").text


def test_a_late_reveal_requires_a_password_or_a_new_sign_in(server: Server) -> None:
    owned = Owned(server)
    without = member(server, owned.account, "owner")
    owned.guest.post("/you/password", page="/you", password="seven quiet otters")
    forget_confirmations(server)
    assert "sign in with a new link" in without.get(f"{owned.page}/security").text
    refused = owned.post("security/reveal", without)
    assert (refused.status, shown(refused)) == (422, None)

    assert "Your password" in owned.guest.get(f"{owned.page}/security").text
    assert owned.post("security/reveal", password="eight quiet otters").status == 422
    assert shown(owned.post("security/reveal", password="seven quiet otters")) == owned.secret
    assert len(owned.actions("secret.revealed")) == 1


def test_a_rotation_shows_the_new_secret_once(server: Server) -> None:
    owned = Owned(server)
    seen = owned.post("security/rotate", overlap_seconds="3600", uplift_header="new", once="once")
    new = owned.api.ok("GET", f"/v1/endpoints/{owned.endpoint}/secret")
    assert shown(seen) == new["secret"] != owned.secret
    assert new["uplift_header"] == "new"
    assert f'<time datetime="{new["previous_expires_at"]}"' in seen.html
    again = owned.post("security/rotate", overlap_seconds="3600", uplift_header="new", once="once")
    assert (again.status, shown(again)) == (409, None)
    assert "You already submitted this form" in again.text
    assert len(owned.actions("secret.rotated")) == 1

    ended = owned.post("security/expire-old")
    assert "Old secret expired" in ended.text
    assert "Old secret The old secret" not in ended.text
    assert owned.api.ok("GET", f"/v1/endpoints/{owned.endpoint}/secret")["previous_expires_at"] is None


def test_an_invalid_custom_secret_shows_an_error_at_its_field(server: Server) -> None:
    owned = Owned(server)
    refused = owned.post("security/rotate", secret="short", overlap_seconds="9999999", uplift_header="both")
    assert refused.status == 422
    for field in ("secret", "overlap_seconds", "uplift_header"):
        assert f'id="{field}-problem"' in refused.html
    assert shown(owned.post("security/rotate", secret="my-own-0123456789")) == "my-own-0123456789"
    assert owned.post("security/rotate", secret="my-own-0123456789").status == 422


def test_members_cannot_access_secrets(server: Server) -> None:
    owned = Owned(server)
    reader = member(server, owned.account, "member")
    page = reader.get(f"{owned.page}/security")
    assert "Your role does not allow you to reveal secrets" in page.text
    for action in ("reveal", "rotate", "expire-old"):
        refused = reader.post(f"{owned.page}/security/{action}", token=page.token)
        assert (refused.status, owned.secret in refused.html) == (403, False)
    assert owned.api.ok("GET", f"/v1/endpoints/{owned.endpoint}/secret")["secret"] == owned.secret


def test_a_test_event_shows_request_and_response(server: Server, receiver: Receiver) -> None:
    owned = Owned(server, receiver.url("/t", answer(500, b'{"why": "<b>no</b>"}')), headers={"X-Token": "geheim"})
    seen = owned.post("test", type="athlete.created")
    assert (seen.status, seen.path) == (200, f"{owned.page}/test")
    assert "500: it failed" in seen.text
    assert "your server's log" in seen.text
    assert "x-uplift-event: athlete.created" in seen.text
    assert "X-Token: ********" in seen.text
    assert "HTTP/1.1 500 Whatever" in seen.text
    assert '"why": "<b>no</b>"' in seen.text
    assert "<b>no" not in seen.html
    assert [each.headers["x-uplift-event"] for each in receiver.on("/t")][-1] == "athlete.created"
    reader = member(server, owned.account, "member")
    assert owned.post("test", reader).status == 200
    assert len(owned.actions("endpoint.tested")) == 2


def test_a_delivered_test_event_shows_its_success(server: Server, receiver: Receiver) -> None:
    owned = Owned(server, receiver.url("/ok"))
    assert "Your server responded with 200." in owned.post("test").text


def test_a_slow_test_event_is_shown_as_in_flight(server: Server, receiver: Receiver) -> None:
    owned = Owned(server, receiver.url("/hang", hang))
    seen = owned.post("test")
    assert "The attempt is in flight." in seen.text
    refused = owned.post("test")
    assert refused.status == 409
    assert "already in flight" in refused.text


def test_unknown_types_and_foreign_deliveries_are_rejected(server: Server, receiver: Receiver) -> None:
    owned, other = Owned(server), Owned(server, receiver.url("/o"))
    refused = owned.post("test", type="no.such")
    assert (refused.status, 'id="type-problem"' in refused.html) == (422, True)
    theirs = other.api.ok("GET", f"/v1/endpoints/{other.endpoint}/deliveries")["data"][0]["id"]
    assert owned.guest.get(f"{owned.page}/test?delivery={theirs}").status == 404
    assert owned.guest.get(f"{owned.page}/test?delivery=%3Cb%3E").status == 404
