"""Causes of failed attempts: codes, titles and texts."""

import re
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.deliveries.causes import (
    BY_ERROR,
    BY_REASON,
    SIGNED_WRONGLY,
    Explanation,
    cause_of,
    explain,
    explain_attempt,
    shown_location,
)
from uplift_server.core.deliveries.health import Health
from uplift_server.core.deliveries.outcomes import Outcome, classify
from uplift_server.core.http.exchange import Exchange


def hint(
    outcome: Outcome, status_code: int | None = None, error: str | None = None, location: str | None = None
) -> str:
    explanation = explain(outcome, status_code=status_code, error=error, location=location)
    assert explanation is not None
    return explanation.hint


def test_a_failing_endpoint_has_the_cause_of_its_last_attempt() -> None:
    assert cause_of(Health()) is None
    expired = Health(
        3, 1, None, 2, Outcome.TLS_ERROR, last_error="the certificate of a.example, or one in its chain, has expired"
    )
    found = cause_of(expired)
    assert found is not None
    assert found.code == "tls_certificate_expired"
    assert cause_of(expired._replace(failing_since=None)) is None


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not Outcome.DELIVERED])
def test_a_failing_endpoint_of_an_earlier_release_has_a_cause(outcome: Outcome) -> None:
    """Earlier releases update only the outcome, so the other columns are empty or outdated."""
    for stored in (Health(3, 1, None, 2, outcome), Health(3, 1, None, 2, outcome, last_status_code=200)):
        found = cause_of(stored)
        assert found is not None
        assert "None" not in found.hint
        assert outcome is Outcome.REDIRECT or "200" not in found.cause


def test_a_shown_location_does_not_change_when_it_is_shown_again() -> None:
    for location in ("https://u:p@a.example/?token=1#x", "https://a.example/\x1b" + "x" * 5000):
        assert shown_location(shown_location(location)) == shown_location(location)
    assert "token=1" not in shown_location("https://a.example/?token=1")


def test_the_reason_in_a_response_replaces_the_cause_of_its_status() -> None:
    line = "The signature is 400 seconds old. [timestamp_too_old]"
    for outcome, status_code in ((Outcome.CLIENT_ERROR, 401), (Outcome.SERVER_ERROR, 500)):
        found = explain(outcome, status_code=status_code, error=None, location=None, response=line)
        assert found == BY_REASON["timestamp_too_old"]
        assert cause_of(Health(3, 1, None, 2, outcome, 0, None, status_code, line)) == found
    assert explain(Outcome.DELIVERED, status_code=200, error=None, location=None, response=line) is None
    unknown = explain(Outcome.CLIENT_ERROR, status_code=401, error=None, location=None, response="Go away [no]")
    assert unknown is not None
    assert unknown.code == "status_401"


def test_a_response_cannot_imitate_an_error_of_this_server() -> None:
    """The health stores the first line of a response in the same field as an error of this server."""
    found = cause_of(Health(3, 1, None, 2, Outcome.CLIENT_ERROR, 0, None, 401, SIGNED_WRONGLY))
    assert found is not None
    assert found.code == "status_401"


@dataclass(frozen=True)
class Attempted:
    outcome: Outcome
    status_code: int | None
    error: str | None
    location: str | None
    response_body: bytes


def test_an_attempt_is_explained_by_its_response() -> None:
    attempt = Attempted(Outcome.CLIENT_ERROR, 400, None, None, b'{"detail":"No. [secret_missing]"}')
    assert explain_attempt(attempt) == BY_REASON["secret_missing"]


@pytest.mark.parametrize(
    ("location", "is_login"),
    [
        ("https://club.example/login?next=%2Fhook", True),
        ("/users/sign_in", True),
        ("https://accounts.example/ServiceLogin", True),
        ("https://login.club.example/", True),
        ("https://club.example/oauth2/authorize", True),
        ("https://sso.club.example/", True),
        ("https://www.club.example/webhook", False),
        ("https://club.example/design-in/authors", False),
        ("https://club.example/webhook?from=login", False),
    ],
)
def test_a_redirect_to_a_login_page_says_so(location: str, is_login: bool) -> None:
    found = explain(Outcome.REDIRECT, status_code=302, error=None, location=location)
    assert found is not None
    assert (found.code == "login_redirect") == ("login page" in found.hint) == is_login


