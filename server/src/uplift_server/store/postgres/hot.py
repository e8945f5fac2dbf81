"""The hot verbs on the raw driver: set-based statements over arrays, each verb one statement and so one transaction,
but one that takes its turn first.

They stand beside those of SQLite (`store.sqlite.hot`) and mean the same. What is locked in one statement is locked in
the order of its keys, so that two processes wait for each other one way only.
"""

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any, Final

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import FailedReason, Status, Trigger
from uplift_server.store.hot_records import (
    DueEndpoint,
    HealthRow,
    HeldWish,
    LeasedDelivery,
    LeaseWish,
    Released,
    Settlement,
)
from uplift_server.store.postgres.connection import Raw, storable_texts

# Processes that lease at the same time are passed over, not waited for. Bodies are counted before they are read. What
# is locked stands apart from its events: a plan of both may look for what to lock once for each event, and with every
# look find other rows, since another process has let go of some or the statement itself has changed some: beyond the
# limit.
_LEASE_DUE: Final = (
    "WITH locked AS MATERIALIZED ("
    " SELECT w.place, d.* FROM unnest($1::bigint[], $2::int[]) WITH ORDINALITY AS w(endpoint_seq, n, place)"
    " CROSS JOIN LATERAL (SELECT d.event_seq, d.endpoint_seq, d.due_at FROM deliveries d"
    "  WHERE d.endpoint_seq = w.endpoint_seq AND d.status = 0 AND d.lease_owner = 0 AND d.due_at <= $3"
    "  ORDER BY d.due_at, d.event_seq LIMIT w.n FOR UPDATE SKIP LOCKED) d),"
    " due AS MATERIALIZED ("
    " SELECT l.*, octet_length(e.body) AS body_bytes, e.id, e.type_seq, e.created_at, e.expires_at, e.body"
    " FROM locked l JOIN events e ON e.seq = l.event_seq),"
    " fit AS MATERIALIZED (SELECT * FROM ("
    "  SELECT *, sum(body_bytes) OVER (ORDER BY place, due_at, event_seq) - body_bytes AS before FROM due) f"
    " WHERE before <= $6),"
    " leased AS (UPDATE deliveries d SET lease_owner = $4, due_at = $5, fence = d.fence + 1 FROM fit f"
    " WHERE d.event_seq = f.event_seq AND d.endpoint_seq = f.endpoint_seq"
    " RETURNING f.place, f.due_at, d.event_seq, d.endpoint_seq, d.fence, d.attempts_made, d.scheduled_attempts,"
    " d.trigger, d.resume_status, d.resume_due_at, d.replay_seq, f.id, f.type_seq, f.created_at, f.expires_at, f.body)"
    " SELECT event_seq, endpoint_seq, fence, attempts_made, scheduled_attempts, trigger, resume_status, resume_due_at,"
    " replay_seq, id, type_seq, created_at, expires_at, body FROM leased ORDER BY place, due_at, event_seq"
)


async def lease_due(
    raw: Raw, wishes: Sequence[LeaseWish], *, now: int, lease_until: int, owner: int, body_bytes_max: int
) -> list[LeasedDelivery]:
    """See the contract."""
    endpoints, limits = [wish.endpoint_seq for wish in wishes], [wish.limit for wish in wishes]
    rows = await raw.fetch(_LEASE_DUE, endpoints, limits, now, owner, lease_until, body_bytes_max)
    return [_leased(row, lease_until) for row in rows]


def _leased(row: Iterable[Any], lease_until: int) -> LeasedDelivery:
    event, endpoint, fence, made, scheduled, trigger, resume_status, resume_due_at, replay_seq, *of_event = row
    event_id, type_seq, created_at, expires_at, body = of_event
    return LeasedDelivery(
        event_seq=event,
        endpoint_seq=endpoint,
        fence=fence,
        lease_until=lease_until,
        attempts_made=made,
        scheduled_attempts=scheduled,
        trigger=Trigger(trigger),
        event_id=event_id,
        type_seq=type_seq,
        created_at=created_at,
        expires_at=expires_at,
        body=body,
        resume_status=None if resume_status is None else Status(resume_status),
        resume_due_at=resume_due_at,
        replay_seq=replay_seq,
    )


