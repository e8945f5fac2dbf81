"""A model of one delivery that follows the table of transitions in `core/lifecycle.py`."""

from dataclasses import dataclass, replace

from uplift_server.core.lifecycle import (
    ENDED,
    Due,
    Effect,
    Event,
    Fact,
    FailedReason,
    State,
    Status,
    Transition,
    Trigger,
)

STATES = {state.value: state for state in State if state.value is not None}


@dataclass(frozen=True)
class Row:
    """The columns of a row of `deliveries` that transitions read or change."""

    status: Status | None = None
    due_at: int | None = None
    lease_owner: int = 0
    fence: int = 0
    attempts_made: int = 0
    scheduled_attempts: int = 0
    trigger: Trigger = Trigger.SCHEDULE
    resume_status: Status | None = None
    resume_due_at: int | None = None
    last_outcome: int | None = None
    failed_reason: FailedReason | None = None
    completed_at: int | None = None
    replay_seq: int | None = None
    order_group: int | None = None

    @property
    def state(self) -> State:
        """The row's state in the table of transitions."""
        return State.NEW if self.status is None else STATES[self.status, self.lease_owner != 0, self.due_at is not None]

    def remembered_facts(self) -> set[Fact]:
        """Return the facts that the delivery remembers about its state and trigger."""
        facts = {Fact.TEST} if self.trigger is Trigger.TEST else set()
        if self.resume_status is not None:
            facts |= {Fact.REMEMBERS}
            facts |= {Fact.REMEMBERS_PENDING} if self.resume_status is Status.PENDING else set()
            facts |= {Fact.REMEMBERS_ENDED} if self.resume_status in ENDED else set()
        return facts


@dataclass(frozen=True)
class Call:
    """The arguments of a transition. For a settlement, `leased` is the row at the time of its lease."""

    now: int
    process_id: int = 0
    lease_until: int | None = None
    retry_at: int | None = None
    outcome: int | None = None
    trigger: Trigger = Trigger.SCHEDULE
    replay_seq: int | None = None
    leased: Row | None = None


def changed(row: Row, step: Transition, call: Call) -> Row:
    """Return the row after a transition."""
    memory = call.leased or row
    status = memory.resume_status if step.after is None else step.after.value[0]
    due = {Due.NOW: call.now, Due.FIRST: call.now, Due.RETRY: call.retry_at, Due.LEASE_END: call.lease_until}
    due_at = memory.resume_due_at if step.after is None else due[step.due] if step.due else None
    new = replace(row, status=status, due_at=due_at, lease_owner=call.process_id if step.after is State.LEASED else 0)
    if Effect.NEW_FENCE in step.effects:
        new = replace(new, fence=row.fence + 1)
    if Effect.COUNT in step.effects:
        is_scheduled = memory.trigger is Trigger.SCHEDULE
        new = replace(
            new,
            attempts_made=row.attempts_made + 1,
            scheduled_attempts=row.scheduled_attempts + is_scheduled,
            last_outcome=call.outcome,
        )
    if {Effect.COUNT, Effect.LEAVE_REPLAY}.intersection(step.effects):
        new = replace(new, replay_seq=None)
    if Effect.REMEMBER in step.effects:
        if row.status is None and step.event is Event.REPLAY:
            # The replay stores the delivery as failed before it leases it.
            new = replace(new, failed_reason=FailedReason.EXHAUSTED, completed_at=call.now)
        return replace(
            new,
            trigger=call.trigger,
            # A new delivery of a replay or test remembers the status `failed`.
            resume_status=Status.FAILED if row.status is None else row.status,
            resume_due_at=call.now if row.state is State.LEASED else row.due_at,
            replay_seq=call.replay_seq,
        )
    if step.event in (Event.UNBLOCK, Event.LEASE, Event.RETURN_LEASE, Event.EXPIRE_LEASE):
        return new
    reason, completed_at = step.reason, call.now if status in ENDED else None
    if row.resume_status is status and status in ENDED:
        # The delivery had already ended with this status, and keeps the earlier time and reason.
        reason, completed_at = row.failed_reason, row.completed_at or call.now
        if status is Status.FAILED:
            reason = reason or FailedReason.EXHAUSTED
    test = row.trigger is Trigger.TEST
    return replace(
        new,
        trigger=Trigger.TEST if test else Trigger.SCHEDULE,
        resume_status=None,
        resume_due_at=None,
        failed_reason=reason,
        completed_at=completed_at,
    )
