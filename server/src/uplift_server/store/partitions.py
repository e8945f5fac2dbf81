"""Interface to the time partitions of events. The server deletes old events by dropping their partition."""

from typing import NamedTuple, Protocol

from uplift_server.store.cleanup import Key


class Partition(NamedTuple):
    """A partition: the events with numbers from `first_seq` (inclusive) to `end_seq` (exclusive)."""

    first_seq: int
    end_seq: int


class Batch(NamedTuple):
    """The result of deleting a batch of rows.

    `position` is the start of the next batch, or None after the last batch.
    """

    removed: int
    position: Key | None


class Partitions(Protocol):
    """Operations on partitions. Each call can be repeated safely."""

    async def start_next(self, *, now: int, lasts_ms: int) -> bool:
        """Start the next partition if the current one is at least `lasts_ms` old.

        Return whether the next partition started. Raises Unavailable, without any changes, if the database fails or if
        other transactions lock the tables for too long.
        """

    async def list_droppable(self, *, before: int) -> list[Partition]:
        """List the partitions whose events are all older than `before` (Unix ms) and counted in the statistics.

        The oldest partition comes first. Partitions that are marked for row-by-row deletion are omitted.
        """

    async def mark_for_row_cleanup(self, *, before: int, lasts_ms: int) -> None:
        """Mark old partitions for row-by-row deletion if they still have events after `before` (Unix ms).

        A partition is old if the time from its start to `before` is more than twice `lasts_ms`, the planned duration of
        a partition.
        """

    async def first_droppable_seq(self) -> int:
        """Return the lowest event number of the partitions that are not marked for row-by-row deletion."""

    async def count_seqs(self, partition: Partition) -> int:
        """Return how many event numbers a partition has used, counted up to its last event."""

    async def delete_ended_deliveries(self, partition: Partition, *, after: Key | None) -> Batch:
        """Delete a batch of the partition's deliveries. Keep the deliveries of events that have open deliveries."""

    async def drop(self, partition: Partition) -> int:
        """Drop a partition. Call this method after `delete_ended_deliveries`. Return the number of deleted events.

        Keep the events that still have deliveries. Retention deletes these events row by row later. If there are too
        many of these events, only mark the partition for row-by-row deletion. Raises Unavailable like `start_next`.
        """

    async def drop_empty(self) -> None:
        """Drop partitions that have no events. Raises Unavailable like `start_next`."""

    async def delete_leftovers(self, before_seq: int, *, after: Key | None) -> Batch:
        """In other tables, delete a batch of the rows that belong to dropped events.

        The numbers of these events are below `before_seq`. `after` is the position that the previous call returned.
        """
