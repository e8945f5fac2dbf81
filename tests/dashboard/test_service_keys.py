"""Service keys and their expiry on the operators' page, and the expiry of API keys on the account's page."""

import re
from typing import Any
from uuid import uuid4

from playwright.sync_api import Page
from tests.dashboard.operators import sign_in_operator
from tests.dashboard.page_checks import check_page
from tests.dashboard.routes import forms
from tests.dashboard.visitors import expire_confirmations, member, operator
from tests.e2e.harness import OPERATOR_KEY, Server

LIST = "/operator/keys"
EXPIRY = "2099-01-31T12:00:07.123Z"


def named(server: Server, name: str) -> Any:
    """Return the service key with this name."""
    [found] = [each for each in server.api().list_all("/v1/keys") if each["name"] == name]
    return found


def test_a_service_key_is_created_updated_and_revoked(server: Server) -> None:
    """The page shows the key only once. Within its scopes, the key acts for all accounts."""
    guest, name = operator(server), f"<b>{uuid4().hex}"
    account, _ = server.account()
    sent = {"name": name, "scopes": ["events:write", "accounts:read"], "expires_at": "2099-01-31T12:00"}
    page = guest.post(LIST, page=LIST, **sent)
    assert "Copy it now" in page.text
    [text] = re.findall(r"svc_[0-9a-f]{48}", page.html)
    assert "<b>" not in page.html
    made = named(server, name)
    assert (made["scopes"], made["expires_at"]) == (["accounts:read", "events:write"], "2099-01-31T12:00:00.000Z")
    holder = server.api(text, account=account)
    assert holder.ok("GET", "/v1/account")["id"] == account
    assert holder("GET", "/v1/endpoints").status == 403
    assert text not in guest.get(LIST).html

    path = f"{LIST}/{made['id']}"
    wrong = guest.post(path, page=path, name="", expires_at="2001-01-31T12:00")
    assert (wrong.status, "in the past" in wrong.text, "The name is empty" in wrong.text) == (422, True, True)
    updated = guest.post(path, page=path, name=f"{name} 2", expires_at="")
    assert updated.path == LIST
    assert named(server, f"{name} 2")["expires_at"] is None
    revoked = guest.post(f"{path}/revoke", page=path)
    assert "Service key revoked" in revoked.text
    assert holder("GET", "/v1/account").status == 401
    assert guest.get(path).status == 404


def test_a_service_key_for_secrets_requires_a_confirmation(server: Server) -> None:
    """Creating the key and changing its expiry both require it."""
    guest, name = operator(server), uuid4().hex
    wanted = {"name": name, "scopes": "secrets:read", "expires_at": "2099-01-31T12:00"}
    expire_confirmations(server)
    rejected = guest.post(LIST, page=LIST, **wanted)
    assert (rejected.status, f'href="/confirm?next={LIST}"' in rejected.html, name in rejected.html) == (
        403,
        True,
        True,
    )
    assert guest.post("/confirm", password=OPERATOR_KEY, next=LIST).path == LIST
    assert guest.post(LIST, page=LIST, **wanted).status == 200

    path = f"{LIST}/{named(server, name)['id']}"
    expire_confirmations(server)
    rejected = guest.post(path, page=path, name=name, expires_at="")
    assert (rejected.status, f'href="/confirm?next={path}"' in rejected.html) == (403, True)
    assert named(server, name)["expires_at"] == "2099-01-31T12:00:00.000Z"
    assert guest.post(path, page=path, name=f"{name} 2", expires_at="2099-01-31T12:00").status == 200


def test_problems_of_a_new_service_key_are_at_its_fields(server: Server) -> None:
    """The form keeps the input."""
    guest = operator(server)
    page = guest.post(LIST, page=LIST, name=" ", scopes="listen", expires_at="2001-01-31T12:00")
    assert page.status == 422
    assert 'name="scopes" value="listen" checked' in page.html
    assert "in the past" in page.text


def test_a_rename_keeps_the_milliseconds_of_an_expiry(server: Server) -> None:
    """The form shows whole seconds only."""
    account, _ = server.account()
    admin, keys = member(server, account, "admin"), f"/v1/accounts/{account}/keys"
    made = server.api().ok("POST", keys, {"name": "first", "expires_at": EXPIRY})
    path = f"/accounts/{account}/developers/keys/{made['id']}"
    [form] = [each for each in forms(admin.get(path).html) if each.action == path]
    sent = {name: value for name, value in form.fields.items() if name != "csrf"}
    assert sent == {"name": "first", "expires_at": EXPIRY[:19]}
    changed = admin.post(path, page=path, **{**sent, "name": "second"})
    assert "API key second updated" in changed.text
    assert [(each["name"], each["expires_at"]) for each in server.api().ok("GET", keys)["data"]] == [("second", EXPIRY)]


def test_an_admin_cannot_extend_a_key_of_the_operator(server: Server) -> None:
    account, _ = server.account()
    admin, keys = member(server, account, "admin"), f"/v1/accounts/{account}/keys"
    made = server.api().ok("POST", keys, {"name": "sender", "scopes": ["events:write"], "expires_at": EXPIRY})
    path = f"/accounts/{account}/developers/keys/{made['id']}"
    rejected = admin.post(path, page=path, name="sender", expires_at="")
    assert (rejected.status, "events:write" in rejected.text) == (403, True)
    assert server.api().ok("GET", keys)["data"][0]["expires_at"] == EXPIRY


def test_an_operator_creates_and_revokes_a_service_key(server: Server, page: Page) -> None:
    """The pages are accessible in a browser, and fit small screens."""
    name = f"k{uuid4().hex[:12]}"
    sign_in_operator(page).goto(LIST)
    if page.get_by_role("button", name="Create service key").get_attribute("popovertarget"):
        page.get_by_role("button", name="Create service key").click()
    page.get_by_label("Name").fill(name)
    page.get_by_role("checkbox", name="events:write").check()
    page.get_by_role("button", name="Create service key").last.click()
    page.get_by_text("Copy it now").wait_for()
    check_page(page, "service keys")
    page.get_by_role("link", name=name).click()
    page.get_by_role("heading", name=name).wait_for()
    check_page(page, "service key")
    page.get_by_role("button", name="Revoke key").click()
    page.locator(":popover-open").get_by_role("button", name="Revoke key").click()
    page.get_by_text("Service key revoked").wait_for()
    assert not [each for each in server.api().list_all("/v1/keys") if each["name"] == name]
