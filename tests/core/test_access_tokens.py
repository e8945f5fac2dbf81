"""Access tokens: requests as in RFC 6749, and the responses of good and bad servers."""

import base64
import json
from typing import Any
from urllib.parse import parse_qs, unquote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.http.exchange import Exchange, Failure
from uplift_server.core.limits import ERROR_CHARACTERS_MAX
from uplift_server.core.security.access_tokens import AccessToken, failed_attempt, read_token, token_request
from uplift_server.core.security.endpoint_auth import OAuthClient

NOW = 1_764_000_000_000
VISIBLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=30)


def request(client: OAuthClient) -> tuple[list[str], bytes]:
    head, body = token_request(client, path="/token?a=1", host_header="login.example:8443", user_agent="Uplift/1")
    return head.decode().split("\r\n"), body


def response(status: int = 200, body: Any = None, **values: Any) -> Exchange:
    token = {"access_token": "abc.def", "token_type": "Bearer", "expires_in": 3600}
    content = json.dumps(token | values).encode() if body is None else body
    return Exchange(NOW, 1000, status, response_body=content)


def test_a_request_has_the_grant_and_the_scope() -> None:
    lines, body = request(OAuthClient("", "uplift", "s3cret", "a:b c"))
    assert lines == [
        "POST /token?a=1 HTTP/1.1",
        "host: login.example:8443",
        "content-type: application/x-www-form-urlencoded",
        "accept: application/json",
        "user-agent: Uplift/1",
        "authorization: Basic dXBsaWZ0OnMzY3JldA==",
        f"content-length: {len(body)}",
        "",
        "",
    ]
    assert parse_qs(body.decode()) == {"grant_type": ["client_credentials"], "scope": ["a:b c"]}
    assert request(OAuthClient("", "uplift", "s3cret"))[1] == b"grant_type=client_credentials"


@given(VISIBLE, VISIBLE)
def test_credentials_are_form_encoded(client_id: str, client_secret: str) -> None:
    lines, _ = request(OAuthClient("", client_id, client_secret))
    encoded = base64.b64decode(lines[5].removeprefix("authorization: Basic ")).decode()
    assert [unquote_plus(each) for each in encoded.split(":")] == [client_id, client_secret]


def test_a_token_becomes_a_header() -> None:
    found = read_token(response(), NOW)
    assert found == AccessToken(b"authorization: Bearer abc.def\r\n", NOW + 3_540_000)
    assert "abc.def" not in repr(found)
    assert isinstance(read_token(response(token_type="bearer"), NOW), AccessToken)


@pytest.mark.parametrize(
    ("expires_in", "usable_ms"),
    [
        (600, 540_000), (10, 9_000), ("3600", 3_540_000), (0, 1_000), (10**30, 86_340_000), (None, 270_000),
        ("9" * 700, 86_340_000), (-1, 270_000), (1.5, 270_000), ("soon", 270_000), ("²", 270_000), (True, 270_000),
    ],
)  # fmt: skip
def test_a_token_is_replaced_before_it_expires(expires_in: object, usable_ms: int) -> None:
    found = read_token(response(expires_in=expires_in), NOW)
    assert isinstance(found, AccessToken)
    assert found.expires_at - NOW == usable_ms


@pytest.mark.parametrize(
    ("exchange", "reason"),
    [
        (response(401, b'{"error": "invalid_client"}'), "the server responded with 401 and the error invalid_client"),
        (response(400, b'{"error": "s3cret"}'), "the server responded with 400"),
        (response(400, b'{"error": ["invalid_client"]}'), "the server responded with 400"),
        (response(503, b"no"), "the server responded with 503"),
        (response(201), "the server responded with 201"),
        (response(302, b""), "the server responded with 302, a redirect, which is not followed"),
        (response()._replace(body_truncated=True), "the response has more than 16384 bytes"),
        (response(body=b"<html>"), "the response has no valid access_token"),
        (response(body=b"[1]"), "the response has no valid access_token"),
        (response(body=b"[" * 4096), "the response has no valid access_token"),
        (response(body=b"\xff\xfe"), "the response has no valid access_token"),
        (response(access_token=""), "the response has no valid access_token"),
        (response(access_token=7), "the response has no valid access_token"),
        (response(access_token="a\r\nx: y"), "the response has no valid access_token"),
        (response(access_token="ü"), "the response has no valid access_token"),
        (response(token_type="mac"), "the token_type of the response is not Bearer"),
        (response(token_type=None), "the token_type of the response is not Bearer"),
        (Exchange(NOW, 1000, failure=Failure.DNS, error="a.example does not resolve"), "a.example does not resolve"),
        (Exchange(NOW, 1000, failure=Failure.DNS), ""),
    ],
)
def test_other_responses_have_a_reason(exchange: Exchange, reason: str) -> None:
    assert read_token(exchange, NOW) == reason


@given(st.binary(max_size=200), st.sampled_from([200, 400, 500]))
def test_any_response_is_read(body: bytes, status: int) -> None:
    found = read_token(response(status, body), NOW)
    assert isinstance(found, str | AccessToken)


def test_a_failed_attempt_has_no_content_of_the_response() -> None:
    failed = response(503, b"s3cret")._replace(
        response_head=b"HTTP/1.1 503\r\nx: s3cret\r\n\r\n", retry_after="7", remote_address="192.0.2.1:443", dns_ms=3
    )
    found = failed_attempt(failed, "the server responded with 503", started_at=NOW - 200, now_ms=NOW)
    assert found == Exchange(
        NOW - 200, 200_000, failure=Failure.PROTOCOL, error="token request: the server responded with 503",
        remote_address="192.0.2.1:443", dns_ms=3, retry_after="7", bytes_sent=False,
    )  # fmt: skip
    timeout = Exchange(NOW, 1000, failure=Failure.TIMEOUT, error="x" * 400)
    found = failed_attempt(timeout, "x" * 400, started_at=NOW + 5, now_ms=NOW)
    assert (found.failure, found.duration_us, len(found.error or "")) == (Failure.TIMEOUT, 0, ERROR_CHARACTERS_MAX)
