"""The context that all services share: the database, the cache, the clock and the engine."""

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import structlog

from uplift_server.core import ids
from uplift_server.core.cursors import Cursors
from uplift_server.core.ids import IdSequence
from uplift_server.core.own_data import is_uid
from uplift_server.core.people.audit import AuditEntry
from uplift_server.core.problems import Problem
from uplift_server.delivery.endpoint_cache import EndpointCache, LiveEndpoint
from uplift_server.delivery.ports import Clock
from uplift_server.observe.snapshot import StreamReading
from uplift_server.service import errors
from uplift_server.service.engine_link import EngineLink
from uplift_server.service.principals import Caller
from uplift_server.service.rejections import as_conflict
from uplift_server.store.contract import Database, Transaction
from uplift_server.store.errors import Conflict, StoreError
from uplift_server.store.pages import KEY_MAX, PageRequest
from uplift_server.store.records import Account, Page, StreamPage

T = TypeVar("T")
_log = structlog.get_logger()

CURSOR_VALUE_MAX: Final = KEY_MAX
_CURSOR_INVALID: Final = (
    "The cursor does not belong to this list. Use the `next_cursor` or `prev_cursor` of an earlier page."
)


_BACKWARD: Final = CURSOR_VALUE_MAX + 1
"""The last number in each cursor to a previous page.

Keys of rows never contain this number, so it marks the direction.
"""


class StreamStatus(Protocol):
    """The state of the event stream, from which the server copies events to the database."""

    @property
    def reading(self) -> StreamReading | None:
        """The latest reading of the stream's state. None before the first reading."""

    def trouble(self) -> str | None:
        """Return why the server cannot use the stream, or None if the server can use the stream."""

    async def wait_stored(self, within_ms: int) -> bool:
        """Wait until the database contains all events that are in the stream at the time of the call.

        Return False if the wait exceeds `within_ms`, or if the stream is unavailable.
        """


class Listing(NamedTuple):
    """The requested page of a list: the maximum number of rows, the cursor and the order."""

    limit: int
    cursor: str | None = None
    ascending: bool = False
    """Whether the oldest rows come first."""


class PageCursors(NamedTuple):
    """The cursors for the next and the previous page."""

    next: str | None
    prev: str | None


