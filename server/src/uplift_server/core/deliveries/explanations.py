"""Why an event did or did not reach an endpoint: a reason, what happened in words, and what to do about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from uplift_server.core.deliveries.outcomes import Explanation
from uplift_server.core.events.subscriptions import Subscription
from uplift_server.core.lifecycle import FailedReason, Status
from uplift_server.core.scheduling.waiting import Waiting, WaitingFor
from uplift_server.core.timestamps import format_timestamp

_PATTERNS_SHOWN_MAX: Final = 5
_ENDED: Final = frozenset({Status.DELIVERED, Status.FAILED})
_NOTHING_SENT: Final = (
    "Wait: nothing is lost. Whoever runs this service sees what keeps it from sending with `uplift-server doctor`: no"
    " worker runs, or outcomes cannot be written."
)


class Reason(StrEnum):
    """Where a delivery stands, or why there is none."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    HELD = "held"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    NOT_SUBSCRIBED = "not_subscribed"
    ENDPOINT_NEWER = "endpoint_newer"
    ENDPOINT_DELETED = "endpoint_deleted"
    DEVELOPMENT_ENDPOINT = "development_endpoint"


@dataclass(frozen=True, slots=True)
class EventFacts:
    """What is known of the event. Instants are Unix ms."""

    type: str
    created_at: int
    expires_at: int | None = None
    for_one_endpoint: bool = False
    """Whether it was made for one endpoint alone, as greetings and tests are."""
    is_test: bool = False


@dataclass(frozen=True, slots=True)
class EndpointFacts:
    """What is known of an endpoint that exists. Instants are Unix ms."""

    state: str
    """`enabled`, `paused` or `disabled`."""
    created_at: int
    updated_at: int
    patterns: Sequence[str]
    """What it subscribes to today."""
    next_probe_at: int | None = None
    """While its breaker is open."""


@dataclass(frozen=True, slots=True)
class DeliveryFacts:
    """How the delivery stands. Instants are Unix ms."""

    status: Status
    waiting: Waiting | None
    """What a pending one waits for; None while an attempt is in flight."""
    attempts_made: int
    completed_at: int | None
    failed_reason: FailedReason | None
    failure: Explanation | None = None
    """Of its last attempt, if that failed."""


@dataclass(frozen=True, slots=True)
class DeliveryExplanation:
    """The answer."""

    reason: Reason
    text: str
    hint: str | None = None


def explain_delivery(
    event: EventFacts, endpoint: EndpointFacts | None, delivery: DeliveryFacts | None, *, now_ms: int, sends: bool
) -> DeliveryExplanation:
    """Why the event did or did not reach the endpoint, which is None where it was deleted.

    `sends` is whether there is a process that may begin an attempt now.
    """
    if delivery is None:
        assert endpoint is not None, "nothing joins an event to an endpoint that is gone but a delivery"
        return _no_delivery(event, endpoint)
    if delivery.status in _ENDED:
        return _ended(event, delivery, deleted=endpoint is None)
    if endpoint is None:
        return DeliveryExplanation(
            Reason.ENDPOINT_DELETED,
            f"The endpoint was deleted before the event was delivered.{_so_far(delivery)}",
            "Register the URL again for what is to come.",
        )
    if delivery.status is Status.PENDING:
        return _pending(endpoint, delivery, now_ms, sends=sends)
    return _held(endpoint) if delivery.status is Status.HELD else _cancelled(delivery)


def explain_deleted_endpoint(event: EventFacts, endpoint: EndpointFacts, deleted_at: int) -> DeliveryExplanation:
    """Why a deleted endpoint has no delivery of the event. `deleted_at` is in Unix ms."""
    newer = endpoint.created_at > event.created_at
    subscribed = Subscription(endpoint.patterns).matches(event.type)
    if deleted_at > event.created_at and (event.for_one_endpoint or newer or not subscribed):
        found = _no_delivery(event, endpoint)
        return DeliveryExplanation(found.reason, found.text)
    return DeliveryExplanation(
        Reason.ENDPOINT_DELETED,
        f"The endpoint was deleted at {format_timestamp(deleted_at)}. The event was accepted at"
        f" {format_timestamp(event.created_at)}.",
        "Register the URL again to receive future events.",
    )


def explain_removed_delivery(*, delivered: bool) -> DeliveryExplanation:
    """Why there is no delivery where attempts tell that there was one: what is old goes, the deliveries first."""
    what = "It was delivered" if delivered else "It was attempted, and not delivered"
    text = f"{what}. How is not known any more: the event is older than what is kept, and is being removed."
    return DeliveryExplanation(Reason.DELIVERED if delivered else Reason.FAILED, text)


def explain_listen_session(description: str) -> DeliveryExplanation:
    """Why there is no delivery to a listen session."""
    whose = f" ({description})" if description else ""
    return DeliveryExplanation(
        Reason.DEVELOPMENT_ENDPOINT,
        f"This is a developer's listen session{whose}: it is owed nothing, and reads the account's events while"
        " somebody is connected.",
        "The session keeps what was answered there.",
    )


