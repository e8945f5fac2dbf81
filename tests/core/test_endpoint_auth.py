"""Authentication to endpoints: fields, secrets, conflicts, and warnings about certificates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.security.endpoint_auth import (
    CERTIFICATE_WARNINGS_MS,
    ClientCertificate,
    OAuthClient,
    audited_auth,
    auth_from_text,
    auth_of,
    auth_secrets,
    auth_text,
    certificate_warning_at,
    check_auth,
    check_auth_with,
    shown_auth,
)

OAUTH = OAuthClient("https://login.example/token?tenant=7", "uplift", "s3cret", "a:b c")
CERTIFICATE = ClientCertificate("-----CERTIFICATE", "-----KEY", "CN=uplift", "ab12", 1_800_000_000_000)
DAY = 86_400_000


def codes(auth: OAuthClient | ClientCertificate) -> list[tuple[str, str]]:
    return [(problem.field, problem.code) for problem in check_auth(auth)]


@pytest.mark.parametrize("auth", [OAUTH, CERTIFICATE])
def test_a_stored_authentication_is_read_again(auth: OAuthClient | ClientCertificate) -> None:
    assert auth_from_text(auth_text(auth)) == auth


def test_the_api_omits_facts_of_a_certificate() -> None:
    sent = {"type": "mtls", "certificate": "c", "private_key": "k"}
    assert auth_of(sent) == ClientCertificate("c", "k")


def test_secrets_are_not_shown() -> None:
    assert shown_auth(None) is None
    assert audited_auth(None) is None
    assert auth_secrets(None) == ()
    assert shown_auth(OAUTH) == {
        "type": "oauth2_client_credentials", "token_url": "https://login.example/token?tenant=7",
        "client_id": "uplift", "scope": "a:b c",
    }  # fmt: skip
    assert audited_auth(OAUTH) == {**(shown_auth(OAUTH) or {}), "token_url": "https://login.example/token"}
    assert auth_secrets(OAUTH) == ("s3cret",)
    assert audited_auth(CERTIFICATE) == {**(shown_auth(CERTIFICATE) or {}), "expires_at": "2027-01-15T08:00:00.000Z"}
    assert shown_auth(CERTIFICATE) == {
        "type": "mtls", "subject": "CN=uplift", "fingerprint": "ab12", "expires_at": 1_800_000_000_000,
    }  # fmt: skip
    assert auth_secrets(CERTIFICATE) == ("-----CERTIFICATE", "-----KEY")
    for auth in (OAUTH, CERTIFICATE):
        assert not [secret for secret in auth_secrets(auth) if secret in repr(auth)]


def test_texts_are_checked() -> None:
    assert codes(OAUTH) == codes(CERTIFICATE) == []
    assert codes(OAuthClient("https://login.example", "", "", None)) == [
        ("auth.client_id", "required"),
        ("auth.client_secret", "required"),
    ]
    assert codes(OAuthClient("https://login.example", "ü", "a\nb", " a")) == [
        ("auth.client_id", "characters_invalid"),
        ("auth.client_secret", "characters_invalid"),
        ("auth.scope", "characters_invalid"),
    ]
    assert codes(OAuthClient("https://login.example", "x" * 513, "x" * 1025, "x" * 1025)) == [
        ("auth.client_id", "too_long"),
        ("auth.client_secret", "too_long"),
        ("auth.scope", "too_long"),
    ]
    assert codes(ClientCertificate("x" * 32_769, "x" * 16_385)) == [
        ("auth.certificate", "too_long"),
        ("auth.private_key", "too_long"),
    ]


def test_a_token_replaces_a_custom_header() -> None:
    problem = check_auth_with(OAUTH, "https://a.example", {"X-Team": "a", "AUTHORIZATION": "Basic x"})
    assert problem is not None
    assert (problem.field, problem.code) == ("headers.AUTHORIZATION", "header_forbidden")
    assert check_auth_with(OAUTH, "http://a.example", {"X-Team": "a"}) is None
    assert check_auth_with(None, "http://a.example", {"Authorization": "Basic x"}) is None


def test_a_client_certificate_needs_https() -> None:
    problem = check_auth_with(CERTIFICATE, "http://a.example", {})
    assert problem is not None
    assert (problem.field, problem.code) == ("url", "https_required")
    assert check_auth_with(CERTIFICATE, "HTTPS://a.example", {"Authorization": "Basic x"}) is None


def test_a_certificate_has_two_warnings() -> None:
    expires_at = 100 * DAY
    assert certificate_warning_at(expires_at, None) == 70 * DAY
    assert certificate_warning_at(expires_at, 70 * DAY) == 93 * DAY
    assert certificate_warning_at(expires_at, 93 * DAY) is None


@given(st.integers(0, 200), st.integers(0, 200))
def test_a_late_warning_replaces_the_earlier_ones(expiry_day: int, day: int) -> None:
    """Check each day from `day` on. No warning is early, and a late warning covers all warning times so far."""
    expires_at, warned_at, warned = expiry_day * DAY, None, []
    for today in range(day, 400):
        due = certificate_warning_at(expires_at, warned_at)
        if due is not None and due <= today * DAY:
            warned_at = today * DAY
            warned.append(expires_at - warned_at)
    assert 1 <= len(warned) <= len(CERTIFICATE_WARNINGS_MS)
    assert len(warned) == (2 if day < expiry_day - 7 else 1)
    assert all(left <= before for left, before in zip(warned, CERTIFICATE_WARNINGS_MS, strict=False))
