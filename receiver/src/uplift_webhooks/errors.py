"""The error for a request that fails verification."""

from typing import Literal

Reason = Literal[
    "secret_missing",
    "secret_invalid",
    "body_not_bytes",
    "headers_unreadable",
    "missing_header",
    "malformed_header",
    "timestamp_too_old",
    "timestamp_too_new",
    "no_matching_signature",
    "body_not_json_object",
    "body_not_event",
]
"""Codes that state why a request was rejected. Later versions can add codes, but never rename them."""


class WebhookVerificationError(ValueError):
    """Raised for a request that is not authentic or not valid, and for a missing or invalid secret.

    Respond with 400 or 401. You can log the error: it does not contain the secret, a computed signature or any part of
    the body.
    """

    reason: Reason
    """A stable code that programs can compare."""
    cause: str
    """One sentence that states the cause."""
    hint: str
    """One sentence that says how to fix the problem."""

    def __init__(self, reason: Reason, cause: str, hint: str) -> None:
        """Set the attributes. Set `args`, too, so that pickle can copy the error."""
        super().__init__(reason, cause, hint)
        self.reason = reason
        self.cause = cause
        self.hint = hint

    def __str__(self) -> str:
        """Return the cause, the hint and the code in one line."""
        return f"{self.cause} {self.hint} [{self.reason}]"
