"""Reasons and texts that explain the delivery of an event to an endpoint."""

from dataclasses import replace

import pytest

from uplift_server.core.deliveries.causes import Explanation
from uplift_server.core.deliveries.explanations import (
    DeliveryExplanation,
    DeliveryFacts,
    EndpointFacts,
    EventFacts,
    Reason,
    explain_deleted_endpoint,
    explain_delivery,
    explain_listen_session,
    explain_removed_delivery,
)
from uplift_server.core.lifecycle import FailedReason, Status
from uplift_server.core.scheduling.waiting import Waiting, WaitingFor

NOW = 1_764_000_000_000
HOUR = 3_600_000
EVENT = EventFacts("athlete.created", NOW - HOUR)
ENDPOINT = EndpointFacts("enabled", NOW - 9 * HOUR, NOW - 9 * HOUR, ("athlete.*",))
DUE = Waiting(WaitingFor.SCHEDULE, NOW + HOUR)
DELIVERY = DeliveryFacts(Status.PENDING, DUE, 0, None, None)
FAILURE = Explanation("status_500", "500 Internal Server Error", "Your server responded with 500.", "Look at its log.")
ATTEMPTED = replace(DELIVERY, attempts_made=3, failure=FAILURE)


def explain(
    event: EventFacts = EVENT,
    endpoint: EndpointFacts | None = ENDPOINT,
    delivery: DeliveryFacts | None = DELIVERY,
    *,
    sends: bool = True,
) -> DeliveryExplanation:
    return explain_delivery(event, endpoint, delivery, now_ms=NOW, can_send=sends)


# ---- with a delivery


def test_a_delivered_event_has_a_time_and_a_number_of_attempts() -> None:
    done = replace(ATTEMPTED, status=Status.DELIVERED, attempts_made=2, completed_at=NOW)

    for endpoint in (ENDPOINT, None):
        found = explain(endpoint=endpoint, delivery=done)
        assert found == DeliveryExplanation(
            Reason.DELIVERED, "The event was delivered at 2025-11-24T16:00:00.000Z. The server made 2 attempts."
        )
    assert explain(delivery=replace(done, completed_at=None, attempts_made=1)).text.endswith(
        "delivered. The server made 1 attempt."
    )


@pytest.mark.parametrize(
    ("endpoint", "delivery", "text"),
    [
        (ENDPOINT, DELIVERY, "Attempt 1 is due at 2025-11-24T17:00:00.000Z. The server made no attempt."),
        (
            ENDPOINT,
            replace(DELIVERY, waiting=Waiting(WaitingFor.TURN, NOW)),
            "Attempt 1 is due and is waiting in the queue",
        ),
        (ENDPOINT, replace(DELIVERY, waiting=Waiting(WaitingFor.TURN, None)), "Attempt 1 is due and is waiting in the"),
        (
            ENDPOINT,
            replace(ATTEMPTED, waiting=Waiting(WaitingFor.WORKER, None)),
            "A worker has the delivery: attempt 4 is in flight or queued. The server made 3",
        ),
        (
            ENDPOINT,
            replace(ATTEMPTED, waiting=None),
            "Attempt 4 is in flight. The server made 3 attempts. Your server responded",
        ),
        (
            ENDPOINT,
            replace(ATTEMPTED, attempts_made=1),
            "Attempt 2 is due at 2025-11-24T17:00:00.000Z. The server made 1 attempt. ",
        ),
        (
            replace(ENDPOINT, next_probe_at=NOW + 1),
            ATTEMPTED,
            "The next probe is at 2025-11-24T16:00:00.001Z. The server made 3 attempts",
        ),
        (
            replace(ENDPOINT, next_probe_at=NOW + 1),
            ATTEMPTED,
            "Attempt 4 is due at 2025-11-24T17:00:00.000Z or later, because",
        ),
        (replace(ENDPOINT, next_probe_at=NOW), ATTEMPTED, "Attempt 4 is due at"),
        (
            replace(ENDPOINT, next_probe_at=NOW + 1),
            replace(ATTEMPTED, waiting=Waiting(WaitingFor.PROBE, NOW + 1)),
            "keeps its remaining attempts. The next probe is at 2025-11-24T16:00:00.001Z. The server made 3 attempts",
        ),
        (
            replace(ENDPOINT, next_probe_at=NOW),
            replace(ATTEMPTED, waiting=Waiting(WaitingFor.PROBE, NOW)),
            "keeps its remaining attempts. A probe is in flight. The server made 3 attempts",
        ),
    ],
)
def test_a_pending_delivery_has_a_reason_to_wait(endpoint: EndpointFacts, delivery: DeliveryFacts, text: str) -> None:
    found = explain(endpoint=endpoint, delivery=delivery)

    assert found.reason is Reason.PENDING
    assert text in found.text
    assert found.hint == (FAILURE.remedy if delivery.failure else None)


