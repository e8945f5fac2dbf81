"""The one error a receiver has to catch."""

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
"""Why a request was refused. Codes are added, never renamed."""


class WebhookVerificationError(ValueError):
    """A request that must not be trusted, or a secret that cannot verify any.

    Answer 400 or 401. Neither the text nor the attributes hold a secret, a signature we computed or any part of the
    body, so all of them may be logged.
    """

    reason: Reason
    """A stable code for programs."""
    cause: str
    """One sentence: what is wrong."""
    hint: str
    """One sentence: what to do about it."""

    def __init__(self, reason: Reason, cause: str, hint: str) -> None:
        """Keep all three as `args` too, so that the error survives pickling."""
        super().__init__(reason, cause, hint)
        self.reason = reason
        self.cause = cause
        self.hint = hint

    def __str__(self) -> str:
        """Cause, remedy and code in one line."""
        return f"{self.cause} {self.hint} [{self.reason}]"
