"""Verifies that a request comes from Uplift, is unchanged and is recent."""

import hmac
import math
import os
import time
from collections.abc import Iterable
from typing import Any, Final

from uplift_webhooks import headers as names
from uplift_webhooks.errors import WebhookVerificationError
from uplift_webhooks.event import parse_object
from uplift_webhooks.events import AnyEvent, read_event
from uplift_webhooks.explanation import VERIFIED, Explanation, explain
from uplift_webhooks.headers import Headers, read_headers
from uplift_webhooks.secret import Secret, parse_secret
from uplift_webhooks.signature import standard_signature, uplift_signature

SECRET_VARIABLE: Final = "UPLIFT_WEBHOOK_SECRET"  # noqa: S105 - the name of a variable
"""The environment variable that contains the default secret, or several secrets separated by white space."""
TOLERANCE_SECONDS: Final = 300
"""Default maximum difference between a request's timestamp and the current time, in seconds, in either direction."""
SIGNATURES_MAX: Final = 16
"""Maximum number of signatures in a `webhook-signature` header.

A secret rotation needs two. Future signature schemes may need more.
"""
_TIMESTAMP_DIGITS_MAX: Final = 15

_RAW_BODY = (
    "Use the secret of this endpoint, and pass the raw bytes of the body before you parse it: Flask "
    "request.get_data(), Django request.body, FastAPI await request.body()."
)
_PASSED_ON = "Pass all headers of the request, and check for a proxy that removes or rewrites them."


class Webhook:
    """Verifies requests with an endpoint's secret. Thread-safe: create it once at startup."""

    def __init__(
        self,
        secret: str | Iterable[str] | None = None,
        *,
        allow_uplift_signature: bool = False,
        tolerance_seconds: float = TOLERANCE_SECONDS,
        debug: bool = False,
    ) -> None:
        """`secret` is the endpoint's secret, or a list of secrets during a rotation. Default: UPLIFT_WEBHOOK_SECRET.

        `allow_uplift_signature` also accepts requests that have only `x-uplift-signature-256`. This signature has no
        timestamp, so anyone who records a request can replay it. `tolerance_seconds` is the maximum difference between
        a request's timestamp and the clock. With `debug`, errors state the likely cause from `explain`. Do not use
        `debug` in production: it takes time and gives attackers details.

        Raises:
            WebhookVerificationError: `secret_missing` or `secret_invalid`.
            ValueError: `tolerance_seconds` is negative or not a number.
        """
        if math.isnan(tolerance_seconds) or tolerance_seconds < 0:
            raise ValueError("tolerance_seconds must be 0 or more")
        self._secrets: Final = _read_secrets(secret)
        self._allow_uplift_signature: Final = allow_uplift_signature
        self._tolerance_seconds: Final = tolerance_seconds
        self._debug: Final = debug

    def verify(self, body: bytes | bytearray, headers: Headers) -> None:
        """Verify that the request comes from Uplift, is unchanged and recent, and has a JSON object as its body.

        `body` is the request body as raw bytes. `headers` is a mapping, a list of pairs, or a WSGI environ.

        Raises:
            WebhookVerificationError: the verification failed.
        """
        self._open(body, headers)

    def unwrap(self, body: bytes | bytearray, headers: Headers) -> AnyEvent:
        """Verify the request and return its event. Each event type has its own class.

        Raises:
            WebhookVerificationError: the verification failed, or the body is not an event (`body_not_event`).
        """
        return read_event(*self._open(body, headers))

    def explain(self, body: bytes | bytearray, headers: Headers) -> Explanation:
        """Return whether `unwrap` accepts the request and, if not, the likely cause.

        Use this method for debugging. It tests for common mistakes, such as a body that was parsed and serialized
        again, and never raises. The result contains neither the secret nor a computed signature.
        """
        try:
            read_event(*self._verified(body, headers))
        except WebhookVerificationError as error:
            return explain(error, self._secrets, body, headers)
        return VERIFIED

    def _open(self, body: object, headers: object) -> tuple[dict[str, Any], str | None]:
        """Verify the request like `_verified`. With `debug`, errors state the likely cause from `explain`."""
        try:
            return self._verified(body, headers)
        except WebhookVerificationError as error:
            if not self._debug:
                raise
            found = explain(error, self._secrets, body, headers)
            raise WebhookVerificationError(error.reason, found.text, found.hint) from None

    def _verified(self, body: object, headers: object) -> tuple[dict[str, Any], str | None]:
        """Verify the request. Return the body's JSON object, and the signed message ID, if any."""
        content = _bytes(body)
        found = read_headers(headers)
        if not self._allow_uplift_signature or found.keys() & {names.ID, names.TIMESTAMP, names.SIGNATURE}:
            message_id = self._verify_standard(content, found)
        else:
            self._verify_uplift(content, found)
            message_id = None
        return parse_object(content), message_id

    def _verify_standard(self, body: bytes, found: dict[str, str]) -> str:
        """Verify the Standard Webhooks headers and return the signed message ID."""
        missing = [name for name in (names.ID, names.TIMESTAMP, names.SIGNATURE) if not found.get(name)]
        if missing:
            raise WebhookVerificationError(
                "missing_header",
                f"The request has no {' and no '.join(missing)} header.",
                "The request has x-uplift-signature-256: to accept it, set allow_uplift_signature=True."
                if names.UPLIFT_SIGNATURE in found and len(missing) == 3
                else _PASSED_ON,
            )
        message_id, timestamp = found[names.ID], found[names.TIMESTAMP]
        self._check_timestamp(timestamp)
        tokens = found[names.SIGNATURE].split()
        received = [token[3:].encode("ascii") for token in tokens if token.startswith("v1,")]
        if not received or len(tokens) > SIGNATURES_MAX:
            raise WebhookVerificationError(
                "malformed_header",
                f"The {names.SIGNATURE} header has no v1 signature, or has more than {SIGNATURES_MAX} tokens.",
                _PASSED_ON,
            )
        expected = [
            standard_signature(secret.standard_key, message_id.encode("ascii"), timestamp.encode("ascii"), body)
            for secret in self._secrets
        ]
        _check_match(expected, received)
        return message_id

    def _check_timestamp(self, text: str) -> None:
        """Reject a timestamp that is too old or in the future, because the request may be a replay."""
        if not text.isdigit() or len(text) > _TIMESTAMP_DIGITS_MAX:
            raise WebhookVerificationError(
                "malformed_header", f"The {names.TIMESTAMP} header is not a Unix timestamp in seconds.", _PASSED_ON
            )
        # The header has whole seconds. Truncate the current time too, so that the limits are exact.
        age = int(time.time()) - int(text)
        if age > self._tolerance_seconds:
            raise WebhookVerificationError(
                "timestamp_too_old",
                f"The signature is {age} seconds old. The limit is {self._tolerance_seconds} seconds.",
                "Check the clock of this machine. If the clock is correct, the request was delayed or replayed.",
            )
        if -age > self._tolerance_seconds:
            raise WebhookVerificationError(
                "timestamp_too_new",
                f"The signature is {-age} seconds in the future. The limit is {self._tolerance_seconds} seconds.",
                "Check the clock of this machine.",
            )

    def _verify_uplift(self, body: bytes, found: dict[str, str]) -> None:
        """Verify `x-uplift-signature-256`, which covers only the body."""
        received = found.get(names.UPLIFT_SIGNATURE)
        if not received:
            raise WebhookVerificationError("missing_header", "The request has no signature.", _PASSED_ON)
        expected = [uplift_signature(secret.uplift_key, body) for secret in self._secrets]
        _check_match(expected, [received.encode("ascii")])


