"""Contacts and audit log of an account."""

import re
from urllib.parse import urlencode
from uuid import uuid4

import pytest
from tests.dashboard.visitors import member, operator
from tests.e2e.harness import Server


def contacts_of(server: Server, account: str) -> list[str]:
    """Return the contacts of an account."""
    found: list[str] = server.api().ok("GET", f"/v1/accounts/{account}")["contact_emails"]
    return found


def entries(text: str) -> list[str]:
    """Return the actions on a page of the audit log."""
    return re.findall(r'data-label="Action"><div><code>([a-z_.]+)</code>', text)


def test_an_admin_updates_the_contacts(server: Server) -> None:
    account, _ = server.account()
    path = f"/accounts/{account}/settings/contacts"
    admin = member(server, account, "admin", "ada@t2-settings.example")
    assert "data@rapids.example" in admin.get(path).html
    response = admin.post(
        path, page="/you", follow=False, contact_emails="one@rapids.example\r\n\r\n two@rapids.example "
    )
    assert (response.status, response.headers["location"]) == (303, path)
    assert "one@rapids.example\ntwo@rapids.example" in admin.get(path).html

    assert contacts_of(server, account) == ["one@rapids.example", "two@rapids.example"]
    [entry] = server.api(account=account).ok("GET", "/v1/audit-log?action=account.changed")["data"]
    assert entry["actor"]["name"] == "ada@t2-settings.example"
    assert entry["details"]["to"] == {"contact_emails": ["one@rapids.example", "two@rapids.example"]}


def test_two_admins_do_not_overwrite_each_others_contacts(server: Server) -> None:
    account, _ = server.account()
    path = f"/accounts/{account}/settings/contacts"
    admin = member(server, account, "admin")
    version = re.findall(r'name="version" value="([0-9a-f]+)"', admin.get(path).html)[0]
    server.api().ok("PATCH", f"/v1/accounts/{account}", {"contact_emails": ["first@rapids.example"]})
    stale = admin.post(path, contact_emails="second@rapids.example", version=version)
    assert stale.status == 409
    assert "Email addresses: first@rapids.example" in stale.text
    assert "second@rapids.example" in stale.html
    assert contacts_of(server, account) == ["first@rapids.example"]


def test_an_invalid_contact_shows_an_error_and_keeps_the_input(server: Server) -> None:
    account, _ = server.account()
    admin = member(server, account, "admin")
    response = admin.post(
        f"/accounts/{account}/settings/contacts", page="/you", follow=False, contact_emails="<b>nobody</b>"
    )

    assert response.status == 422
    assert 'id="contact_emails-problem"' in response.html
    assert "&lt;b&gt;nobody&lt;/b&gt;</textarea>" in response.html
    assert contacts_of(server, account) == ["data@rapids.example"]


@pytest.mark.parametrize("role", ["member", "manager"])
def test_other_roles_see_contacts_and_cannot_update_them(server: Server, role: str) -> None:
    account, _ = server.account()
    path = f"/accounts/{account}/settings/contacts"
    visitor = member(server, account, role)
    page = visitor.get(path).html
    assert "data@rapids.example" in page
    assert "<textarea" not in page
    assert visitor.post(path, page="/you", follow=False, contact_emails="").status == 403
    assert contacts_of(server, account) == ["data@rapids.example"]


def test_contacts_of_another_account_cannot_be_updated(server: Server) -> None:
    other, _ = server.account("Other")
    account, _ = server.account()
    admin = member(server, account, "admin")
    assert (
        admin.post(f"/accounts/{other}/settings/contacts", page="/you", follow=False, contact_emails="").status == 404
    )
    assert contacts_of(server, other) == ["data@rapids.example"]


