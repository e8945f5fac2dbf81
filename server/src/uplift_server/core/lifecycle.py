"""The lifecycle of a delivery: states, transitions, and the rules that the delivery engine applies.

TRANSITIONS is the reference. The statuses in SQL statements, the model that the store's tests use, and the table and
diagram in ARCHITECTURE.md are derived from it.
"""

from collections.abc import Set
from dataclasses import dataclass
from enum import Enum
from typing import Final

from uplift_server.core.named_codes import NamedCode
from uplift_server.core.scheduling.retry_schedule import RetrySchedule


class Status(NamedCode):
    """The status of a delivery. The database stores it as a number."""

    PENDING = 0
    DELIVERED = 1
    FAILED = 2
    HELD = 3
    CANCELLED = 4


class Trigger(NamedCode):
    """The cause of an attempt. The database stores it as a number."""

    SCHEDULE = 0
    RESEND = 1
    REPLAY = 2
    TEST = 3


class FailedReason(NamedCode):
    """The reason for status `failed`. The database stores it as a number."""

    EXHAUSTED = 1
    EXPIRED = 2


class State(Enum):
    """The state of a delivery.

    Its value contains the status, whether the delivery is leased, and whether it has a due time.
    """

    NEW = None
    WAITING = (Status.PENDING, False, True)
    BLOCKED = (Status.PENDING, False, False)
    LEASED = (Status.PENDING, True, True)
    HELD = (Status.HELD, False, False)
    DELIVERED = (Status.DELIVERED, False, False)
    FAILED = (Status.FAILED, False, False)
    CANCELLED = (Status.CANCELLED, False, False)


class Event(Enum):
    """An event that can change the state of a delivery."""

    ACCEPT = "event accepted"
    TEST = "test event sent"
    UNBLOCK = "earlier delivery ended"
    LEASE = "leased"
    RETURN_LEASE = "lease returned"
    EXPIRE_LEASE = "lease expired"
    SUCCEED = "attempt succeeded"
    FAIL = "attempt failed"
    SKIP = "due but not sent"
    HOLD = "endpoint paused or disabled"
    RELEASE = "held deliveries released"
    DROP = "held deliveries dropped"
    CANCEL = "cancelled"
    DELETE_ENDPOINT = "endpoint deleted"
    ERASE = "event erased"
    RESEND = "resent"
    REPLAY = "replayed"
    STOP_REPLAY = "replay paused or cancelled"


class Fact(Enum):
    """A condition that a transition can require or exclude."""

    CAPACITY = "endpoint enabled, with capacity"
    ENABLED = "endpoint enabled"
    ORDERED = "ordered"
    BEHIND = "ordered, earlier delivery not ended"
    OWNER = "by the endpoint's worker"
    OFF = "endpoint paused or disabled"
    DELETED = "endpoint deleted"
    DUE = "due"
    LEASED_AGAIN = "leased again"
    IN_FLIGHT = "in flight"
    EXPIRED = "expired"
    EXHAUSTED = "retries exhausted"
    TEST = "a test"
    REMEMBERS = "with a remembered state"
    REMEMBERS_PENDING = "remembered as pending"
    REMEMBERS_ENDED = "remembered as ended"


class Due(Enum):
    """The due time that a transition sets."""

    NOW = "now"
    FIRST = "now, before other deliveries"
    RETRY = "according to the retry schedule"
    LEASE_END = "end of the lease"


class Effect(Enum):
    """A change to the delivery's row, in addition to its state and due time."""

    NEW_FENCE = "new fence"
    REMEMBER = "remembers its state"
    COUNT = "counts the attempt"
    LEAVE_REPLAY = "leaves its replay"


@dataclass(frozen=True, slots=True)
class Transition:
    """One row of TRANSITIONS. The row applies if all facts in `when` and none in `unless` are true."""

    before: tuple[State, ...]
    event: Event
    after: State | None
    """The state after the transition. None means the remembered state.

    The row of a delivery stores the remembered state: the state before a resend, replay or test.
    """
    when: tuple[Fact, ...] = ()
    unless: tuple[Fact, ...] = ()
    due: Due | None = None
    reason: FailedReason | None = None
    effects: tuple[Effect, ...] = ()


_NEW, _LEASED, _HELD = (State.NEW,), (State.LEASED,), (State.HELD,)
_WAITING, _BLOCKED = (State.WAITING,), (State.BLOCKED,)
# In all these states, a settlement is accepted even after its lease has expired, unless the delivery has been leased
# again.
_OPEN: Final = (State.LEASED, State.WAITING, State.BLOCKED, State.HELD)
_PENDING_STATES: Final = _LEASED + _WAITING + _BLOCKED
_ENDED: Final = (State.DELIVERED, State.FAILED, State.CANCELLED)
_LEASE: Final = (Effect.NEW_FENCE, Effect.REMEMBER)
_COUNT: Final = (Effect.COUNT,)
_CANCEL: Final = (Effect.NEW_FENCE, Effect.LEAVE_REPLAY)
_LEAVE: Final = (Effect.LEAVE_REPLAY,)
_RESEND: Final = (*_LEASE, Effect.LEAVE_REPLAY)
_NO_RESEND: Final = (Fact.IN_FLIGHT, Fact.REMEMBERS, Fact.TEST, Fact.EXPIRED)
_NO_REPLAY: Final = (Fact.TEST, Fact.EXPIRED)

