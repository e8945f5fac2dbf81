"""The hot-path statements for PostgreSQL, grouped by operation.

Each statement is its own transaction unless a comment says otherwise. A statement for many rows takes one array for
each column and unnests the arrays. Statements lock rows in key order, so that they cannot deadlock.
"""

from itertools import product
from typing import Final

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import FailedReason
from uplift_server.store.event_objects import POSTGRES_BUCKET
from uplift_server.store.hot_records import AttemptRow
from uplift_server.store.schema_partitions import NUMBERS
from uplift_server.store.status_sql import FAILED, OPEN, PENDING, SCHEDULE, TEST, held, leased, waiting

# ---- append

# $1: the number of events. The transaction gets its ID before the sequence numbers.
# Therefore, a reader that sees the end of the transaction sees all rows with these numbers.
_NUMBERED: Final = """\
numbered AS MATERIALIZED (
    SELECT array_agg(nextval('events_seq_seq')) AS seqs
    FROM (SELECT pg_current_xact_id() AS id OFFSET 0) began, generate_series(1, $1::int)
    WHERE began.id IS NOT NULL
)"""
# $2-$10: one column each. `place` is the event's position in the batch, starting at 1.
_EVENTS: Final = """\
inserted_events AS (
    INSERT INTO events (seq, id, account_seq, type_seq, created_at, expires_at, body, object_id, ordering_key)
    SELECT n.seqs[e.place], e.id, e.account_seq, e.type_seq, e.created_at, e.expires_at, e.body,
        e.object_id, e.ordering_key
    FROM numbered n,
        unnest($2::int[], $3::bytea[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bytea[], $9::text[],
            $10::text[])
        AS e(place, id, account_seq, type_seq, created_at, expires_at, body, object_id, ordering_key)
)"""
# $11-$17: one column each. A delivery with an owner is inserted as leased, with fence 1.
_DELIVERIES: Final = """\
inserted_deliveries AS (
    INSERT INTO deliveries (event_seq, endpoint_seq, account_seq, status, due_at, lease_owner, fence, order_group)
    SELECT n.seqs[d.place], d.endpoint_seq, d.account_seq, d.status, d.due_at, d.lease_owner,
        CASE d.lease_owner WHEN 0 THEN 0 ELSE 1 END, d.order_group
    FROM numbered n,
        unnest($11::int[], $12::bigint[], $13::bigint[], $14::smallint[], $15::bigint[], $16::bigint[], $17::bigint[])
        AS d(place, endpoint_seq, account_seq, status, due_at, lease_owner, order_group)
)"""
# The following parts use the parameters after $17, one column each.
_IDEMPOTENCY_KEYS: Final = (
    """\
inserted_keys AS (
    INSERT INTO idempotency_keys (account_seq, key, event_seq, created_at)
    SELECT k.account_seq, k.key, n.seqs[k.place], k.created_at
    FROM numbered n,
        unnest(${}::int[], ${}::bigint[], ${}::text[], ${}::bigint[]) AS k(place, account_seq, key, created_at)
)""",
    4,
)
_CHOSEN_IDS: Final = (
    """\
inserted_ids AS (
    INSERT INTO chosen_event_ids (account_seq, id, event_seq)
    SELECT c.account_seq, c.id, n.seqs[c.place]
    FROM numbered n,
        unnest(${}::int[], ${}::bigint[], ${}::bytea[]) AS c(place, account_seq, id)
)""",
    3,
)
_OBJECTS: Final = (
    f"""\
inserted_objects AS (
    INSERT INTO event_objects (first_seq, object_key, event_seq)
    SELECT n.seqs[o.place] - n.seqs[o.place] % {POSTGRES_BUCKET}, o.object_key, n.seqs[o.place]
    FROM numbered n,
        unnest(${{}}::int[], ${{}}::bigint[]) AS o(place, object_key)
)""",  # noqa: S608
    2,
)


def _insert(*present: bool) -> str:
    parts, first = [_NUMBERED], 18
    for is_present, (part, parameters) in zip(present, (_IDEMPOTENCY_KEYS, _CHOSEN_IDS, _OBJECTS), strict=True):
        if is_present:
            parts.append(part.format(*range(first, first + parameters)))
            first += parameters
    parts += [_EVENTS, _DELIVERIES]
    return f"WITH {', '.join(parts)}\nSELECT seqs FROM numbered"


