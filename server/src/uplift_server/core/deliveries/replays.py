"""Replays: the states of a job that sends many deliveries again, what it may choose from, and its pace."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from uplift_server.core.lifecycle import ENDED, Status
from uplift_server.core.named_codes import NamedCode
from uplift_server.core.problems import Problem
from uplift_server.core.scheduling.lane import AttemptKind, Lane


class ReplayState(NamedCode):
    """Where a replay stands. The number is what the store keeps."""

    RUNNING = 0
    PAUSED = 1
    COMPLETED = 2
    CANCELLED = 3


Wait = Literal["counting", "endpoint_paused", "endpoint_disabled", "endpoint_failing"]
"""Why a running replay sends nothing for now."""
STATUSES_DEFAULT: Final = (Status.FAILED,)
BURST_MS: Final = 100
"""How late a release may be and still count as on time: more would follow as a burst."""

_REPLAYABLE: Final = {status.text: status for status in ENDED}
_WHY_NOT: Final = {
    Status.PENDING.text: "A pending delivery is sent by its schedule anyway.",
    Status.HELD.text: "Held deliveries are sent by enabling their endpoint.",
}
_FROM: Final = {
    ReplayState.RUNNING: frozenset({ReplayState.RUNNING, ReplayState.PAUSED}),
    ReplayState.PAUSED: frozenset({ReplayState.RUNNING, ReplayState.PAUSED}),
    ReplayState.CANCELLED: frozenset({ReplayState.RUNNING, ReplayState.PAUSED, ReplayState.CANCELLED}),
}


def can_change_to(state: ReplayState, wanted: ReplayState) -> bool:
    """Whether somebody may put a replay into a state; being there already is no mistake."""
    return state in _FROM.get(wanted, frozenset())


def parse_statuses(names: Sequence[str]) -> tuple[tuple[Status, ...], list[Problem]]:
    """The statuses a replay chooses from, each once, and what is wrong with their names."""
    problems = []
    if not names:
        text = f"Name at least one of {', '.join(_REPLAYABLE)}, or leave the field out."
        problems.append(Problem("status", "required", text))
    for name in dict.fromkeys(names):
        if name not in _REPLAYABLE:
            why = _WHY_NOT.get(name, "There is no such status.")
            text = f"{why} Use {', '.join(_REPLAYABLE)}."
            problems.append(Problem("status", "status_not_replayable" if name in _WHY_NOT else "value_unknown", text))
    return tuple(sorted({_REPLAYABLE[name] for name in names if name in _REPLAYABLE})), problems


@dataclass(frozen=True, slots=True)
class ReplayRate:
    """When the next delivery may be released, at an even rate. Idle time earns no more than BURST_MS of it."""

    rate_per_second: int
    next_ms: float = 0.0
    """The instant (Unix ms) from which the next one may go."""

    def available(self, now_ms: int) -> int:
        """How many may be released now."""
        if self.next_ms > now_ms:
            return 0
        return 1 + int((now_ms - self._since(now_ms)) * self.rate_per_second / 1000)

    def after_release(self, now_ms: int, count: int) -> "ReplayRate":
        """The pace once `count` of them have been."""
        return ReplayRate(self.rate_per_second, self._since(now_ms) + count * 1000 / self.rate_per_second)

    def _since(self, now_ms: int) -> float:
        return max(self.next_ms, now_ms - BURST_MS)


def replay_capacity(lane: Lane[Any], now_ms: int) -> int:
    """How many more of a replay may wait in a lane: one in any case, so that fresh events cannot keep it out."""
    room = lane.free_capacity(now_ms)
    if room > 0 or lane.waiting[AttemptKind.REPLAY] or lane.breaker.failures or lane.is_stalled(now_ms):
        return max(0, room)
    return 1
