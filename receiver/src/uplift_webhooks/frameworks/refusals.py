"""What every adapter answers to a request it does not hand on."""

import logging
from dataclasses import dataclass, field
from typing import Final

from uplift_webhooks.deduplication import EventInProgress
from uplift_webhooks.errors import Reason, WebhookVerificationError

BODY_BYTES_MAX: Final = 1024 * 1024
"""Uplift sends at most some 260 KiB: 256 KiB of data in an envelope."""
CONTENT_TYPE: Final = "text/plain; charset=utf-8"
_UNAUTHORIZED: Final[frozenset[Reason]] = frozenset(
    {"missing_header", "timestamp_too_old", "timestamp_too_new", "no_matching_signature"}
)
_LOGGER: Final = logging.getLogger("uplift_webhooks")


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer: its status, one line of text and headers."""

    status: int
    text: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        """The text, as it is sent."""
        return self.text.encode()


class Refused(Exception):
    """Ends the reading of a request with an answer."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal)
        self.refusal = refusal


WRONG_METHOD: Final = Refusal(405, "Webhooks come by POST.", {"Allow": "POST"})
WRONG_LENGTH: Final = Refusal(400, "The content-length header is not a number.")


def too_large(body_bytes_max: int) -> Refusal:
    """For a body of more bytes than that."""
    return Refusal(413, f"The body is larger than {body_bytes_max} bytes.")


def unverified(error: WebhookVerificationError) -> Refusal:
    """For a request that cannot be trusted; also tells the log. The sender shows the text to the endpoint's owner."""
    status = 401 if error.reason in _UNAUTHORIZED else 400
    _LOGGER.warning("refused a webhook with %d: %s", status, error)
    return Refusal(status, str(error))


def in_progress(error: EventInProgress) -> Refusal:
    """For an event that is being handled by another one at this moment.

    Without `Retry-After`: a sender that is asked to wait holds back every other event, too.
    """
    return Refusal(409, str(error))