APPEND: Final = {present: _insert(*present) for present in product((False, True), repeat=3)}
"""The statements that store events, keyed by whether the events have idempotency keys, chosen IDs and object IDs.

Each statement returns the event numbers in the same order as the events.
"""
EVENTS_BY_KEY: Final = """\
SELECT k.account_seq, k.key, e.seq, e.id, e.created_at, e.type_seq, e.expires_at, e.ordering_key, e.body
FROM unnest(
        $1::bigint[],                -- account_seq
        $2::text[]                   -- idempotency key
    ) AS wanted(account_seq, key)
JOIN idempotency_keys k ON k.account_seq = wanted.account_seq AND k.key = wanted.key
JOIN events e ON e.seq = k.event_seq
"""
# - The query can return an event twice. DISTINCT would need a sort, and the plan would then read all chosen IDs.
# - `+ 0` excludes the index of an account's events, which the planner may prefer while a table is small. A connection
#   keeps the plan while the table grows. Until autovacuum analyzes the table, each search would read all events of the
#   account.
_EVENTS_BY_ID: Final = """\
SELECT wanted.account_seq, e.seq, e.id, e.created_at, e.type_seq, e.expires_at, e.ordering_key, e.body
FROM unnest(
        $1::bigint[],                -- account_seq
        $2::bytea[]                  -- the ID that the caller chose
    ) AS wanted(account_seq, id)
CROSS JOIN LATERAL (
    SELECT c.event_seq AS seq FROM chosen_event_ids c
    WHERE c.account_seq = wanted.account_seq AND c.id = wanted.id
    UNION ALL
    SELECT f.seq FROM events f
    WHERE f.id = wanted.id AND f.account_seq + 0 = wanted.account_seq{partition}
) found
JOIN events e ON e.seq = found.seq
"""
EVENTS_BY_OWN_ID: Final = _EVENTS_BY_ID.format(partition="")
"""The statement that finds events by IDs that the server may have generated. It searches all partitions."""
EVENTS_BY_FOREIGN_ID: Final = _EVENTS_BY_ID.format(partition=f" AND f.seq < {NUMBERS}")
"""The statement that finds events by IDs that the server did not generate.

It searches `chosen_event_ids` and the first partition, because events in the first partition can be older than this
table. A search of all partitions would read random pages from disk.
"""
# After a partition is dropped, some of its events' chosen IDs remain for a while.
DELETE_CHOSEN_IDS_WITHOUT_EVENT: Final = """\
DELETE FROM chosen_event_ids c
USING unnest(
        $1::bigint[],                -- account_seq
        $2::bytea[]                  -- id
    ) AS wanted(account_seq, id)
WHERE c.account_seq = wanted.account_seq AND c.id = wanted.id
  AND NOT EXISTS (SELECT FROM events e WHERE e.seq = c.event_seq)
"""

# ---- lease