def _no_delivery(event: EventFacts, endpoint: EndpointFacts) -> DeliveryExplanation:
    if event.for_one_endpoint:
        text = f"This {event.type} was made for one endpoint alone, whatever others subscribe to."
        return DeliveryExplanation(Reason.NOT_SUBSCRIBED, text)
    if endpoint.created_at > event.created_at:
        text = (
            f"The endpoint was registered at {format_timestamp(endpoint.created_at)}, after the event was accepted at"
            f" {format_timestamp(event.created_at)}."
        )
        return DeliveryExplanation(Reason.ENDPOINT_NEWER, text, "Send the event again if the endpoint needs it.")
    if Subscription(endpoint.patterns).matches(event.type):
        return DeliveryExplanation(
            Reason.NOT_SUBSCRIBED,
            f"The endpoint wants {event.type} today, and did not when the event was accepted at"
            f" {format_timestamp(event.created_at)}.",
            "Send the event again if the endpoint needs it.",
        )
    text = f"The endpoint subscribes to {_listed(endpoint.patterns)}, and this is {event.type}."
    if endpoint.updated_at > event.created_at:
        text += " The endpoint was changed since the event was accepted: this is judged by its subscription of today."
    return DeliveryExplanation(
        Reason.NOT_SUBSCRIBED, text, f"Add {event.type} to its event types if it is to get such events."
    )


def _ended(event: EventFacts, delivery: DeliveryFacts, *, deleted: bool) -> DeliveryExplanation:
    if delivery.status is Status.DELIVERED:
        instant = "" if delivery.completed_at is None else f" at {format_timestamp(delivery.completed_at)}"
        return DeliveryExplanation(Reason.DELIVERED, f"It was delivered{instant}.{_made(delivery)}")
    if delivery.failed_reason is FailedReason.EXPIRED:
        instant = "" if event.expires_at is None else f" at {format_timestamp(event.expires_at)}"
        text = f"The event expired{instant}, before it was delivered.{_so_far(delivery)}"
        return DeliveryExplanation(Reason.EXPIRED, text, "Send a new event; this one is not sent any more.")
    spent = "This was a test, which is made once." if event.is_test else "The schedule of attempts is spent."
    then = "Then send another test." if event.is_test else "Then resend the delivery."
    return DeliveryExplanation(Reason.FAILED, spent + _so_far(delivery), _remedy(delivery, None if deleted else then))


def _cancelled(delivery: DeliveryFacts) -> DeliveryExplanation:
    return DeliveryExplanation(
        Reason.CANCELLED,
        f"It was cancelled, or dropped when its endpoint was enabled.{_so_far(delivery)}",
        "Resend the delivery if it is wanted after all.",
    )


def _held(endpoint: EndpointFacts) -> DeliveryExplanation:
    if endpoint.state == "enabled":
        return DeliveryExplanation(
            Reason.HELD,
            "It was kept when its endpoint was enabled.",
            "Enable the endpoint again, and choose to send or to drop what is held.",
        )
    return DeliveryExplanation(
        Reason.HELD,
        f"Its endpoint is {endpoint.state}; nothing is lost meanwhile.",
        "Enable the endpoint, and choose to send what is held.",
    )


def _pending(endpoint: EndpointFacts, delivery: DeliveryFacts, now_ms: int, *, sends: bool) -> DeliveryExplanation:
    number, waiting = delivery.attempts_made + 1, delivery.waiting
    then = None
    if waiting is None:
        text = f"Attempt {number} is in flight."
    elif waiting.what is WaitingFor.WORKER:
        text = f"A worker handles it: attempt {number} is in flight, or waits for its turn."
    elif waiting.what is WaitingFor.PROBE:
        text = "The endpoint fails so often that it is only probed; this waits meanwhile, without spending attempts."
        text += _probe(endpoint.next_probe_at, now_ms)
    elif waiting.what is WaitingFor.SCHEDULE and waiting.until is not None:
        text = f"Attempt {number} is due at {format_timestamp(waiting.until)}"
        if endpoint.next_probe_at is not None:
            text += ", or later: the endpoint fails so often that it is only probed"
        text += f".{_probe(endpoint.next_probe_at, now_ms)}"
    elif sends:
        text = f"Attempt {number} is due, and waits for its turn behind what was due before."
    else:
        text, then = f"Attempt {number} is due, and this service sends nothing now.", _NOTHING_SENT
    return DeliveryExplanation(Reason.PENDING, text + _so_far(delivery), _remedy(delivery, then))


def _probe(next_probe_at: int | None, now_ms: int) -> str:
    """When an endpoint that is only probed is tried next."""
    if next_probe_at is None:
        return ""
    if next_probe_at <= now_ms:
        return " It is being probed now."
    return f" The next probe is at {format_timestamp(next_probe_at)}."


def _so_far(delivery: DeliveryFacts) -> str:
    """What came of the attempts that were made."""
    return _made(delivery) + ("" if delivery.failure is None else f" {delivery.failure.cause}")


def _made(delivery: DeliveryFacts) -> str:
    """How many attempts were made: of what was delivered, some may have come later, resent or replayed."""
    if delivery.attempts_made == 0:
        return " No attempt was made."
    return " 1 attempt was made." if delivery.attempts_made == 1 else f" {delivery.attempts_made} attempts were made."


def _remedy(delivery: DeliveryFacts, then: str | None) -> str | None:
    known = [each for each in (delivery.failure and delivery.failure.remedy, then) if each]
    return " ".join(known) or None


def _listed(patterns: Sequence[str]) -> str:
    shown = ", ".join(patterns[:_PATTERNS_SHOWN_MAX])
    more = len(patterns) - _PATTERNS_SHOWN_MAX
    return f"{shown} and {more} more" if more > 0 else shown
