"""The table of delivery transitions, and the functions that must agree with it."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.lifecycle import (
    ENDED,
    EXHAUSTED,
    EXPIRED,
    OPEN,
    SETTLEMENTS,
    TRANSITIONS,
    Due,
    Event,
    Fact,
    FailedReason,
    NextState,
    State,
    Status,
    Trigger,
    after_failure,
    after_skip,
    may_be_sent,
    previous,
    transition,
)
from uplift_server.core.scheduling.retry_schedule import RetrySchedule

NOW_MS = 1_764_000_000_000
PREVIOUS_DUE_AT = NOW_MS + 77
SCHEDULE = RetrySchedule((5000, 300_000))
BEFORE = [None, *Status]


def failure(
    *,
    before: NextState | None = None,
    off: bool = False,
    scheduled_attempts: int = 1,
    expires_at: int | None = None,
    retry_after_ms: int | None = None,
) -> NextState:
    return after_failure(
        before=before,
        off=off,
        scheduled_attempts=scheduled_attempts,
        schedule=SCHEDULE,
        now_ms=NOW_MS,
        expires_at=expires_at,
        retry_after_ms=retry_after_ms,
        draw=0.5,
    )


def facts_before(before: Status | None) -> set[Fact]:
    """Return the facts of a leased delivery that remembers the status `before`, if any."""
    if before is None:
        return set()
    return {Fact.REMEMBERS, *([Fact.REMEMBERS_PENDING] if before is Status.PENDING else [])}


def by_table(event: Event, facts: set[Fact], before: Status | None) -> NextState:
    """Return the state of a leased delivery after an event, according to the table."""
    found = transition(State.LEASED, event, facts)
    assert found is not None
    if found.after is None:
        assert before is not None
        due_at = PREVIOUS_DUE_AT if before is Status.PENDING else None
        return NextState(before, due_at, FailedReason.EXHAUSTED if before is Status.FAILED else None)
    due_at = {None: None, Due.NOW: NOW_MS, Due.RETRY: NOW_MS + 5000}[found.due]
    return NextState(found.after.value[0], due_at, found.reason)


def test_every_row_of_the_table_applies() -> None:
    for row in TRANSITIONS:
        for state in row.before:
            assert transition(state, row.event, set(row.when)) is row, "an earlier row always applies first"
    assert {row.event for row in TRANSITIONS} == set(Event)
    assert {fact for row in TRANSITIONS for fact in (*row.when, *row.unless)} == set(Fact) - {Fact.LEASED_AGAIN}
    assert {row.after for row in TRANSITIONS} == {*State, None} - {State.NEW}


def test_only_pending_deliveries_are_due_and_only_failed_have_a_reason() -> None:
    for row in TRANSITIONS:
        assert (row.due is not None) == (row.after in (State.WAITING, State.LEASED))
        assert (row.reason is not None) == (row.after is State.FAILED)


def test_an_ended_delivery_changes_only_by_resend_or_replay() -> None:
    ended = {State.DELIVERED, State.FAILED, State.CANCELLED}
    assert {row.event for row in TRANSITIONS if ended.intersection(row.before)} == {Event.RESEND, Event.REPLAY}
    assert OPEN == (Status.PENDING, Status.HELD)
    assert ENDED == (Status.DELIVERED, Status.FAILED, Status.CANCELLED)


def test_a_stale_settlement_changes_nothing() -> None:
    for event in SETTLEMENTS:
        assert transition(State.LEASED, event, set()) is not None
        assert transition(State.LEASED, event, {Fact.LEASED_AGAIN}) is None


@pytest.mark.parametrize("blocked", [Fact.IN_FLIGHT, Fact.REMEMBERS, Fact.TEST, Fact.EXPIRED])
def test_a_resend_has_conditions(blocked: Fact) -> None:
    for owner in ({Fact.OWNER}, set()):
        assert transition(State.FAILED, Event.RESEND, {blocked, *owner}) is None


@pytest.mark.parametrize("before", BEFORE)
def test_the_rules_match_the_table(before: Status | None) -> None:
    remembered = previous(before, PREVIOUS_DUE_AT)
    for off, expired, deleted, exhausted in product((False, True), repeat=4):
        facts = facts_before(before) | ({Fact.OFF} if off else set()) | ({Fact.EXPIRED} if expired else set())
        expires_at = NOW_MS if expired else NOW_MS + 5001
        skipped = after_skip(before=remembered, deleted=deleted, off=off, expires_at=expires_at, now_ms=NOW_MS)
        assert skipped == by_table(Event.SKIP, facts | ({Fact.DELETED} if deleted else set()), before)
        failed = failure(before=remembered, off=off, scheduled_attempts=3 if exhausted else 1, expires_at=expires_at)
        assert failed == by_table(Event.FAIL, facts | ({Fact.EXHAUSTED} if exhausted else set()), before)


def test_deliveries_without_expiry_wait_for_their_endpoint() -> None:
    skipped = after_skip(before=None, deleted=False, off=False, expires_at=None, now_ms=NOW_MS)
    assert skipped == NextState(Status.PENDING, NOW_MS)


def test_a_delivery_is_sent_to_an_enabled_endpoint_before_it_expires() -> None:
    def sent(*, enabled: bool = True, expires_at: int | None = None) -> bool:
        return may_be_sent(trigger=Trigger.SCHEDULE, fence=9, enabled=enabled, expires_at=expires_at, now_ms=NOW_MS)

    assert sent()
    assert sent(expires_at=NOW_MS + 1)
    assert not sent(expires_at=NOW_MS)
    assert not sent(enabled=False)


@pytest.mark.parametrize("enabled", [False, True])
def test_a_test_is_sent_once_in_any_state_of_its_endpoint(enabled: bool) -> None:
    def sent(fence: int) -> bool:
        return may_be_sent(trigger=Trigger.TEST, fence=fence, enabled=enabled, expires_at=0, now_ms=NOW_MS)

    assert sent(1)
    assert not sent(2)


def test_a_failure_waits_for_the_schedule() -> None:
    assert failure() == NextState(Status.PENDING, NOW_MS + 5000)
    assert failure(scheduled_attempts=2) == NextState(Status.PENDING, NOW_MS + 300_000)


def test_the_last_failure_ends_a_delivery() -> None:
    assert failure(scheduled_attempts=3) == EXHAUSTED


def test_retry_after_lengthens_a_wait_and_never_shortens_it() -> None:
    assert failure(retry_after_ms=60_000).due_at == NOW_MS + 60_000
    assert failure(retry_after_ms=1).due_at == NOW_MS + 5000


def test_nothing_is_due_at_its_expiry_or_later() -> None:
    assert failure(expires_at=NOW_MS + 5000) == EXPIRED
    assert failure(expires_at=NOW_MS + 5001).status is Status.PENDING
    assert failure(expires_at=NOW_MS + 5001, retry_after_ms=5001) == EXPIRED


@given(
    delays=st.lists(st.integers(0, 10**9), max_size=6),
    scheduled_attempts=st.integers(1, 9),
    now_ms=st.integers(0, 10**14),
    life_ms=st.none() | st.integers(-(10**9), 10**9),
    retry_after_ms=st.none() | st.integers(0, 10**9),
    draw=st.floats(0, 1, exclude_max=True),
)
def test_invariants_of_failures(
    delays: list[int],
    scheduled_attempts: int,
    now_ms: int,
    life_ms: int | None,
    retry_after_ms: int | None,
    draw: float,
) -> None:
    expires_at = None if life_ms is None else now_ms + life_ms
    result = after_failure(
        before=None,
        off=False,
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


def test_public_names() -> None:
    assert [status.text for status in Status] == ["pending", "delivered", "failed", "held", "cancelled"]
    assert [trigger.text for trigger in Trigger] == ["schedule", "resend", "replay", "test"]
    assert [reason.text for reason in FailedReason] == ["exhausted", "expired"]


def test_stored_numbers_never_change() -> None:
    assert [int(status) for status in Status] == [0, 1, 2, 3, 4]
    assert [int(trigger) for trigger in Trigger] == [0, 1, 2, 3]
    assert [int(reason) for reason in FailedReason] == [1, 2]
