"""Custom headers of endpoints."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.http.headers import MASKED, check_headers, mask, merge_headers

TOKENS = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,20}", fullmatch=True)


def codes(headers: dict[str, str]) -> list[tuple[str, str]]:
    return [(problem.field, problem.code) for problem in check_headers(headers)]


def test_ordinary_headers_are_accepted() -> None:
    assert codes({}) == []
    assert (
        codes(
            {
                "Authorization": "Bearer abc",
                "X-Team": "white sox",
                "x-short": "0",
                "X-Latin": "caf\u00e9",
                "!#$%&'*+.^_`|~-": "\ttabs\tinside"[1:],
                "X-Content": "not content-",
            }
        )
        == []
    )


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "User-Agent",
        "user-agent",
        "content-type",
        "Content-Length",
        "content-encoding",
        "Webhook-Id",
        "webhook-anything",
        "X-Uplift-Signature-256",
        "x-uplift-",
        "Connection",
        "Keep-Alive",
        "Proxy-Authenticate",
        "Proxy-Authorization",
        "Proxy-Connection",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
        "HTTP2-Settings",
    ],
)
def test_reserved_headers_are_rejected(name: str) -> None:
    assert codes({name: "x"}) == [(f"headers.{name}", "header_forbidden")]


@pytest.mark.parametrize(
    "name",
    ["", "-", "_", "-x", "_x", "-X-Team", "_team", "a b", "a:", "a\n", "a\r\nb", "\u00e9", "(a)", "a" * 65, "a\x00"],
)
def test_invalid_names(name: str) -> None:
    assert codes({name: "x"}) == [(f"headers.{name}", "header_invalid")]


@pytest.mark.parametrize(
    "value", ["", "a\nb", "a\r\nx: y", "a\x00", "a\x7f", "\u20ac", " a", "a ", "\ta", " ", "a\n", "\x85", "x" * 1025]
)
def test_invalid_values(value: str) -> None:
    assert codes({"X-Team": value}) == [("headers.X-Team", "header_invalid")]


def test_all_problems_are_reported() -> None:
    assert codes({"X-Team": "a", "x-team": "b", "Host": "c", "X-Bad": "\n"}) == [
        ("headers.x-team", "header_duplicate"),
        ("headers.Host", "header_forbidden"),
        ("headers.X-Bad", "header_invalid"),
    ]


def test_twenty_headers_are_allowed() -> None:
    assert codes({f"X-{number}": "a" for number in range(20)}) == []
    assert codes({f"X-{number}": "a" for number in range(21)}) == [("headers", "headers_too_many")]


def test_changes_add_replace_and_remove_headers_in_any_case() -> None:
    stored = {"Authorization": "Bearer abc", "X-Team": "white sox", "X-City": "Chicago"}

    assert merge_headers(
        stored, {"authorization": None, "X-TEAM": "cubs", "X-Sport": "baseball", "X-Absent": None}
    ) == {
        "X-City": "Chicago",
        "X-TEAM": "cubs",
        "X-Sport": "baseball",
    }
    assert merge_headers(stored, {}) == stored


@given(st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=4))
def test_valid_headers_are_one_line_in_a_request(headers: dict[str, str]) -> None:
    rejected = {problem.field for problem in check_headers(headers)}
    for name, value in headers.items():
        if f"headers.{name}" not in rejected:
            line = f"{name}: {value}".encode("latin-1")
            assert line.splitlines() == [line]
            assert value == value.strip(" \t")


@given(TOKENS, st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=30))
def test_values_of_printable_ascii_pass(name: str, value: str) -> None:
    assert all(problem.code == "header_forbidden" for problem in check_headers({name: value}))


@pytest.mark.parametrize(
    "name",
    ["Authorization", "Cookie", "X-Api-Key", "X-Jwt", "X-Session", "X-Hmac", "X-Team", "Referer", "X-Accept"],
)
def test_custom_values_are_masked(name: str) -> None:
    assert mask(name, "s3cret") == MASKED
    assert MASKED.isascii()


@pytest.mark.parametrize("name", ["Accept", "accept-language", "Cache-Control", "User-Agent"])
def test_values_of_headers_that_hold_no_secrets_are_shown(name: str) -> None:
    assert mask(name, "white sox") == "white sox"
