"""OpenID Connect: metadata, requests and responses of identity providers."""

import base64
import hashlib
import json
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from uplift_server.core.http.exchange import Exchange, Failure
from uplift_server.core.http.urls import EndpointUrl
from uplift_server.core.security import oidc
from uplift_server.core.security.oidc import OidcClient, ProviderMetadata, Tokens

ISSUER = "https://login.example.com/realms/staff"
CLIENT = OidcClient(ISSUER, "uplift", "s3cret:&", "https://hooks.example.com/sign-in/oidc/callback", "operators", None)
VALUES = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/auth?tenant=1",
    "token_endpoint": f"{ISSUER}/token",
    "jwks_uri": f"{ISSUER}/certs",
    "userinfo_endpoint": f"{ISSUER}/userinfo",
    "end_session_endpoint": f"{ISSUER}/logout",
}


def to_ascii(host: str) -> str:
    raise AssertionError(host)


def read(**changes: Any) -> ProviderMetadata | str:
    values = {name: value for name, value in (VALUES | changes).items() if value is not None}
    return oidc.read_metadata(values, ISSUER, to_ascii=to_ascii)


def metadata(**changes: Any) -> ProviderMetadata:
    found = read(**changes)
    assert isinstance(found, ProviderMetadata), found
    return found


def response(status: int = 200, body: bytes = b"{}", **values: Any) -> Exchange:
    return Exchange(0, 1, status, response_body=body, **values)


@pytest.mark.parametrize("issuer", ["https://login.example.com/a", "https://login.example.com/a/"])
def test_metadata_is_below_the_issuer(issuer: str) -> None:
    assert oidc.metadata_url(issuer) == "https://login.example.com/a/.well-known/openid-configuration"


def test_metadata_has_the_endpoints() -> None:
    found = metadata()
    assert found.authorization_endpoint == VALUES["authorization_endpoint"]
    assert [url.text for url in (found.token_endpoint, found.jwks_uri) if url] == [f"{ISSUER}/token", f"{ISSUER}/certs"]
    assert isinstance(found.userinfo_endpoint, EndpointUrl)
    assert (found.secret_in_body, found.names_issuer) == (False, False)
    small = metadata(userinfo_endpoint=None, end_session_endpoint=None)
    assert (small.userinfo_endpoint, small.end_session_endpoint) == (None, None)
    assert metadata(authorization_response_iss_parameter_supported=True).names_issuer


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"issuer": f"{ISSUER}/"}, "the provider's issuer is"),
        ({"issuer": None}, "the provider's issuer is"),
        ({"token_endpoint": None}, "token_endpoint is missing"),
        ({"jwks_uri": 7}, "jwks_uri is missing"),
        ({"userinfo_endpoint": "ftp://login.example.com"}, "userinfo_endpoint is not valid: The scheme"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "authorization_endpoint is not valid"),
        ({"token_endpoint": "http://login.example.com/token"}, "token_endpoint does not use https"),
    ],
)
def test_metadata_that_cannot_be_used_is_rejected(changes: dict[str, Any], reason: str) -> None:
    found = read(**changes)
    assert isinstance(found, str)
    assert reason in found


def test_an_issuer_without_tls_can_have_endpoints_without_tls() -> None:
    values = {name: value.replace("https:", "http:") for name, value in VALUES.items()}
    assert isinstance(oidc.read_metadata(values, values["issuer"], to_ascii=to_ascii), ProviderMetadata)


def test_a_sign_in_begins_with_a_challenge() -> None:
    url = oidc.authorization_url(metadata(), CLIENT, state="s t", nonce="n", verifier="v" * 43, again=False)
    assert url.startswith(f"{ISSUER}/auth?tenant=1&response_type=code&")
    query = parse_qs(urlsplit(url).query)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(b"v" * 43).digest()).decode().rstrip("=")
    assert (query["code_challenge"], query["code_challenge_method"]) == ([challenge], ["S256"])
    assert (query["state"], query["nonce"], query["redirect_uri"]) == (["s t"], ["n"], [CLIENT.redirect_uri])
    assert "prompt" not in query
    again = oidc.authorization_url(metadata(), CLIENT, state="s", nonce="n", verifier="v", again=True)
    assert parse_qs(urlsplit(again).query)["max_age"] == ["0"]


