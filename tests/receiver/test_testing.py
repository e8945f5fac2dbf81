"""Signed headers of the testing kit."""

import json
import time
import uuid

import pytest

from uplift_webhooks import Webhook, WebhookVerificationError
from uplift_webhooks.testing import sign

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NEW = "n" * 20


def test_sign_returns_the_published_vector() -> None:
    headers = sign(b'{"test": 2432232314}', SECRET, message_id="msg_p5jXN8AQM9LWM0D4loKWxJek", timestamp=1614265330)

    assert headers == {
        "content-type": "application/json",
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        "x-uplift-signature-256": "sha256=80ec8a89ce3cd22133a1066caecb4d04fea7467657c8514d717ec42c38a5c94c",
    }


def test_the_id_is_from_the_body_and_the_timestamp_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_764_000_000.7)

    headers = sign(json.dumps({"id": "evt_1"}).encode(), SECRET)

    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("evt_1", "1764000000")


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b"{", b"\xff", b'{"id":5}', b'{"id":"\\ud800"}', b'{"id":"a\\nb"}', b"[" * 100_000]
)
def test_a_body_without_an_id_gets_a_new_one(body: bytes) -> None:
    first, second = sign(body, SECRET)["webhook-id"], sign(body, SECRET)["webhook-id"]

    assert uuid.UUID(first) != uuid.UUID(second)


def test_two_secrets_sign_like_a_rotation() -> None:
    headers = sign(b"{}", [NEW, SECRET])

    assert headers["webhook-signature"].count("v1,") == 2
    only_uplift = {"x-uplift-signature-256": headers["x-uplift-signature-256"]}
    Webhook(SECRET, allow_uplift_signature=True).verify(b"{}", only_uplift)
    with pytest.raises(WebhookVerificationError):
        Webhook(NEW, allow_uplift_signature=True).verify(b"{}", only_uplift)


def test_an_invalid_secret_is_rejected() -> None:
    with pytest.raises(WebhookVerificationError):
        sign(b"{}", "short")
