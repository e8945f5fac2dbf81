"""Endpoints of an account: list, create, edit and delete, and the links in emails."""

import re
from typing import Any

import pytest
from tests.dashboard.visitors import Guest, PageResponse, member, operator
from tests.e2e.harness import Api, Server

URL = "http://127.0.0.1:9/webhook"
_SECRET = re.compile(r'class="secret"[^>]*>([^<]+)<')


@pytest.fixture
def account(server: Server) -> tuple[str, Api]:
    """A new account, and an operator's API client for it."""
    return server.account()


def pages(account: str, *parts: str) -> str:
    """Return a path below the endpoints of an account."""
    return "/".join([f"/accounts/{account}/endpoints", *parts])


def create_endpoint(guest: Guest, account: str, **fields: str | list[str]) -> PageResponse:
    """Create an endpoint with the form."""
    return guest.post(pages(account, "new"), **{"url": URL, "once": "once", **fields})


def newest(api: Api) -> Any:
    """Return the newest endpoint."""
    return api.ok("GET", "/v1/endpoints")["data"][0]


def test_an_empty_list_links_to_the_create_form(server: Server, account: tuple[str, Api]) -> None:
    response = member(server, account[0]).get(pages(account[0]))
    assert "No endpoints yet" in response.text
    assert f'href="{pages(account[0], "new")}"' in response.html


def test_creating_an_endpoint_shows_the_secret(server: Server, account: tuple[str, Api]) -> None:
    name, api = account
    guest = member(server, name)
    fields = {
        "event_types": ["movement.*", "movement.analytics.created", "test.numbered"],
        "description": "Ana's <laptop>",
        "headers": "Accept: data\r\nX-Jwt: geheim\r\n",
        "rate_limit_per_second": "20",
        "max_in_flight": "3",
        "retry_schedule": "5s,5m , 2h",
        "attempt_timeout": "10s",
    }
    response = create_endpoint(guest, name, **fields)
    assert response.status == 200
    made = newest(api)
    secret = api.ok("GET", f"/v1/endpoints/{made['id']}/secret")["secret"]
    assert _SECRET.search(response.html).group(1) == secret  # type: ignore[union-attr]
    assert f"export UPLIFT_WEBHOOK_SECRET={secret}" in response.text
    assert (made["url"], made["description"]) == (URL, "Ana's <laptop>")
    assert made["event_types"] == ["movement.*", "test.numbered"]
    assert made["headers"] == {"Accept": "data", "X-Jwt": "********"}
    assert (made["rate_limit_per_second"], made["max_in_flight"]) == (20, 3)
    assert (made["retry_schedule"], made["attempt_timeout"]) == (["5s", "5m", "2h"], "10s")

    again = create_endpoint(guest, name, **fields)
    assert again.path == response.path
    assert secret in again.html
    assert len(api.ok("GET", "/v1/endpoints")["data"]) == 1


def test_a_custom_secret_is_quoted_for_shells(server: Server, account: tuple[str, Api]) -> None:
    response = create_endpoint(member(server, account[0]), account[0], secret="it's$(mine)-0123456789")
    assert """export UPLIFT_WEBHOOK_SECRET='it'"'"'s$(mine)-0123456789'""" in response.text


