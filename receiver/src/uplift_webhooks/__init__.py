"""Verify and read webhooks from Uplift.

>>> from uplift_webhooks import Webhook
>>> webhook = Webhook("whsec_…")                     # doctest: +SKIP
>>> event = webhook.unwrap(request_body, headers)    # doctest: +SKIP
"""

from uplift_webhooks.errors import Reason, WebhookVerificationError
from uplift_webhooks.event import Data, Event
from uplift_webhooks.events import (
    AnyEvent,
    AthleteCreated,
    AthleteUpdated,
    CaptureProcessingFailed,
    ExportCompleted,
    MovementAnalyticsCreated,
    UnknownEvent,
    WebhookCreated,
)
from uplift_webhooks.explanation import Cause, Explanation
from uplift_webhooks.headers import Headers
from uplift_webhooks.webhook import SECRET_VARIABLE, TOLERANCE_SECONDS, Webhook

__all__ = [
    "Webhook",
    "WebhookVerificationError",
    "Reason",
    "Event",
    "Data",
    "AnyEvent",
    "MovementAnalyticsCreated",
    "WebhookCreated",
    "CaptureProcessingFailed",
    "AthleteCreated",
    "AthleteUpdated",
    "ExportCompleted",
    "UnknownEvent",
    "Headers",
    "Explanation",
    "Cause",
    "SECRET_VARIABLE",
    "TOLERANCE_SECONDS",
]
__version__ = "0.1.2"