@pytest.mark.parametrize(("blocked_by", "named"), [("dlv_1", "dlv_1"), (None, "another delivery")])
def test_a_blocked_delivery_names_the_one_it_waits_for(blocked_by: str | None, named: str) -> None:
    found = explain(delivery=replace(DELIVERY, waiting=Waiting(WaitingFor.ORDER, None), blocked_by=blocked_by))
    assert found.reason is Reason.PENDING
    assert f"waits for {named}" in found.text
    assert found.hint is not None
    assert "cancel it" in found.hint


def test_due_deliveries_without_a_worker() -> None:
    due = replace(DELIVERY, waiting=Waiting(WaitingFor.TURN, NOW))

    found = explain(delivery=due, sends=False)
    assert found.text == "Attempt 1 is due, but the server is not sending deliveries. The server made no attempt."
    assert found.hint is not None
    assert found.hint.startswith("No event is lost.")
    assert found.hint.endswith("contact the operator.")
    assert explain(sends=False) == explain(), "a delivery that is not due has the same explanation"


def test_a_failed_delivery_has_a_cause_and_a_fix() -> None:
    failed = replace(ATTEMPTED, status=Status.FAILED, failed_reason=FailedReason.EXHAUSTED)

    found = explain(delivery=failed)
    assert found.reason is Reason.FAILED
    assert found.text == "Retries are exhausted. The server made 3 attempts. Your server responded with 500."
    assert found.hint == "Look at its log. Then resend the delivery."
    assert explain(endpoint=None, delivery=failed).hint == "Look at its log."
    assert explain(endpoint=None, delivery=replace(failed, failure=None)).hint is None


def test_a_delivery_that_a_replay_created_and_did_not_attempt_is_explained() -> None:
    failed = replace(DELIVERY, status=Status.FAILED, attempts_made=0)

    found = explain(delivery=failed)
    assert found.text == (
        "A replay created the delivery, and ended it before the attempt, because the replay, the delivery or the"
        " endpoint was paused, disabled or cancelled, or because the event expired."
    )
    assert found.hint == "Enable the endpoint, and resend the delivery."
    assert explain(endpoint=None, delivery=failed).hint is None
    assert explain(replace(EVENT, expires_at=NOW), delivery=failed).hint == "Send a new event."


def test_a_failed_test_delivery_cannot_be_resent() -> None:
    failed = replace(ATTEMPTED, status=Status.FAILED, failed_reason=FailedReason.EXHAUSTED, attempts_made=1)

    found = explain(replace(EVENT, for_one_endpoint=True, is_test=True), delivery=failed)
    assert found.reason is Reason.FAILED
    assert (
        found.text
        == "The server does not retry test events. The server made 1 attempt. Your server responded with 500."
    )
    assert found.hint == "Look at its log. Then send another test event."


def test_an_expired_delivery_has_a_time() -> None:
    expired = replace(DELIVERY, status=Status.FAILED, failed_reason=FailedReason.EXPIRED)

    found = explain(replace(EVENT, expires_at=NOW), delivery=expired)
    assert found.reason is Reason.EXPIRED
    assert found.text == (
        "The event expired at 2025-11-24T16:00:00.000Z before it was delivered. The server made no attempt."
    )
    assert explain(delivery=expired).text.startswith("The event expired before")

    later = replace(EVENT, expires_at=NOW + 1)
    found = explain(later, delivery=expired)
    assert found.text == (
        "The next retry would have started after the event expires at 2025-11-24T16:00:00.001Z. The server made no"
        " attempt."
    )
    assert found.hint == "Resend the delivery before then."
    assert explain(later, endpoint=None, delivery=expired).hint is None


@pytest.mark.parametrize("state", ["paused", "disabled"])
def test_a_held_delivery_names_the_state_of_its_endpoint(state: str) -> None:
    found = explain(endpoint=replace(ENDPOINT, state=state), delivery=replace(DELIVERY, status=Status.HELD))

    assert found.reason is Reason.HELD
    assert f"is {state}" in found.text


