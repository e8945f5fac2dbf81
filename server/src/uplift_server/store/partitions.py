"""Partitions of events by time, as an engine may have them: what is old goes with its partition, not row by row."""

from typing import NamedTuple, Protocol

from uplift_server.store.cleanup import Key


class Partition(NamedTuple):
    """The events from `first_seq` up to and without `end_seq`."""

    first_seq: int
    end_seq: int


class Batch(NamedTuple):
    """How many rows went, and where to go on; None: that was all."""

    removed: int
    place: Key | None


class Partitions(Protocol):
    """What retention asks of an engine that has them. Every verb is one transaction, and can be repeated safely."""

    async def begin(self, *, now: int, lasts_ms: int) -> bool:
        """Let numbers go on in a new partition, if the one in use has lasted as long (ms); whether they do.

        Raises Unavailable, also where others held the tables for too long: nothing has happened then.
        """

    async def ended(self, *, before: int) -> list[Partition]:
        """Those whose events are all older than an instant (Unix ms) and counted, the oldest first.

        Without those that go row by row.
        """

    async def leave(self, *, before: int, lasts_ms: int) -> None:
        """Let go row by row what lasted so much longer (ms) that too much of it is older than an instant (Unix ms)."""

    async def first_whole(self) -> int:
        """From which event on events are in partitions that go as a whole, or will be."""

    async def numbers(self, partition: Partition) -> int:
        """How many numbers it has used, up to the last of its events that is there."""

    async def thin(self, partition: Partition, *, after: Key | None) -> Batch:
        """Remove a bite of the deliveries of a partition that have ended, of events that have nothing open."""

    async def drop(self, partition: Partition) -> int:
        """Remove a thinned partition; how many events went.

        Those that still have deliveries stay, to go row by row; where they are too many, all others, too. Raises
        Unavailable as `begin` does.
        """

    async def drop_empty(self) -> None:
        """Remove partitions of which nothing is left. Raises Unavailable as `begin` does."""

    async def sweep(self, before_seq: int, *, after: Key | None) -> Batch:
        """Remove a bite of what else was known of events before one that have gone with their partition."""
