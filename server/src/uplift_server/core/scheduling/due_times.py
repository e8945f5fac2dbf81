"""The earliest due time of each endpoint, and the endpoints whose deliveries are due."""

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import Final

from uplift_server.core.limits import DUE_STEP_MS

_VOID_ENTRIES_MAX: Final = 1000


class DueTimes:
    """One due time (Unix ms) for each endpoint, rounded up to a multiple of DUE_STEP_MS.

    Because of the rounding, the server can lease deliveries together if their due times are close. Memory use depends
    only on the number of endpoints.
    """

    def __init__(self) -> None:
        self._due_at: dict[int, int] = {}
        # An entry of the heap is void if `_due_at` has another time for its endpoint.
        self._heap: list[tuple[int, int]] = []

    def __len__(self) -> int:
        """Return the number of entries in the heap, including entries that no longer apply."""
        return len(self._heap)

    def note(self, endpoint_seq: int, due_at: int) -> bool:
        """Store a due time if it is the endpoint's earliest.

        Return whether the time was stored and is earlier than all other due times.
        """
        due_at = -(-due_at // DUE_STEP_MS) * DUE_STEP_MS
        known = self._due_at.get(endpoint_seq)
        if known is not None and known <= due_at:
            return False
        next_at = self.next_at
        self._due_at[endpoint_seq] = due_at
        heappush(self._heap, (due_at, endpoint_seq))
        if len(self._heap) > 2 * len(self._due_at) + _VOID_ENTRIES_MAX:
            self._heap = [(at, seq) for seq, at in self._due_at.items()]
            heapify(self._heap)
        return next_at is None or due_at < next_at

    @property
    def next_at(self) -> int | None:
        """The earliest due time of all endpoints (Unix ms), or None if there is none."""
        while self._heap:
            due_at, endpoint_seq = self._heap[0]
            if self._due_at.get(endpoint_seq) == due_at:
                return due_at
            heappop(self._heap)
        return None

    def take(self, now_ms: int) -> Iterator[int]:
        """Remove and yield the endpoints whose due time is at or before `now_ms`."""
        while (next_at := self.next_at) is not None and next_at <= now_ms:
            _, endpoint_seq = heappop(self._heap)
            del self._due_at[endpoint_seq]
            yield endpoint_seq
