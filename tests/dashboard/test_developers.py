"""The Developers page: API keys, source IP addresses and listen sessions."""

import re
from contextlib import closing

import pytest
from playwright.sync_api import Page, expect
from tests.dashboard.visitors import expire_confirmations, member, open_overview, operator
from tests.e2e.harness import OPERATOR_KEY, Server
from tests.e2e.listening import Listening, environment
from tests.e2e.receiving import Receiver, respond

from uplift_server.dashboard.security import SHOWN_COOKIE

ALL_BUT_EVENTS_WRITE = {
    "events:read", "endpoints:read", "endpoints:write", "deliveries:read", "deliveries:write", "secrets:read",
    "secrets:write", "listen",
}  # fmt: skip


def keys_of(server: Server, account: str) -> list[dict[str, object]]:
    """Return the keys of an account."""
    found: list[dict[str, object]] = server.api().ok("GET", f"/v1/accounts/{account}/keys")["data"]
    return found


def offered(text: str) -> set[str]:
    """Return the scopes that a page offers."""
    return set(re.findall(r'name="scopes" value="([a-z:]+)"', text))


def test_a_key_for_secrets_requires_a_confirmation(server: Server) -> None:
    account, _ = server.account()
    guest, path = operator(server), f"/accounts/{account}/developers"
    expire_confirmations(server)
    wanted = {"name": "reports", "scopes": "secrets:read"}
    rejected = guest.post(f"{path}/keys", page=path, **wanted)
    assert (rejected.status, keys_of(server, account)) == (403, [])
    assert f'href="/confirm?next={path}" target="_blank"' in rejected.html
    assert 'value="reports"' in rejected.html

    assert guest.post("/confirm", password=OPERATOR_KEY, next=path).path == path
    assert guest.post(f"{path}/keys", page=path, **wanted).status == 200
    assert [made["scopes"] for made in keys_of(server, account)] == [["secrets:read"]]


def test_a_key_is_created_shown_once_and_revoked(server: Server, page: Page) -> None:
    account, _ = server.account()
    open_overview(page, member(server, account, "admin", "ada@t2-developers.example"))
    page.goto(f"/accounts/{account}/developers")
    page.get_by_label("Name").fill("reports")
    for scope in ALL_BUT_EVENTS_WRITE - {"events:read", "listen"}:
        page.get_by_role("checkbox", name=scope).set_checked(False)
    page.get_by_role("button", name="Create API key").click()

    expect(page.get_by_text("Copy it now")).to_be_visible()
    page.get_by_role("button", name="Copy API key").click()
    key = page.evaluate("navigator.clipboard.readText()")
    assert server.api(key).ok("GET", "/v1/events")["data"] == []
    [made] = keys_of(server, account)
    assert (made["name"], made["scopes"]) == ("reports", ["events:read", "listen"])

    page.goto(f"/accounts/{account}/developers")
    expect(page.get_by_text(f"sk_…{key[-4:]}")).to_be_visible()
    assert key not in page.content()

    page.get_by_role("button", name="Revoke API key").click()
    page.locator(":popover-open").get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("API key revoked")).to_be_visible()
    assert server.api(key)("GET", "/v1/events").status == 401
    entries = server.api().ok("GET", "/v1/audit-log?actor=member")["data"]
    assert {("key.created", "ada@t2-developers.example"), ("key.revoked", "ada@t2-developers.example")} <= {
        (each["action"], each["actor"]["name"]) for each in entries
    }


def test_a_key_cannot_exceed_the_permissions_of_its_creator(server: Server) -> None:
    account, _ = server.account()
    path = f"/accounts/{account}/developers"
    admin = member(server, account, "admin")
    assert offered(admin.get(path).html) == ALL_BUT_EVENTS_WRITE
    rejected = admin.post(f"{path}/keys", page="/you", follow=False, name="all", scopes="events:write")
    assert rejected.status == 422
    assert "Your role does not include the scope events:write" in rejected.html
    assert 'value="all"' in rejected.html
    console = operator(server)
    assert offered(console.get(path).html) == ALL_BUT_EVENTS_WRITE | {"events:write"}
    assert console.post(f"{path}/keys", page="/you", follow=False, name="all", scopes="events:write").status == 303
    assert [each["scopes"] for each in keys_of(server, account)] == [["events:write"]]


def test_an_owner_cannot_change_the_expiry_of_a_key_with_other_scopes(server: Server) -> None:
    account, _ = server.account()
    sent = {"name": "sender", "scopes": ["events:write"], "expires_at": "2999-01-31T00:00:00Z"}
    key = server.api().ok("POST", f"/v1/accounts/{account}/keys", sent)
    path, owner = f"/accounts/{account}/developers/keys/{key['id']}", member(server, account, "owner")
    assert 'name="expires_at"' not in owner.get(path).html
    assert owner.post(path, page="/you", follow=False, name="capture").status == 303
    (changed,) = keys_of(server, account)
    assert (changed["name"], changed["expires_at"]) == ("capture", key["expires_at"])
    rejected = owner.post(path, page="/you", follow=False, name="capture", expires_at="2999-02-28T00:00")
    assert rejected.status == 403
    assert "Ask the operator." in rejected.html
    assert 'name="expires_at"' in operator(server).get(path).html


