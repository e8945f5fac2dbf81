"""Verification: is this request from Uplift, unchanged and fresh?"""

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
"""Read where no secret is passed. It may hold several, separated by white space, which no secret contains."""
TOLERANCE_SECONDS: Final = 300
"""How far a request's timestamp may be from our clock, either way."""
SIGNATURES_MAX: Final = 16
"""Tokens in one `webhook-signature` header: two live secrets and room for schemes to come, not for making us work."""
_TIMESTAMP_DIGITS_MAX: Final = 15

_RAW_BODY = (
    "Check that the secret is this endpoint's, and pass the body's bytes as they arrived (Flask request.get_data(), "
    "Django request.body, FastAPI await request.body()): parsing and writing JSON again changes them."
)
_PASSED_ON = "Pass all headers of the request; look for a proxy that drops or rewrites them."


class Webhook:
    """Verifies requests with an endpoint's secret. Make one at start-up; it may be shared between threads."""

    def __init__(
        self,
        secret: str | Iterable[str] | None = None,
        *,
        allow_uplift_signature: bool = False,
        tolerance_seconds: float = TOLERANCE_SECONDS,
        debug: bool = False,
    ) -> None:
        """Take the endpoint's secret, several of them while one replaces the other, or None to read the environment.

        `allow_uplift_signature` also accepts requests that carry nothing but `x-uplift-signature-256`. That signature
        covers no timestamp: who has seen one such request can send it again for ever. `debug` makes errors say what
        `explain` finds out; it changes nothing about what is accepted, but costs time, and tells a stranger more.

        Raises:
            WebhookVerificationError: `secret_missing` or `secret_invalid`.
            ValueError: `tolerance_seconds` is negative or no number.
        """
        if math.isnan(tolerance_seconds) or tolerance_seconds < 0:
            raise ValueError("tolerance_seconds must be 0 or more")
        self._secrets: Final = _read_secrets(secret)
        self._allow_uplift_signature: Final = allow_uplift_signature
        self._tolerance_seconds: Final = tolerance_seconds
        self._debug: Final = debug

    def verify(self, body: bytes | bytearray, headers: Headers) -> None:
        """Return if the request is from Uplift, unchanged, fresh and a JSON object.

        `body` is the request's bytes as they arrived; `headers` its headers in any of the usual forms.

        Raises:
            WebhookVerificationError: whatever else is the case.
        """
        self._open(body, headers)

    def unwrap(self, body: bytes | bytearray, headers: Headers) -> AnyEvent:
        """Verify the request, then return the event in it, of the class of its type.

        Raises:
            WebhookVerificationError: as `verify`, or `body_not_event`.
        """
        return read_event(*self._open(body, headers))

    def explain(self, body: bytes | bytearray, headers: Headers) -> Explanation:
        """Whether the request verifies and, if it does not, what is probably the cause.

        For people who look for a mistake: it tries what usually goes wrong, such as a body that was parsed and written
        again. It never raises, accepts nothing, and quotes neither the secret nor a signature of our making.
        """
        try:
            read_event(*self._verified(body, headers))
        except WebhookVerificationError as error:
            return explain(error, self._secrets, body, headers)
        return VERIFIED

    def _open(self, body: object, headers: object) -> tuple[dict[str, Any], str | None]:
        """As `_verified`; the error says more where that is wanted."""
        try:
            return self._verified(body, headers)
        except WebhookVerificationError as error:
            if not self._debug:
                raise
            found = explain(error, self._secrets, body, headers)
            raise WebhookVerificationError(error.reason, found.text, found.hint) from None

    def _verified(self, body: object, headers: object) -> tuple[dict[str, Any], str | None]:
        """The verified body's JSON object, and the message id where that is signed."""
        content = _bytes(body)
        found = read_headers(headers)
        if not self._allow_uplift_signature or found.keys() & {names.ID, names.TIMESTAMP, names.SIGNATURE}:
            message_id = self._verify_standard(content, found)
        else:
            self._verify_uplift(content, found)
            message_id = None
        return parse_object(content), message_id

    def _verify_standard(self, body: bytes, found: dict[str, str]) -> str:
        """Check the Standard Webhooks headers, and return the message id they sign."""
        missing = [name for name in (names.ID, names.TIMESTAMP, names.SIGNATURE) if not found.get(name)]
        if missing:
            raise WebhookVerificationError(
                "missing_header",
                f"The request has no {' and no '.join(missing)} header.",
                "It carries x-uplift-signature-256: allow_uplift_signature=True accepts that alone."
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
                f"The {names.SIGNATURE} header has no v1 signature, or more than {SIGNATURES_MAX} tokens.",
                _PASSED_ON,
            )
        expected = [
            standard_signature(secret.standard_key, message_id.encode("ascii"), timestamp.encode("ascii"), body)
            for secret in self._secrets
        ]
        _check_match(expected, received)
        return message_id

    def _check_timestamp(self, text: str) -> None:
        """Refuse what was signed too long ago, or in the future: both may be a replay."""
        if not text.isdigit() or len(text) > _TIMESTAMP_DIGITS_MAX:
            raise WebhookVerificationError(
                "malformed_header", f"The {names.TIMESTAMP} header is not a number of Unix seconds.", _PASSED_ON
            )
        # The sender's instant is cut to whole seconds; cutting ours keeps the limits where they are said to be.
        age = int(time.time()) - int(text)
        if age > self._tolerance_seconds:
            raise WebhookVerificationError(
                "timestamp_too_old",
                f"The request was signed {age} s ago, where {self._tolerance_seconds} s are tolerated.",
                "Check this machine's clock; if it is right, the request was held back or is a replay.",
            )
        if -age > self._tolerance_seconds:
            raise WebhookVerificationError(
                "timestamp_too_new",
                f"The request was signed {-age} s in the future, where {self._tolerance_seconds} s are tolerated.",
                "Check this machine's clock.",
            )

    def _verify_uplift(self, body: bytes, found: dict[str, str]) -> None:
        """Check the signature that Uplift documents, which covers the body alone."""
        received = found.get(names.UPLIFT_SIGNATURE)
        if not received:
            raise WebhookVerificationError("missing_header", "The request carries no signature.", _PASSED_ON)
        expected = [uplift_signature(secret.uplift_key, body) for secret in self._secrets]
        _check_match(expected, [received.encode("ascii")])


