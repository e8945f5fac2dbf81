"""Group commit: one commit stores all events that arrived during the previous commit."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from uplift_server.core.events.commit_rows import commit_rows
from uplift_server.core.limits import COMMIT_ROWS_MAX
from uplift_server.store.errors import Unavailable
from uplift_server.store.hot_records import Appended, IdempotencyConflict, NewEvent

Groups = Sequence[Sequence[NewEvent]]
Results = list[list[Appended] | IdempotencyConflict]

COMMITS_AT_ONCE: Final = 2
"""Maximum number of concurrent commits.

While one commit waits for the disk, PostgreSQL executes the next one. A higher limit would only reduce the number of
events per commit.
"""


class _Waiting(NamedTuple):
    groups: Groups
    rows: int
    result: "asyncio.Future[Results]"


class GroupCommit:
    """Collects the events of `append` calls, and stores the events together.

    Each commit has up to about COMMIT_ROWS_MAX rows.
    """

    def __init__(self, store: Callable[[Groups], Awaitable[Results]]) -> None:
        """`store` stores groups of events in one transaction."""
        self._store = store
        self._waiting: deque[_Waiting] = deque()
        self._commits: set[asyncio.Task[None]] = set()

    def append(self, groups: Groups) -> "asyncio.Future[Results]":
        """Store events with their deliveries in one durable commit. Return one result per group, in group order."""
        result: asyncio.Future[Results] = asyncio.get_running_loop().create_future()
        rows = sum(commit_rows(len(event.deliveries), len(event.body)) for group in groups for event in group)
        self._waiting.append(_Waiting(groups, rows, result))
        self._begin()
        return result

    @property
    def waiting(self) -> int:
        """The number of `append` calls whose commit has not begun."""
        return len(self._waiting)

    async def finish(self) -> None:
        """Wait until all `append` calls have ended."""
        while self._commits:
            await asyncio.wait(self._commits)

    def _begin(self) -> None:
        while self._waiting and len(self._commits) < COMMITS_AT_ONCE:
            batch = [self._waiting.popleft()]
            rows = batch[0].rows
            while self._waiting and rows + self._waiting[0].rows <= COMMIT_ROWS_MAX:
                batch.append(self._waiting.popleft())
                rows += batch[-1].rows
            commit = asyncio.create_task(self._commit(batch), name="commit")
            self._commits.add(commit)
            commit.add_done_callback(self._ended)

    def _ended(self, commit: "asyncio.Task[None]") -> None:
        self._commits.discard(commit)
        self._begin()

    async def _commit(self, batch: Sequence[_Waiting]) -> None:
        """Store the events of several `append` calls in one transaction.

        If the database rejects the events, store the events of each half of the calls separately. In the end, only the
        calls that cause an error fail.
        """
        try:
            results = await self._store([group for waiting in batch for group in waiting.groups])
        except Exception as error:
            if len(batch) > 1 and not isinstance(error, Unavailable):
                half = len(batch) // 2
                await self._commit(batch[:half])
                await self._commit(batch[half:])
                return
            for waiting in batch:
                if not waiting.result.done():
                    waiting.result.set_exception(error)
            return
        start = 0
        for waiting in batch:
            end = start + len(waiting.groups)
            if not waiting.result.done():  # done: the caller was cancelled
                waiting.result.set_result(results[start:end])
            start = end