def test_the_client_authenticates_in_the_header_or_in_the_body() -> None:
    head, body = oidc.code_request(metadata(), CLIENT, "a code", "verifier", "Uplift/1")
    lines = head.decode().split("\r\n")
    assert lines[:2] == ["POST /realms/staff/token HTTP/1.1", "host: login.example.com"]
    assert f"content-length: {len(body)}" in lines
    [credentials] = [line.removeprefix("authorization: Basic ") for line in lines if line.startswith("authorization")]
    assert unquote(base64.b64decode(credentials).decode()) == "uplift:s3cret:&"
    form = parse_qs(body.decode())
    assert (form["code"], form["code_verifier"]) == (["a code"], ["verifier"])
    assert "client_secret" not in form

    in_body = metadata(token_endpoint_auth_methods_supported=["client_secret_post"])
    head, body = oidc.code_request(in_body, CLIENT, "a code", "verifier", "Uplift/1")
    assert b"authorization" not in head
    assert parse_qs(body.decode())["client_secret"] == ["s3cret:&"]


def test_a_get_request_has_the_access_token() -> None:
    url = metadata().jwks_uri
    assert b"authorization" not in oidc.get_request(url, "Uplift/1")
    assert b"authorization: Bearer abc\r\n" in oidc.get_request(url, "Uplift/1", "abc")


def test_sign_out_names_the_token_unless_the_url_would_be_too_long() -> None:
    url = oidc.sign_out_url(metadata(), CLIENT, id_token="a.b.c", back="https://hooks.example.com/sign-in")
    assert url is not None
    query = parse_qs(urlsplit(url).query)
    assert (query["id_token_hint"], query["client_id"]) == (["a.b.c"], ["uplift"])
    assert query["post_logout_redirect_uri"] == ["https://hooks.example.com/sign-in"]
    for token in (None, "a" * 8000):
        url = oidc.sign_out_url(metadata(), CLIENT, id_token=token, back="https://hooks.example.com/sign-in")
        assert url is not None
        assert "id_token_hint" not in url
    assert oidc.sign_out_url(metadata(end_session_endpoint=None), CLIENT, id_token=None, back="") is None


@pytest.mark.parametrize(
    ("exchange", "reason"),
    [
        (Exchange(0, 1, failure=Failure.TIMEOUT, error="no response within 5 s"), "tokens: no response within 5 s"),
        (
            response(400, b'{"error": "invalid_grant"}'),
            "tokens: the provider responded with 400 and the error invalid_grant",
        ),
        (response(400, b'{"error": "s3cret"}'), "tokens: the provider responded with 400"),
        (response(502, b"<html>"), "tokens: the provider responded with 502"),
        (response(body_truncated=True), "tokens: the response has more than 65536 bytes"),
        (response(200, b"[]"), "tokens: the response is not a JSON object"),
        (response(200, b"[" * 100_000), "tokens: the response is not a JSON object"),
    ],
)
def test_a_failed_response_has_a_reason(exchange: Exchange, reason: str) -> None:
    assert oidc.read_json(exchange, "tokens") == reason


def test_a_response_is_an_object() -> None:
    assert oidc.read_json(response(200, json.dumps({"a": 1}).encode()), "tokens") == {"a": 1}


def test_tokens_are_text() -> None:
    assert oidc.read_tokens({"id_token": "a.b.c", "access_token": "abc"}) == Tokens("a.b.c", "abc")
    assert oidc.read_tokens({"id_token": "a.b.c", "access_token": "abc\r\n"}) == Tokens("a.b.c", None)
    assert oidc.read_tokens({"id_token": 1}) == "token response: no id_token"
    assert "a.b.c" not in repr(Tokens("a.b.c", "abc"))


def test_only_known_error_codes_are_logged() -> None:
    assert oidc.known_error("access_denied") == "access_denied"
    assert oidc.known_error("<script>") == "unknown error"


def test_the_grant_of_operators_depends_on_their_settings() -> None:
    grants = {
        OidcClient(issuer, client, secret, "", group, readers).operator_grant
        for issuer in ("a", "b")
        for client in ("c", "d")
        for group, readers in ((None, None), ("g", None), ("h", None), (None, "g"), ("g", "h"), ("h", "g"))
        for secret in ("1", "2")
    }
    assert len(grants) == 2 * 2 * 6
    assert "s3cret" not in repr(CLIENT)
