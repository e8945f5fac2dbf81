"""Computes the two signatures of a request: the Standard Webhooks signature and Uplift's own signature."""

import base64
import hmac


def standard_signature(key: bytes, message_id: bytes, timestamp: bytes, body: bytes) -> bytes:
    """Return the signature that follows `v1,` in `webhook-signature`.

    It is the HMAC-SHA256 of `<id>.<timestamp>.<body>`, in base64. Source: Standard Webhooks, "Signature scheme".
    """
    message = b"%b.%b.%b" % (message_id, timestamp, body)
    return base64.b64encode(hmac.digest(key, message, "sha256"))


def uplift_signature(key: bytes, body: bytes) -> bytes:
    """Return the value of `x-uplift-signature-256`: `sha256=` and the lowercase hex HMAC-SHA256 of the body.

    Source: Uplift's help center, "Webhook secrets".
    """
    return b"sha256=" + hmac.digest(key, body, "sha256").hex().encode("ascii")