@pytest.mark.parametrize(
    ("state", "why"), [("paused", "because its endpoint is paused"), ("enabled", "still held, and")]
)
def test_an_expired_delivery_that_is_still_held_says_so(state: str, why: str) -> None:
    held = replace(DELIVERY, status=Status.HELD)
    found = explain(replace(EVENT, expires_at=NOW), replace(ENDPOINT, state=state), held)

    assert found.reason is Reason.EXPIRED
    assert found.text.startswith("The event expired at 2025-11-24T16:00:00.000Z. ")
    assert why in found.text
    assert found.hint is not None
    later = explain(replace(EVENT, expires_at=NOW + 1), replace(ENDPOINT, state=state), held)
    assert later.reason is Reason.HELD


def test_a_delivery_that_was_kept_on_hold_is_explained() -> None:
    found = explain(delivery=replace(DELIVERY, status=Status.HELD))

    assert (found.reason, found.text) == (Reason.HELD, "The endpoint was enabled, but this delivery stayed held.")
    assert found.hint is not None


def test_a_cancelled_delivery_can_be_resent() -> None:
    found = explain(delivery=replace(DELIVERY, status=Status.CANCELLED))

    assert found.reason is Reason.CANCELLED
    assert "resend" in str(found.hint).lower()


@pytest.mark.parametrize("status", [Status.PENDING, Status.HELD, Status.CANCELLED])
def test_deliveries_of_a_deleted_endpoint(status: Status) -> None:
    found = explain(endpoint=None, delivery=replace(ATTEMPTED, status=status))

    assert found.reason is Reason.ENDPOINT_DELETED
    assert "The server made 3 attempts." in found.text


@pytest.mark.parametrize("endpoint", [ENDPOINT, None])
@pytest.mark.parametrize("status", [Status.PENDING, Status.HELD, Status.CANCELLED])
def test_the_erasure_of_an_event_cancels_its_deliveries(endpoint: EndpointFacts | None, status: Status) -> None:
    found = explain(replace(EVENT, is_erased=True), endpoint, replace(ATTEMPTED, status=status, failure=None))

    assert found == DeliveryExplanation(
        Reason.CANCELLED, "The delivery was cancelled, because the event was erased. The server made 3 attempts."
    )


def test_a_completed_delivery_of_an_erased_event_cannot_be_resent() -> None:
    failed = replace(ATTEMPTED, status=Status.FAILED, failed_reason=FailedReason.EXHAUSTED)
    for delivery in (failed, replace(ATTEMPTED, status=Status.DELIVERED, completed_at=NOW)):
        kept, erased = explain(delivery=delivery), explain(replace(EVENT, is_erased=True), delivery=delivery)
        assert erased == replace(kept, hint=None)


# ---- without a delivery


def test_an_endpoint_has_no_deliveries_of_earlier_events() -> None:
    found = explain(endpoint=replace(ENDPOINT, created_at=NOW), delivery=None)

    assert found.reason is Reason.ENDPOINT_NEWER
    assert "2025-11-24T16:00:00.000Z, after the event was accepted at 2025-11-24T15:00:00.000Z" in found.text


@pytest.mark.parametrize("endpoint", [replace(ENDPOINT, created_at=NOW), replace(ENDPOINT, updated_at=NOW)])
def test_a_replay_can_send_a_missing_event_unless_it_was_erased(endpoint: EndpointFacts) -> None:
    found = explain(endpoint=endpoint, delivery=None)

    assert found.hint == "If the endpoint needs the event, create a replay that includes missing events."
    assert explain(replace(EVENT, is_erased=True), endpoint, None) == replace(found, hint=None)


def test_a_subscription_to_other_types_is_named() -> None:
    found = explain(endpoint=replace(ENDPOINT, patterns=("movement.*", "export.completed")), delivery=None)

    assert found == DeliveryExplanation(
        Reason.NOT_SUBSCRIBED,
        "The endpoint is subscribed to movement.*, export.completed, not to athlete.created.",
        "Add athlete.created to the endpoint's event types to receive these events.",
    )


def test_operational_events_go_only_to_other_endpoints_that_name_them() -> None:
    """The explanation suggests no replay, because a replay cannot create deliveries of operational events."""
    event = replace(EVENT, type="endpoint.warned")
    unnamed = explain(event, replace(ENDPOINT, patterns=()), None)
    named = replace(ENDPOINT, patterns=("endpoint.*",))
    itself, newer = explain(event, replace(named, is_subject=True), None), explain(event, named, None)
    assert {each.reason for each in (unnamed, itself, newer)} == {Reason.NOT_SUBSCRIBED}
    assert "names no event types" in unnamed.text
    assert unnamed.hint == "Add endpoint.warned to the endpoint's event types to receive these events."
    assert "about itself" in itself.text
    assert "was not subscribed to it" in newer.text
    assert itself.hint is newer.hint is None


