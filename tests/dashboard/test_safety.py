"""Security headers, cookies, form tokens and notices."""

import pytest
from starlette.requests import Request
from starlette.responses import Response

from uplift_server.dashboard.security import Safety, is_foreign, new_form_cookie, same

KEY = bytes(32)


def protected(safety: Safety) -> Response:
    response = Response()
    safety.protect(response)
    return response


def cookie(safety: Safety) -> str:
    response = Response()
    safety.set_cookie(response, "uplift_session", "value", seconds=60)
    return response.headers["set-cookie"]


def request(**headers: str) -> Request:
    sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "headers": sent})


def test_the_policy_allows_only_own_content() -> None:
    headers = protected(Safety(KEY, "https://hooks.example")).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"


def test_the_policy_allows_the_configured_frame_ancestor() -> None:
    headers = protected(Safety(KEY, "https://hooks.example", "https://app.example")).headers
    assert "frame-ancestors https://app.example" in headers["content-security-policy"]
    assert "x-frame-options" not in headers


def test_cookie_attributes_depend_on_the_public_url() -> None:
    assert (
        cookie(Safety(KEY, "http://127.0.0.1:8420"))
        == "uplift_session=value; Path=/; Max-Age=60; HttpOnly; SameSite=Lax"
    )
    secure = cookie(Safety(KEY, "https://hooks.example"))
    assert secure == "__Host-uplift_session=value; Path=/; Max-Age=60; HttpOnly; Secure; SameSite=Lax"
    framed = cookie(Safety(KEY, "https://hooks.example", "https://app.example"))
    assert framed.endswith("HttpOnly; Secure; SameSite=None; Partitioned")


def test_only_signed_notices_are_read() -> None:
    safety, other = Safety(KEY, "https://a.example"), Safety(bytes([1]) * 32, "https://a.example")
    text = "Endpoint “Ümlaut” was paused."
    assert safety.read_notice(safety.notice_text(text)) == (text, False)
    assert safety.read_notice(safety.notice_text(text, is_problem=True)) == (text, True)
    for forged in (other.notice_text(text), "", "!", "AAAA", safety.notice_text(text)[:-4], "ü"):
        assert safety.read_notice(forged) is None


def test_a_form_token_is_bound_to_its_cookie_and_server() -> None:
    safety, cookie = Safety(KEY, "https://a.example"), new_form_cookie()
    assert same(safety.form_token(cookie), safety.form_token(cookie))
    assert not same(safety.form_token(cookie), safety.form_token(new_form_cookie()))
    assert not same(Safety(bytes([1]) * 32, "https://a.example").form_token(cookie), safety.form_token(cookie))
    assert not same("é", safety.form_token(cookie))


@pytest.mark.parametrize(
    ("headers", "foreign"),
    [
        ({"host": "a.example"}, False),
        ({"host": "a.example", "origin": "https://a.example", "sec_fetch_site": "same-origin"}, False),
        ({"host": "a.example", "origin": "https://b.example"}, True),
        ({"host": "a.example", "origin": "http://["}, True),
        ({"host": "a.example", "origin": "a.example"}, True),
        ({"origin": "https://a.example"}, True),
        ({"host": "upstream:8420", "origin": "https://hooks.example:8443"}, False),
        ({"host": "upstream:8420", "origin": "https://hooks.example"}, True),
        ({"host": "a.example", "sec_fetch_site": "cross-site"}, True),
        ({"host": "a.example", "sec_fetch_site": "same-site"}, True),
    ],
)
def test_forms_of_foreign_sites_are_detected(headers: dict[str, str], foreign: bool) -> None:
    assert is_foreign(request(**headers), "https://hooks.example:8443/at/a/path") is foreign
