"""Contract for partitions of events by time. Dropping a partition deletes its expired events."""

from typing import NamedTuple, Protocol

from uplift_server.store.cleanup import Key


class Partition(NamedTuple):
    """The events from `first_seq` (inclusive) to `end_seq` (exclusive)."""

    first_seq: int
    end_seq: int


class Batch(NamedTuple):
    """The number of deleted rows, and the position of the next batch. The position is None after the last batch."""

    removed: int
    position: Key | None


class Partitions(Protocol):
    """Operations on partitions. Each call is one transaction and can be repeated safely."""

    async def start_next(self, *, now: int, lasts_ms: int) -> bool:
        """Start the next partition if the current one is at least `lasts_ms` old. Return whether it started.

        Raises Unavailable without any changes, including if the tables are locked for too long.
        """

    async def list_droppable(self, *, before: int) -> list[Partition]:
        """List partitions whose events are all counted and older than `before` (Unix ms), oldest first.

        Omit partitions that are deleted row by row.
        """

    async def mark_for_row_cleanup(self, *, before: int, lasts_ms: int) -> None:
        """Mark partitions for row-by-row deletion if they are too old but have events after `before` (Unix ms).

        A partition is too old if it began more than twice `lasts_ms` before `before`.
        """

    async def first_droppable_seq(self) -> int:
        """Return the lowest event number of the partitions that are dropped as a whole."""

    async def count_seqs(self, partition: Partition) -> int:
        """Return how many event numbers a partition has used, up to its last event."""

    async def delete_ended_deliveries(self, partition: Partition, *, after: Key | None) -> Batch:
        """Delete a batch of deliveries of events that have no open deliveries."""

    async def drop(self, partition: Partition) -> int:
        """Drop a partition after `delete_ended_deliveries`. Return the number of deleted events.

        Keep the events that still have deliveries; retention deletes them row by row later. If there are too many such
        events, retention deletes the whole partition row by row. Raises Unavailable like `start_next`.
        """

    async def drop_empty(self) -> None:
        """Drop empty partitions. Raises Unavailable like `start_next`."""

    async def delete_leftovers(self, before_seq: int, *, after: Key | None) -> Batch:
        """Delete a batch of rows in other tables that belong to dropped events before `before_seq`."""