TRANSITIONS: Final = (
    Transition(_NEW, Event.ACCEPT, State.BLOCKED, (Fact.BEHIND, Fact.ENABLED)),
    Transition(_NEW, Event.ACCEPT, State.LEASED, (Fact.CAPACITY,), due=Due.LEASE_END, effects=(Effect.NEW_FENCE,)),
    Transition(_NEW, Event.ACCEPT, State.WAITING, (Fact.ENABLED,), due=Due.NOW),
    Transition(_NEW, Event.ACCEPT, State.HELD),
    Transition(_NEW, Event.TEST, State.LEASED, due=Due.LEASE_END, effects=_LEASE),
    Transition(_BLOCKED, Event.UNBLOCK, State.WAITING, due=Due.NOW),
    Transition(_WAITING, Event.LEASE, State.LEASED, (Fact.DUE,), due=Due.LEASE_END, effects=(Effect.NEW_FENCE,)),
    Transition(_LEASED, Event.RETURN_LEASE, State.WAITING, due=Due.FIRST),
    Transition(_LEASED, Event.EXPIRE_LEASE, State.WAITING, due=Due.FIRST),
    Transition(_OPEN, Event.SUCCEED, State.DELIVERED, effects=_COUNT),
    Transition(_OPEN, Event.FAIL, State.HELD, (Fact.REMEMBERS_PENDING, Fact.OFF), effects=_COUNT),
    Transition(_OPEN, Event.FAIL, None, (Fact.REMEMBERS,), effects=_COUNT),
    Transition(_OPEN, Event.FAIL, State.FAILED, (Fact.EXHAUSTED,), reason=FailedReason.EXHAUSTED, effects=_COUNT),
    Transition(_OPEN, Event.FAIL, State.FAILED, (Fact.EXPIRED,), reason=FailedReason.EXPIRED, effects=_COUNT),
    Transition(_OPEN, Event.FAIL, State.HELD, (Fact.OFF,), effects=_COUNT),
    Transition(_OPEN, Event.FAIL, State.WAITING, due=Due.RETRY, effects=_COUNT),
    Transition(_OPEN, Event.SKIP, State.HELD, (Fact.REMEMBERS_PENDING, Fact.OFF)),
    Transition(_OPEN, Event.SKIP, None, (Fact.REMEMBERS,)),
    Transition(_OPEN, Event.SKIP, State.CANCELLED, (Fact.DELETED,)),
    Transition(_OPEN, Event.SKIP, State.FAILED, (Fact.EXPIRED,), reason=FailedReason.EXPIRED),
    Transition(_OPEN, Event.SKIP, State.HELD, (Fact.OFF,)),
    Transition(_OPEN, Event.SKIP, State.WAITING, due=Due.NOW),
    Transition(_WAITING + _BLOCKED, Event.HOLD, None, (Fact.REMEMBERS_ENDED,)),
    Transition(_WAITING + _BLOCKED, Event.HOLD, State.HELD),
    Transition(_HELD, Event.RELEASE, State.FAILED, (Fact.EXPIRED,), reason=FailedReason.EXPIRED),
    Transition(_HELD, Event.RELEASE, State.BLOCKED, (Fact.BEHIND,)),
    Transition(_HELD, Event.RELEASE, State.WAITING, due=Due.NOW),
    Transition(_HELD, Event.DROP, State.CANCELLED, effects=_LEAVE),
    Transition(_WAITING + _BLOCKED, Event.DELETE_ENDPOINT, None, (Fact.REMEMBERS_ENDED,), effects=_LEAVE),
    Transition(_WAITING + _BLOCKED + _HELD, Event.DELETE_ENDPOINT, State.CANCELLED, effects=_LEAVE),
    Transition(_PENDING_STATES, Event.CANCEL, None, (Fact.REMEMBERS_ENDED,), (Fact.IN_FLIGHT,), effects=_CANCEL),
    Transition(_OPEN, Event.CANCEL, State.CANCELLED, (), (Fact.IN_FLIGHT,), effects=_CANCEL),
    Transition(_PENDING_STATES, Event.ERASE, None, (Fact.REMEMBERS_ENDED,), effects=_CANCEL),
    Transition(_OPEN, Event.ERASE, State.CANCELLED, effects=_CANCEL),
    Transition(
        _LEASED + _WAITING + _HELD + _ENDED, Event.RESEND, State.LEASED, (Fact.OWNER,), _NO_RESEND, Due.LEASE_END,
        effects=_RESEND,
    ),
    Transition(_WAITING + _HELD + _ENDED, Event.RESEND, State.WAITING, (), _NO_RESEND, Due.NOW, effects=_RESEND),
    Transition(_NEW + _ENDED, Event.REPLAY, State.BLOCKED, (Fact.BEHIND,), _NO_REPLAY, effects=_LEASE),
    Transition(_NEW + _ENDED, Event.REPLAY, State.WAITING, (Fact.ORDERED,), _NO_REPLAY, Due.NOW, effects=_LEASE),
    Transition(_NEW + _ENDED, Event.REPLAY, State.LEASED, (), _NO_REPLAY, Due.LEASE_END, effects=_LEASE),
    Transition(_WAITING + _BLOCKED, Event.STOP_REPLAY, None),
)  # fmt: skip


