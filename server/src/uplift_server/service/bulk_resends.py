"""Bulk resends. A bulk resend creates one replay for each endpoint with matching deliveries."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from uplift_server.core import ids
from uplift_server.core.deliveries.replays import STATUSES_DEFAULT, SkipReason, parse_statuses
from uplift_server.core.limits import REPLAY_RATE_PER_SECOND_DEFAULT, REPLAYS_UNFINISHED_PER_ACCOUNT_MAX
from uplift_server.core.problems import Problem
from uplift_server.core.security.scopes import Scope
from uplift_server.service.context import ServiceContext
from uplift_server.service.delivery_queries import DeliveryQuery, delivery_filter
from uplift_server.service.idempotency import IdempotencyKey, check_idempotency_key, create_once, idempotent_request
from uplift_server.service.principals import Caller
from uplift_server.service.rejections import as_conflict, require_valid
from uplift_server.service.replays import COUNT_WAIT_MS, Replays, ShownReplay
from uplift_server.store import audit, deliveries, endpoints, event_times, replays
from uplift_server.store.contract import Transaction
from uplift_server.store.deliveries import Matching
from uplift_server.store.errors import Conflict
from uplift_server.store.records import DeliveryFilter
from uplift_server.store.replays import NewReplay, Replay, ReplaySelection

ENDPOINTS_MAX: Final = REPLAYS_UNFINISHED_PER_ACCOUNT_MAX
_KIND: Final = "bulk resend"


class EndpointShare(NamedTuple):
    """The number of an endpoint's matching deliveries, and whether the bulk resend skips the endpoint."""

    seq: int
    endpoint: str
    number: int
    reason: SkipReason | None
    """Why the bulk resend skips this endpoint. None if the bulk resend creates a replay."""


@dataclass(frozen=True, slots=True)
class BulkPreview:
    """The number of matching deliveries by endpoint. `complete` is False if the count did not finish in time."""

    oldest_at: int | None
    newest_at: int | None
    endpoints: Sequence[EndpointShare]
    complete: bool

    @property
    def count(self) -> int:
        """The number of deliveries to resend."""
        return sum(each.number for each in self.endpoints if each.reason is None)

    @property
    def skipped(self) -> Sequence[EndpointShare]:
        """The endpoints that the bulk resend skips."""
        return [each for each in self.endpoints if each.reason is not None]


class BulkResend(NamedTuple):
    """A bulk resend that this request, or an earlier request with the same idempotency key, created."""

    replays: Sequence[ShownReplay]
    skipped: Sequence[EndpointShare]
    repeated: bool


class _Counted(NamedTuple):
    account_seq: int
    wanted: DeliveryFilter
    first: int
    last: int
    now: int
    preview: BulkPreview


