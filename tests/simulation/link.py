"""The connection of a process to its database, with faults."""

import asyncio
from collections.abc import Callable
from enum import Enum, auto
from typing import Any

from uplift_server.store.errors import Unavailable

CHANGES = frozenset(
    (
        "append", "lease_due", "settle", "release", "reclaim", "release_held", "release_replay", "write",
        "write_with_events", "append_then",
    )
)  # fmt: skip
READS = frozenset(
    ("read", "read_with_priority", "read_replay_batch", "due_endpoints", "next_due", "scrub", "stream_position")
)


class Fault(Enum):
    """A fault of one change."""

    NOT_COMMITTED = auto()
    """The change fails."""
    RESPONSE_LOST = auto()
    """The change is committed, but its caller gets an error."""
    KILLED_BEFORE = auto()
    """The process dies before the commit."""
    KILLED_AFTER = auto()
    """The process dies after the commit."""


class Link:
    """A database as one process sees it."""

    def __init__(self, database: Any, die: Callable[[], None]) -> None:
        self.database = database
        self._die = die
        self.is_down = False
        """Whether every call fails."""
        self.is_cut = False
        """Whether the process is dead, so that no call returns."""
        self.faults: dict[int, Fault] = {}
        """The faults of the next changes, by the number of changes before them."""
        self.mutation: Any = None
        """Methods that replace those of the database, for tests of the simulation itself."""
        self.calls = 0
        """The number of calls in progress."""
        self.measures = database.measures
        self.health = database.health
        self.partitions = database.partitions

    @property
    def writes_waiting(self) -> int:
        return int(self.database.writes_waiting)

    async def _hang(self) -> None:
        task: Any = asyncio.current_task()
        abandon(task)
        await asyncio.get_running_loop().create_future()

    def _next_fault(self) -> Fault | None:
        if not self.faults:
            return None
        self.faults = {left - 1: fault for left, fault in self.faults.items()}
        return self.faults.pop(-1, None)

    async def _call(self, name: str, arguments: Any, named: Any) -> Any:
        if self.is_cut:
            await self._hang()
        if self.is_down:
            raise Unavailable("the database does not respond")
        fault = self._next_fault() if name in CHANGES else None
        if fault is Fault.NOT_COMMITTED:
            raise Unavailable("the change was not committed")
        if fault is Fault.KILLED_BEFORE:
            self._die()
            await self._hang()
        override = getattr(self.mutation, name, None)
        self.calls += 1
        try:
            if override is None:
                result = await getattr(self.database, name)(*arguments, **named)
            else:
                result = await override(self.database, *arguments, **named)
        finally:
            self.calls -= 1
        if fault is Fault.KILLED_AFTER:
            self._die()
        if self.is_cut:
            await self._hang()
        if fault is Fault.RESPONSE_LOST:
            raise Unavailable("the response of the database was lost")
        return result


def abandon(task: Any) -> None:
    """Let a task of a dead process wait forever. A cancellation would run its callbacks."""
    task._log_destroy_pending = False


def _verb(name: str) -> Callable[..., Any]:
    async def call(self: Link, *arguments: Any, **named: Any) -> Any:
        return await self._call(name, arguments, named)

    return call


for _name in CHANGES | READS:
    setattr(Link, _name, _verb(_name))
