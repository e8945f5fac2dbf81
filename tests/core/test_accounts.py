"""Account names and email addresses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.people.accounts import check_email, check_name


@pytest.mark.parametrize(
    "name", ["A", "Harbor City Baseball", "Сборная", "東京 Lab", "O'Neil & Söhne", "x" * 200, "👟"]
)
def test_names(name: str) -> None:
    assert check_name(name) is None


@pytest.mark.parametrize("name", ["", " ", "\u3000", "a\nb", "a\x00", "a\x85", "a\u202eb", "\ud800", "x" * 201])
def test_invalid_names(name: str) -> None:
    problem = check_name(name)

    assert problem is not None
    assert (problem.field, problem.code) == ("name", "name_invalid")


@pytest.mark.parametrize(
    "email",
    [
        "coach@example.com",
        "first.last+webhooks@sub.example.co.uk",
        "a@b",
        "o'neil@example.com",
        "x" * 64 + "@example.com",
        "a@xn--bcher-kva.example",
    ],
)
def test_email_addresses(email: str) -> None:
    assert check_email(email) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "coach",
        "@example.com",
        "coach@",
        "a b@example.com",
        "a..b@example.com",
        ".a@example.com",
        "a.@example.com",
        "a@b@c",
        "a@example..com",
        "a@-example.com",
        "a@example.com.",
        "a@example.com\n",
        "a@example.com\r\nBcc: b@example.com",
        "Coach <coach@example.com>",
        '"quoted"@example.com',
        "a@[127.0.0.1]",
        "ä@example.com",
        "x" * 65 + "@example.com",
        "a@" + ".".join(["b" * 60] * 5),
    ],
)
def test_invalid_email_addresses(text: str) -> None:
    problem = check_email(text, "contact_emails[1]")

    assert problem is not None
    assert (problem.field, problem.code) == ("contact_emails[1]", "email_invalid")


@given(st.text())
def test_valid_names_cannot_break_an_email_header(text: str) -> None:
    if check_email(text) is None:
        assert text.isascii()
        assert text.isprintable()
        assert not set(text) & set(' <>,;:"()\\')
    if check_name(text) is None:
        assert len(text.splitlines()) == 1