def test_invalid_fields_show_errors_and_keep_their_values(server: Server, account: tuple[str, Api]) -> None:
    name, api = account
    response = create_endpoint(
        member(server, name),
        name,
        url="http://203.0.113.7/<b>",
        event_types=["movement.*", "nothing.here"],
        secret="short",
        headers="Host: a\r\nnonsense\r\nX-Team: a\r\nX-Team: b",
        rate_limit_per_second="many",
        max_in_flight="1000",
        retry_schedule="5s, soon",
        attempt_timeout="31s",
        description="d" * 1001,
    )
    assert response.status == 422
    for field in (
        "url", "event_types", "secret", "headers", "rate_limit_per_second", "max_in_flight", "retry_schedule",
        "attempt_timeout", "description",
    ):  # fmt: skip
        assert f'id="{field}-problem"' in response.html, field
    assert 'value="5s, soon"' in response.html
    assert "Host: The server sets this header" in response.text
    assert "Line 2 is not a header" in response.text
    assert "The header X-Team occurs twice" in response.text
    assert 'value="http://203.0.113.7/&lt;b&gt;"' in response.html
    assert re.search(r'value="nothing.here" checked', response.html)
    assert re.search(r'value="movement.\*" checked', response.html)
    assert api.ok("GET", "/v1/endpoints")["data"] == []


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "URL"),
        ("ftp://example.com/", "http"),
        ("https://user@example.com/", "user"),
        ("https://169.254.169.254/", "169.254.169.254"),
        ("https://example.com/#a", "#"),
    ],
)
def test_a_rejected_url_shows_the_reason(server: Server, account: tuple[str, Api], url: str, reason: str) -> None:
    response = create_endpoint(member(server, account[0]), account[0], url=url)
    assert response.status == 422
    message = re.search(r'id="url-problem">([^<]*)<', response.html)
    assert message is not None
    assert reason in message[1]


def test_the_url_filters_the_list(server: Server, account: tuple[str, Api]) -> None:
    name, api = account
    one = api.endpoint(URL, description="the one of <b>Ana</b>")["id"]
    two = api.endpoint("http://127.0.0.1:9/other")["id"]
    api.ok("POST", f"/v1/endpoints/{two}/pause")
    guest = member(server, name)

    def shown(query: str) -> set[str]:
        found = re.findall(rf'href="{pages(name)}/(ep_\w+)"', guest.get(f"{pages(name)}{query}").html)
        return set(found)

    assert shown("") == {one, two}
    assert shown("?state=paused") == {two}
    assert shown("?state=enabled") == {one}
    assert shown("?state=disabled") == set()
    assert shown("?state=nonsense") == {one, two}
    assert shown("?text=ANA") == {one}
    assert shown("?text=/other&state=paused") == {two}
    nothing = guest.get(f"{pages(name)}?text=%22%3E%3Cb%3E")
    assert "No matching endpoints" in nothing.text
    assert "<b>" not in nothing.html
    assert "<b>Ana" not in guest.get(pages(name)).html


def test_an_edit_keeps_masked_headers(server: Server, account: tuple[str, Api]) -> None:
    name, api = account
    made = api.endpoint(URL, headers={"X-Jwt": "geheim", "Accept": "a"}, event_types=["movement.analytics.*"])
    guest, path = member(server, name), pages(name, made["id"], "edit")
    form = guest.get(path)
    assert "geheim" not in form.html
    assert re.search(r'value="movement.analytics.\*" checked', form.html)

    response = guest.post(
        path, url=URL, description="new", headers="X-Jwt: ********\nAccept: b", event_types="movement.analytics.*"
    )
    assert "Endpoint updated" in response.text
    [entry] = api.ok("GET", f"/v1/audit-log?subject={made['id']}&action=endpoint.changed")["data"]
    assert set(entry["details"]["changed"]) == {"description", "headers"}

    rejected = guest.post(path, url=URL, headers="X-New: ********")
    assert rejected.status == 422
    assert "X-New: " in rejected.text
    changed = api.ok("GET", f"/v1/endpoints/{made['id']}")
    assert changed["headers"] == {"X-Jwt": "********", "Accept": "b"}
    assert (changed["description"], changed["event_types"]) == ("new", ["movement.analytics.*"])


def test_an_unchanged_form_changes_nothing(server: Server, account: tuple[str, Api]) -> None:
    name, api = account
    given = {
        "event_types": ["test.*", "movement.*"],
        "headers": {"X-Token": "geheim"},
        "max_in_flight": 3,
        "retry_schedule": [],
        "attempt_timeout": "10s",
    }
    made = api.endpoint(URL, **given)["id"]
    guest, path = member(server, name), pages(name, made, "edit")
    sent = {"url": URL, "headers": "X-Token: ********", "max_in_flight": "3", "retry_schedule": "none"}
    assert guest.post(path, event_types=["movement.*", "test.*"], **sent).status == 200
    assert api.ok("GET", f"/v1/audit-log?subject={made}&action=endpoint.changed")["data"] == []