def test_success_has_no_explanation() -> None:
    assert explain(Outcome.DELIVERED, status_code=200, error=None, location=None) is None


@pytest.mark.parametrize(
    ("status_code", "words"),
    [
        (400, "parse"),
        (400, "rejected the signature"),
        (401, "requires a login"),
        (403, "requires a login"),
        (404, "no route at this path"),
        (405, "POST"),
        (408, "request timeout"),
        (410, "no longer exists"),
        (413, "too large"),
        (415, "application/json"),
        (418, "rejected the request"),
        (422, "schema"),
        (429, "rate limit"),
        (500, "failed to handle"),
        (502, "proxy"),
        (503, "overloaded"),
        (504, "then process"),
        (507, "failed to handle"),
    ],
)
def test_a_status_is_named_and_explained(status_code: int, words: str) -> None:
    text = hint(classify(Exchange(0, 1, status_code)), status_code)

    assert words in text
    assert f"responded with {status_code}" in text


def test_each_code_has_one_title_and_one_text() -> None:
    """A page that groups failures by code shows one title and one fix for each group."""
    found: dict[str, Explanation] = {}
    for each in [*BY_REASON.values(), *(each for texts in BY_ERROR.values() for _, each in texts)]:
        assert found.setdefault(each.code, each) == each
    assert len({each.title for each in found.values()}) == len(found)


def test_the_code_and_title_of_a_status_contain_its_number() -> None:
    found = explain(Outcome.CLIENT_ERROR, status_code=404, error=None, location=None)
    assert found is not None
    assert (found.code, found.title) == ("status_404", "404 Not Found")
    unknown = explain(Outcome.SERVER_ERROR, status_code=599, error=None, location=None)
    assert unknown is not None
    assert (unknown.code, unknown.title) == ("status_599", "Status 599")


@pytest.mark.parametrize(
    ("outcome", "code"),
    [(Outcome.CLIENT_ERROR, "status_4xx"), (Outcome.SERVER_ERROR, "status_5xx"), (Outcome.THROTTLED, "status_429")],
)
def test_a_status_error_without_its_number_is_explained(outcome: Outcome, code: str) -> None:
    found = explain(outcome, status_code=None, error=None, location=None)
    assert found is not None
    assert found.code == code
    assert "None" not in found.hint


def test_the_rejection_of_a_wrong_signature_is_not_a_fault_of_the_receiver() -> None:
    text = hint(Outcome.CLIENT_ERROR, 401, SIGNED_WRONGLY)
    assert "wrong" in text
    assert text != hint(Outcome.CLIENT_ERROR, 401)


def test_a_redirect_shows_its_location() -> None:
    text = hint(Outcome.REDIRECT, 308, location="https://www.example.com/webhook")

    assert "308, a redirect to https://www.example.com/webhook," in text
    assert "redirect target" in text
    assert "without a Location header" in hint(Outcome.REDIRECT, 304)


def test_a_hostile_location_is_truncated_and_printable() -> None:
    text = hint(Outcome.REDIRECT, 302, location="https://a\x1b[2J\u202e" + "x" * 5000)

    assert "https://a_[2J_xxx" in text
    assert len(text) < 450
    assert "…" in text


