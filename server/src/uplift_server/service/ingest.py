"""Accepts events after checking the permission, the account and the fields."""

import asyncio
import time
from collections.abc import Collection, Sequence
from typing import Final, Protocol

import msgspec

from uplift_server.core import ids
from uplift_server.core.deliveries.ordering import check_ordering_key
from uplift_server.core.events.idempotency import check_key
from uplift_server.core.events.operational import OPERATIONAL_TYPES
from uplift_server.core.limits import (
    BATCH_BODY_BYTES_MAX,
    BATCH_CHECK_SECONDS_MAX,
    EVENT_DATA_BYTES_MAX,
    PROBLEMS_LISTED_MAX,
    UNFINISHED_BODIES_PER_ACCOUNT_BYTES_MAX,
)
from uplift_server.core.problems import Problem
from uplift_server.core.security.scopes import Scope
from uplift_server.core.suggestions import SUGGESTIONS_MAX
from uplift_server.core.timestamps import parse_timestamp
from uplift_server.delivery.endpoint_cache import EndpointCache, LiveEndpoint, LiveEventType
from uplift_server.delivery.ingest import BacklogFull, Draft
from uplift_server.delivery.ports import CacheFreshness, Clock
from uplift_server.service.errors import AccountRequired, Invalid, NotFound, PayloadTooLarge
from uplift_server.service.principals import Caller
from uplift_server.service.rejections import archived_event_type, reserved_event_type, unknown_event_type
from uplift_server.store.errors import Unavailable
from uplift_server.store.hot_records import Appended, IdempotencyConflict

_EVENTS_WRITE: Final = Scope.EVENTS_WRITE
_MAY_BE_NEW: Final = frozenset({"account_unknown", "event_type_unknown"})
"""The codes of problems with objects that another process may have just created."""
NEWER_CACHE_MS_MAX: Final = 1_000
NEWER_CACHE_CHECK_MS: Final = 5
AcceptFuture = asyncio.Future[list[Appended] | IdempotencyConflict]


class Incoming(msgspec.Struct, frozen=True, gc=False):
    """An event from a request. The decoder has checked the field types, but not the values.

    A field of the wrong type is None.
    """

    type: str | None
    data: bytes | None
    id: str | None = None
    idempotency_key: str | None = None
    expires_at: str | None = None
    ordering_key: str | None = None
    account: str | None = None


class Acceptance(Protocol):
    """Stores valid events durably, either in the database or in the event stream."""

    def recipients(self, account_seq: int, event_type: str, data: bytes) -> Sequence[LiveEndpoint]:
        """Return the endpoints that are subscribed to an event type and whose filters match the data (JSON)."""

    def accept_for(self, drafts: Sequence[tuple[int, Draft]]) -> AcceptFuture:
        """Store the events of one request. The returned future resolves when the events are durable.

        Raises BacklogFull or Unavailable. The future can also raise Unavailable.
        """

    async def endpoints_of(self, event_seqs: Collection[int]) -> dict[int, list[bytes]]:
        """Return, for each event, the IDs of the endpoints with a delivery in the database. Raises Unavailable."""


