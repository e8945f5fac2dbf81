"""Explanations of why an event did or did not reach an endpoint: a reason code, a text and a hint."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from uplift_server.core.deliveries.causes import Explanation
from uplift_server.core.events.operational import OPERATIONAL_TYPES
from uplift_server.core.events.subscriptions import Subscription
from uplift_server.core.lifecycle import FailedReason, Status
from uplift_server.core.scheduling.waiting import Waiting, WaitingFor
from uplift_server.core.timestamps import format_timestamp

_PATTERNS_SHOWN_MAX: Final = 5
_ENDED: Final = frozenset({Status.DELIVERED, Status.FAILED})
_BACKFILL: Final = "If the endpoint needs the event, create a replay that includes missing events."
_NO_WORKER_HINT: Final = (
    "No event is lost. Either no worker is running, or the server cannot store outcomes. If the problem"
    " continues for more than a few minutes, contact the operator."
)

_SKIP_HINT: Final = (
    "The server sends this delivery after the earlier delivery succeeds, fails or is cancelled. To skip the earlier"
    " delivery, cancel it."
)


class Reason(StrEnum):
    """The code of an explanation in the API: the status of the delivery, or the reason why there is no delivery."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    HELD = "held"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    NOT_SUBSCRIBED = "not_subscribed"
    FILTERED = "filtered"
    ENDPOINT_NEWER = "endpoint_newer"
    ENDPOINT_DELETED = "endpoint_deleted"
    DEVELOPMENT_ENDPOINT = "development_endpoint"


@dataclass(frozen=True, slots=True)
class EventFacts:
    """The facts about an event that the server uses to explain a delivery. Times are Unix ms."""

    type: str
    created_at: int
    expires_at: int | None = None
    for_one_endpoint: bool = False
    """Whether the event is for only one endpoint, such as a registration event or a test event."""
    is_test: bool = False
    is_erased: bool = False
    object_id: str | None = None


@dataclass(frozen=True, slots=True)
class EndpointFacts:
    """The facts about an existing or deleted endpoint that the server uses to explain a delivery. Times are Unix ms."""

    state: str
    """The endpoint's state: `enabled`, `paused` or `disabled`."""
    created_at: int
    updated_at: int
    patterns: Sequence[str]
    """The patterns of the endpoint's current subscription."""
    next_probe_at: int | None = None
    """The time of the next probe if the endpoint's circuit breaker is open. Otherwise, None."""
    mismatch: str | None = None
    """The path in the event that does not match the endpoint's current filter. None if the event matches."""
    is_subject: bool = False
    """Whether the event is an operational event about this endpoint."""

    def is_subscribed_to(self, event_type: str) -> bool:
        """Return whether the endpoint's current subscription matches an event type."""
        return Subscription(self.patterns).matches(event_type)


@dataclass(frozen=True, slots=True)
class DeliveryFacts:
    """The facts about a delivery that the server uses to explain the delivery. Times are Unix ms."""

    status: Status
    waiting: Waiting | None
    """Why a pending delivery is waiting, or None while an attempt is in flight."""
    attempts_made: int
    completed_at: int | None
    failed_reason: FailedReason | None
    failure: Explanation | None = None
    """Why the last attempt failed, and how to fix the problem. None if the last attempt did not fail."""
    blocked_by: str | None = None
    """The ID of the earlier delivery that must end before this delivery can start. None if it is not blocked."""


@dataclass(frozen=True, slots=True)
class DeliveryExplanation:
    """The reason why an event did or did not reach an endpoint."""

    reason: Reason
    text: str
    hint: str | None = None


def explain_delivery(
    event: EventFacts, endpoint: EndpointFacts | None, delivery: DeliveryFacts | None, *, now_ms: int, can_send: bool
) -> DeliveryExplanation:
    """Explain the state of a delivery, or why the delivery does not exist.

    `endpoint` is None if the endpoint was deleted. `can_send` is true if any process can start an attempt now.
    """
    if delivery is None:
        assert endpoint is not None, "a deleted endpoint without a delivery is explained by `explain_deleted_endpoint`"
        return _no_delivery(event, endpoint)
    if event.is_erased:
        return _erased(event, delivery, now_ms, deleted=endpoint is None)
    if delivery.status in _ENDED:
        return _ended(event, delivery, now_ms, deleted=endpoint is None)
    if endpoint is None:
        return DeliveryExplanation(
            Reason.ENDPOINT_DELETED,
            f"The endpoint was deleted before the event was delivered.{_progress(delivery)}",
            "Create the endpoint again to receive future events.",
        )
    if delivery.status is Status.PENDING:
        return _pending(endpoint, delivery, now_ms, can_send=can_send)
    return _held(event, endpoint, delivery, now_ms) if delivery.status is Status.HELD else _cancelled(delivery)