# - SKIP LOCKED skips deliveries that another process is leasing.
# - Rows are locked without their events. With a join, PostgreSQL could repeat the search for each event, lock
#   different rows each time, and exceed the limit.
# - Body sizes are checked before bodies are read.
LEASE_DUE: Final = f"""\
WITH locked AS MATERIALIZED (
    SELECT request.place, d.*
    FROM unnest(
            $1::bigint[],            -- endpoint_seq
            $2::int[]                -- maximum number of its deliveries
        ) WITH ORDINALITY AS request(endpoint_seq, row_limit, place)
    CROSS JOIN LATERAL (
        SELECT d.event_seq, d.endpoint_seq, d.due_at FROM deliveries d
        WHERE d.endpoint_seq = request.endpoint_seq AND {waiting("d")}
          AND d.due_at <= $3         -- now
        ORDER BY d.due_at, d.event_seq LIMIT request.row_limit FOR UPDATE SKIP LOCKED
    ) d
), due AS MATERIALIZED (
    SELECT l.*, octet_length(e.body) AS body_bytes, e.id, e.type_seq, e.created_at, e.expires_at, e.body
    FROM locked l JOIN events e ON e.seq = l.event_seq
), fitting AS MATERIALIZED (
    SELECT * FROM (
        SELECT *, sum(body_bytes) OVER (ORDER BY place, due_at, event_seq) - body_bytes AS bytes_before FROM due
    ) f
    WHERE bytes_before <= $6         -- limit of body bytes
), leased AS (
    UPDATE deliveries d
    SET lease_owner = $4,            -- the process
        due_at = $5,                 -- end of the lease
        fence = d.fence + 1
    FROM fitting f
    WHERE d.event_seq = f.event_seq AND d.endpoint_seq = f.endpoint_seq
    RETURNING f.place, f.due_at, d.event_seq, d.endpoint_seq, d.fence, d.attempts_made, d.scheduled_attempts,
        d.trigger, d.resume_status, d.resume_due_at, d.replay_seq, d.order_group,
        f.id, f.type_seq, f.created_at, f.expires_at, f.body
)
SELECT event_seq, endpoint_seq, fence, attempts_made, scheduled_attempts, trigger, resume_status, resume_due_at,
    replay_seq, order_group, id, type_seq, created_at, expires_at, body
FROM leased
ORDER BY place, due_at, event_seq
"""  # noqa: S608
# A loose index scan: it jumps from the first entry of one endpoint to the first entry of the next.
DUE_ENDPOINTS: Final = f"""\
WITH RECURSIVE waiting(endpoint_seq) AS (
    (SELECT min(endpoint_seq) FROM deliveries
     WHERE {waiting()}
       AND endpoint_seq > $1         -- the last endpoint of the previous page
    )
    UNION ALL
    SELECT (SELECT min(d.endpoint_seq) FROM deliveries d
            WHERE {waiting("d")} AND d.endpoint_seq > waiting.endpoint_seq)
    FROM waiting WHERE waiting.endpoint_seq IS NOT NULL
)
SELECT endpoint_seq, (SELECT min(d.due_at) FROM deliveries d
                      WHERE {waiting("d")} AND d.endpoint_seq = waiting.endpoint_seq) AS due_at
FROM waiting WHERE endpoint_seq IS NOT NULL
LIMIT $2                             -- endpoints
"""  # noqa: S608
NEXT_DUE: Final = f"""\
SELECT wanted.endpoint_seq, d.due_at
FROM unnest(
        $1::bigint[]                 -- endpoint_seq
    ) AS wanted(endpoint_seq)
CROSS JOIN LATERAL (
    SELECT d.due_at FROM deliveries d
    WHERE d.endpoint_seq = wanted.endpoint_seq AND {waiting("d")} AND d.due_at IS NOT NULL
    ORDER BY d.due_at LIMIT 1
) d
"""  # noqa: S608

# ---- settle

