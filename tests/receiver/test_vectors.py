"""Published test vectors: the server's signatures and the result of every verifier."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks
import svix.webhooks

from uplift_server.core.security.signing import Signer, check_secret, standard_form
from uplift_webhooks import Webhook, WebhookVerificationError
from uplift_webhooks.testing import sign

Vector = dict[str, Any]
VECTORS = json.loads((Path(__file__).parents[2] / "docs/vectors.json").read_text(encoding="utf-8"))
NOW: int = VECTORS["now"]
# Standard Webhooks libraries reject tokens and secrets without padding, so they get the format that the server shows.
PUBLIC_LIBRARIES: dict[str, Callable[[str], Any]] = {
    "standardwebhooks": lambda secret: standardwebhooks.Webhook(standard_form(secret)),
    "svix": lambda secret: svix.webhooks.Webhook(standard_form(secret)),
}

verified = pytest.mark.parametrize("vector", VECTORS["verified"], ids=lambda vector: vector["name"])
rejected = pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["name"])


class _StoppedClock(datetime):
    """The clock of the public libraries."""

    seconds = 0.0

    @classmethod
    def now(cls, tz: Any = None) -> "_StoppedClock":
        return cls.fromtimestamp(cls.seconds, tz)


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function that stops the clock of every verifier at a time in Unix seconds."""

    def stop(seconds: int) -> None:
        monkeypatch.setattr(time, "time", lambda: float(seconds))
        monkeypatch.setattr(_StoppedClock, "seconds", float(seconds))
        monkeypatch.setattr("standardwebhooks.webhooks.datetime", _StoppedClock)

    return stop


def _bytes(vector: Vector) -> bytes:
    return str(vector["body"]).encode()


@verified
def test_the_server_signs_the_vectors(vector: Vector) -> None:
    secrets, headers = vector["signing_secrets"], vector["headers"]
    signer = Signer(secrets, secrets[0])

    uplift, standard = signer.sign(
        headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), _bytes(vector)
    )

    assert uplift.decode() == headers["x-uplift-signature-256"]
    assert standard.decode() == headers["webhook-signature"]
    assert not [check_secret(secret) for secret in secrets if check_secret(secret)]


@verified
def test_the_librarys_test_signer_signs_the_vectors(vector: Vector) -> None:
    # The newest secret is first, and so is its signature. Receivers must not rely on the order.
    signed = sign(_bytes(vector), vector["signing_secrets"][::-1], timestamp=NOW)

    assert sorted(signed["webhook-signature"].split()) == sorted(vector["headers"]["webhook-signature"].split())
    for name in ("webhook-id", "webhook-timestamp", "x-uplift-signature-256"):
        assert signed[name] == vector["headers"][name]


@verified
def test_plain_hmac_gives_the_signatures(vector: Vector) -> None:
    secret, headers = vector["secret"], vector["headers"]
    encoded = secret.removeprefix("whsec_")
    key = base64.b64decode(encoded + "=" * (-len(encoded) % 4)) if secret.startswith("whsec_") else secret.encode()
    message = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{vector['body']}".encode()

    signature = base64.b64encode(hmac.new(key, message, hashlib.sha256).digest()).decode()

    assert f"v1,{signature}" in headers["webhook-signature"].split(" ")
    by_uplift = hmac.new(vector["signing_secrets"][0].encode(), _bytes(vector), hashlib.sha256).hexdigest()
    assert headers["x-uplift-signature-256"] == f"sha256={by_uplift}"


@verified
def test_our_library_accepts_the_verified_vectors(vector: Vector, set_clock: Callable[[int], None]) -> None:
    set_clock(NOW)

    assert Webhook(vector["secret"]).unwrap(_bytes(vector), vector["headers"]).raw == json.loads(vector["body"])
    only_uplift = {"x-uplift-signature-256": vector["headers"]["x-uplift-signature-256"]}
    Webhook(vector["signing_secrets"][0], allow_uplift_signature=True).verify(_bytes(vector), only_uplift)


@pytest.mark.parametrize("library", PUBLIC_LIBRARIES)
@verified
def test_public_libraries_accept_the_verified_vectors(
    vector: Vector, library: str, set_clock: Callable[[int], None]
) -> None:
    set_clock(NOW)

    PUBLIC_LIBRARIES[library](vector["secret"]).verify(_bytes(vector), dict(vector["headers"]))


@rejected
def test_our_library_rejects_the_other_vectors(vector: Vector, set_clock: Callable[[int], None]) -> None:
    set_clock(vector["now"])

    with pytest.raises(WebhookVerificationError) as caught:
        Webhook(vector["secret"]).verify(_bytes(vector), vector["headers"])

    assert caught.value.reason == vector["reason"]


@pytest.mark.parametrize("library", PUBLIC_LIBRARIES)
@rejected
def test_public_libraries_reject_the_other_vectors(
    vector: Vector, library: str, set_clock: Callable[[int], None]
) -> None:
    set_clock(vector["now"])

    # For an invalid header, the libraries raise the error of their parser.
    with pytest.raises((standardwebhooks.WebhookVerificationError, ValueError)):
        PUBLIC_LIBRARIES[library](vector["secret"]).verify(_bytes(vector), dict(vector["headers"]))


def test_the_vectors_cover_common_mistakes() -> None:
    bodies = [vector["body"] for vector in VECTORS["verified"]]

    assert [body for body in bodies if "🏀" in body and "1.0" in body]
    assert {vector["headers"]["webhook-timestamp"] for vector in VECTORS["verified"]} == {str(NOW)}
    assert {vector["now"] - NOW for vector in VECTORS["refused"]} == {0, 301, -301}
    assert VECTORS["tolerance_seconds"] == 300
