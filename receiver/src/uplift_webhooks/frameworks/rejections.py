"""Responses to rejected requests, for all adapters."""

import logging
from dataclasses import dataclass, field
from typing import Final

from uplift_webhooks.deduplication import EventInProgress
from uplift_webhooks.errors import Reason, WebhookVerificationError

BODY_BYTES_MAX: Final = 1024 * 1024
"""Default size limit for a body. Uplift sends at most about 260 KiB: 256 KiB of data in an envelope."""
CONTENT_TYPE: Final = "text/plain; charset=utf-8"
_UNAUTHORIZED: Final[frozenset[Reason]] = frozenset(
    {"missing_header", "timestamp_too_old", "timestamp_too_new", "no_matching_signature"}
)
_LOGGER: Final = logging.getLogger("uplift_webhooks")


@dataclass(frozen=True, slots=True)
class Rejection:
    """A response to a rejected request: status code, one line of text and headers."""

    status: int
    text: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        """The text, encoded as UTF-8."""
        return self.text.encode()


class Rejected(Exception):
    """Raised to stop processing a request and send a response."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__(rejection)
        self.rejection = rejection


WRONG_METHOD: Final = Rejection(405, "Use POST for webhooks.", {"Allow": "POST"})
WRONG_LENGTH: Final = Rejection(400, "The content-length header is not a number.")


def too_large(body_bytes_max: int) -> Rejection:
    """Return the response to a body that is too large."""
    return Rejection(413, f"The body is larger than {body_bytes_max} bytes.")


def unverified(error: WebhookVerificationError) -> Rejection:
    """Log a request that failed verification, and return the response to it.

    Uplift stores the text of the response with the attempt, and shows this text in the dashboard.
    """
    status = 401 if error.reason in _UNAUTHORIZED else 400
    _LOGGER.warning("webhook rejected with %d: %s", status, error)
    return Rejection(status, str(error))


def in_progress(error: EventInProgress) -> Rejection:
    """Return the response for an event that another handler is processing.

    The response has no `Retry-After` header, so that other events are not delayed.
    """
    return Rejection(409, str(error))