class Ingest:
    """Validates events and passes the valid events to the engine."""

    def __init__(
        self, cache: EndpointCache, acceptance: Acceptance, clock: Clock, freshness: CacheFreshness | None = None
    ) -> None:
        """`freshness` is None if no other process can change the objects in the cache."""
        self._cache = cache
        self._acceptance = acceptance
        self._clock = clock
        self._freshness = freshness

    def sending_account(self, caller: Caller) -> int:
        """Return the sequence number of the account for which the caller sends events.

        Raises Forbidden or AccountRequired.
        """
        caller.require(_EVENTS_WRITE)
        return caller.require_account()

    def batch_bytes_max(self, caller: Caller) -> int:
        """Return the maximum size (bytes) of a batch from this caller. Raises Forbidden."""
        caller.require(Scope.EVENTS_WRITE)
        is_of_account = caller.principal.account_seq is not None
        return UNFINISHED_BODIES_PER_ACCOUNT_BYTES_MAX if is_of_account else BATCH_BODY_BYTES_MAX

    def accept(self, account_seq: int, event: Incoming, problems: Sequence[Problem] = ()) -> AcceptFuture:
        """Accept an event for an account. `problems` contains the problems that were found before this call.

        When the event is durable, the returned future resolves to a list with one `Appended`. If the idempotency key or
        event ID belongs to another event, the future resolves to an IdempotencyConflict. Raises Invalid,
        PayloadTooLarge or the store's Unavailable. The future can also raise Unavailable.
        """
        return self._accept([(account_seq, self.draft(account_seq, event, problems))])

    async def wait_for_newer_cache(self, error: Invalid | NotFound) -> None:
        """Wait until the cache contains all earlier changes of other processes, so that the caller can try again.

        Raises the error itself if it does not result from an unknown account or event type, or if the wait takes too
        long.
        """
        may_be_new = isinstance(error, NotFound) or all(each.code in _MAY_BE_NEW for each in error.problems)
        if self._freshness is None or not may_be_new:
            raise error
        asked_at = self._clock.now_ms()
        self._freshness.wake()
        while self._freshness.synced_at <= asked_at:
            if self._clock.now_ms() - asked_at >= NEWER_CACHE_MS_MAX:
                raise error
            await self._clock.wait(asyncio.Event(), NEWER_CACHE_CHECK_MS)

    def draft(
        self, account_seq: int, event: Incoming, problems: Sequence[Problem] = (), *, sent_at: int | None = None
    ) -> Draft:
        """Check an event, and return its draft.

        `sent_at` (Unix ms) is when the event was sent, by default now. The event's expiry, if any, must be later.
        Raises Invalid or PayloadTooLarge.
        """
        found = list(problems)
        draft = self._draft(account_seq, event, "", found, sent_at)
        if draft is None or found:
            raise Invalid(found)
        return draft

    async def accept_batch(
        self, caller: Caller, events: Sequence[Incoming], problems: Sequence[Problem] = ()
    ) -> AcceptFuture:
        """Accept either all events of a batch or none of them.

        Each event belongs to the account that the event names, or to the caller's account if the event names none. An
        account key can name only its own account. `problems` contains the problems that were found before this call.
        Other requests can run between the checks of two events. Raises Forbidden, AccountRequired or the same errors as
        `accept`.
        """
        caller.require(Scope.EVENTS_WRITE)
        found = list(problems)
        drafts: list[tuple[int, Draft]] = []
        began = time.monotonic()
        for index, event in enumerate(events):
            if time.monotonic() - began > BATCH_CHECK_SECONDS_MAX:
                await asyncio.sleep(0)
                began = time.monotonic()
            if len(found) > PROBLEMS_LISTED_MAX:
                break
            prefix = f"events.{index}."
            account_seq = self._account(caller, event, prefix, found)
            draft = self._draft(account_seq, event, prefix, found)
            if account_seq is not None and draft is not None:
                drafts.append((account_seq, draft))
        if found:
            raise AccountRequired(found) if all(each.code == AccountRequired.code for each in found) else Invalid(found)
        return self._accept(drafts)

    async def endpoints_of(self, stored: Sequence[Appended]) -> list[list[str]] | None:
        """Return, for each event, the IDs of the endpoints that have a delivery.

        Return None if the database does not respond.
        """
        try:
            found = await self._acceptance.endpoints_of({each.seq for each in stored})
        except Unavailable:
            # The events are stored, so the request must not fail.
            return None
        return [[ids.prefixed(ids.ENDPOINT, endpoint) for endpoint in found[each.seq]] for each in stored]

    def _accept(self, drafts: Sequence[tuple[int, Draft]]) -> AcceptFuture:
        try:
            return self._acceptance.accept_for(drafts)
        except BacklogFull as error:
            raise PayloadTooLarge(f"The request creates {error}. Send fewer events per request.") from error

    def _account(self, caller: Caller, event: Incoming, prefix: str, problems: list[Problem]) -> int | None:
        if event.account is None:
            if caller.account_seq is None:
                text = "The event has no account. Send `account`, or send the header `Uplift-Account` for all events."
                problems.append(Problem(f"{prefix}account", AccountRequired.code, text))
            return caller.account_seq
        account, own = self._cache.find_account(event.account), caller.principal.account_seq
        if own is not None and (account is None or account.seq != own):
            text = "The API key can send events only for its account. Omit `account`."
            problems.append(Problem(f"{prefix}account", "account_unknown", text))
            return None
        if account is None:
            problems.append(
                Problem(
                    f"{prefix}account",
                    "account_unknown",
                    f"The account {event.account[:64]} does not exist. Check the ID or uid.",
                )
            )
            return None
        return account.seq

    def _draft(
        self,
        account_seq: int | None,
        event: Incoming,
        prefix: str,
        problems: list[Problem],
        sent_at: int | None = None,
    ) -> Draft | None:
        """Return the draft of a valid event. For an invalid event, add its problems to `problems`, and return None."""
        count = len(problems)
        if event.data is not None and len(event.data) > EVENT_DATA_BYTES_MAX:
            raise PayloadTooLarge(
                f"`{prefix}data` has {len(event.data)} bytes. Send at most {EVENT_DATA_BYTES_MAX} bytes. For larger"
                " data, send a URL."
            )
        event_type = None if event.type is None else self._event_type(event.type, prefix, problems)
        if event.data is None:
            pass
        elif event.data[:1] != b"{":
            problems.append(Problem(f"{prefix}data", "type_object", "The event's data must be a JSON object."))
        elif event_type is not None:
            problems.extend(
                Problem(prefix + found.field, found.code, found.message) for found in event_type.problems(event.data)
            )
        event_id = None if event.id is None else _event_id(event.id, prefix, problems)
        key = event.idempotency_key
        wrong = None if key is None else check_key(key, f"{prefix}idempotency_key")
        if wrong is not None:
            problems.append(wrong)
        ordering_key = event.ordering_key
        wrong = None if ordering_key is None else check_ordering_key(ordering_key, f"{prefix}ordering_key")
        if wrong is not None:
            problems.append(wrong)
        expires_at = None if event.expires_at is None else self._expires_at(event.expires_at, prefix, problems, sent_at)
        if len(problems) > count or account_seq is None or event_type is None or event.data is None:
            return None
        endpoints = self._acceptance.recipients(account_seq, event_type.name, event.data)
        return Draft(event_type, event.data, endpoints, event_id, key, expires_at, ordering_key)

    def _event_type(self, name: str, prefix: str, problems: list[Problem]) -> LiveEventType | None:
        event_type = self._cache.event_types.get(name)
        if event_type is None:
            suggested = self._cache.usable_types() if len(problems) < SUGGESTIONS_MAX else ()
            problems.append(unknown_event_type(name, f"{prefix}type", suggested))
            return None
        if name in OPERATIONAL_TYPES:
            problems.append(reserved_event_type(name, f"{prefix}type"))
            return None
        if event_type.archived:
            problems.append(archived_event_type(name, f"{prefix}type"))
        return event_type

    def _expires_at(self, text: str, prefix: str, problems: list[Problem], sent_at: int | None) -> int | None:
        field = f"{prefix}expires_at"
        try:
            at_ms = parse_timestamp(text)
        except ValueError as error:
            problems.append(Problem(field, "instant_invalid", str(error)))
            return None
        if at_ms <= (self._clock.now_ms() if sent_at is None else sent_at):
            problems.append(
                Problem(
                    field, "expires_at_past", "The timestamp is in the past. Use a future timestamp, or omit the field."
                )
            )
        return at_ms


def _event_id(text: str, prefix: str, problems: list[Problem]) -> bytes | None:
    event_id = ids.parse_uuid(text)
    if event_id is None:
        problems.append(
            Problem(f"{prefix}id", "id_invalid", "The event ID is not a UUID. Send a UUID, or omit the field.")
        )
    return event_id