# By name, in the order in which `Settlement` and `AttemptRow` have them; an attempt's delivery is its settlement's.
_SETTLED: Final = (
    "event_seq bigint, endpoint_seq bigint, fence int, status smallint, due_at bigint, attempts_made int,"
    " scheduled_attempts int, last_outcome smallint, failed_reason smallint, completed_at bigint, replay_seq bigint"
)
_ATTEMPT: Final = (
    "number int, trigger smallint, started_at bigint, duration_us bigint, dns_ms int, connect_ms int, tls_ms int,"
    " first_byte_ms int, status_code smallint, outcome smallint, error text, location text, remote_address text,"
    " request_head bytea, response_head bytea, response_body bytea, body_truncated boolean"
)
_HEALTH: Final = (
    "endpoint_seq bigint, consecutive_failures int, failing_since bigint, last_success_at bigint,"
    " last_failure_at bigint, last_outcome smallint, excused_ms bigint"
)
_ATTEMPT_NAMES: Final = ", ".join(column.split()[0] for column in _ATTEMPT.split(", "))
_ATTEMPT_TEXTS: Final = [place for place, column in enumerate(_ATTEMPT.split(", ")) if column.endswith(" text")]
_ATTEMPT_WIDTH: Final = len(_ATTEMPT.split(","))


def _unnested(columns: str, *, first: int = 1) -> str:
    """The rows of parameters that each hold a column, from the first on; the rest of one that is shorter is NULL."""
    names, types = zip(*(column.split() for column in columns.split(", ")), strict=True)
    arrays = ", ".join(f"${number}::{of}[]" for number, of in enumerate(types, first))
    return f"unnest({arrays}) WITH ORDINALITY AS s({', '.join(names)}, place)"


_SETTLE: Final = (
    "WITH settled AS (UPDATE deliveries d SET status = s.status, due_at = s.due_at, attempts_made = s.attempts_made,"  # noqa: S608
    " scheduled_attempts = s.scheduled_attempts, last_outcome = coalesce(s.last_outcome, d.last_outcome),"
    # A resend that leads back to where the delivery was leaves why and when it got there, if it was there before.
    " failed_reason = CASE WHEN d.resume_status = s.status THEN coalesce(d.failed_reason, s.failed_reason)"
    " ELSE s.failed_reason END,"
    " completed_at = CASE WHEN d.resume_status = s.status THEN coalesce(d.completed_at, s.completed_at)"
    " ELSE s.completed_at END,"
    # A test (3) is known for good.
    " lease_owner = 0, trigger = CASE d.trigger WHEN 3 THEN 3 ELSE 0 END, resume_status = NULL, resume_due_at = NULL,"
    # What a replay counts it has no longer in hand.
    " replay_seq = CASE WHEN s.replay_seq IS NULL THEN d.replay_seq END"
    f" FROM {_unnested(f'{_SETTLED}, {_ATTEMPT}')}"
    " WHERE d.event_seq = s.event_seq AND d.endpoint_seq = s.endpoint_seq AND d.fence = s.fence"
    # Under the same fence nobody has leased it since, even if the lease has ended and it was held (3) then; a repeat
    # finds the count moved.
    " AND d.status IN (0, 3) AND d.attempts_made = s.attempts_made - CASE WHEN s.number IS NULL THEN 0 ELSE 1 END"
    " RETURNING s.*),"
    f" attempted AS (INSERT INTO attempts (event_seq, endpoint_seq, {_ATTEMPT_NAMES})"
    f" SELECT event_seq, endpoint_seq, {_ATTEMPT_NAMES} FROM settled WHERE number IS NOT NULL)"
    "{more} SELECT array_agg(place::int) FROM settled"
)
# Let replays know how their attempts ended.
_COUNTED: Final = (
    ", counted AS (UPDATE replays r SET delivered = r.delivered + s.delivered, failed = r.failed + s.failed FROM ("  # noqa: S608
    f" SELECT replay_seq, count(*) FILTER (WHERE last_outcome = {int(Outcome.DELIVERED)}) AS delivered,"
    f" count(*) FILTER (WHERE last_outcome IS DISTINCT FROM {int(Outcome.DELIVERED)}) AS failed"
    " FROM settled WHERE replay_seq IS NOT NULL GROUP BY replay_seq) s WHERE r.seq = s.replay_seq)"
)
_HEALTH_FIRST: Final = 1 + len(f"{_SETTLED}, {_ATTEMPT}".split(","))
_TELLER: Final = _HEALTH_FIRST + len(_HEALTH.split(","))
_FARES: Final = (
    ", health AS (UPDATE endpoints e SET consecutive_failures = s.consecutive_failures,"  # noqa: S608
    " failing_since = s.failing_since, last_success_at = s.last_success_at, last_failure_at = s.last_failure_at,"
    " last_outcome = s.last_outcome,"
    # While the same failing goes on it only grows, and another process may have just let it.
    " excused_ms = CASE WHEN e.failing_since = s.failing_since"
    " THEN greatest(e.excused_ms, s.excused_ms) ELSE s.excused_ms END"
    f" FROM {_unnested(_HEALTH, first=_HEALTH_FIRST)} WHERE e.seq = s.endpoint_seq"
    f" AND (${_TELLER}::bigint = 0 OR EXISTS (SELECT FROM processes p WHERE p.seq = ${_TELLER})))"
)
# By whether replays count, and whether endpoints' health is written.
_SETTLES: Final = {
    (counted, fares): _SETTLE.format(more=(_COUNTED if counted else "") + (_FARES if fares else ""))
    for counted in (False, True)
    for fares in (False, True)
}
_NO_ATTEMPT: Final = (None,) * (2 + _ATTEMPT_WIDTH)


