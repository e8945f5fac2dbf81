"""The two signatures of a request, as functions of bytes."""

import base64
import hmac


def standard_signature(key: bytes, message_id: bytes, timestamp: bytes, body: bytes) -> bytes:
    """Base64 of HMAC-SHA256 over `<id>.<timestamp>.<body>`: what follows `v1,` in `webhook-signature`.

    Source: Standard Webhooks, "Signature scheme".
    """
    message = b"%b.%b.%b" % (message_id, timestamp, body)
    return base64.b64encode(hmac.digest(key, message, "sha256"))


def uplift_signature(key: bytes, body: bytes) -> bytes:
    """The value of `x-uplift-signature-256`: `sha256=` and lowercase hexadecimal HMAC-SHA256 of the body.

    Source: Uplift's help centre, "Webhook secrets".
    """
    return b"sha256=" + hmac.digest(key, body, "sha256").hex().encode("ascii")
