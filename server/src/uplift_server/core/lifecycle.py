"""A delivery's life: its statuses, and what an attempt's outcome makes of it."""

from dataclasses import dataclass
from typing import Final

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.named_codes import Named
from uplift_server.core.scheduling.retry_schedule import RetrySchedule


class Status(Named):
    """Where a delivery stands. The number is what the store keeps."""

    PENDING = 0
    DELIVERED = 1
    FAILED = 2
    HELD = 3
    CANCELLED = 4


class Trigger(Named):
    """What made an attempt happen."""

    SCHEDULE = 0
    RESEND = 1
    REPLAY = 2
    TEST = 3


class FailedReason(Named):
    """Why a delivery ended as `failed`."""

    EXHAUSTED = 1
    EXPIRED = 2


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a delivery after an attempt.

    `due_at` (Unix ms) is set exactly when the delivery stays pending.
    """

    status: Status
    due_at: int | None = None
    failed_reason: FailedReason | None = None


_DELIVERED: Final = Verdict(Status.DELIVERED)


def judge(
    *,
    outcome: Outcome,
    scheduled_attempts: int,
    schedule: RetrySchedule,
    now_ms: int,
    expires_at: int | None,
    retry_after_ms: int | None,
    draw: float,
) -> Verdict:
    """Decide what follows a scheduled attempt.

    `scheduled_attempts` counts the attempts the schedule has spent, this one included; `retry_after_ms` is the wait the
    receiver asked for, if any; `draw` in [0, 1) places the jitter.
    """
    if outcome is Outcome.DELIVERED:
        return _DELIVERED
    delay_ms = schedule.delay_ms(scheduled_attempts, draw)
    if delay_ms is None:
        return Verdict(Status.FAILED, failed_reason=FailedReason.EXHAUSTED)
    due_at = now_ms + max(delay_ms, retry_after_ms or 0)
    if expires_at is not None and due_at >= expires_at:
        return Verdict(Status.FAILED, failed_reason=FailedReason.EXPIRED)
    return Verdict(Status.PENDING, due_at=due_at)
