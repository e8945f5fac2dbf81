"""Group commit: while events are being stored, those that come meanwhile are gathered and stored together."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from uplift_server.core.limits import COMMIT_ROWS_MAX
from uplift_server.store.errors import Unavailable
from uplift_server.store.hot_records import Appended, IdempotencyConflict, NewEvent

Groups = Sequence[Sequence[NewEvent]]
Results = list[list[Appended] | IdempotencyConflict]

COMMITS_AT_ONCE: Final = 2
"""One waits for PostgreSQL's disk while the next one is worked on; more would only be smaller."""


class _Waiting(NamedTuple):
    groups: Groups
    rows: int
    answer: "asyncio.Future[Results]"


class Gathering:
    """Gathers calls of `append`. Each commit has at most COMMIT_ROWS_MAX rows or so."""

    def __init__(self, store: Callable[[Groups], Awaitable[Results]]) -> None:
        """`store` stores groups in a transaction of their own."""
        self._store = store
        self._waiting: deque[_Waiting] = deque()
        self._commits: set[asyncio.Task[None]] = set()

    def append(self, groups: Groups) -> "asyncio.Future[Results]":
        """See the contract."""
        answer: asyncio.Future[Results] = asyncio.get_running_loop().create_future()
        rows = sum(1 + len(event.deliveries) for group in groups for event in group)
        self._waiting.append(_Waiting(groups, rows, answer))
        self._begin()
        return answer

    @property
    def waiting(self) -> int:
        """How many calls wait for their commit to begin."""
        return len(self._waiting)

    async def finish(self) -> None:
        """Until everything gathered is stored, or was refused."""
        while self._commits:
            await asyncio.wait(self._commits)

    def _begin(self) -> None:
        while self._waiting and len(self._commits) < COMMITS_AT_ONCE:
            part = [self._waiting.popleft()]
            rows = part[0].rows
            while self._waiting and rows + self._waiting[0].rows <= COMMIT_ROWS_MAX:
                part.append(self._waiting.popleft())
                rows += part[-1].rows
            commit = asyncio.create_task(self._commit(part), name="commit")
            self._commits.add(commit)
            commit.add_done_callback(self._ended)

    def _ended(self, commit: "asyncio.Task[None]") -> None:
        self._commits.discard(commit)
        self._begin()

    async def _commit(self, part: Sequence[_Waiting]) -> None:
        """Store a part in one transaction. A call that the database rejects fails alone."""
        try:
            results = await self._store([group for waiting in part for group in waiting.groups])
        except Exception as error:
            if len(part) > 1 and not isinstance(error, Unavailable):
                half = len(part) // 2
                await self._commit(part[:half])
                await self._commit(part[half:])
                return
            for waiting in part:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            return
        start = 0
        for waiting in part:
            end = start + len(waiting.groups)
            if not waiting.answer.done():  # its waiter was cancelled
                waiting.answer.set_result(results[start:end])
            start = end
