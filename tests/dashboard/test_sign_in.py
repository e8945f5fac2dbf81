"""Sign-in, sign-out and access to accounts."""

import socket
from typing import cast
from urllib.parse import urlsplit

import pytest
import urllib3
from starlette.requests import Request
from starlette.responses import Response
from structlog.testing import capture_logs
from tests.dashboard.visitors import Guest, member, operator
from tests.e2e.harness import OPERATOR_KEY, Server

from uplift_server.dashboard.forms import STRANGERS_FORM_BYTES_MAX
from uplift_server.dashboard.pages.sign_in import PAGES
from uplift_server.dashboard.routes import refused
from uplift_server.dashboard.visit import Dashboard, Visit


def test_visitors_without_a_session_are_redirected_to_the_form(server: Server) -> None:
    account, _ = server.account()
    guest = Guest(server.url)
    assert guest.get("/").path == "/sign-in"
    response = guest.get(f"/accounts/{account}/live?x=1", follow=False)
    assert response.headers["location"] == f"/sign-in?next=%2Faccounts%2F{account}%2Flive%3Fx%3D1"


@pytest.mark.parametrize(
    "elsewhere", ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)", ""]
)
def test_sign_in_does_not_redirect_to_other_sites(server: Server, elsewhere: str) -> None:
    guest = Guest(server.url)
    page = guest.get("/sign-in/operator")
    response = guest.post("/sign-in/operator", token=page.token, key=OPERATOR_KEY, next=elsewhere, follow=False)
    assert response.headers["location"] == "/"


def test_a_failed_sign_in_does_not_reveal_what_was_wrong(server: Server) -> None:
    guest = Guest(server.url)
    response = guest.post("/sign-in", email="nobody@a.example", password="x" * 12)
    assert response.status == 401
    assert "The email address or password is not correct." in response.text
    assert "nobody@a.example" in response.html
    assert "uplift_session" not in guest.cookies


def test_a_wrong_operator_key_is_rejected(server: Server) -> None:
    guest = Guest(server.url)
    assert guest.post("/sign-in/operator", key="op_wrong").status == 401
    assert "uplift_session" not in guest.cookies


def test_a_link_is_used_by_the_button_and_not_by_a_view(server: Server) -> None:
    account, _ = server.account()
    link = server.api().ok("POST", f"/v1/accounts/{account}/portal-links", {"email": "a@b.example"})["url"]
    path = urlsplit(link).path
    for _ in range(2):
        assert "This link works once" in Guest(server.url).get(path).text
    guest = Guest(server.url)
    assert guest.post(path, follow=False).headers["location"] == "/"
    assert guest.get("/", follow=False).headers["location"] == f"/accounts/{account}/get-started"
    assert Guest(server.url).get(path).status == 404


def test_signing_out_ends_the_session(server: Server) -> None:
    guest = operator(server)
    cookie = guest.cookies["uplift_session"]
    response = guest.post("/sign-out", page="/nowhere-to-be-found", token=_token(guest))
    assert (response.path, "You are signed out." in response.text) == ("/sign-in", True)
    assert "uplift_session" not in guest.cookies
    again = Guest(server.url, {"uplift_session": cookie})
    assert again.get("/", follow=False).headers["location"] == "/sign-in"


def test_forms_with_a_wrong_token_are_rejected(server: Server) -> None:
    account, _ = server.account()
    guest, other = member(server, account), operator(server)
    for token in ("", "x", "é", _token(other)):
        response = guest.post("/sign-out", token=token)
        assert (response.status, "does not belong to your current session" in response.text) == (403, True)
    assert guest.get("/", follow=False).headers["location"] == f"/accounts/{account}/get-started"


def test_sign_in_requires_a_form_token(server: Server) -> None:
    fresh = Guest(server.url)
    assert fresh.post("/sign-in/operator", token="", key=OPERATOR_KEY).status == 403
    page = Guest(server.url).get("/sign-in/operator")
    assert fresh.post("/sign-in/operator", token=page.token, key=OPERATOR_KEY).status == 403


