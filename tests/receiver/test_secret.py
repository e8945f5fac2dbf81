"""Secrets in every allowed format, and rejected secrets."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_webhooks.errors import WebhookVerificationError
from uplift_webhooks.secret import parse_secret


# `whsec_…` can also encode a custom token (16 to 256 bytes), so the key can have any of these lengths.
@pytest.mark.parametrize("length", [16, 24, 25, 26, 32, 64, 256])
def test_the_keys_of_a_generated_secret(length: int) -> None:
    key = bytes(range(length))
    text = "whsec_" + base64.b64encode(key).decode()

    secret = parse_secret(text)

    assert secret.standard_key == key
    assert secret.uplift_key == text.encode()


def test_missing_padding_is_allowed_and_the_text_stays() -> None:
    secret = parse_secret("whsec_" + base64.b64encode(bytes(32)).decode().rstrip("="))

    assert secret.standard_key == bytes(32)
    assert not secret.uplift_key.endswith(b"=")


@pytest.mark.parametrize("token", ["0123456789abcdef", "!" * 16, "~" * 256, "WHSEC_is-not-the-prefix"])
def test_the_keys_of_a_custom_token_are_its_bytes(token: str) -> None:
    secret = parse_secret(token)

    assert secret.standard_key == secret.uplift_key == token.encode()


def test_whitespace_around_a_secret_is_removed() -> None:
    assert parse_secret("  0123456789abcdef\r\n") == parse_secret("0123456789abcdef")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "0123456789abcde",
        "x" * 257,
        "0123456789 abcdef",
        "0123456789\tabcdef",
        "0123456789abcdef\x7f",
        "0123456789abcdéf",
        "It's a Secret to Everybody",
        "whsec_",
        "whsec_" + base64.b64encode(bytes(15)).decode(),
        "whsec_" + base64.b64encode(bytes(257)).decode(),
        "whsec_not*base64*not*base64*not*base64*",
        "whsec_" + "A" * 33,
        "whsec_" + "é" * 32,
        "whsec_" + "A" * 16 + "\n" + "A" * 16,
        b"0123456789abcdef",
        17,
        None,
    ],
)
def test_invalid_secrets_are_rejected_without_showing_them(text: object) -> None:
    with pytest.raises(WebhookVerificationError) as caught:
        parse_secret(text)

    assert caught.value.reason == "secret_invalid"
    if isinstance(text, str) and len(text.strip()) > 6:
        assert text.strip() not in str(caught.value)


def test_the_repr_hides_the_secret() -> None:
    assert "0123456789abcdef" not in repr(parse_secret("0123456789abcdef"))


@given(st.binary(min_size=16, max_size=256))
def test_every_key_of_an_allowed_length_is_decoded(key: bytes) -> None:
    assert parse_secret("whsec_" + base64.b64encode(key).decode()).standard_key == key
