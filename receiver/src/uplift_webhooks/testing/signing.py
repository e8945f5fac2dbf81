"""Creates the signature headers of Uplift's requests, for tests."""

import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

from uplift_webhooks import headers as names
from uplift_webhooks.secret import parse_secret
from uplift_webhooks.signature import standard_signature, uplift_signature


def sign(
    body: bytes,
    secret: str | Sequence[str],
    *,
    message_id: str | None = None,
    timestamp: int | None = None,
) -> dict[str, str]:
    """Return `content-type` and the signature headers for a body. For a test event, add `x-uplift-test`.

    The default `message_id` is the `id` in the body, or a new UUID. The default `timestamp` (Unix seconds) is now.
    Several secrets, newest first, produce the headers for a rotation: `webhook-signature` has one signature per secret,
    and `x-uplift-signature-256` has the signature of the oldest secret.

    Raises:
        WebhookVerificationError: `secret_invalid`.
    """
    secrets = [parse_secret(text) for text in ([secret] if isinstance(secret, str) else secret)]
    envelope = _envelope_in(body)
    signed_id = _id_in(envelope) if message_id is None else message_id
    signed_at = str(int(time.time()) if timestamp is None else timestamp)
    tokens = [
        standard_signature(each.standard_key, signed_id.encode(), signed_at.encode(), body).decode() for each in secrets
    ]
    return {
        "content-type": "application/json",
        names.ID: signed_id,
        names.TIMESTAMP: signed_at,
        names.SIGNATURE: " ".join(f"v1,{token}" for token in tokens),
        names.UPLIFT_SIGNATURE: uplift_signature(secrets[-1].uplift_key, body).decode(),
        **({names.TEST: "true"} if envelope.get("test") is True else {}),
    }


def _envelope_in(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {}


def _id_in(envelope: dict[str, Any]) -> str:
    """Return the ID in the envelope. If the ID is missing or cannot be a header value, return a new ID."""
    found = envelope.get("id")
    # The ID becomes the value of a header, so it must be printable ASCII.
    fit = isinstance(found, str) and found.isascii() and found.isprintable()
    return str(found) if fit else str(uuid.uuid4())