def test_the_schedule_and_timeout_are_shown_and_reset(server: Server, account: tuple[str, Api]) -> None:
    name, api = account
    guest = member(server, name)
    made = api.endpoint(URL, retry_schedule=["5s", "2h"], attempt_timeout="25s")["id"]
    shown = guest.get(pages(name, made, "subscription"))
    assert all(text in shown.text for text in ("5s, 2h", "25s"))
    edit = pages(name, made, "edit")
    form = guest.get(edit)
    assert ('value="5s, 2h"' in form.html, 'value="25s"' in form.html) == (True, True)
    assert guest.post(edit, url=URL, retry_schedule="none", attempt_timeout="").status == 200
    changed = api.ok("GET", f"/v1/endpoints/{made}")
    assert (changed["retry_schedule"], changed["attempt_timeout"]) == ([], None)
    assert "None" in guest.get(pages(name, made, "subscription")).text
    [entry] = api.ok("GET", f"/v1/audit-log?subject={made}&action=endpoint.changed")["data"]
    assert entry["details"]["from"] == {"retry_schedule": ["5s", "2h"], "attempt_timeout": "25s"}
    assert "5s, 2h → none" in guest.get(pages(name, made, "activity")).text
    assert "25s → server default" in guest.get(pages(name, made, "activity")).text


def test_the_own_id_and_metadata_are_shown_and_edited(server: Server, account: tuple[str, Api]) -> None:
    name, api = account
    guest = member(server, name)
    create_endpoint(guest, name, uid="main", metadata='{"team": "<b>Ana</b>"}')
    made = newest(api)
    assert (made["uid"], made["metadata"]) == ("main", {"team": "<b>Ana</b>"})
    shown = guest.get(pages(name, made["id"], "subscription"))
    assert "main" in shown.text
    assert ("<b>Ana</b>" in shown.text, "<b>" in shown.html) == (True, False)
    edit = pages(name, made["id"], "edit")
    response = guest.post(edit, url=URL, uid="ep_main", metadata='{"team": 1}')
    assert response.status == 422
    assert "starts with acc_ or ep_" in response.text
    assert "Enter a JSON object of strings" in response.text
    create_endpoint(guest, name, uid="other", once="other")
    taken = guest.post(edit, url=URL, uid="other", metadata="")
    assert (taken.status, "Another endpoint of the account has the uid other." in taken.text) == (409, True)
    assert guest.post(edit, url=URL, uid="", metadata="").status == 200
    changed = api.ok("GET", f"/v1/endpoints/{made['id']}")
    assert (changed["uid"], changed["metadata"]) == (None, {})


def open_form_before_a_change(server: Server, account: tuple[str, Api]) -> tuple[Guest, str, str]:
    """Open the form of a new endpoint, which another person then changes.

    Return the visitor, the path of the form, and the version in it.
    """
    name, api = account
    guest = member(server, name)
    create_endpoint(guest, name)
    endpoint = newest(api)["id"]
    edit = pages(name, endpoint, "edit")
    opened = hidden_version(guest.get(edit))
    api.ok("PATCH", f"/v1/endpoints/{endpoint}", {"description": "by another person"})
    return guest, edit, opened


def test_a_form_does_not_overwrite_a_change_made_after_it_was_opened(server: Server, account: tuple[str, Api]) -> None:
    api = account[1]
    guest, edit, opened = open_form_before_a_change(server, account)
    stale = guest.post(edit, url=URL, description="mine", version=opened)
    assert (stale.status, "Another person changed these settings" in stale.text, "mine" in stale.html) == (
        409,
        True,
        True,
    )
    assert newest(api)["description"] == "by another person"
    assert "Description: by another person" in stale.text
    assert "URL: " not in stale.text.partition("Current values")[2].partition("\n")[0]
    again = guest.post(edit, url=URL, description="mine", version=hidden_version(stale))
    assert (again.status, newest(api)["description"]) == (200, "mine")


