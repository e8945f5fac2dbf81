"""PostgreSQL URLs with any number of hosts, on every Python version."""

import pytest

from uplift_server.core.operations.postgres_urls import PostgresUrl, split_postgres_url

SEVERAL = "postgresql://u:p%40@one:1,[2001:db8::1]:2,[::1]/db?sslmode=require"


def test_an_ipv6_host_can_follow_another_host() -> None:
    assert split_postgres_url(SEVERAL) == PostgresUrl(
        "postgresql", "u:p%40", "one:1,[2001:db8::1]:2,[::1]", "/db", "sslmode=require", ""
    )


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("postgres://db/x", PostgresUrl("postgres", None, "db", "/x", "", "")),
        ("postgresql://@/x?host=/run", PostgresUrl("postgresql", "", "", "/x", "host=/run", "")),
        ("postgresql:///x#y", PostgresUrl("postgresql", None, "", "/x", "", "y")),
        ("postgresql://u:a@b@db", PostgresUrl("postgresql", "u:a@b", "db", "", "", "")),
    ],
)
def test_absent_parts_are_empty(text: str, parts: PostgresUrl) -> None:
    assert split_postgres_url(text) == parts
    assert str(parts) == text


def test_joined_parts_give_the_same_url() -> None:
    assert str(split_postgres_url(SEVERAL)) == SEVERAL


def test_text_without_a_scheme_is_not_a_url() -> None:
    with pytest.raises(ValueError, match="not a URL"):
        split_postgres_url("db.example/uplift")
