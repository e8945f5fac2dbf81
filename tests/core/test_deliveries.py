"""What an attempt's outcome makes of its delivery."""

from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import FailedReason, Status, Trigger, Verdict, judge
from uplift_server.core.scheduling.retry_schedule import RetrySchedule

NOW_MS = 1_764_000_000_000
SCHEDULE = RetrySchedule((5000, 300_000))
FAILURES = st.sampled_from([outcome for outcome in Outcome if outcome is not Outcome.DELIVERED])


def verdict(
    outcome: Outcome = Outcome.SERVER_ERROR,
    *,
    scheduled_attempts: int = 1,
    expires_at: int | None = None,
    retry_after_ms: int | None = None,
) -> Verdict:
    return judge(
        outcome=outcome,
        scheduled_attempts=scheduled_attempts,
        schedule=SCHEDULE,
        now_ms=NOW_MS,
        expires_at=expires_at,
        retry_after_ms=retry_after_ms,
        draw=0.5,
    )


def test_success_ends_a_delivery_even_after_its_schedule_and_its_expiry() -> None:
    assert verdict(Outcome.DELIVERED, scheduled_attempts=9, expires_at=NOW_MS - 1) == Verdict(Status.DELIVERED)


def test_a_failure_waits_for_the_schedule() -> None:
    assert verdict() == Verdict(Status.PENDING, NOW_MS + 5000)
    assert verdict(scheduled_attempts=2) == Verdict(Status.PENDING, NOW_MS + 300_000)


def test_the_last_failure_ends_it() -> None:
    assert verdict(scheduled_attempts=3) == Verdict(Status.FAILED, None, FailedReason.EXHAUSTED)


def test_retry_after_lengthens_a_wait_and_never_shortens_it() -> None:
    assert verdict(retry_after_ms=60_000).due_at == NOW_MS + 60_000
    assert verdict(retry_after_ms=1).due_at == NOW_MS + 5000


def test_nothing_is_due_at_its_expiry_or_later() -> None:
    expired = Verdict(Status.FAILED, None, FailedReason.EXPIRED)

    assert verdict(expires_at=NOW_MS + 5000) == expired
    assert verdict(expires_at=NOW_MS + 5001).status is Status.PENDING
    assert verdict(expires_at=NOW_MS + 5001, retry_after_ms=5001) == expired


@given(
    outcome=FAILURES,
    delays=st.lists(st.integers(0, 10**9), max_size=6),
    scheduled_attempts=st.integers(1, 9),
    now_ms=st.integers(0, 10**14),
    life_ms=st.none() | st.integers(-(10**9), 10**9),
    retry_after_ms=st.none() | st.integers(0, 10**9),
    draw=st.floats(0, 1, exclude_max=True),
)
def test_promises_of_every_failure(
    outcome: Outcome,
    delays: list[int],
    scheduled_attempts: int,
    now_ms: int,
    life_ms: int | None,
    retry_after_ms: int | None,
    draw: float,
) -> None:
    expires_at = None if life_ms is None else now_ms + life_ms
    result = judge(
        outcome=outcome,
        scheduled_attempts=scheduled_attempts,
        schedule=RetrySchedule(tuple(delays)),
        now_ms=now_ms,
        expires_at=expires_at,
        retry_after_ms=retry_after_ms,
        draw=draw,
    )

    assert (result.due_at is not None) == (result.status is Status.PENDING)
    assert (result.failed_reason is not None) == (result.status is Status.FAILED)
    if result.due_at is not None:
        assert result.due_at >= now_ms + (retry_after_ms or 0)
        assert expires_at is None or result.due_at < expires_at
        assert scheduled_attempts <= len(delays)


def test_names_the_outside_world_sees() -> None:
    assert [status.text for status in Status] == ["pending", "delivered", "failed", "held", "cancelled"]
    assert [trigger.text for trigger in Trigger] == ["schedule", "resend", "replay", "test"]
    assert [reason.text for reason in FailedReason] == ["exhausted", "expired"]


def test_numbers_the_store_keeps_never_change() -> None:
    assert [int(status) for status in Status] == [0, 1, 2, 3, 4]
    assert [int(trigger) for trigger in Trigger] == [0, 1, 2, 3]
    assert [int(reason) for reason in FailedReason] == [1, 2]