SETTLEMENT_COLUMNS: Final = (
    "event_seq", "endpoint_seq", "fence", "status", "due_at", "attempts_made", "scheduled_attempts", "last_outcome",
    "failed_reason", "completed_at", "replay_seq",
)  # fmt: skip
"""The fields of `Settlement` that SETTLE takes as parameters $1-$11."""
ATTEMPT_COLUMNS: Final = tuple(name for name in AttemptRow._fields if name not in ("event_seq", "endpoint_seq"))
"""The fields of `AttemptRow` that SETTLE takes as parameters $12-$28, which are NULL without an attempt.

The fields of `HealthRow` are $29-$39. The ID of the process that writes is $40.
"""
# - If a resend fails, the delivery keeps the reason and time of its earlier status.
# - A test delivery keeps its trigger.
# - If a replay counts the attempt, the delivery leaves the replay.
# - The same fence means that there is no newer lease, even if the lease has expired and the delivery is held now.
# - A repeated settlement changes nothing, because the number of attempts differs.
# An array whose values are all NULL may be empty, because `unnest` adds the missing NULL values.
_SETTLE: Final = f"""\
WITH settled AS (
    UPDATE deliveries d
    SET status = s.status,
        due_at = s.due_at,
        attempts_made = s.attempts_made,
        scheduled_attempts = s.scheduled_attempts,
        last_outcome = coalesce(s.last_outcome, d.last_outcome),
        failed_reason = CASE WHEN d.resume_status = s.status
            THEN coalesce(d.failed_reason, s.failed_reason) ELSE s.failed_reason END,
        completed_at = CASE WHEN d.resume_status = s.status
            THEN coalesce(d.completed_at, s.completed_at) ELSE s.completed_at END,
        lease_owner = 0,
        trigger = CASE d.trigger WHEN {TEST} THEN {TEST} ELSE {SCHEDULE} END,
        resume_status = NULL,
        resume_due_at = NULL,
        replay_seq = CASE WHEN s.replay_seq IS NULL THEN d.replay_seq END
    FROM unnest(
            $1::bigint[], $2::bigint[], $3::int[], $4::smallint[], $5::bigint[], $6::int[], $7::int[], $8::smallint[],
            $9::smallint[], $10::bigint[], $11::bigint[],
            $12::int[], $13::smallint[], $14::bigint[], $15::bigint[], $16::int[], $17::int[], $18::int[], $19::int[],
            $20::smallint[], $21::smallint[], $22::text[], $23::text[], $24::text[],
            $25::bytea[], $26::bytea[], $27::bytea[], $28::boolean[]
        ) WITH ORDINALITY AS s(
            event_seq, endpoint_seq, fence, status, due_at, attempts_made, scheduled_attempts, last_outcome,
            failed_reason, completed_at, replay_seq,
            number, trigger, started_at, duration_us, dns_ms, connect_ms, tls_ms, first_byte_ms,
            status_code, outcome, error, location, remote_address,
            request_head, response_head, response_body, body_truncated, place
        )
    WHERE d.event_seq = s.event_seq AND d.endpoint_seq = s.endpoint_seq AND d.fence = s.fence
      AND d.status IN ({OPEN})
      AND d.attempts_made = s.attempts_made - CASE WHEN s.number IS NULL THEN 0 ELSE 1 END
    RETURNING s.*
), attempted AS (
    INSERT INTO attempts (
        event_seq, endpoint_seq, number, trigger, started_at, duration_us, dns_ms, connect_ms, tls_ms, first_byte_ms,
        status_code, outcome, error, location, remote_address, request_head, response_head, response_body,
        body_truncated)
    SELECT
        event_seq, endpoint_seq, number, trigger, started_at, duration_us, dns_ms, connect_ms, tls_ms, first_byte_ms,
        status_code, outcome, error, location, remote_address, request_head, response_head, response_body,
        body_truncated
    FROM settled WHERE number IS NOT NULL
){{counted}}{{health}}
SELECT array_agg(place::int) FROM settled
"""  # noqa: S608
_COUNTED: Final = f""", counted AS (
    UPDATE replays r
    SET delivered = r.delivered + s.delivered, failed = r.failed + s.failed
    FROM (
        SELECT replay_seq,
            count(*) FILTER (WHERE last_outcome = {int(Outcome.DELIVERED)}) AS delivered,
            count(*) FILTER (WHERE last_outcome IS DISTINCT FROM {int(Outcome.DELIVERED)}) AS failed
        FROM settled WHERE replay_seq IS NOT NULL GROUP BY replay_seq
    ) s
    WHERE r.seq = s.replay_seq
)"""  # noqa: S608
# Never lower `excused_ms` while `failing_since` stays the same, because another process may have just raised it.
_HEALTH: Final = """, health AS (
    UPDATE endpoints e
    SET consecutive_failures = s.consecutive_failures,
        failing_since = s.failing_since,
        last_success_at = s.last_success_at,
        last_failure_at = s.last_failure_at,
        last_outcome = s.last_outcome,
        excused_ms = CASE WHEN e.failing_since = s.failing_since
            THEN greatest(e.excused_ms, s.excused_ms) ELSE s.excused_ms END,
        last_status_code = s.last_status_code,
        last_error = s.last_error,
        last_location = s.last_location,
        probe_at = s.probe_at
    FROM unnest(
            $29::bigint[], $30::int[], $31::bigint[], $32::bigint[], $33::bigint[], $34::smallint[], $35::bigint[],
            $36::smallint[], $37::text[], $38::text[], $39::bigint[]
        ) AS s(
            endpoint_seq, consecutive_failures, failing_since, last_success_at, last_failure_at, last_outcome,
            excused_ms, last_status_code, last_error, last_location, probe_at
        )
    WHERE e.seq = s.endpoint_seq
      AND ($40::bigint = 0 OR EXISTS (SELECT FROM processes p WHERE p.seq = $40))  -- 0: there is only one process
)"""
SETTLE: Final = {
    (counted, health): _SETTLE.format(counted=_COUNTED if counted else "", health=_HEALTH if health else "")
    for counted in (False, True)
    for health in (False, True)
}
"""Statements that write settlements, keyed by whether replays count attempts and whether endpoint health is written.

Each statement returns the positions of the settlements that it has written, counted from 1.
"""

# ---- release

# A leased delivery was due before the waiting deliveries of its endpoint, and stays first after its release.
_FIRST_WAITING: Final = f"""(
        SELECT min(w.due_at) FROM deliveries w
        WHERE w.endpoint_seq = d.endpoint_seq AND {waiting("w")})"""  # noqa: S608