class BulkResends:
    """Previews and creates bulk resends. Each bulk resend covers a single account."""

    def __init__(self, context: ServiceContext, replays: Replays) -> None:
        self._context = context
        self._replays = replays

    async def preview(self, caller: Caller, query: DeliveryQuery, *, problems: Sequence[Problem] = ()) -> BulkPreview:
        """Count each endpoint's matching deliveries without resending them. Raises Invalid or AccountRequired."""
        caller.require(Scope.DELIVERIES_WRITE)
        return (await self._count(caller, query, problems)).preview

    async def create(
        self,
        caller: Caller,
        query: DeliveryQuery,
        rate_per_second: int | None = None,
        *,
        idempotency_key: IdempotencyKey | None = None,
        problems: Sequence[Problem] = (),
    ) -> BulkResend:
        """Create the replays of a bulk resend.

        Raises Invalid, AccountRequired, or Conflict if the account has too many unfinished replays.
        """
        caller.require(Scope.DELIVERIES_WRITE)
        wrong = check_idempotency_key(idempotency_key)
        counted = await self._count(caller, query, [*problems, *([] if wrong is None else [wrong])])
        shares = [each for each in counted.preview.endpoints if each.reason is None]
        if not counted.preview.complete:
            text = "Too many deliveries to count. Choose an endpoint or a shorter time range."
            require_valid([Problem("created_after", "range_too_large", text)])
        if len(shares) > ENDPOINTS_MAX:
            text = f"The deliveries belong to {len(shares)} endpoints. Choose at most {ENDPOINTS_MAX} endpoints."
            require_valid([Problem("endpoint", "too_many_endpoints", text)])
        rate = rate_per_second or REPLAY_RATE_PER_SECOND_DEFAULT
        return await self._context.run_shielded(self._create(caller, counted, shares, query, rate, idempotency_key))

    async def _create(
        self,
        caller: Caller,
        counted: _Counted,
        shares: Sequence[EndpointShare],
        query: DeliveryQuery,
        rate: int,
        idempotency_key: IdempotencyKey | None,
    ) -> BulkResend:
        batch_id, account_seq, wanted = self._context.new_id(), counted.account_seq, counted.wanted
        news = [self._new_replay(counted, share, query, rate, batch_id) for share in shares]
        details = {
            "status": [each.text for each in wanted.statuses],
            "outcome": list(query.outcome),
            "status_code": list(query.status_code),
            "types": list(query.type),
            "object_id": query.object_id,
            "endpoints": [each.endpoint for each in shares],
            "count": counted.preview.count,
            "rate_per_second": rate,
        }
        shown = {name: value for name, value in details.items() if value not in ([], None)}
        account = ids.prefixed(ids.ACCOUNT, self._context.cache.accounts[account_seq].id)
        entry = self._context.audit_entry(caller, "deliveries.resent", account, shown, account_seq)

        def create(connection: Transaction) -> list[Replay]:
            created = [replays.create(connection, new) for new in news]
            audit.add(connection, entry)
            return created

        def load(connection: Transaction, earlier: bytes) -> list[Replay]:
            return replays.of_batch(connection, account_seq, earlier)

        request = idempotent_request(idempotency_key, account_seq, _KIND)
        try:
            found, repeated = await self._context.database.write(
                create_once(request, batch_id, counted.now, create, load)
            )
        except Conflict as error:
            raise as_conflict(error) from error
        if not repeated:
            for replay in found:
                self._context.engine.replays.put(replay)
        return BulkResend(
            [self._replays.show(each) for each in found], () if repeated else counted.preview.skipped, repeated
        )

    def _new_replay(
        self, counted: _Counted, share: EndpointShare, query: DeliveryQuery, rate: int, batch_id: bytes
    ) -> NewReplay:
        wanted = counted.wanted
        return NewReplay(
            id=self._context.new_id(),
            account_seq=counted.account_seq,
            selection=ReplaySelection(
                share.seq,
                wanted.statuses,
                wanted.type_seqs,
                wanted.created_after,
                wanted.created_before,
                counted.now,
                wanted.outcomes,
                wanted.status_codes,
                wanted.object_id,
            ),
            types=tuple(query.type),
            rate_per_second=rate,
            total=share.number,
            counted_through=counted.last,
            first_event_seq=counted.first,
            last_event_seq=counted.last,
            batch_id=batch_id,
        )

    async def _count(self, caller: Caller, query: DeliveryQuery, problems: Sequence[Problem]) -> _Counted:
        """Count the matching deliveries, one range of events at a time, but stop after COUNT_WAIT_MS."""
        account_seq = caller.require_account()
        found = [*problems]
        if query.status:
            _, wrong = parse_statuses(query.status)
            found += wrong
        else:
            query = query._replace(status=[each.text for each in STATUSES_DEFAULT])
        after, before = query.created_after, query.created_before
        if after is not None and before is not None and after >= before:
            text = "The time range is empty. Use a `created_before` that is later than `created_after`."
            found.append(Problem("created_before", "range_empty", text))
        wanted = await delivery_filter(self._context, caller, query, found)
        require_valid(list(dict.fromkeys(found)))
        read, now = self._context.database.read, self._context.now()
        first, last = await read(lambda c: event_times.bounds(c, after=after, before=before))
        matching: dict[int, Matching] = {}
        through = last
        while through >= first and self._context.now() < now + COUNT_WAIT_MS:
            end = through
            counts, low = await read(
                lambda c: deliveries.count_ended(c, account_seq, wanted, first=first, last=end, ended_by=now)  # noqa: B023 - run before the next turn
            )
            for seq, more in counts.items():
                known = matching.get(seq, more._replace(number=0))
                matching[seq] = Matching(
                    known.number + more.number,
                    min(known.oldest_at, more.oldest_at),
                    max(known.newest_at, more.newest_at),
                )
            through = low - 1
        shares = await read(lambda c: self._shares(c, account_seq, matching))
        preview = BulkPreview(
            min((matching[each.seq].oldest_at for each in shares if each.reason is None), default=None),
            max((matching[each.seq].newest_at for each in shares if each.reason is None), default=None),
            shares,
            complete=through < first,
        )
        return _Counted(account_seq, wanted, first, last, now, preview)

    def _shares(self, connection: Transaction, account_seq: int, matching: dict[int, Matching]) -> list[EndpointShare]:
        """Return the endpoints with matching deliveries.

        The endpoint with the most matching deliveries comes first.
        """
        busy = replays.busy_endpoints(connection, account_seq)
        names = endpoints.ids_of(connection, matching)
        found = []
        for seq, counts in matching.items():
            is_live = seq in self._context.cache.endpoints
            reason: SkipReason | None = "replay_unfinished" if seq in busy else None
            if not is_live:
                reason = "endpoint_deleted"
            found.append(EndpointShare(seq, ids.prefixed(ids.ENDPOINT, names[seq]), counts.number, reason))
        return sorted(found, key=lambda each: (-each.number, each.seq))
