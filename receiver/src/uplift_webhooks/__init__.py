"""Verify and read webhooks from Uplift.

>>> from uplift_webhooks import Webhook
>>> webhook = Webhook("whsec_…")                     # doctest: +SKIP
>>> event = webhook.unwrap(request_body, headers)    # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from uplift_webhooks.errors import Reason, WebhookVerificationError
from uplift_webhooks.event import Data, Event
from uplift_webhooks.events import (
    AnyEvent,
    AthleteCreated,
    AthleteUpdated,
    CaptureProcessingFailed,
    DeliveryFailed,
    EndpointDisabled,
    EndpointRecovered,
    EndpointWarned,
    ExportCompleted,
    MovementAnalyticsCreated,
    UnknownEvent,
    WebhookCreated,
)
from uplift_webhooks.explanation import Cause, Explanation
from uplift_webhooks.headers import Headers
from uplift_webhooks.webhook import SECRET_VARIABLE, TOLERANCE_SECONDS, Webhook

if TYPE_CHECKING:
    from uplift_webhooks.api.async_emitter import AsyncEmitter
    from uplift_webhooks.api.emitter import Emitter, EventsRejected

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
    "EndpointWarned",
    "EndpointDisabled",
    "EndpointRecovered",
    "DeliveryFailed",
    "UnknownEvent",
    "Headers",
    "Explanation",
    "Cause",
    "Emitter",
    "AsyncEmitter",
    "EventsRejected",
    "SECRET_VARIABLE",
    "TOLERANCE_SECONDS",
]
__version__ = "0.1.2"

_OF_THE_CLIENT: Final = {
    "Emitter": "uplift_webhooks.api.emitter",
    "EventsRejected": "uplift_webhooks.api.emitter",
    "AsyncEmitter": "uplift_webhooks.api.async_emitter",
}


def __getattr__(name: str) -> Any:
    """Import the emitter on first use, so that receivers do not load the API client."""
    if name in _OF_THE_CLIENT:
        return getattr(import_module(_OF_THE_CLIENT[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