@dataclass(frozen=True, slots=True)
class ServiceContext:
    """The objects that all services need: the database, the cache, the clock, the engine and random bytes."""

    database: Database
    cache: EndpointCache
    clock: Clock
    engine: EngineLink
    cursors: Cursors
    random_bytes: Callable[[int], bytes] = os.urandom
    id_sequence: IdSequence = field(default_factory=lambda: IdSequence(os.urandom))
    stream: StreamStatus | None = None
    """The state of the event stream. None if no event stream is configured."""
    accepts_through_stream: bool = False
    """Whether this process needs the event stream instead of the database to accept events."""
    _changes: set[asyncio.Task[Any]] = field(default_factory=set)

    def now(self) -> int:
        """Return the current time (Unix ms)."""
        return self.clock.now_ms()

    def new_id(self) -> bytes:
        """Return a new 16-byte ID. It is greater than all earlier IDs from this process."""
        return self.id_sequence.next(self.now())

    def decode_cursor(
        self,
        listing: Listing,
        count: int,
        problems: Sequence[Problem] = (),
        name: str = "cursor",
        message: str = _CURSOR_INVALID,
    ) -> tuple[int, ...] | None:
        """Return the numbers in a request's cursor, or None if the request has no cursor.

        A valid cursor has `count` numbers. `name` is the name of the request field that contains the cursor. Raises
        Invalid if the cursor is invalid or if `problems` is not empty.
        """
        found = None if listing.cursor is None else self.cursors.decode(listing.cursor, count)
        # Reject numbers above CURSOR_VALUE_MAX, because they would overflow in queries.
        if listing.cursor is not None and (
            found is None or not all(-1 <= number <= CURSOR_VALUE_MAX for number in found)
        ):
            raise errors.Invalid([*problems, Problem(name, "cursor_invalid", message)])
        if problems:
            raise errors.Invalid(problems)
        return found

    def page_request(self, listing: Listing, count: int, problems: Sequence[Problem] = ()) -> PageRequest:
        """Convert a listing to the `PageRequest` for the store. The key of each row in the list has `count` numbers.

        Raises the same errors as `decode_cursor`.
        """
        backward = None if listing.cursor is None else self.cursors.decode(listing.cursor, count + 1)
        if backward is None or backward[-1] != _BACKWARD:
            return PageRequest(listing.limit, self.decode_cursor(listing, count, problems), listing.ascending)
        if problems:
            raise errors.Invalid(problems)
        return PageRequest(listing.limit, backward[:-1], listing.ascending, backward=True)

    def page_cursors(self, page: Page[Any] | StreamPage[Any]) -> PageCursors:
        """Return the cursors for the pages after and before this page."""
        after = page.key if isinstance(page, StreamPage) else page.next_key
        return PageCursors(
            None if after is None else self.cursors.encode(after),
            None if page.prev_key is None else self.cursors.encode((*page.prev_key, _BACKWARD)),
        )

    def audit_entry(
        self, caller: Caller, action: str, subject: str, details: Mapping[str, object], account_seq: int | None
    ) -> AuditEntry:
        """Return an audit log entry for the caller's action on `subject`, with the current time as its timestamp."""
        return AuditEntry(account_seq, self.now(), caller.actor, action, subject, details)

    def find_account(self, caller: Caller, account: str) -> Account:
        """Return the account with this public ID or uid.

        Raises NotFound if the account does not exist, or if the caller cannot access it.
        """
        found = self.cache.find_account(account)
        own = caller.principal.account_seq
        if found is None or own not in (None, found.seq):
            raise errors.NotFound(f"The account {account[:100]} does not exist. Check the ID or uid.")
        return found

    def find_endpoint(self, caller: Caller, endpoint: str) -> LiveEndpoint | None:
        """Return the caller's endpoint with this public ID or uid, or None if there is no such endpoint.

        Raises AccountRequired for a uid if the caller names no account, because a uid is unique only within an account.
        """
        if caller.account_seq is None and is_uid(endpoint):
            raise errors.AccountRequired
        return self.cache.find_endpoint(caller.account_seq, endpoint)

    def endpoint_id(self, caller: Caller, endpoint: str) -> bytes | None:
        """Return the ID of the endpoint with this public ID or uid, or None for an unknown uid.

        Does not check whether the endpoint was deleted or belongs to the caller's account. Raises AccountRequired for a
        uid if the caller names no account.
        """
        endpoint_id = ids.parse_prefixed(ids.ENDPOINT, endpoint)
        if endpoint_id is not None:
            return endpoint_id
        live = self.find_endpoint(caller, endpoint)
        return None if live is None else live.record.id

    async def write(self, body: Callable[[Transaction], T]) -> T:
        """Run a transaction. Raises errors.Conflict instead of the store's Conflict."""
        try:
            return await self.database.write(body)
        except Conflict as error:
            raise as_conflict(error) from error

    async def run_shielded(self, change: Coroutine[Any, Any, T]) -> T:
        """Run the coroutine `change` until it finishes, even if the caller is cancelled.

        Use this method for a coroutine that commits a change and then updates the cache. A cancellation between the two
        steps would leave the cache outdated. For example, the server would still accept a revoked key.
        """
        task = asyncio.ensure_future(change)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._log_failure)
            raise

    def run_in_background(self, change: Coroutine[Any, Any, Any]) -> None:
        """Start the coroutine `change`, and return immediately. If the coroutine fails, log the failure."""
        task = asyncio.ensure_future(change)
        self._changes.add(task)
        task.add_done_callback(self._log_failure)

    def _log_failure(self, task: asyncio.Task[Any]) -> None:
        self._changes.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, StoreError | errors.ServiceError):
            _log.warning("background task failed", cause=str(error))
        elif error is not None:
            _log.error("background task failed", exc_info=error)

    async def finish(self) -> None:
        """Wait until all coroutines that this context started have finished."""
        await asyncio.gather(*self._changes, return_exceptions=True)
