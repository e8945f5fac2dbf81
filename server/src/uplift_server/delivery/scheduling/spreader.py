"""A spreader: deliveries of a replay on their way into a lane, one after the other.

A replay leases a few at a time. Sent all at once they would be a burst, and what comes in meanwhile would wait for it.
"""

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from uplift_server.delivery.ports import Clock, Handle
from uplift_server.store.hot_records import LeasedDelivery


class PushDeliveries(Protocol):
    """What a spreader calls with those whose time has come."""

    def __call__(self, deliveries: Sequence[LeasedDelivery], /) -> None:
        """Let them wait in the lane."""


class Spreader:
    """Lets what it is given arrive evenly over a time."""

    __slots__ = ("_clock", "_gap_ms", "_next_ms", "_push", "_timer", "_waiting")

    def __init__(self, clock: Clock, push: PushDeliveries) -> None:
        self._clock = clock
        self._push = push
        self._waiting: deque[LeasedDelivery] = deque()
        self._gap_ms = 0.0
        self._next_ms = 0.0
        """When the next one arrives (Unix ms)."""
        self._timer: Handle | None = None

    def add(self, deliveries: Sequence[LeasedDelivery], within_ms: int) -> None:
        """Let them arrive behind those still on their way: the first of all now, the last before the time is over."""
        self._waiting.extend(deliveries)
        if self._waiting:
            self._gap_ms = within_ms / len(self._waiting)
            self._next_ms = self._clock.now_ms()
            self._push_due()

    def take(self) -> list[LeasedDelivery]:
        """Take out all that have not due."""
        taken = list(self._waiting)
        self._waiting.clear()
        self._stop()
        return taken

    def withdraw(self, event_seq: int) -> LeasedDelivery | None:
        """Take out one, if it has not due."""
        for delivery in self._waiting:
            if delivery.event_seq == event_seq:
                self._waiting.remove(delivery)
                return delivery
        return None

    def __len__(self) -> int:
        """How many have not due."""
        return len(self._waiting)

    @property
    def event_seqs(self) -> set[int]:
        """The numbers of the events of those that have not due."""
        return {delivery.event_seq for delivery in self._waiting}

    def _push_due(self) -> None:
        self._stop()
        # The clock counts whole milliseconds: whoever is due within this one would otherwise need a timer more.
        end = self._clock.now_ms() + 1
        due = []
        while self._waiting and self._next_ms < end:
            due.append(self._waiting.popleft())
            self._next_ms += self._gap_ms
        if self._waiting:
            self._timer = self._clock.call_at(self._next_ms, self._push_due)
        if due:
            self._push(due)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
