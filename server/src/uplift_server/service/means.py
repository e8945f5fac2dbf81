"""What every service works with, and the few ways in which they all work."""

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from uplift_server.core import ids
from uplift_server.core.audit import AuditEntry
from uplift_server.core.cursors import Cursors
from uplift_server.core.idempotency import check_key
from uplift_server.core.problems import Problem
from uplift_server.delivery.clock import Clock
from uplift_server.delivery.directory import Directory
from uplift_server.delivery.trials import Busy
from uplift_server.service import errors
from uplift_server.service.principals import Caller
from uplift_server.store import idempotency
from uplift_server.store.contract import Database
from uplift_server.store.errors import Conflict
from uplift_server.store.hot_records import LeasedDelivery
from uplift_server.store.replays import Replay

T = TypeVar("T")


class Unset(Enum):
    """The type of UNSET."""

    UNSET = "unset"


PLACE_MAX: Final = 2**62
UNSET: Final = Unset.UNSET
"""Stands for a field that was not sent, which is not the same as one sent empty."""


class Listing(NamedTuple):
    """Which stretch of a list is asked for."""

    limit: int
    cursor: str | None = None


class Repeat(NamedTuple):
    """How a request that creates is recognised when it comes again."""

    key: str
    """Its `Idempotency-Key`."""
    digest: bytes
    """The SHA-256 of its body."""


class EngineLink(Protocol):
    """What services need of the engine."""

    def note_due(self, endpoint_seq: int) -> None:
        """Something for an endpoint has become due in the database."""

    def forget(self, endpoint_seq: int) -> None:
        """An endpoint is gone: its deliveries are to be cancelled."""

    def switched_off(self, endpoint_seq: int) -> None:
        """An endpoint was paused or disabled, in store and directory: what waits for it is to be held."""

    def switched_on(self, endpoint_seq: int) -> None:
        """An endpoint was enabled, in store and directory: what it holds is let go, its health begins anew."""

    def treat_held(self, endpoint_seq: int) -> None:
        """What becomes of what an enabled endpoint holds was changed."""

    def withdraw(self, event_seq: int, endpoint_seq: int) -> LeasedDelivery | None:
        """Take a delivery out of the memory it waits in, if it does, to be settled elsewhere or given back."""

    def give_back(self, delivery: LeasedDelivery) -> None:
        """Let a delivery that was withdrawn wait again."""

    def resend_lease(self, now_ms: int) -> tuple[int, int]:
        """The end and the owner of a lease for a resend."""

    def attempt_now(self, delivery: LeasedDelivery) -> None:
        """Attempt a delivery leased for a resend."""

    def begin_test(self, endpoint_seq: int) -> Busy | None:
        """Take a slot for a test of an endpoint in the directory, to be sent or abandoned; why there is none."""

    def abandon_test(self, endpoint_seq: int) -> None:
        """Give the slot of a test back that could not be stored."""

    def send_test(self, delivery: LeasedDelivery) -> None:
        """Attempt a test that was stored, in the slot taken for it."""

    async def wait_for_test(self, endpoint_seq: int, within_ms: int) -> None:
        """Until the endpoint's test is over and its outcome stored, but no longer than so."""

    def replay_changed(self, replay: Replay) -> None:
        """A replay was made, paused, resumed or cancelled."""

    def next_probe_at(self, endpoint_seq: int) -> int | None:
        """When an endpoint whose breaker is open is tried next (Unix ms)."""

    def disable_at(self, endpoint_seq: int) -> int | None:
        """When an endpoint that fails will be disabled unless it succeeds before (Unix ms)."""


@dataclass(frozen=True, slots=True)
class Means:
    """The store, what is held in memory of it, time and randomness."""

    database: Database
    directory: Directory
    clock: Clock
    engine: EngineLink
    cursors: Cursors
    random_bytes: Callable[[int], bytes] = os.urandom
    _changes: set[asyncio.Task[Any]] = field(default_factory=set)

    def now(self) -> int:
        """Unix time in ms."""
        return self.clock.now_ms()

    def new_id(self) -> bytes:
        """A new id of 16 bytes, which sorts by time."""
        return ids.uuid7(self.now(), self.random_bytes(ids.RANDOM_BYTES))

    def place(self, listing: Listing, count: int, problems: Sequence[Problem] = ()) -> tuple[int, ...] | None:
        """The place a list is to go on from, of `count` numbers; None at its beginning.

        Raises Invalid for a cursor that no list gave, with the problems found before.
        """
        found = None if listing.cursor is None else self.cursors.decode(listing.cursor, count)
        # Places are positive; what cannot be one would overflow where it is counted on from.
        if listing.cursor is not None and (found is None or not all(0 <= number < PLACE_MAX for number in found)):
            wrong = Problem(
                "cursor", "cursor_invalid", "This is no cursor of this list. Use `next_cursor` of an earlier page."
            )
            raise errors.Invalid([*problems, wrong])
        if problems:
            raise errors.Invalid(problems)
        return found

    def entry(
        self, caller: Caller, action: str, subject: str, details: Mapping[str, object], account_seq: int | None
    ) -> AuditEntry:
        """For the audit log: the caller does something now to something of an account."""
        return AuditEntry(account_seq, self.now(), caller.actor, action, subject, details)

    async def carry_out(self, change: Coroutine[Any, Any, T]) -> T:
        """Run a change to its end even if whoever asked for it has gone.

        Between the commit and the directory nothing may get lost: a key that is revoked in the database only would
        go on being accepted.
        """
        task = asyncio.ensure_future(change)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return await asyncio.shield(task)

    async def finish(self) -> None:
        """Wait for the changes under way."""
        await asyncio.gather(*self._changes, return_exceptions=True)


def request_of(repeat: Repeat | None, account_seq: int, kind: str) -> idempotency.Request | None:
    """A creating request as the store remembers it."""
    return None if repeat is None else idempotency.Request(account_seq, repeat.key, kind, repeat.digest)


def check_repeat(repeat: Repeat | None) -> list[Problem]:
    """What is wrong with an `Idempotency-Key`, if anything."""
    wrong = None if repeat is None else check_key(repeat.key, "Idempotency-Key")
    return [] if wrong is None else [wrong]


def refusal(error: Conflict) -> errors.Conflict:
    """The store's conflict as a refusal."""
    kind = errors.IdempotencyConflict if isinstance(error, idempotency.KeyTaken) else errors.Conflict
    return kind(str(error))


def refuse(problems: Sequence[Problem]) -> None:
    """Raise Invalid if there are problems."""
    if problems:
        raise errors.Invalid(problems)


def given(value: T | Unset) -> T:
    """A field that was found to be there."""
    assert not isinstance(value, Unset), "missing fields were refused before"
    return value


def given_or(value: T | Unset, default: T) -> T:
    """A field, or what stands for it where it was not sent."""
    return default if isinstance(value, Unset) else value


def given_or_none(value: T | Unset | None) -> T | None:
    """A field whose absence and whose null mean the same."""
    return None if isinstance(value, Unset) else value


def parse_id(prefix: str, text: str, what: str) -> bytes:
    """The bytes of an id. Raises NotFound for any other text: there cannot be such a thing."""
    value = ids.parse_prefixed(prefix, text)
    if value is None:
        raise not_found(what, text)
    return value


def not_found(what: str, text: str) -> errors.NotFound:
    """Says that there is no such thing, in one text for those of others too."""
    return errors.NotFound(f"There is no {what} {text[:100]} here.")
