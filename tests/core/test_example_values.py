"""Settings whose values were copied from an example."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.operations.example_values import example_in, is_guessable_key, is_placeholder


@pytest.mark.parametrize(
    ("text", "example"),
    [
        ("https://hooks.example.com", "hooks.example.com"),
        ("https://webhooks.example:8420/", "webhooks.example"),
        ("Uplift Webhooks <webhooks@EXAMPLE.org>", "EXAMPLE.org"),
        ("smtp://uplift%40club.test:x@smtp.example.net:587", "smtp.example.net"),
        ("54.245.28.22, 192.0.2.10", "192.0.2.10"),
        ("2001:db8::1@2027-01-01T00:00:00Z", "2001:db8::1"),
        ("https://hooks.examples.com", None),
        ("https://example.community", None),
        ("https://my-example.com", None),
        ("https://examples/", None),
        ("1192.0.2.10", None),
        ("192.0.20.1", None),
    ],
)
def test_documentation_names_and_addresses_are_found(text: str, example: str | None) -> None:
    assert example_in(text) == example


@pytest.mark.parametrize(
    "secret",
    [
        "op_change-me-to-something",
        "CHANGE_ME",
        "op_…",
        "your-secret-key",
        "postgresql://uplift:password@db.club.test/uplift",
    ],
)
def test_placeholders_are_found(secret: str) -> None:
    assert is_placeholder(secret)


def test_own_secrets_are_no_placeholders() -> None:
    assert not is_placeholder("op_5dRr0wqQ2FZk1yqV-3n7mBt_0cJx9LpA")
    assert not is_placeholder("postgresql://uplift:W9sPbP3j@db.club.test/password")


@given(st.binary(min_size=32, max_size=32).filter(lambda key: len(set(key)) > 20 and any(byte > 0x7F for byte in key)))
def test_a_random_key_is_not_guessable(key: bytes) -> None:
    assert not is_guessable_key(base64.b64encode(key).decode())


@pytest.mark.parametrize("key", [b"0123456789abcdef0123456789abcdef", b"\0" * 32, bytes(range(8)) * 4])
def test_a_key_of_text_or_of_a_few_bytes_is_guessable(key: bytes) -> None:
    assert is_guessable_key(base64.b64encode(key).decode())
