"""Rules for replays: their states, the deliveries that they can select, and the rate at which they send deliveries."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from uplift_server.core.lifecycle import ENDED, Status
from uplift_server.core.named_codes import NamedCode
from uplift_server.core.problems import Problem
from uplift_server.core.scheduling.lane import AttemptKind, Lane


class ReplayState(NamedCode):
    """The state of a replay. The database stores it as a number."""

    RUNNING = 0
    PAUSED = 1
    COMPLETED = 2
    CANCELLED = 3


Wait = Literal["counting", "endpoint_paused", "endpoint_disabled", "endpoint_failing"]
"""Why a running replay is not sending deliveries."""
SkipReason = Literal["replay_unfinished", "endpoint_deleted"]
"""Why a bulk resend skips an endpoint's deliveries."""
STATUSES_DEFAULT: Final = (Status.FAILED,)
BURST_MS: Final = 100
"""The maximum idle time, in ms, that a replay can make up for by releasing several deliveries at once."""

_REPLAYABLE: Final = {status.text: status for status in ENDED}
_NOT_REPLAYABLE: Final = {
    Status.PENDING.text: "The server already sends pending deliveries on schedule.",
    Status.HELD.text: "Enable the endpoint to send its held deliveries.",
}
_FROM: Final = {
    ReplayState.RUNNING: frozenset({ReplayState.RUNNING, ReplayState.PAUSED}),
    ReplayState.PAUSED: frozenset({ReplayState.RUNNING, ReplayState.PAUSED}),
    ReplayState.CANCELLED: frozenset({ReplayState.RUNNING, ReplayState.PAUSED, ReplayState.CANCELLED}),
}


def can_change_to(state: ReplayState, target: ReplayState) -> bool:
    """Return whether a user may change a replay from `state` to `target`.

    A user may also request the state that a running, paused or cancelled replay already has.
    """
    return state in _FROM.get(target, frozenset())


def parse_statuses(names: Sequence[str], *, may_be_empty: bool = False) -> tuple[tuple[Status, ...], list[Problem]]:
    """Convert delivery status names to statuses without duplicates.

    Return the statuses, and the problems with the names.
    """
    problems = []
    if not names and not may_be_empty:
        text = f"The list is empty. Use at least one of {', '.join(_REPLAYABLE)}, or omit the field."
        problems.append(Problem("status", "required", text))
    for name in dict.fromkeys(names):
        if name not in _REPLAYABLE:
            reason = _NOT_REPLAYABLE.get(name, f"The status {name[:40]!r} does not exist.")
            text = f"{reason} A replay accepts {', '.join(_REPLAYABLE)}."
            problems.append(
                Problem("status", "status_not_replayable" if name in _NOT_REPLAYABLE else "value_unknown", text)
            )
    return tuple(sorted({_REPLAYABLE[name] for name in names if name in _REPLAYABLE})), problems


@dataclass(frozen=True, slots=True)
class ReplayRate:
    """Rate limiter for a replay.

    After an idle period, the replay may release several deliveries at once, but only about as many as the rate allows
    in BURST_MS.
    """

    rate_per_second: int
    next_ms: float = 0.0
    """When the next delivery may be released (Unix ms)."""

    def available(self, now_ms: int) -> int:
        """Return the number of deliveries that the replay may release now."""
        if self.next_ms > now_ms:
            return 0
        return 1 + int((now_ms - self._since(now_ms)) * self.rate_per_second / 1000)

    def after_release(self, now_ms: int, count: int) -> "ReplayRate":
        """Return the rate limiter after `count` deliveries were released."""
        return ReplayRate(self.rate_per_second, self._since(now_ms) + count * 1000 / self.rate_per_second)

    def _since(self, now_ms: int) -> float:
        return max(self.next_ms, now_ms - BURST_MS)


def replay_capacity(lane: Lane[Any], now_ms: int) -> int:
    """Return the number of additional replay deliveries that a lane (the leased deliveries of an endpoint) can hold.

    A full lane can hold 1 more replay delivery, so that new events cannot block the replay. It can hold none if the
    endpoint is failing, if the lane is stalled, or if a replay delivery is already waiting in the lane.
    """
    capacity = lane.free_capacity(now_ms)
    if capacity > 0 or lane.waiting[AttemptKind.REPLAY] or lane.breaker.failures or lane.is_stalled(now_ms):
        return max(0, capacity)
    return 1