@pytest.mark.parametrize("role", ["member", "manager"])
def test_roles_without_key_permission_cannot_see_or_change_keys(server: Server, role: str) -> None:
    account, _ = server.account()
    key = server.api().ok("POST", f"/v1/accounts/{account}/keys", {"name": "hidden one"})
    path = f"/accounts/{account}/developers"
    visitor = member(server, account, role)
    page = visitor.get(path).html
    assert "hidden one" not in page
    assert offered(page) == set()
    assert visitor.post(f"{path}/keys", page="/you", follow=False, name="mine", scopes="listen").status == 403
    assert visitor.post(f"{path}/keys/{key['id']}/revoke", page="/you", follow=False).status == 403
    assert [each["name"] for each in keys_of(server, account)] == ["hidden one"]


def test_keys_of_another_account_cannot_be_revoked(server: Server) -> None:
    other, _ = server.account("Other")
    key = server.api().ok("POST", f"/v1/accounts/{other}/keys", {"name": "theirs"})
    account, _ = server.account()
    admin = member(server, account, "admin")
    assert (
        admin.post(f"/accounts/{account}/developers/keys/{key['id']}/revoke", page="/you", follow=False).status == 404
    )
    assert admin.post(f"/accounts/{other}/developers/keys/{key['id']}/revoke", page="/you", follow=False).status == 404
    assert len(keys_of(server, other)) == 1


def test_a_resubmitted_form_creates_one_key(server: Server) -> None:
    account, _ = server.account()
    sent = {"name": "once", "scopes": "listen", "once": "0123456789abcdef"}
    admin = member(server, account, "admin")
    responses = [admin.post(f"/accounts/{account}/developers/keys", page="/you", **sent) for _ in range(2)]

    assert re.search(r"sk_[0-9a-f]{20}", responses[0].html)
    [key] = keys_of(server, account)
    admin.cookies.pop(SHOWN_COOKIE)
    assert "no longer shows the API key" in admin.get(f"/accounts/{account}/developers?shown={key['id']}").text
    assert len(keys_of(server, account)) == 1


def test_members_see_the_source_ip_addresses(server: Server) -> None:
    account, _ = server.account()
    [address] = server.api().ok("GET", "/v1/source-ips")["current"]
    visitor = member(server, account, "member")
    assert f"<code>{address}</code>" in visitor.get(f"/accounts/{account}/developers").html


def test_listen_sessions_require_the_listen_permission(server: Server) -> None:
    account, _ = server.account()
    path = f"/accounts/{account}/developers"
    key = server.api().ok("POST", f"/v1/accounts/{account}/keys", {"name": "laptop"})["key"]
    made = server.api(key).ok("POST", "/v1/listen-sessions", {"description": "Ada's <laptop>"})["id"]
    someone = member(server, account, "member")
    assert "laptop" not in someone.get(path).html
    assert someone.get(f"{path}/listen-sessions/{made}").status == 403
    manager = member(server, account, "manager")
    assert "Ada&#39;s &lt;laptop&gt;" in manager.get(path).html
    assert "No responses yet" in manager.get(f"{path}/listen-sessions/{made}").html
    assert manager.post(f"{path}/listen-sessions/{made}/end", page="/you", follow=False).status == 303
    assert manager.get(f"{path}/listen-sessions/{made}").status == 404


def test_listen_sessions_and_responses_update_live(server: Server, page: Page) -> None:
    account, api = server.account()
    key = server.api().ok("POST", f"/v1/accounts/{account}/keys", {"name": "laptop"})["key"]
    open_overview(page, member(server, account, "manager"))
    page.goto(f"/accounts/{account}/developers")
    expect(page.get_by_text("No listen sessions")).to_be_visible()
    with closing(Receiver()) as receiver:
        url = receiver.url("/here", respond(201, b"<b>taken</b>"))
        listening = Listening(environment(server, key), "--forward-to", url)
        try:
            listening.ready()
            page.reload()
            expect(page.get_by_role("group", name="Listen sessions")).to_contain_text("Connected")
            page.get_by_role("group", name="Listen sessions").get_by_role("link").click()
            expect(page.get_by_text("No responses yet")).to_be_visible()

            api.send(1)

            expect(page.get_by_role("group", name="Responses")).to_contain_text("201")
            page.get_by_text("Body").click()
            expect(page.get_by_text("<b>taken</b>")).to_be_visible()
        finally:
            listening.process.kill()
            listening.wait()
        page.get_by_text("Body").click()
        expect(page.get_by_role("main")).to_contain_text("Disconnected")