async def settle(
    raw: Raw, settlements: Sequence[Settlement], health: Sequence[HealthRow], *, by: int = 0
) -> frozenset[tuple[int, int]]:
    """See the contract.

    It waits for the disk as `append` does: of what was sent, nothing would be lost but that it was, and it would be
    sent again. Batches grow meanwhile, so that it costs little.
    """
    settlements = sorted(settlements, key=itemgetter(0, 1))
    *settled, attempts, replays = _columns(settlements, len(Settlement._fields))
    _, _, *attempted = _columns([attempt or _NO_ATTEMPT for attempt in attempts], len(_NO_ATTEMPT))
    for place in _ATTEMPT_TEXTS:
        # Receivers and libraries have their say in these.
        attempted[place] = storable_texts(attempted[place])
    columns = [*settled, replays, *attempted]
    replayed = any(column is not None for column in replays)
    fares = [*_columns(sorted(health), len(HealthRow._fields)), by] if health else []
    places = await raw.fetchval(_SETTLES[replayed, bool(fares)], *map(_shortened, columns), *fares) or ()
    if len(places) == len(settlements):
        return frozenset()
    written = set(places)
    return frozenset((s.event_seq, s.endpoint_seq) for place, s in enumerate(settlements, 1) if place not in written)


def _columns(rows: Sequence[Sequence[Any]], width: int) -> Sequence[Sequence[Any]]:
    return list(zip(*rows, strict=True)) if rows else [()] * width


def _shortened(column: Sequence[Any]) -> Sequence[Any]:
    """A column without values is no longer than it must be: its values are missing all the same."""
    return () if column.count(None) == len(column) else column


# What was leased had its turn before whatever waits for its endpoint: it does not lose it by coming back.
_FIRST_WAITING: Final = (
    "(SELECT min(w.due_at) FROM deliveries w"
    " WHERE w.endpoint_seq = d.endpoint_seq AND w.status = 0 AND w.lease_owner = 0)"
)
_RELEASE: Final = (
    f"UPDATE deliveries d SET lease_owner = 0, due_at = least($4, {_FIRST_WAITING})"  # noqa: S608
    " FROM unnest($1::bigint[], $2::bigint[], $3::int[]) AS l(event_seq, endpoint_seq, fence)"
    " WHERE d.event_seq = l.event_seq AND d.endpoint_seq = l.endpoint_seq AND d.fence = l.fence"
    # Not "= 0", with which the index of all that is leased would serve, too. No status is below 0.
    " AND d.status <= 0 AND d.lease_owner <> 0"
)
_RECLAIM: Final = (
    "WITH ended AS MATERIALIZED (SELECT event_seq, endpoint_seq FROM deliveries"  # noqa: S608
    " WHERE status = 0 AND lease_owner <> 0 AND {ended} ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED),"
    f" reclaimed AS (UPDATE deliveries d SET lease_owner = 0, due_at = least(d.due_at, $1, {_FIRST_WAITING}) FROM ended"
    " WHERE d.event_seq = ended.event_seq AND d.endpoint_seq = ended.endpoint_seq RETURNING 1)"
    " SELECT count(*) FROM reclaimed"
)
# By the database's own clock, too: a process that still goes by what it was before a failover ends no other's leases.
_RECLAIM_ENDED: Final = _RECLAIM.format(ended="due_at <= least($1, (extract(epoch FROM now()) * 1000)::bigint)")
_RECLAIM_OWNED: Final = _RECLAIM.format(ended="lease_owner = $3")


async def release(raw: Raw, leases: Sequence[tuple[int, int, int]], *, now: int) -> None:
    """See the contract."""
    if leases:
        await raw.execute(_RELEASE, *zip(*sorted(leases), strict=True), now)


async def reclaim(raw: Raw, *, now: int, owner: int | None, limit: int) -> int:
    """See the contract."""
    if owner is None:
        count: int = await raw.fetchval(_RECLAIM_ENDED, now, limit)
    else:
        count = await raw.fetchval(_RECLAIM_OWNED, now, limit, owner)
    return count