@pytest.mark.parametrize(
    ("outcome", "error", "words"),
    [
        # Error texts of the sender.
        (Outcome.TIMEOUT, "192.0.2.1:443 did not accept a connection within 5 s", "timed out"),
        (Outcome.TIMEOUT, "no complete response within 15 s: still connecting to 192.0.2.1:443", "timed out"),
        (Outcome.TIMEOUT, "the TLS handshake with 192.0.2.1:443 took longer than the 5 s allowed", "timed out"),
        (Outcome.TIMEOUT, "the egress proxy did not open a tunnel to a.example:443 within 5 s", "timed out"),
        (Outcome.TIMEOUT, "no complete response within 15 s: still resolving a.example", "does not resolve"),
        (Outcome.TIMEOUT, "no complete response within 15 s: still waiting for the response", "then process"),
        (Outcome.TIMEOUT, None, "then process"),
        (Outcome.DNS_ERROR, "a.example has no address", "does not resolve"),
        (Outcome.CONNECT_ERROR, "could not connect to 192.0.2.1:443: connection refused", "no program is listening"),
        (Outcome.CONNECT_ERROR, "could not connect to 192.0.2.1:443: network is unreachable", "no network route"),
        (Outcome.CONNECT_ERROR, "could not connect to 192.0.2.1:443: no route to host", "no network route"),
        (Outcome.CONNECT_ERROR, "192.0.2.1:443 closed the connection at once: broken pipe", "closed the"),
        (Outcome.CONNECT_ERROR, "the egress proxy refused a tunnel to a.example:443 (status 500)", "outbound"),
        (Outcome.BLOCKED, "the egress proxy does not allow a tunnel to a.example:22 (status 403)", "The egress proxy"),
        (Outcome.BLOCKED, "there is no egress IP for IPv6", "Your server's host has no address"),
        (Outcome.BLOCKED, "there is no egress address for IPv6", "Your server's host has no address"),
        (Outcome.CONNECT_ERROR, "could not send from the egress IP 192.0.2.9: not there", "outbound"),
        (Outcome.CONNECT_ERROR, "could not send from the egress address 192.0.2.9: not there", "outbound"),
        (Outcome.CONNECT_ERROR, "could not connect to 192.0.2.1:443: too many open files", "outbound"),
        (Outcome.CONNECT_ERROR, "the egress proxy could not reach a.example:443 (status 502)", "could not connect"),
        (Outcome.CONNECT_ERROR, None, "could not connect"),
        (Outcome.TLS_ERROR, "the certificate of a.example, or one in its chain, has expired", "has expired"),
        (Outcome.TLS_ERROR, "the certificate of a.example, or one in its chain, is not valid yet", "not valid yet"),
        (Outcome.TLS_ERROR, "the certificate is for another name than a.example", "another name"),
        (Outcome.TLS_ERROR, "the certificate is for another address than 192.0.2.1", "another name"),
        (Outcome.TLS_ERROR, "the certificate of a.example is self-signed", "not publicly trusted"),
        (Outcome.TLS_ERROR, "the issuer of the certificate of a.example is unknown: the authority", "full chain"),
        (Outcome.TLS_ERROR, "a.example does not support TLS on this port", "does not use TLS"),
        (Outcome.TLS_ERROR, "a.example does not speak TLS on this port", "does not use TLS"),
        (Outcome.TLS_ERROR, "a.example offers only versions of TLS older than 1.2", "in common"),
        (Outcome.TLS_ERROR, "the TLS handshake with a.example failed: sslv3 alert handshake failure", "in common"),
        (Outcome.TLS_ERROR, "the TLS connection failed: certificate required", "a client certificate"),
        (Outcome.TLS_ERROR, "the TLS connection failed: unknown ca", "the client certificate"),
        (
            Outcome.TLS_ERROR,
            "the TLS handshake with a.example failed: bad certificate",
            "the client certificate",
        ),
        (
            Outcome.TLS_ERROR,
            "the client certificate is not usable: ee key too small",
            "the client certificate",
        ),
        (Outcome.TLS_ERROR, "a.example ended the connection during the TLS handshake", "closed the"),
        (
            Outcome.TLS_ERROR,
            "token request: the certificate of a.example is self-signed",
            "reach the token URL",
        ),
        (Outcome.DNS_ERROR, "token request: a.example does not resolve", "reach the token URL"),
        (Outcome.TIMEOUT, "token request: no complete response within 15 s", "reach the token URL"),
        (Outcome.BLOCKED, "token request: connections to a.example are not allowed", "reach the token URL"),
        (
            Outcome.CONNECT_ERROR,
            "token request: could not connect: connection refused",
            "reach the token URL",
        ),
        (Outcome.CONNECT_ERROR, "token request: the egress proxy failed: no", "outbound"),
        (Outcome.PROTOCOL_ERROR, "token request: the server responded with 401", "rejected the client credentials"),
        (Outcome.PROTOCOL_ERROR, "token request: the server responded with 404", "did not return an access token"),
        (Outcome.TLS_ERROR, "the TLS connection failed: unexpected eof while reading", "closed the"),
        (Outcome.TLS_ERROR, "the certificate of a.example is not valid: ca signature too weak", "The TLS connection"),
        # OpenSSL's error texts, as Python's ssl module reports them.
        (Outcome.TLS_ERROR, "certificate verify failed: certificate has expired", "has expired"),
        (Outcome.TLS_ERROR, "certificate verify failed: certificate is not yet valid", "not valid yet"),
        (Outcome.TLS_ERROR, "Hostname mismatch, certificate is not valid for 'a.example'.", "another name"),
        (Outcome.TLS_ERROR, "IP address mismatch, certificate is not valid for '192.0.2.1'.", "another name"),
        (Outcome.TLS_ERROR, "certificate verify failed: self-signed certificate", "not publicly trusted"),
        (Outcome.TLS_ERROR, "certificate verify failed: unable to get local issuer certificate", "full chain"),
        (Outcome.TLS_ERROR, "[SSL: WRONG_VERSION_NUMBER] wrong version number", "does not use TLS"),
        (Outcome.PROTOCOL_ERROR, "the receiver closed the connection without answering", "closed the"),
        (Outcome.PROTOCOL_ERROR, "the receiver ended the connection before the request was sent", "closed the"),
        (Outcome.PROTOCOL_ERROR, "the response's head is longer than 32768 bytes", "too long"),
        (Outcome.PROTOCOL_ERROR, "the response is not valid HTTP/1.1: expected SP", "a valid HTTP/1.1"),
        (Outcome.BLOCKED, "a.example is not allowed as a receiver: 10.0.0.1, private network", "not allowed"),
        (Outcome.BLOCKED, "Plain http is for private addresses only; use https", "URL to https"),
        # Words in host names do not select an explanation.
        (Outcome.CONNECT_ERROR, "could not connect to refused.egress.example:443: unknown", "could not connect"),
    ],
)
def test_the_error_text_selects_the_explanation(outcome: Outcome, error: str | None, words: str) -> None:
    assert words in hint(outcome, error=error)


@given(
    st.sampled_from([outcome for outcome in Outcome if outcome is not Outcome.DELIVERED]),
    st.none() | st.integers(100, 999),
    st.none() | st.text(max_size=50),
    st.none() | st.text(max_size=300),
    st.none() | st.sampled_from(sorted(BY_REASON)).map("[{}]".format),
)
def test_every_failure_has_a_sentence_for_the_cause_and_the_fix(
    outcome: Outcome, status_code: int | None, error: str | None, location: str | None, response: str | None
) -> None:
    explanation = explain(outcome, status_code=status_code, error=error, location=location, response=response)

    assert explanation is not None
    assert explanation.hint == f"{explanation.cause} {explanation.remedy}"
    assert re.fullmatch(r"[a-z]+[a-z0-9_]*", explanation.code)
    assert explanation.title
    assert not explanation.title.endswith(".")
    for sentence in (explanation.cause, explanation.remedy):
        assert sentence.endswith(".")
        assert sentence.isprintable()
        if not location:
            assert not re.search(r"[.!?] [A-Z]", sentence)