def _check_match(expected: list[bytes], received: list[bytes]) -> None:
    """Raise an error unless at least one signature matches. Compare all pairs in constant time."""
    matches = 0
    for signature in expected:
        for candidate in received:
            matches += hmac.compare_digest(signature, candidate)
    if not matches:
        raise WebhookVerificationError(
            "no_matching_signature", "No signature in the request matches the body and the secret.", _RAW_BODY
        )


def _bytes(body: object) -> bytes:
    if isinstance(body, bytes):
        return body
    if isinstance(body, bytearray):
        return bytes(body)
    raise WebhookVerificationError(
        "body_not_bytes",
        f"The body has the type {type(body).__name__}, but the signature covers the raw bytes.",
        "Pass the raw bytes of the body before you parse it: Flask request.get_data(), Django request.body, FastAPI "
        "await request.body().",
    )


def _read_secrets(secret: object) -> tuple[Secret, ...]:
    """Return the given secrets, or the secrets from the environment variable."""
    if secret is None:
        texts: list[object] = list(os.environ.get(SECRET_VARIABLE, "").split())
        origin = f"The environment variable {SECRET_VARIABLE} is not set."
    elif isinstance(secret, Iterable) and not isinstance(secret, str | bytes):
        texts = list(secret)
        origin = "The list of secrets is empty."
    else:
        texts = [secret]
        origin = ""
    if not texts:
        raise WebhookVerificationError(
            "secret_missing",
            origin,
            f"Set {SECRET_VARIABLE} to the endpoint's secret, or pass the secret to Webhook().",
        )
    return tuple(parse_secret(text) for text in texts)