def test_a_rejected_form_keeps_the_version_that_its_visitor_has_seen(server: Server, account: tuple[str, Api]) -> None:
    api = account[1]
    guest, edit, opened = open_form_before_a_change(server, account)
    wrong = guest.post(edit, url="nothing", description="mine", version=opened)
    assert (wrong.status, hidden_version(wrong)) == (422, opened)
    preview = guest.post(edit, url=URL, filter='{"a": [1]}', version=opened, preview="1")
    assert (preview.status, hidden_version(preview)) == (200, opened)
    assert guest.post(edit, url=URL, description="mine", version=hidden_version(wrong)).status == 409
    assert newest(api)["description"] == "by another person"


def hidden_version(page: PageResponse) -> str:
    """Return the version that a form submits."""
    return re.findall(r'name="version" value="([0-9a-f]+)"', page.html)[0]


def test_a_url_query_is_shown_on_one_tab_only(server: Server, account: tuple[str, Api]) -> None:
    name, api = account
    made = api.endpoint(f"{URL}?token=geheim")["id"]
    guest = member(server, name)
    for path in ((), (made,), (made, "security"), (made, "test"), (made, "activity")):
        assert "geheim" not in guest.get(pages(name, *path)).html, path
    assert f"{URL}?token=geheim" in guest.get(pages(name, made, "subscription")).text


def test_a_deleted_endpoint_is_not_found(server: Server, account: tuple[str, Api]) -> None:
    name, api = account
    made = api.endpoint(URL)
    guest = member(server, name)
    page = pages(name, made["id"], "subscription")
    response = guest.post(pages(name, made["id"], "delete"), page=page)
    assert (response.status, response.path) == (200, pages(name))
    assert "Endpoint deleted" in response.text
    assert api("GET", f"/v1/endpoints/{made['id']}").status == 404
    assert guest.get(page).status == 404


def test_members_read_and_managers_write(server: Server, account: tuple[str, Api]) -> None:
    name, api = account
    made = api.endpoint(URL)
    reader = member(server, name, "member")
    response = reader.get(pages(name))
    assert (response.status, "Create endpoint" in response.text) == (200, False)
    token = response.token
    assert reader.get(pages(name, "new")).status == 403
    assert reader.get(pages(name, made["id"], "edit")).status == 403
    for path in (("new",), (made["id"], "edit"), (made["id"], "delete")):
        assert reader.post(pages(name, *path), token=token, url=URL).status == 403
    assert api.ok("GET", f"/v1/endpoints/{made['id']}")["url"] == URL
    assert member(server, name, "manager").get(pages(name, "new")).status == 200


def test_email_links_open_the_endpoint_for_permitted_visitors(server: Server, account: tuple[str, Api]) -> None:
    name, api = account
    other, _ = server.account("Lakeside")
    made = api.endpoint(URL)
    link, page = f"/endpoints/{made['id']}", pages(name, made["id"])

    assert member(server, name).get(link).path == page
    assert operator(server).get(link).path == page
    stranger = member(server, other)
    assert stranger.get(link).status == 404
    assert stranger.get("/endpoints/ep_" + "0" * 32).status == 404
    assert stranger.get("/endpoints/%3Cb%3E").status == 404
    signed_out = Guest(server.url).get(link, follow=False)
    assert (signed_out.status, signed_out.headers["location"]) == (303, f"/sign-in?next=%2Fendpoints%2F{made['id']}")


def test_endpoints_of_another_account_are_not_found(server: Server, account: tuple[str, Api]) -> None:
    name, api = account
    other, _ = server.account("Lakeside")
    made = api.endpoint(URL)
    stranger = member(server, other)
    token = stranger.get(pages(other)).token
    for path in ("edit", "subscription", "security", "test", "activity", "."):
        assert stranger.get(pages(name, made["id"], path).removesuffix("/.")).status == 404
        if path != "activity":
            assert stranger.get(pages(other, made["id"], path).removesuffix("/.")).status == 404
    for path in ("edit", "delete", "pause", "enable", "security/reveal", "security/rotate", "test"):
        assert stranger.post(pages(other, made["id"], path), token=token, url=URL).status == 404, path
    assert "created" not in stranger.get(pages(other, made["id"], "activity")).text
    assert api.ok("GET", f"/v1/endpoints/{made['id']}")["state"] == "enabled"
