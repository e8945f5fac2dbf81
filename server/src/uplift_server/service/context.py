"""What every service works with."""

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar

import structlog

from uplift_server.core import ids
from uplift_server.core.cursors import Cursors
from uplift_server.core.ids import IdSequence
from uplift_server.core.people.audit import AuditEntry
from uplift_server.core.problems import Problem
from uplift_server.delivery.endpoint_cache import EndpointCache
from uplift_server.delivery.ports import Clock
from uplift_server.service import errors
from uplift_server.service.engine_link import EngineLink
from uplift_server.service.principals import Caller
from uplift_server.store.contract import Database
from uplift_server.store.errors import StoreError
from uplift_server.store.records import Account

T = TypeVar("T")
_log = structlog.get_logger()

PLACE_MAX: Final = 2**62


class Listing(NamedTuple):
    """Which stretch of a list is asked for."""

    limit: int
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class ServiceContext:
    """The store, what is held in memory of it, time and randomness."""

    database: Database
    cache: EndpointCache
    clock: Clock
    engine: EngineLink
    cursors: Cursors
    random_bytes: Callable[[int], bytes] = os.urandom
    id_sequence: IdSequence = field(default_factory=IdSequence)
    _changes: set[asyncio.Task[Any]] = field(default_factory=set)

    def now(self) -> int:
        """Unix time in ms."""
        return self.clock.now_ms()

    def new_id(self) -> bytes:
        """A new ID of 16 bytes, greater than all earlier ones."""
        return self.id_sequence.next(self.now(), self.random_bytes(ids.RANDOM_BYTES))

    def place(
        self,
        listing: Listing,
        count: int,
        problems: Sequence[Problem] = (),
        name: str = "cursor",
        remedy: str = "This is no cursor of this list. Use `next_cursor` of an earlier page.",
    ) -> tuple[int, ...] | None:
        """The place a list is to go on from, of `count` numbers; None at its beginning.

        Raises Invalid for a cursor that no list gave, by the name of its field, with the problems found before.
        """
        found = None if listing.cursor is None else self.cursors.decode(listing.cursor, count)
        # Places are positive; what cannot be one would overflow where it is counted on from.
        if listing.cursor is not None and (found is None or not all(0 <= number < PLACE_MAX for number in found)):
            raise errors.Invalid([*problems, Problem(name, "cursor_invalid", remedy)])
        if problems:
            raise errors.Invalid(problems)
        return found

    def entry(
        self, caller: Caller, action: str, subject: str, details: Mapping[str, object], account_seq: int | None
    ) -> AuditEntry:
        """For the audit log: the caller does something now to something of an account."""
        return AuditEntry(account_seq, self.now(), caller.actor, action, subject, details)

    def account_of(self, caller: Caller, account: str) -> Account:
        """The account with this public id. Raises NotFound, also where the caller acts for another."""
        account_id = ids.parse_prefixed(ids.ACCOUNT, account)
        found = None if account_id is None else self.cache.accounts_by_id.get(account_id)
        own = caller.principal.account_seq
        if found is None or own not in (None, found.seq):
            raise errors.NotFound(f"There is no account {account[:100]} here.")
        return found

    async def carry_out(self, change: Coroutine[Any, Any, T]) -> T:
        """Run a change to its end even if whoever asked for it has gone.

        Between the commit and the cache nothing may get lost: a key that is revoked in the database only would
        go on being accepted.
        """
        task = asyncio.ensure_future(change)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._end)
            raise

    def carry_on(self, change: Coroutine[Any, Any, Any]) -> None:
        """Begin a change whose end nobody waits for, so that its time tells nothing. That it failed is logged."""
        task = asyncio.ensure_future(change)
        self._changes.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._changes.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, StoreError | errors.ServiceError):
            _log.warning("a change that nobody waited for failed", cause=str(error))
        elif error is not None:
            _log.error("a change that nobody waited for failed", exc_info=error)

    async def finish(self) -> None:
        """Wait for the changes that were begun."""
        await asyncio.gather(*self._changes, return_exceptions=True)