# `status <=` has the same effect as `status =`, because no status is lower. With `=`, the planner could use the index
# of all leased deliveries.
RELEASE: Final = f"""\
UPDATE deliveries d
SET lease_owner = 0, due_at = least(
        $4,                          -- now
        {_FIRST_WAITING})
FROM unnest(
        $1::bigint[],                -- event_seq
        $2::bigint[],                -- endpoint_seq
        $3::int[]                    -- fence
    ) AS released(event_seq, endpoint_seq, fence)
WHERE d.event_seq = released.event_seq AND d.endpoint_seq = released.endpoint_seq AND d.fence = released.fence
  AND d.status <= {PENDING} AND d.lease_owner <> 0
"""  # noqa: S608
_RECLAIM: Final = f"""\
WITH ended AS MATERIALIZED (
    SELECT event_seq, endpoint_seq FROM deliveries
    WHERE {leased()}
      AND {{ended}}
    ORDER BY due_at
    LIMIT $2                         -- deliveries
    FOR UPDATE SKIP LOCKED
), reclaimed AS (
    UPDATE deliveries d
    SET lease_owner = 0, due_at = least(
        d.due_at,
        $1,                          -- now
        {_FIRST_WAITING})
    FROM ended
    WHERE d.event_seq = ended.event_seq AND d.endpoint_seq = ended.endpoint_seq
    RETURNING 1
)
SELECT count(*) FROM reclaimed
"""  # noqa: S608
# Also check the database's clock: a process whose clock jumped must not end other processes' leases.
RECLAIM_EXPIRED: Final = _RECLAIM.format(ended="due_at <= least($1, (extract(epoch FROM now()) * 1000)::bigint)")
RECLAIM_OWNED: Final = _RECLAIM.format(ended="lease_owner = $3")

# ---- release held deliveries

HELD_LOCK: Final = 0x68656C64
"""The first number of the advisory locks for releasing held deliveries.

The second number is the endpoint's number modulo 2**31.
"""
# A separate statement takes the lock, so that the next statement sees the deliveries that the previous holder released.
# A single statement would use an older snapshot and release too many deliveries.
LOCK_HELD: Final = f"""\
SELECT pg_advisory_xact_lock({HELD_LOCK}, endpoint)
FROM unnest(
        $1::int[]                    -- numbers of endpoints modulo 2**31, ascending
    ) endpoint
"""  # noqa: S608
# Rows are locked without their events, as in LEASE_DUE. Ordered deliveries are blocked until `unblock_first` runs.
RELEASE_HELD: Final = f"""\
WITH requested AS MATERIALIZED (
    SELECT r.*, EXISTS (
            SELECT FROM deliveries d
            WHERE d.endpoint_seq = r.endpoint_seq AND {waiting("d")} AND d.due_at <= $4) AS waits
    FROM unnest(
            $1::bigint[],            -- endpoint_seq
            $2::bigint[],            -- the last event whose delivery is not released
            $3::int[]                -- maximum number of deliveries
        ) WITH ORDINALITY AS r(endpoint_seq, after, row_limit, place)
), locked AS MATERIALIZED (
    SELECT r.place, d.event_seq, d.endpoint_seq
    FROM requested r CROSS JOIN LATERAL (
        SELECT d.event_seq, d.endpoint_seq FROM deliveries d
        WHERE d.endpoint_seq = r.endpoint_seq AND {held("d")} AND d.event_seq > r.after
        ORDER BY d.event_seq LIMIT r.row_limit FOR UPDATE
    ) d
    WHERE NOT r.waits
), oldest AS MATERIALIZED (
    SELECT l.*, coalesce(e.expires_at <= $4, false) AS expired
    FROM locked l JOIN events e ON e.seq = l.event_seq
), released AS (
    UPDATE deliveries d
    SET status = CASE WHEN o.expired THEN {FAILED} ELSE {PENDING} END,
        due_at = CASE WHEN NOT o.expired AND d.order_group IS NULL THEN $4 END,  -- $4: now
        failed_reason = CASE WHEN o.expired THEN {int(FailedReason.EXPIRED)} ELSE d.failed_reason END,
        completed_at = CASE WHEN o.expired THEN $4 ELSE d.completed_at END
    FROM oldest o
    WHERE d.event_seq = o.event_seq AND d.endpoint_seq = o.endpoint_seq
    RETURNING o.place, o.expired, CASE WHEN d.order_group IS NOT NULL THEN d.event_seq END AS ordered
)
SELECT count(*) FILTER (WHERE NOT expired) AS released, count(*) FILTER (WHERE expired) AS expired,
    bool_or(waits) AS waits, array_agg(ordered) FILTER (WHERE ordered IS NOT NULL) AS ordered
FROM (
    SELECT place, waits, NULL::boolean AS expired, NULL::bigint AS ordered FROM requested
    UNION ALL
    SELECT place, false, expired, ordered FROM released
) r
GROUP BY place ORDER BY place
"""  # noqa: S608