def explain_deleted_endpoint(event: EventFacts, endpoint: EndpointFacts, deleted_at: int) -> DeliveryExplanation:
    """Explain why a deleted endpoint has no delivery of the event. `deleted_at` is Unix ms."""
    newer = endpoint.created_at > event.created_at
    matches = endpoint.is_subscribed_to(event.type) and endpoint.mismatch is None
    if deleted_at >= event.created_at and (event.for_one_endpoint or newer or not matches):
        found = _no_delivery(event, endpoint)
        return DeliveryExplanation(found.reason, found.text)
    return DeliveryExplanation(
        Reason.ENDPOINT_DELETED,
        f"The endpoint was deleted at {format_timestamp(deleted_at)}. The event was accepted at"
        f" {format_timestamp(event.created_at)}.",
        "Create the endpoint again to receive future events.",
    )


def explain_removed_delivery(*, delivered: bool) -> DeliveryExplanation:
    """Explain the state of a delivery that retention has deleted. Its attempts still exist."""
    what = "The event was delivered" if delivered else "All attempts to deliver the event failed"
    text = f"{what}. Details are no longer available, because the event is older than the retention period."
    return DeliveryExplanation(Reason.DELIVERED if delivered else Reason.FAILED, text)


def explain_listen_session(description: str) -> DeliveryExplanation:
    """Explain that a listen session has no deliveries."""
    whose = f" ({description})" if description else ""
    return DeliveryExplanation(
        Reason.DEVELOPMENT_ENDPOINT,
        f"This is a developer's listen session{whose}. It has no deliveries. It streams the account's events while a"
        " client is connected.",
        "See the session's responses on the Developers page of the dashboard.",
    )


def _no_delivery(event: EventFacts, endpoint: EndpointFacts) -> DeliveryExplanation:
    if event.for_one_endpoint:
        text = f"This {event.type} event was sent to only one endpoint, regardless of subscriptions."
        return DeliveryExplanation(Reason.NOT_SUBSCRIBED, text)
    is_operational = event.type in OPERATIONAL_TYPES
    if endpoint.is_subject:
        return DeliveryExplanation(Reason.NOT_SUBSCRIBED, "An endpoint receives no operational events about itself.")
    hint = None if event.is_erased or is_operational else _BACKFILL
    if endpoint.created_at > event.created_at:
        text = (
            f"The endpoint was created at {format_timestamp(endpoint.created_at)}, after the event was accepted at"
            f" {format_timestamp(event.created_at)}."
        )
        return DeliveryExplanation(Reason.ENDPOINT_NEWER, text, hint)
    if not endpoint.is_subscribed_to(event.type):
        text = (
            f"The endpoint is subscribed to {_pattern_list(endpoint.patterns)}, not to {event.type}."
            if endpoint.patterns
            else "The endpoint's subscription names no event types. The server sends operational events only to"
            " endpoints whose subscription names their type."
        )
        then = f"Add {event.type} to the endpoint's event types to receive these events."
        return DeliveryExplanation(Reason.NOT_SUBSCRIBED, text + _update(event, endpoint, "subscription"), then)
    if endpoint.mismatch is not None:
        text = f"The event does not match the endpoint's filter at {endpoint.mismatch}."
        then = "If the endpoint needs these events, change its filter."
        return DeliveryExplanation(Reason.FILTERED, text + _update(event, endpoint, "filter"), then)
    return DeliveryExplanation(
        Reason.NOT_SUBSCRIBED,
        f"The endpoint is subscribed to {event.type} now. When the event was accepted at"
        f" {format_timestamp(event.created_at)}, the endpoint was not subscribed to it, or had a filter that the event"
        " did not match.",
        hint,
    )


def _update(event: EventFacts, endpoint: EndpointFacts, what: str) -> str:
    if endpoint.updated_at <= event.created_at:
        return ""
    return f" The endpoint was updated after the event was accepted, so its {what} may have been different."


def _ended(event: EventFacts, delivery: DeliveryFacts, now_ms: int, *, deleted: bool) -> DeliveryExplanation:
    if delivery.status is Status.DELIVERED:
        time = "" if delivery.completed_at is None else f" at {format_timestamp(delivery.completed_at)}"
        return DeliveryExplanation(Reason.DELIVERED, f"The event was delivered{time}.{_attempt_count(delivery)}")
    will_expire = event.expires_at is not None and event.expires_at > now_ms
    if delivery.failed_reason is FailedReason.EXPIRED:
        time = "" if event.expires_at is None else f" at {format_timestamp(event.expires_at)}"
        if will_expire:
            text = f"The next retry would have started after the event expires{time}.{_progress(delivery)}"
            return DeliveryExplanation(Reason.EXPIRED, text, None if deleted else "Resend the delivery before then.")
        text = f"The event expired{time} before it was delivered.{_progress(delivery)}"
        return DeliveryExplanation(Reason.EXPIRED, text, "Send a new event.")
    if not delivery.attempts_made and not event.is_test:
        text = (
            "A replay created the delivery, and ended it before the attempt, because the replay, the delivery or the"
            " endpoint was paused, disabled or cancelled, or because the event expired."
        )
        is_expired = event.expires_at is not None and not will_expire
        hint = (
            "Send a new event." if is_expired else None if deleted else "Enable the endpoint, and resend the delivery."
        )
        return DeliveryExplanation(Reason.FAILED, text, hint)
    text = "The server does not retry test events." if event.is_test else "Retries are exhausted."
    then = "Then send another test event." if event.is_test else "Then resend the delivery."
    return DeliveryExplanation(Reason.FAILED, text + _progress(delivery), _hint(delivery, None if deleted else then))