HELD_LOCK: Final = 0x68656C64
_INT_MAX: Final = 0x7FFFFFFF
# A statement that begins afterwards sees what the one before has released, and whether that waits. Within one it would
# only see what it has waited for the rows of, and release more behind it.
_TAKE_TURNS: Final = f"SELECT pg_advisory_xact_lock({HELD_LOCK}, endpoint) FROM unnest($1::int[]) endpoint"  # noqa: S608
_RELEASE_HELD: Final = (
    "WITH wished AS MATERIALIZED (SELECT w.*, EXISTS (SELECT FROM deliveries d WHERE d.endpoint_seq = w.endpoint_seq"  # noqa: S608
    " AND d.status = 0 AND d.lease_owner = 0 AND d.due_at <= $4) AS waits"
    " FROM unnest($1::bigint[], $2::bigint[], $3::int[]) WITH ORDINALITY AS w(endpoint_seq, after, n, place)),"
    # Apart from their events, see above.
    " locked AS MATERIALIZED (SELECT w.place, d.event_seq, d.endpoint_seq FROM wished w CROSS JOIN LATERAL ("
    "  SELECT d.event_seq, d.endpoint_seq FROM deliveries d"
    "  WHERE d.endpoint_seq = w.endpoint_seq AND d.status = 3 AND d.event_seq > w.after"
    "  ORDER BY d.event_seq LIMIT w.n FOR UPDATE) d WHERE NOT w.waits),"
    " oldest AS MATERIALIZED (SELECT l.*, coalesce(e.expires_at <= $4, false) AS expired"
    " FROM locked l JOIN events e ON e.seq = l.event_seq),"
    f" released AS (UPDATE deliveries d SET status = CASE WHEN o.expired THEN {int(Status.FAILED)} ELSE 0 END,"
    " due_at = CASE WHEN o.expired THEN d.due_at ELSE $4 END,"
    f" failed_reason = CASE WHEN o.expired THEN {int(FailedReason.EXPIRED)} ELSE d.failed_reason END,"
    " completed_at = CASE WHEN o.expired THEN $4 ELSE d.completed_at END FROM oldest o"
    " WHERE d.event_seq = o.event_seq AND d.endpoint_seq = o.endpoint_seq RETURNING o.place, o.expired)"
    " SELECT count(*) FILTER (WHERE NOT expired), count(*) FILTER (WHERE expired), bool_or(waits) FROM ("
    "  SELECT place, waits, NULL::boolean AS expired FROM wished"
    "  UNION ALL SELECT place, false, expired FROM released) r GROUP BY place ORDER BY place"
)


async def release_held(raw: Raw, wishes: Sequence[HeldWish], *, now: int) -> list[Released]:
    """See the contract."""
    if not wishes:
        return []
    async with raw.transaction():
        await raw.execute(_TAKE_TURNS, sorted({wish.endpoint_seq & _INT_MAX for wish in wishes}))
        return [Released(*row) for row in await raw.fetch(_RELEASE_HELD, *zip(*wishes, strict=True), now)]


# A loose index scan: from one endpoint's first entry straight to the next endpoint's, however many each has.
_DUE_ENDPOINTS: Final = """
WITH RECURSIVE waiting(endpoint_seq) AS (
    (SELECT min(endpoint_seq) FROM deliveries WHERE status = 0 AND lease_owner = 0 AND endpoint_seq > $1)
    UNION ALL
    SELECT (SELECT min(d.endpoint_seq) FROM deliveries d
            WHERE d.status = 0 AND d.lease_owner = 0 AND d.endpoint_seq > waiting.endpoint_seq)
    FROM waiting WHERE waiting.endpoint_seq IS NOT NULL
)
SELECT endpoint_seq, (SELECT min(d.due_at) FROM deliveries d
                      WHERE d.status = 0 AND d.lease_owner = 0 AND d.endpoint_seq = waiting.endpoint_seq)
FROM waiting WHERE endpoint_seq IS NOT NULL LIMIT $2
"""


async def due_endpoints(raw: Raw, *, after: int, limit: int) -> list[DueEndpoint]:
    """See the contract."""
    return [DueEndpoint(*row) for row in await raw.fetch(_DUE_ENDPOINTS, after, limit)]


_NEXT_DUE: Final = """
SELECT w.endpoint_seq, d.due_at FROM unnest($1::bigint[]) AS w(endpoint_seq) CROSS JOIN LATERAL (
    SELECT d.due_at FROM deliveries d
    WHERE d.endpoint_seq = w.endpoint_seq AND d.status = 0 AND d.lease_owner = 0 ORDER BY d.due_at LIMIT 1
) d
"""


async def next_due(raw: Raw, endpoint_seqs: Sequence[int]) -> list[DueEndpoint]:
    """See the contract."""
    return [DueEndpoint(*row) for row in await raw.fetch(_NEXT_DUE, endpoint_seqs)]