SETTLEMENTS: Final = frozenset({Event.RETURN_LEASE, Event.SUCCEED, Event.FAIL, Event.SKIP})
"""The events that report the result of a lease. If the delivery has been leased again, such an event has no effect."""


def transition(state: State, event: Event, facts: Set[Fact]) -> Transition | None:
    """Return the first row of TRANSITIONS that applies, or None if the event does not change the delivery."""
    if Fact.LEASED_AGAIN in facts and event in SETTLEMENTS:
        return None
    for each in TRANSITIONS:
        if each.event is event and state in each.before and facts >= set(each.when) and facts.isdisjoint(each.unless):
            return each
    return None


def statuses(event: Event) -> tuple[Status, ...]:
    """Return the delivery statuses from which `event` can cause a transition."""
    states = {state for each in TRANSITIONS if each.event is event for state in each.before}
    return tuple(sorted({state.value[0] for state in states if state.value is not None}))


OPEN: Final = statuses(Event.FAIL)
"""The statuses of deliveries that have not ended: pending and held."""
ENDED: Final = statuses(Event.REPLAY)
"""The statuses of deliveries that have ended: delivered, failed and cancelled."""


@dataclass(frozen=True, slots=True)
class NextState:
    """The state of a delivery after a settlement.

    `due_at` (Unix ms) is set if and only if the delivery stays pending.
    """

    status: Status
    due_at: int | None = None
    failed_reason: FailedReason | None = None


DELIVERED: Final = NextState(Status.DELIVERED)
CANCELLED: Final = NextState(Status.CANCELLED)
HELD: Final = NextState(Status.HELD)
EXHAUSTED: Final = NextState(Status.FAILED, failed_reason=FailedReason.EXHAUSTED)
EXPIRED: Final = NextState(Status.FAILED, failed_reason=FailedReason.EXPIRED)
# Use constants, because looking up a member of an enumeration takes longer than applying a rule.
_PENDING: Final = Status.PENDING
_TEST: Final = Trigger.TEST


def previous(status: Status | None, due_at: int) -> NextState | None:
    """Return the state of a delivery before a resend, replay or test, or None for other attempts.

    `status` is the stored status of this earlier state, if any. If this status is pending, `due_at` is the earlier due
    time (Unix ms).
    """
    if status is None:
        return None
    if status is _PENDING:
        return NextState(_PENDING, due_at)
    return EXHAUSTED if status is Status.FAILED else NextState(status)


def may_be_sent(*, trigger: Trigger, fence: int, enabled: bool, expires_at: int | None, now_ms: int) -> bool:
    """Return whether a leased delivery may be sent to its endpoint. Call this function only if the endpoint exists.

    A test may be sent regardless of the endpoint's state, but only during the first lease of the delivery, because a
    late test is useless.
    """
    if trigger is _TEST:
        return fence == 1
    return enabled and (expires_at is None or now_ms < expires_at)


def after_skip(*, before: NextState | None, deleted: bool, off: bool, expires_at: int | None, now_ms: int) -> NextState:
    """Return the next state of a leased delivery that must not be sent (`Event.SKIP`).

    `before` is the result of `previous`. `off` is true if the endpoint is paused or disabled, and the server is not
    dropping its held deliveries.
    """
    if before is not None:
        return HELD if off and before.status is _PENDING else before
    if deleted:
        return CANCELLED
    if expires_at is not None and expires_at <= now_ms:
        return EXPIRED
    return HELD if off else NextState(_PENDING, now_ms)


def after_failure(
    *,
    before: NextState | None,
    off: bool,
    scheduled_attempts: int,
    schedule: RetrySchedule,
    now_ms: int,
    expires_at: int | None,
    retry_after_ms: int | None,
    draw: float,
) -> NextState:
    """Return the next state of a delivery after a failed attempt (`Event.FAIL`).

    `before` and `off` have the same meaning as in `after_skip`. `scheduled_attempts` counts the attempts of the retry
    schedule, including this one. `retry_after_ms` is the wait that the receiver requested. `draw` in [0, 1) selects the
    jitter.
    """
    if before is not None:
        return HELD if off and before.status is _PENDING else before
    delay_ms = schedule.delay_ms(scheduled_attempts, draw)
    if delay_ms is None:
        return EXHAUSTED
    due_at = now_ms + max(delay_ms, retry_after_ms or 0)
    if expires_at is not None and due_at >= expires_at:
        return EXPIRED
    return HELD if off else NextState(_PENDING, due_at)