def test_a_long_subscription_is_truncated() -> None:
    found = explain(endpoint=replace(ENDPOINT, patterns=tuple(f"a.t{n}" for n in range(7))), delivery=None)

    assert "a.t0, a.t1, a.t2, a.t3, a.t4 and 2 more," in found.text


def test_an_updated_subscription_is_reported() -> None:
    changed = replace(ENDPOINT, patterns=("movement.*",), updated_at=NOW)

    assert explain(endpoint=changed, delivery=None).text.endswith("may have been different.")


def test_a_later_subscription_is_reported() -> None:
    found = explain(endpoint=replace(ENDPOINT, updated_at=NOW), delivery=None)

    assert found.reason is Reason.NOT_SUBSCRIBED
    assert "is subscribed to athlete.created now. When the event was accepted at" in found.text


def test_a_filter_that_does_not_match_is_reported_with_the_path() -> None:
    filtered = replace(ENDPOINT, mismatch="data.object.status")
    found = explain(endpoint=filtered, delivery=None)

    assert found.reason is Reason.FILTERED
    assert "data.object.status" in found.text
    assert explain(endpoint=replace(filtered, updated_at=NOW), delivery=None).text.endswith("may have been different.")
    assert explain(endpoint=replace(filtered, created_at=NOW), delivery=None).reason is Reason.ENDPOINT_NEWER
    assert explain(endpoint=replace(filtered, patterns=("a.*",)), delivery=None).reason is Reason.NOT_SUBSCRIBED


@pytest.mark.parametrize(
    ("endpoint", "event", "deleted_at", "reason"),
    [
        (ENDPOINT, EVENT, NOW - 2 * HOUR, Reason.ENDPOINT_DELETED),
        (ENDPOINT, EVENT, NOW, Reason.ENDPOINT_DELETED),
        (replace(ENDPOINT, patterns=("export.*",)), EVENT, NOW - 2 * HOUR, Reason.ENDPOINT_DELETED),
        (replace(ENDPOINT, patterns=("export.*",)), EVENT, NOW, Reason.NOT_SUBSCRIBED),
        (replace(ENDPOINT, created_at=NOW - 1), EVENT, NOW, Reason.ENDPOINT_NEWER),
        (replace(ENDPOINT, mismatch="data.a"), EVENT, NOW, Reason.FILTERED),
        (replace(ENDPOINT, mismatch="data.a"), EVENT, EVENT.created_at, Reason.FILTERED),
        (replace(ENDPOINT, mismatch="data.a"), EVENT, NOW - 2 * HOUR, Reason.ENDPOINT_DELETED),
        (ENDPOINT, replace(EVENT, for_one_endpoint=True), NOW, Reason.NOT_SUBSCRIBED),
    ],
)
def test_a_deleted_endpoint_without_a_delivery_is_explained(
    endpoint: EndpointFacts, event: EventFacts, deleted_at: int, reason: Reason
) -> None:
    found = explain_deleted_endpoint(event, endpoint, deleted_at)
    assert found.reason is reason
    assert (found.hint is not None) == (reason is Reason.ENDPOINT_DELETED)


def test_registration_and_test_events_are_for_one_endpoint() -> None:
    for endpoint in (ENDPOINT, replace(ENDPOINT, created_at=NOW)):
        found = explain(replace(EVENT, for_one_endpoint=True), endpoint, None)
        assert found == DeliveryExplanation(
            Reason.NOT_SUBSCRIBED,
            "This athlete.created event was sent to only one endpoint, regardless of subscriptions.",
        )


def test_a_listen_session_has_no_deliveries() -> None:
    named, unnamed = explain_listen_session("ana-laptop"), explain_listen_session("")
    assert named.reason is unnamed.reason is Reason.DEVELOPMENT_ENDPOINT
    assert "(ana-laptop)" in named.text
    assert "()" not in unnamed.text
    assert named.hint


def test_deliveries_that_retention_is_deleting() -> None:
    delivered, failed = explain_removed_delivery(delivered=True), explain_removed_delivery(delivered=False)
    assert (delivered.reason, failed.reason) == (Reason.DELIVERED, Reason.FAILED)
    assert delivered.text.startswith("The event was delivered. ")
    assert failed.text.startswith("All attempts to deliver the event failed. ")
    assert delivered.hint is failed.hint is None, "no fix is needed"