def _check_match(expected: list[bytes], received: list[bytes]) -> None:
    """Refuse unless one signature is as expected. Every pair is compared, in constant time, whatever matched before."""
    matches = 0
    for signature in expected:
        for candidate in received:
            matches += hmac.compare_digest(signature, candidate)
    if not matches:
        raise WebhookVerificationError(
            "no_matching_signature", "No signature of the request fits its body and the secret.", _RAW_BODY
        )


def _bytes(body: object) -> bytes:
    """The body, if it is one that can be verified."""
    if isinstance(body, bytes):
        return body
    if isinstance(body, bytearray):
        return bytes(body)
    raise WebhookVerificationError(
        "body_not_bytes",
        f"The body is of type {type(body).__name__}, but what was signed is the exact bytes that were sent.",
        "Pass the raw body, before anything parses it: Flask request.get_data(), Django request.body, "
        "FastAPI await request.body().",
    )


def _read_secrets(secret: object) -> tuple[Secret, ...]:
    """The secrets passed, or those of the environment."""
    if secret is None:
        texts: list[object] = list(os.environ.get(SECRET_VARIABLE, "").split())
        origin = f"The environment variable {SECRET_VARIABLE} is not set or empty."
    elif isinstance(secret, Iterable) and not isinstance(secret, str | bytes):
        texts = list(secret)
        origin = "The list of secrets is empty."
    else:
        texts = [secret]
        origin = ""
    if not texts:
        raise WebhookVerificationError(
            "secret_missing", origin, f"Pass the endpoint's secret to Webhook(), or set {SECRET_VARIABLE}."
        )
    return tuple(parse_secret(text) for text in texts)
