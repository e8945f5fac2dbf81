"""Erasure of events that contain personal data. A request selects events by object ID or by event ID."""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from uplift_server.core import ids
from uplift_server.core.limits import ERASURE_EVENT_IDS_MAX
from uplift_server.core.problems import Problem
from uplift_server.core.security.rights import Right
from uplift_server.service.context import Listing, ServiceContext
from uplift_server.service.errors import Busy
from uplift_server.service.events import object_id_problems
from uplift_server.service.idempotency import IdempotencyKey, check_idempotency_key, create_once, idempotent_request
from uplift_server.service.principals import Caller
from uplift_server.service.rejections import as_conflict, not_found, require_valid
from uplift_server.store import accounts, audit, erasures
from uplift_server.store.contract import Transaction
from uplift_server.store.erasures import Erasure, Found, NewErasure
from uplift_server.store.errors import Conflict
from uplift_server.store.records import Account, Page

COUNT_WAIT_MS: Final = 2000
"""The maximum time that a preview counts events, in ms. The erasure itself has no time limit and finds all events."""
STREAM_WAIT_MS: Final = 2000
"""The maximum time that a request waits for all accepted events to be in the database, in ms."""
_KIND: Final = "erasure"


@dataclass(frozen=True, slots=True)
class ErasureDraft:
    """The erasure fields in a request. Exactly one field is set."""

    object_id: str | None = field(default=None, repr=False)
    event_ids: Sequence[str] | None = None


class ErasurePreview(NamedTuple):
    """The number of events that an erasure would erase. `complete` is False if the count did not finish in time."""

    found: Found
    missing: int
    """The number of requested IDs that match none of the account's events."""
    object_digest: str | None
    complete: bool


class _Chosen(NamedTuple):
    account: Account
    object_id: str | None
    object_digest: str | None
    event_seqs: tuple[int, ...] | None
    missing: int
    last_event_seq: int