def test_a_form_of_another_site_is_rejected_with_a_valid_token(server: Server) -> None:
    guest = operator(server)
    response = urllib3.request(
        "POST",
        server.url + "/sign-out",
        fields={},
        body=f"csrf={_token(guest)}",
        headers={
            "cookie": f"uplift_session={guest.cookies['uplift_session']}",
            "content-type": "application/x-www-form-urlencoded",
            "origin": "https://evil.example",
        },
        redirect=False,
    )
    assert response.status == 403


def test_another_account_is_not_found(server: Server) -> None:
    mine, _ = server.account("Mine")
    theirs, _ = server.account("Theirs")
    guest = member(server, mine)
    for path in (f"/accounts/{theirs}/live", "/accounts/acc_x/live", "/operator/live"):
        response = guest.get(path)
        assert response.status == 404, path
        assert "Theirs" not in response.text


def test_programs_get_json_errors_and_browsers_get_pages(server: Server) -> None:
    response = urllib3.request("GET", server.url + "/nowhere", headers={"accept": "*/*"})
    assert (response.status, response.json()["code"]) == (404, "not_found")
    page = Guest(server.url).get("/nowhere")
    assert (page.status, "This page does not exist" in page.text) == (404, True)
    assert urllib3.request("DELETE", server.url + "/sign-in", headers={"accept": "text/html"}).status == 405


def test_assets_are_cached_without_expiry(server: Server) -> None:
    page = Guest(server.url).get("/sign-in")
    for name in ("dashboard.css", "dashboard.js", "vendor/htmx.min.js", "live.js", "icon.svg"):
        start = page.html.index(f"/assets/{name}?")
        response = urllib3.request("GET", server.url + page.html[start : page.html.index('"', start)])
        assert response.status == 200
        assert "immutable" in response.headers["cache-control"]
    assert urllib3.request("GET", server.url + "/assets/../app.py").status == 404


def _token(guest: Guest) -> str:
    """Return the form token of a session. All pages contain it, including error pages."""
    token = guest.get("/accounts/acc_none/overview").token
    assert token
    return token


def test_a_password_reset_requires_email(server: Server) -> None:
    page = Guest(server.url).get("/forgotten")
    assert "Email is not configured on this server. Ask an operator" in page.text
    for path in ("/passwords/x", "/invitations/x"):
        guest = Guest(server.url)
        page = guest.get(path)
        response = guest.post(path, token=page.token or guest.get("/sign-in").token, name="A", password="correct horse")
        assert response.status == 404
        assert "expired" in response.text


@pytest.mark.parametrize("line", ["OPTIONS *", "GET *", "POST *"])
def test_a_request_without_a_path_is_not_found(server: Server, line: str) -> None:
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20) as connection:
        connection.sendall(f"{line} HTTP/1.1\r\nhost: x\r\naccept: text/html\r\ncontent-length: 0\r\n\r\n".encode())
        assert connection.recv(12) == b"HTTP/1.1 404"


def test_a_large_form_requires_a_session(server: Server) -> None:
    large = "x" * STRANGERS_FORM_BYTES_MAX
    guest = Guest(server.url)
    assert guest.post("/sign-in", email="a@b.example", password=large).status == 413
    assert operator(server).post("/confirm", password=large).status == 401


def test_an_invalid_origin_is_rejected(server: Server) -> None:
    guest = Guest(server.url)
    page = guest.get("/sign-in")
    assert guest.send("/sign-in", {"csrf": page.token, "email": "a@b.example"}, origin="http://[").status == 403


def test_the_log_of_a_failed_page_has_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Visit, "render", lambda *_arguments, **_context: Response())
    secret = "t" * 43
    request = Request({"type": "http", "method": "GET", "path": f"/enter/{secret}", "headers": [], "query_string": b""})
    [page] = [page for page in PAGES if (page.method, page.path) == ("GET", "/enter/{token}")]

    with capture_logs() as logs:
        refused(Visit(request, cast(Dashboard, None)), RuntimeError("broken"), page)

    assert [entry["page"] for entry in logs] == ["/enter/{token}"]
    assert secret not in repr(logs)