def _erased(event: EventFacts, delivery: DeliveryFacts, now_ms: int, *, deleted: bool) -> DeliveryExplanation:
    if delivery.status in _ENDED:
        # Omit the hint to resend, because the event was erased.
        return replace(_ended(event, delivery, now_ms, deleted=deleted), hint=None)
    text = f"The delivery was cancelled, because the event was erased.{_progress(delivery)}"
    return DeliveryExplanation(Reason.CANCELLED, text)


def _cancelled(delivery: DeliveryFacts) -> DeliveryExplanation:
    return DeliveryExplanation(
        Reason.CANCELLED,
        f"The delivery was cancelled, or dropped when its endpoint was enabled.{_progress(delivery)}",
        "Resend the delivery if the endpoint needs it.",
    )


def _held(event: EventFacts, endpoint: EndpointFacts, delivery: DeliveryFacts, now_ms: int) -> DeliveryExplanation:
    if event.expires_at is not None and event.expires_at <= now_ms:
        off = "" if endpoint.state == "enabled" else f" because its endpoint is {endpoint.state}"
        return DeliveryExplanation(
            Reason.EXPIRED,
            f"The event expired at {format_timestamp(event.expires_at)}. The delivery is still held{off}, and the"
            f" server will not send it.{_progress(delivery)}",
            f"{'Enable the endpoint, and send' if off else 'Send'} a new event.",
        )
    if endpoint.state == "enabled":
        return DeliveryExplanation(
            Reason.HELD,
            "The endpoint was enabled, but this delivery stayed held.",
            "Enable the endpoint again, and choose to send or drop its held deliveries.",
        )
    return DeliveryExplanation(
        Reason.HELD,
        f"The delivery is held because its endpoint is {endpoint.state}.",
        "Enable the endpoint, and choose to send its held deliveries.",
    )


def _pending(endpoint: EndpointFacts, delivery: DeliveryFacts, now_ms: int, *, can_send: bool) -> DeliveryExplanation:
    number, waiting = delivery.attempts_made + 1, delivery.waiting
    then = None
    if waiting is None:
        text = f"Attempt {number} is in flight."
    elif waiting.what is WaitingFor.ORDER:
        earlier = delivery.blocked_by or "another delivery"
        text = f"The delivery waits for {earlier}, because its endpoint receives deliveries in order."
        then = _SKIP_HINT
    elif waiting.what is WaitingFor.WORKER:
        text = f"A worker has the delivery: attempt {number} is in flight or queued."
    elif waiting.what is WaitingFor.PROBE:
        text = "The endpoint's circuit breaker is open. The delivery waits and keeps its remaining attempts."
        text += _probe(endpoint.next_probe_at, now_ms)
    elif waiting.what is WaitingFor.SCHEDULE and waiting.until is not None:
        text = f"Attempt {number} is due at {format_timestamp(waiting.until)}"
        if endpoint.next_probe_at is not None:
            text += " or later, because the endpoint's circuit breaker is open"
        text += f".{_probe(endpoint.next_probe_at, now_ms)}"
    elif can_send:
        text = f"Attempt {number} is due and is waiting in the queue."
    else:
        text, then = f"Attempt {number} is due, but the server is not sending deliveries.", _NO_WORKER_HINT
    return DeliveryExplanation(Reason.PENDING, text + _progress(delivery), _hint(delivery, then))


def _probe(next_probe_at: int | None, now_ms: int) -> str:
    if next_probe_at is None:
        return ""
    if next_probe_at <= now_ms:
        return " A probe is in flight."
    return f" The next probe is at {format_timestamp(next_probe_at)}."


def _progress(delivery: DeliveryFacts) -> str:
    return _attempt_count(delivery) + ("" if delivery.failure is None else f" {delivery.failure.cause}")


def _attempt_count(delivery: DeliveryFacts) -> str:
    """Return a sentence with the number of attempts.

    If the event was delivered, the number includes the attempts of later resends and replays.
    """
    if delivery.attempts_made == 0:
        return " The server made no attempt."
    return (
        " The server made 1 attempt."
        if delivery.attempts_made == 1
        else f" The server made {delivery.attempts_made} attempts."
    )


def _hint(delivery: DeliveryFacts, then: str | None) -> str | None:
    hints = [each for each in (delivery.failure and delivery.failure.remedy, then) if each]
    return " ".join(hints) or None


def _pattern_list(patterns: Sequence[str]) -> str:
    shown = ", ".join(patterns[:_PATTERNS_SHOWN_MAX])
    more = len(patterns) - _PATTERNS_SHOWN_MAX
    return f"{shown} and {more} more" if more > 0 else shown