class Erasures:
    """Previews, creates and reads erasures."""

    def __init__(self, context: ServiceContext, key: bytes) -> None:
        self._context = context
        self._key = key

    async def preview(
        self, caller: Caller, account: str, draft: ErasureDraft, *, problems: Sequence[Problem] = ()
    ) -> ErasurePreview:
        """Count the events that an erasure would erase, without erasing them. Raises Invalid or NotFound."""
        chosen = await self._choose(caller, account, draft, problems)
        read, seqs = self._context.database.read, chosen.event_seqs
        account_seq, object_id = chosen.account.seq, chosen.object_id
        if seqs is not None:
            found = await read(lambda c: erasures.count(c, account_seq, seqs))
            return ErasurePreview(found, chosen.missing, None, complete=True)
        assert object_id is not None, "an erasure has an object ID or event IDs"
        found, through = Found(), chosen.last_event_seq
        until = self._context.now() + COUNT_WAIT_MS
        while through > 0 and self._context.now() < until:
            last = through
            more, through = await read(lambda c: erasures.count_about(c, account_seq, object_id, last=last))  # noqa: B023 - run before the next turn
            found = found.plus(more)
        return ErasurePreview(found, 0, chosen.object_digest, complete=through <= 0)

    async def create(
        self,
        caller: Caller,
        account: str,
        draft: ErasureDraft,
        *,
        idempotency_key: IdempotencyKey | None = None,
        problems: Sequence[Problem] = (),
    ) -> tuple[Erasure, bool]:
        """Start an erasure. Return the erasure, and whether an earlier request created it.

        Raises Invalid, NotFound, Conflict, or Busy if accepted events are not in the database yet.
        """
        wrong = check_idempotency_key(idempotency_key)
        chosen = await self._choose(caller, account, draft, [*problems, *([] if wrong is None else [wrong])])
        stream = self._context.stream
        if stream is not None:
            if not await stream.wait_stored(STREAM_WAIT_MS):
                raise Busy(
                    "Some accepted events are still in the event stream, so the erasure would miss them. Try again in a"
                    " moment."
                )
            chosen = await self._choose(caller, account, draft, problems)
        return await self._context.run_shielded(self._create(caller, chosen, idempotency_key))

    async def page(
        self, caller: Caller, account: str, listing: Listing, *, problems: Sequence[Problem] = ()
    ) -> Page[Erasure]:
        """Return a page of the account's erasures, newest first."""
        account_seq = (await self._account(caller, account)).seq
        request = self._context.page_request(listing, 1, problems)
        return await self._context.database.read(lambda c: erasures.page(c, account_seq, request))

    async def get(self, caller: Caller, account: str, erasure: str) -> Erasure:
        """Return an erasure. Raises NotFound."""
        account_seq = (await self._account(caller, account)).seq
        erasure_id = ids.parse_prefixed(ids.ERASURE, erasure)
        if erasure_id is not None:
            found = await self._context.database.read(lambda c: erasures.get(c, account_seq, erasure_id))
            if found is not None:
                return found
        raise not_found(_KIND, erasure)

    async def _create(
        self, caller: Caller, chosen: _Chosen, idempotency_key: IdempotencyKey | None
    ) -> tuple[Erasure, bool]:
        account_seq, now = chosen.account.seq, self._context.now()
        new = NewErasure(
            id=self._context.new_id(),
            account_seq=account_seq,
            created_at=now,
            last_event_seq=chosen.last_event_seq,
            object_id=chosen.object_id,
            object_digest=chosen.object_digest,
            event_seqs=chosen.event_seqs,
            missing=chosen.missing,
        )
        details = {"object_id_digest": chosen.object_digest} if chosen.object_digest else {}
        if chosen.event_seqs is not None:
            details = {"event_ids": str(len(chosen.event_seqs))}
        entry = self._context.audit_entry(
            caller, "erasure.created", ids.prefixed(ids.ERASURE, new.id), details, account_seq
        )

        def create(connection: Transaction) -> Erasure:
            erasure = erasures.create(connection, new)
            audit.add(connection, entry)
            return erasure

        def load(connection: Transaction, earlier: bytes) -> Erasure | None:
            return erasures.get(connection, account_seq, earlier)

        if idempotency_key is not None:
            # Store a keyed digest. With a plain digest, its readers could check a guess of the object ID in the body.
            digest = hmac.digest(self._key, idempotency_key.body_digest, "sha256")
            idempotency_key = idempotency_key._replace(body_digest=digest)
        request = idempotent_request(idempotency_key, account_seq, _KIND)
        try:
            erasure, repeated = await self._context.database.write(create_once(request, new.id, now, create, load))
        except Conflict as error:
            raise as_conflict(error) from error
        self._context.engine.erasures.wake()
        return erasure, repeated

    async def _choose(self, caller: Caller, account: str, draft: ErasureDraft, problems: Sequence[Problem]) -> _Chosen:
        """Return the account and the events that a draft selects. Raises Invalid with all problems."""
        found = await self._account(caller, account)
        object_id, given = draft.object_id, draft.event_ids
        is_unreadable = any(each.field.partition(".")[0] in {"object_id", "event_ids"} for each in problems)
        wrong = [*problems, *([] if is_unreadable else _draft_problems(draft))]
        event_ids = dict.fromkeys(ids.parse_uuid(each) for each in given or ())
        require_valid(list(dict.fromkeys(wrong)))
        if object_id is not None:
            last = await self._context.database.read(erasures.newest_seq)
            return _Chosen(found, object_id, self._digest(found, object_id), None, 0, last)
        wanted = [each for each in event_ids if each is not None]
        seqs = await self._context.database.read(lambda c: erasures.find_seqs(c, found.seq, wanted))
        numbers = tuple(sorted(seqs.values()))
        return _Chosen(found, None, None, numbers, len(wanted) - len(seqs), max(numbers, default=0))

    async def _account(self, caller: Caller, account: str) -> Account:
        """Return an account.

        Operators can also name a deleted account by its ID, because its events stay until retention deletes them.
        """
        caller.require_right(Right.DATA_ERASE)
        account_id = ids.parse_prefixed(ids.ACCOUNT, account)
        if account_id is not None and caller.principal.is_operator:
            found = await self._context.database.read(lambda c: accounts.get_including_deleted(c, account_id))
            if found is not None:
                return found
        return self._context.find_account(caller, account)

    def _digest(self, account: Account, object_id: str) -> str:
        """Return the digest that identifies an object ID in receipts and in the audit log."""
        return hmac.new(self._key, account.id + object_id.encode(), "sha256").hexdigest()


def _draft_problems(draft: ErasureDraft) -> list[Problem]:
    if (draft.object_id is None) == (draft.event_ids is None):
        text = "Send either `object_id` or `event_ids`."
        return [Problem("object_id", "required" if draft.object_id is None else "conflicting", text)]
    if draft.event_ids is None:
        if draft.object_id == "":
            return [Problem("object_id", "required", "The object ID is empty. Enter the object ID.")]
        return object_id_problems(draft.object_id)
    if not 1 <= len(draft.event_ids) <= ERASURE_EVENT_IDS_MAX:
        text = f"Send 1 to {ERASURE_EVENT_IDS_MAX} event IDs. Split a longer list into several erasures."
        return [Problem("event_ids", "too_many" if draft.event_ids else "required", text)]
    return [
        Problem(f"event_ids.{index}", "id_invalid", f"{each[:40]!r} is not an event ID. Send a UUID.")
        for index, each in enumerate(draft.event_ids)
        if ids.parse_uuid(each) is None
    ]