def test_the_audit_log_is_filtered_by_actor_action_and_time(server: Server) -> None:
    account, api = server.account()
    endpoint = api.endpoint("http://127.0.0.1:9/x?token=secret")["id"]
    path = f"/accounts/{account}/settings/audit-log"
    admin = member(server, account, "admin", "ada@t7-settings.example")
    everything = entries(admin.get(path).html)
    assert {"account.created", "endpoint.created", "member.joined", "member.signed_in"} <= set(everything)
    assert entries(admin.get(f"{path}?action=endpoint.created").html) == ["endpoint.created"]
    assert set(entries(admin.get(f"{path}?actor=member").html)) == {"member.joined", "member.signed_in"}
    assert entries(admin.get(f"{path}?created_after=2999-01-01T00:00").html) == []
    assert entries(admin.get(f"{path}?created_before=2999-01-01T00:00").html) == everything
    # The value is UTC. Scripts convert it to local time.
    assert 'value="2999-01-01T00:00:00" data-utc' in admin.get(f"{path}?created_after=2999-01-01T00:00").html
    one = admin.get(f"{path}?action=endpoint.created").html
    assert f"/accounts/{account}/endpoints/{endpoint}" in one
    assert "token=secret" not in one
    after = admin.get(f"{path}?created_after=2026-01-31T12:00:00%2B02:00").html
    assert 'value="2026-01-31T10:00:00" data-utc' in after
    [member_id] = set(re.findall(r"actor=(mem_\w+)", admin.get(f"{path}?action=member.joined").html))
    assert set(entries(admin.get(f"{path}?actor={member_id}").html)) == {"member.joined", "member.signed_in"}


@pytest.mark.parametrize("wrong", ["action=nothing.done", "created_after=yesterday", "cursor=x"])
def test_an_invalid_filter_shows_an_error_at_its_field(server: Server, wrong: str) -> None:
    account, _ = server.account()
    admin = member(server, account, "admin")
    response = admin.get(f"/accounts/{account}/settings/audit-log?{wrong}")

    assert response.status == 422
    assert wrong.startswith("cursor") or f'id="{wrong.partition("=")[0]}-problem"' in response.html


def test_ip_addresses_of_operators_are_hidden_from_accounts(server: Server) -> None:
    account, api = server.account()
    api.endpoint("http://127.0.0.1:9/x")
    path = f"/accounts/{account}/settings/audit-log?action=endpoint.created"
    admin = member(server, account, "admin")
    assert '<td data-label="IP address">127.0.0.1</td>' not in admin.get(path).html
    console = operator(server)
    assert '<td data-label="IP address">127.0.0.1</td>' in console.get(path).html


@pytest.mark.parametrize("role", ["member", "manager"])
def test_the_audit_log_requires_an_admin(server: Server, role: str) -> None:
    account, _ = server.account()
    visitor = member(server, account, role)
    assert visitor.get(f"/accounts/{account}/settings/audit-log").status == 403
    assert "Audit log" not in visitor.get(f"/accounts/{account}/settings/contacts").html


def test_operators_see_the_audit_log_of_all_accounts(server: Server) -> None:
    names = [f"Audited {uuid4().hex}" for _ in range(2)]
    accounts = [server.account(name)[0] for name in names]
    endpoints = [server.api(account=each).endpoint("http://127.0.0.1:9/x")["id"] for each in accounts]
    guest, path = operator(server), "/operator/audit-log"

    page = guest.get(f"{path}?action=endpoint.created")
    for account, name, endpoint in zip(accounts, names, endpoints, strict=True):
        assert f'<a href="/operator/accounts/{account}">{name}</a>' in page.html
        assert f'href="/accounts/{account}/endpoints/{endpoint}"' in page.html
    assert set(entries(page.html)) == {"endpoint.created"}
    assert "operator" in page.text
    assert not re.search(r"operator\s+operator", page.text)
    assert "operator.signed_in" in entries(guest.get(path).html)

    for wanted in (accounts[0], names[0]):
        one = guest.get(f"{path}?{urlencode({'account': wanted})}")
        assert sorted(entries(one.html)) == ["account.created", "endpoint.created"]
        assert names[1] not in one.html
    for wrong in ("account=Nobody+here", f"account=acc_{'0' * 32}", "action=nothing.done", "created_after=yesterday"):
        response = guest.get(f"{path}?{wrong}")
        assert (response.status, f'id="{wrong.partition("=")[0]}-problem"' in response.html) == (422, True)
