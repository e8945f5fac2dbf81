"""Spreads replay deliveries over time. Without the spreader, bursts of replay deliveries would delay new deliveries."""

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from uplift_server.delivery.ports import Clock, Handle
from uplift_server.store.hot_records import LeasedDelivery


class PushDeliveries(Protocol):
    """The callback that queues deliveries in a lane."""

    def __call__(self, deliveries: Sequence[LeasedDelivery], /) -> None:
        """Queue due deliveries in the lane."""


class Spreader:
    """Queues the replay deliveries of a lane at even intervals."""

    __slots__ = ("_clock", "_gap_ms", "_next_ms", "_push", "_timer", "_waiting")

    def __init__(self, clock: Clock, push: PushDeliveries) -> None:
        self._clock = clock
        self._push = push
        self._waiting: deque[LeasedDelivery] = deque()
        self._gap_ms = 0.0
        self._next_ms = 0.0
        """When the next delivery is due (Unix ms)."""
        self._timer: Handle | None = None

    def add(self, deliveries: Sequence[LeasedDelivery], within_ms: int) -> None:
        """Append deliveries, and spread all waiting deliveries over `within_ms`."""
        self._waiting.extend(deliveries)
        if self._waiting:
            self._gap_ms = within_ms / len(self._waiting)
            self._next_ms = self._clock.now_ms()
            self._push_due()

    def take(self) -> list[LeasedDelivery]:
        """Remove and return all waiting deliveries."""
        taken = list(self._waiting)
        self._waiting.clear()
        self._stop()
        return taken

    def withdraw(self, event_seq: int) -> LeasedDelivery | None:
        """Remove and return the delivery of an event if it is waiting."""
        for delivery in self._waiting:
            if delivery.event_seq == event_seq:
                self._waiting.remove(delivery)
                return delivery
        return None

    def __len__(self) -> int:
        """Return the number of waiting deliveries."""
        return len(self._waiting)

    @property
    def event_seqs(self) -> set[int]:
        """The sequence numbers of the events whose deliveries are waiting."""
        return {delivery.event_seq for delivery in self._waiting}

    def _push_due(self) -> None:
        self._stop()
        # The clock counts whole milliseconds. Include the current millisecond to avoid another timer.
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
