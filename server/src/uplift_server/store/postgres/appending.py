"""Events and their deliveries on the raw driver: one statement, which is one transaction, stores a whole batch."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from operator import itemgetter
from typing import Any, Final

import asyncpg

from uplift_server.core.ids import is_uuid7
from uplift_server.store import repeats
from uplift_server.store.hot_records import Appended, IdempotencyConflict, NewEvent
from uplift_server.store.postgres.connection import Raw
from uplift_server.store.repeats import Known, Stored
from uplift_server.store.schema_partitions import NUMBERS

Results = list[list[Appended] | IdempotencyConflict]

# Numbers are taken after the transaction has its own: whoever sees that one ended sees every row with such a number.
_NUMBERED: Final = (
    "numbered AS MATERIALIZED (SELECT array_agg(nextval('events_seq_seq')) AS seqs"
    " FROM (SELECT pg_current_xact_id() AS id OFFSET 0) began, generate_series(1, $1::int) WHERE began.id IS NOT NULL)"
)
_EVENTS: Final = (
    "INSERT INTO events (seq, id, account_seq, type_seq, created_at, expires_at, body)"
    " SELECT n.seqs[e.place], e.id, e.account_seq, e.type_seq, e.created_at, e.expires_at, e.body FROM numbered n,"
    " unnest($2::int[], $3::bytea[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bytea[])"
    " AS e(place, id, account_seq, type_seq, created_at, expires_at, body)"
)
_DELIVERIES: Final = (
    "INSERT INTO deliveries (event_seq, endpoint_seq, account_seq, status, due_at, lease_owner, fence)"
    " SELECT n.seqs[d.place], d.endpoint_seq, d.account_seq, d.status, d.due_at, d.lease_owner,"
    " CASE d.lease_owner WHEN 0 THEN 0 ELSE 1 END FROM numbered n,"
    " unnest($9::int[], $10::bigint[], $11::bigint[], $12::smallint[], $13::bigint[], $14::bigint[])"
    " AS d(place, endpoint_seq, account_seq, status, due_at, lease_owner)"
)
_KEYS: Final = (
    "INSERT INTO idempotency_keys (account_seq, key, event_seq, created_at)"
    " SELECT k.account_seq, k.key, n.seqs[k.place], k.created_at FROM numbered n,"
    " unnest($15::int[], $16::bigint[], $17::text[], $18::bigint[]) AS k(place, account_seq, key, created_at)"
)
_CHOSEN_IDS: Final = (
    "INSERT INTO chosen_event_ids (account_seq, id, event_seq) SELECT c.account_seq, c.id, n.seqs[c.place]"
    " FROM numbered n, unnest({arrays}) AS c(place, account_seq, id)"
)


def _insert(*, keys: bool, chosen_ids: bool) -> str:
    parts = [_NUMBERED]
    if keys:
        parts.append(f"k AS ({_KEYS})")
    if chosen_ids:
        first = 19 if keys else 15
        arrays = f"${first}::int[], ${first + 1}::bigint[], ${first + 2}::bytea[]"
        parts.append(f"c AS ({_CHOSEN_IDS.format(arrays=arrays)})")
    return f"WITH {', '.join(parts)}, e AS ({_EVENTS}), d AS ({_DELIVERIES}) SELECT seqs FROM numbered"  # noqa: S608


_INSERTS: Final = {(keys, ids): _insert(keys=keys, chosen_ids=ids) for keys in (False, True) for ids in (False, True)}
_OF_EVENT: Final = "e.seq, e.id, e.created_at, e.type_seq, e.expires_at, e.body"
_BY_KEY: Final = (
    f"SELECT k.account_seq, k.key, {_OF_EVENT} FROM unnest($1::bigint[], $2::text[]) AS w(account_seq, key)"  # noqa: S608
    " JOIN idempotency_keys k ON k.account_seq = w.account_seq AND k.key = w.key JOIN events e ON e.seq = k.event_seq"
)
# An event that is found twice is the same; to see to that here would need an order, for which the planner goes through
# all chosen ids.
_BY_ID: Final = (
    f"SELECT w.account_seq, w.id, {_OF_EVENT} FROM unnest($1::bigint[], $2::bytea[]) AS w(account_seq, id)"  # noqa: S608
    " CROSS JOIN LATERAL (SELECT c.event_seq AS seq FROM chosen_event_ids c"
    "  WHERE c.account_seq = w.account_seq AND c.id = w.id"
    "  UNION ALL SELECT f.seq FROM events f WHERE f.id = w.id AND f.account_seq = w.account_seq{more}) found"
    " JOIN events e ON e.seq = found.seq"
)
_BY_ID_MADE_HERE: Final = _BY_ID.format(more="")
"""An id that may have been made here, and sent again: any event may be meant, in any partition."""
_BY_FOREIGN_ID: Final = _BY_ID.format(more=f" AND f.seq < {NUMBERS}")
"""Of others, those that were chosen before there were partitions are in the first one, and noted nowhere else. Looked
for in all partitions, ids in no order would be as many random reads each of what nobody has in memory any more."""


# Until they are swept up, some ids are left of events that have gone with their partition.
_FREE_IDS: Final = (
    "DELETE FROM chosen_event_ids c USING unnest($1::bigint[], $2::bytea[]) AS w(account_seq, id)"
    " WHERE c.account_seq = w.account_seq AND c.id = w.id"
    " AND NOT EXISTS (SELECT FROM events e WHERE e.seq = c.event_seq)"
)
REPEATS_MAX: Final = 8
"""How often a batch is tried again since others stored keys or ids of it in the meantime."""


async def append(
    raw: Raw,
    groups: Sequence[Sequence[NewEvent]],
    alone: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
) -> Results:
    """See the contract. `alone` is what is needed around what is not in a transaction already."""
    for _ in range(REPEATS_MAX):
        try:
            async with alone():
                return await _append(raw, groups)
        except asyncpg.UniqueViolationError:
            # Another transaction was faster. It has ended, or there would have been a wait for it: now it is found.
            if raw.is_in_transaction():
                raise
            ids = [(event.account_seq, event.id) for group in groups for event in group if event.caller_chose_id]
            if ids:
                async with alone():
                    await raw.execute(_FREE_IDS, *zip(*ids, strict=True))
    async with alone():
        return await _append(raw, groups)


async def _append(raw: Raw, groups: Sequence[Sequence[NewEvent]]) -> Results:
    checked = [group for group in groups if repeats.is_checked(group)]
    stored = await _stored(raw, checked) if checked else Known()
    rows = _Rows()
    results: Results = []
    for group in groups:
        if not repeats.is_checked(group):
            results.append([Appended(rows.add(event), event.id, event.created_at) for event in group])
            continue
        # Numbers are not known before they are stored: until then they count backwards, by place.
        found = repeats.check(group, rows.next_numbers(len(group)), rows.known.find, stored.find)
        if isinstance(found, IdempotencyConflict):
            results.append(found)
            continue
        appended, fresh = found
        for event, _ in fresh:
            rows.add(event)
        results.append(appended)
    if rows.events:
        seqs = await rows.insert(raw)
        for result in results:
            if isinstance(result, list):
                result[:] = [each._replace(seq=seqs[~each.seq]) if each.seq < 0 else each for each in result]
    return results


async def _stored(raw: Raw, groups: Sequence[Sequence[NewEvent]]) -> Known:
    """Those of the events that are there already."""
    known = Known()
    keys = [(e.account_seq, e.idempotency_key) for group in groups for e in group if e.idempotency_key is not None]
    if keys:
        for account, key, *event in await raw.fetch(_BY_KEY, *zip(*keys, strict=True)):
            known.by_key[account, key] = Stored(*event)
    chosen = [(e.account_seq, e.id) for group in groups for e in group if e.caller_chose_id]
    made_here = [each for each in chosen if is_uuid7(each[1])]
    foreign = [each for each in chosen if not is_uuid7(each[1])]
    for statement, ids in ((_BY_ID_MADE_HERE, made_here), (_BY_FOREIGN_ID, foreign)):
        if ids:
            for account, event_id, *event in await raw.fetch(statement, *zip(*ids, strict=True)):
                known.by_id[account, event_id] = Stored(*event)
    return known


class _Rows:
    """Rows on their way into the database, and what can be found among them. Places count from 1."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self._deliveries: list[tuple[Any, ...]] = []
        self._keys: list[tuple[Any, ...]] = []
        self._chosen_ids: list[tuple[Any, ...]] = []
        self.known = Known()

    def next_numbers(self, count: int) -> Sequence[int]:
        """What the next events are numbered with, until the database has given them numbers."""
        first = ~len(self.events)
        return range(first, first - count, -1)

    def add(self, event: NewEvent) -> int:
        """Take an event's rows; gives what it is numbered with until then."""
        event_id, account, type_seq, created_at, expires_at, body, owed, key, chosen, _ = event
        number = ~len(self.events)
        place = len(self.events) + 1
        self.events.append((place, event_id, account, type_seq, created_at, expires_at, body))
        for endpoint, status, due_at, owner in owed:
            self._deliveries.append((place, endpoint, account, status, due_at, owner))
        if key is not None:
            self._keys.append((place, account, key, created_at))
        if key is not None or chosen:
            self.known.remember(event, number)
        if chosen:
            self._chosen_ids.append((place, account, event_id))
        return number

    async def insert(self, raw: Raw) -> Sequence[int]:
        """Store everything; the events' numbers, in their order."""
        events, keys, chosen_ids = self.events, self._keys, self._chosen_ids
        # Two transactions that store the same keys or ids in the same order wait for each other one way only.
        keys.sort(key=itemgetter(1, 2))
        chosen_ids.sort(key=itemgetter(1, 2))
        if chosen_ids:
            events = sorted(events, key=itemgetter(2, 1))
        rows = [*_columns(events, 7), *_columns(self._deliveries, 6)]
        if keys:
            rows += _columns(keys, 4)
        if chosen_ids:
            rows += _columns(chosen_ids, 3)
        seqs: Sequence[int] = await raw.fetchval(_INSERTS[bool(keys), bool(chosen_ids)], len(events), *rows)
        return seqs


def _columns(rows: Sequence[Sequence[Any]], width: int) -> Sequence[Sequence[Any]]:
    return list(zip(*rows, strict=True)) if rows else [()] * width
