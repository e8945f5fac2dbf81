"""Classes for the event types in the catalog.

>>> match webhook.unwrap(body, headers):                        # doctest: +SKIP
...     case MovementAnalyticsCreated() as event:
...         download(event.object.data.url)
...     case UnknownEvent() as event:
...         log.info("ignored: %s", event.type)
"""

from dataclasses import dataclass
from typing import Any, Final

from uplift_webhooks.errors import WebhookVerificationError
from uplift_webhooks.event import Data, Event
from uplift_webhooks.resources import (
    AthleteProfile,
    EndpointHealth,
    Export,
    FailedCapture,
    FailedDelivery,
    RegisteredEndpoint,
    Session,
    read,
)


@dataclass(frozen=True, slots=True)
class MovementAnalyticsCreated(Event):
    """`movement.analytics.created`: a capture has been processed and its kinematics are ready.

    If a session is processed again, another event has the same session ID. Use the newest event.
    """

    @property
    def object(self) -> Session:
        """The processed session, with a link to its data."""
        return read(Session, self.data)


@dataclass(frozen=True, slots=True)
class WebhookCreated(Event):
    """`webhook.created`: the registration event. A new endpoint receives it once, regardless of its subscription."""

    @property
    def object(self) -> RegisteredEndpoint:
        """The new endpoint."""
        return read(RegisteredEndpoint, self.data)


@dataclass(frozen=True, slots=True)
class CaptureProcessingFailed(Event):
    """`capture.processing.failed`: a capture could not be processed and has no data."""

    @property
    def object(self) -> FailedCapture:
        """The failed capture and its error."""
        return read(FailedCapture, self.data)


@dataclass(frozen=True, slots=True)
class AthleteCreated(Event):
    """`athlete.created`: an athlete was added to the organization."""

    @property
    def object(self) -> AthleteProfile:
        """The new athlete."""
        return read(AthleteProfile, self.data)


@dataclass(frozen=True, slots=True)
class AthleteUpdated(Event):
    """`athlete.updated`: an athlete's profile changed."""

    @property
    def object(self) -> AthleteProfile:
        """The athlete's current profile. `changed` contains the names of the changed fields."""
        return read(AthleteProfile, self.data)


@dataclass(frozen=True, slots=True)
class ExportCompleted(Event):
    """`export.completed`: a requested data export is ready."""

    @property
    def object(self) -> Export:
        """The export job, with a link to the exported rows."""
        return read(Export, self.data)


@dataclass(frozen=True, slots=True)
class EndpointWarned(Event):
    """`endpoint.warned`: an endpoint has been failing for a long time. If it keeps failing, the server disables it."""

    @property
    def object(self) -> EndpointHealth:
        """The failing endpoint. If it keeps failing, the server disables it at `disable_at`."""
        return read(EndpointHealth, self.data)


@dataclass(frozen=True, slots=True)
class EndpointDisabled(Event):
    """`endpoint.disabled`: the server disabled an endpoint and holds its deliveries."""

    @property
    def object(self) -> EndpointHealth:
        """The disabled endpoint. `disabled_reason` is the reason."""
        return read(EndpointHealth, self.data)


@dataclass(frozen=True, slots=True)
class EndpointRecovered(Event):
    """`endpoint.recovered`: an attempt succeeded after a warning."""

    @property
    def object(self) -> EndpointHealth:
        """The endpoint. `recovered_at` is the time of the successful attempt."""
        return read(EndpointHealth, self.data)


@dataclass(frozen=True, slots=True)
class DeliveryFailed(Event):
    """`delivery.failed`: deliveries to an endpoint failed, and the server does not retry them."""

    @property
    def object(self) -> FailedDelivery:
        """The latest failed delivery.

        `count` is the number of failed deliveries since the previous `delivery.failed` event.
        """
        return read(FailedDelivery, self.data)


@dataclass(frozen=True, slots=True)
class UnknownEvent(Event):
    """An event whose type has no class in this library, such as a newer type, or a type that your operator created."""


AnyEvent = (
    MovementAnalyticsCreated
    | WebhookCreated
    | CaptureProcessingFailed
    | AthleteCreated
    | AthleteUpdated
    | ExportCompleted
    | EndpointWarned
    | EndpointDisabled
    | EndpointRecovered
    | DeliveryFailed
    | UnknownEvent
)
"""An event that `Webhook.unwrap` returns. To distinguish the classes, use `match` or `isinstance`."""

KINDS: Final[dict[str, type[AnyEvent]]] = {
    "movement.analytics.created": MovementAnalyticsCreated,
    "webhook.created": WebhookCreated,
    "capture.processing.failed": CaptureProcessingFailed,
    "athlete.created": AthleteCreated,
    "athlete.updated": AthleteUpdated,
    "export.completed": ExportCompleted,
    "endpoint.warned": EndpointWarned,
    "endpoint.disabled": EndpointDisabled,
    "endpoint.recovered": EndpointRecovered,
    "delivery.failed": DeliveryFailed,
}
"""The classes for the catalog's events. The keys are event types."""


def read_event(envelope: dict[str, Any], message_id: str | None) -> AnyEvent:
    """Return the event that an envelope contains, as an instance of the class for its type.

    The signed `webhook-id` (`message_id`) replaces a missing `id`. Other senders of Standard Webhooks omit
    `api_version` and `created`. In their events, `api_version` is empty and `created` is 0.

    Raises:
        WebhookVerificationError: `body_not_event` if a member has the wrong type, or if `type`, `data` or both IDs are
            missing.
    """
    member = envelope.get
    event_id = _text(member("id"), "id") or message_id
    if not event_id:
        raise _no_event("id")
    type_name = _text(member("type"), "type")
    if not type_name:
        raise _no_event("type")
    api_version = _text(member("api_version"), "api_version")
    created = member("created")
    if created is None:
        created = 0
    # In Python, booleans are integers.
    elif not isinstance(created, int) or isinstance(created, bool):
        raise _no_event("created")
    if "data" not in envelope:
        raise _no_event("data")
    data = envelope["data"]
    if isinstance(data, dict):
        data = Data(data)
    return KINDS.get(type_name, UnknownEvent)(event_id, type_name, api_version, created, data, envelope)


def _text(value: object, name: str) -> str:
    """Return the value of a string member in the envelope, or an empty string if the member is missing."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    raise _no_event(name)


def _no_event(name: str) -> WebhookVerificationError:
    return WebhookVerificationError(
        "body_not_event",
        f"The body is signed, but its field {name!r} is missing or has the wrong type.",
        "Check whether another sender uses the same secret. For bodies that are not Uplift events, use verify().",
    )
