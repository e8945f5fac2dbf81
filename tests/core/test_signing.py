"""Secrets and both signatures, compared with published vectors, the standard library and the public verifier."""

import base64
import hashlib
import hmac
import time

import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.security.signing import PREFIX, Signer, check_secret, generate_secret, keys_of, standard_form

OTHER_PREFIXES = ("hwsec_", "whpk_", "whsk_", "sk_", "svc_", "op_")
GENERATED = st.binary(min_size=24, max_size=64).map(generate_secret)
CHOSEN = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=16, max_size=256).filter(
    lambda text: not text.startswith((PREFIX, *OTHER_PREFIXES))
)
SECRETS = GENERATED | CHOSEN


def test_the_vector_of_standard_webhooks() -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

    _, signature = Signer([secret], secret).sign(
        b"msg_p5jXN8AQM9LWM0D4loKWxJek", b"1614265330", b'{"test": 2432232314}'
    )

    assert signature == b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_github_vector_for_the_uplift_scheme() -> None:
    # Source: docs.github.com, "Validating webhook deliveries".
    signature, _ = Signer([], "It's a Secret to Everybody").sign(b"", b"", b"Hello, World!")

    assert signature == b"sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"


@given(st.lists(SECRETS, min_size=1, max_size=2), SECRETS, st.binary(max_size=2000))
def test_signatures_match_the_standard_library(secrets: list[str], uplift_secret: str, body: bytes) -> None:
    uplift, standard = Signer(secrets, uplift_secret).sign(b"id", b"1764000000", body)

    assert uplift == b"sha256=" + hmac.new(uplift_secret.encode(), body, hashlib.sha256).hexdigest().encode()
    expected = [hmac.digest(keys_of(secret).standard, b"id.1764000000." + body, "sha256") for secret in secrets]
    assert standard == b" ".join(b"v1," + base64.b64encode(digest) for digest in expected)


@given(st.lists(SECRETS, min_size=1, max_size=2), st.text(max_size=200))
def test_the_public_verifier_accepts_each_active_secret(secrets: list[str], text: str) -> None:
    body = text.encode()
    timestamp = str(int(time.time()))
    _, signature = Signer(secrets, secrets[0]).sign(b"0197f0c2-0000-7000-8000-000000000000", timestamp.encode(), body)
    headers = {
        "webhook-id": "0197f0c2-0000-7000-8000-000000000000",
        "webhook-timestamp": timestamp,
        "webhook-signature": signature.decode(),
    }

    for secret in secrets:
        standardwebhooks.Webhook(standard_form(secret)).verify(body, headers, json_parse=False)


def test_a_signer_is_reusable() -> None:
    signer = Signer(["a" * 16], "b" * 16)

    assert signer.sign(b"id", b"1", b"{}") == signer.sign(b"id", b"1", b"{}")
    assert signer.sign(b"id", b"1", b"{}")[1] != signer.sign(b"id", b"2", b"{}")[1]


def test_the_keys_of_a_generated_secret() -> None:
    key = bytes(range(32))
    secret = generate_secret(key)

    assert secret == "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    assert keys_of(secret).standard == key
    assert keys_of(secret).uplift == secret.encode()
    assert standard_form(secret) == secret


def test_the_keys_of_a_custom_token_are_its_bytes() -> None:
    token = "5d41402abc4b2a76b9719d911017c592"

    assert keys_of(token).standard == keys_of(token).uplift == token.encode()
    assert standard_form(token) == "whsec_" + base64.b64encode(token.encode()).decode()


def test_missing_padding_is_allowed() -> None:
    padded = generate_secret(bytes(32))

    assert check_secret(padded.rstrip("=")) is None
    assert keys_of(padded.rstrip("=")).standard == keys_of(padded).standard
    assert standard_form(padded.rstrip("=")) == padded


@given(SECRETS)
def test_valid_secrets_are_accepted(secret: str) -> None:
    assert check_secret(secret) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "16 to 256"),
        ("a" * 15, "16 to 256"),
        ("a" * 257, "16 to 256"),
        ("with a space in it", "without spaces"),
        ("line\nbreak at its end", "without spaces"),
        ("sixteen or more\n", "without spaces"),
        ("Schlüsselschlüssel", "ASCII"),
        ("\x7f" * 16, "ASCII"),
        ("whsec_" + base64.b64encode(bytes(23)).decode(), "24 to 64"),
        ("whsec_" + base64.b64encode(bytes(65)).decode(), "24 to 64"),
        ("whsec_not-base64-not-base64-not-base64", "base64"),
        ("whsec_" + "A" * 33, "base64"),
        ("whsec_AAAA=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "base64"),
    ],
)
def test_invalid_secrets_are_rejected_with_a_fix(text: str, words: str) -> None:
    problem = check_secret(text)

    assert problem is not None
    assert (problem.field, problem.code) == ("secret", "secret_invalid")
    assert words in problem.message
    assert len(text) < 6 or text not in problem.message


@pytest.mark.parametrize("prefix", OTHER_PREFIXES)
def test_a_custom_token_cannot_have_the_prefix_of_another_key(prefix: str) -> None:
    for text in (prefix + "a" * 32, prefix + base64.b64encode(bytes(32)).decode()):
        problem = check_secret(text)

        assert problem is not None
        assert (problem.field, problem.code) == ("secret", "secret_invalid")
        assert prefix in problem.message
        # If an existing endpoint has such a secret, its requests are still signed with it.
        assert keys_of(text).standard == text.encode()
    assert check_secret(f"a{prefix}" + "a" * 32) is None


@given(st.text())
def test_any_text_is_checked(text: str) -> None:
    problem = check_secret(text)

    assert problem is None or problem.code == "secret_invalid"
    if problem is None:
        assert keys_of(text).standard


def test_an_invalid_secret_has_no_keys() -> None:
    with pytest.raises(ValueError, match="base64"):
        keys_of("whsec_!")


def test_the_repr_hides_keys() -> None:
    assert "a" * 16 not in repr(keys_of("a" * 16))
