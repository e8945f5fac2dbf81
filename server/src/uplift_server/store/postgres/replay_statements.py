"""The statements for a running replay on PostgreSQL."""

from typing import Final

from uplift_server.core.lifecycle import FailedReason
from uplift_server.store.status_sql import CREATED, FAILED, PENDING, REPLAY, TEST

# `store.releases` uses the same conditions to count deliveries. The last row can exceed the body byte limit.
_REPLAYABLE: Final = """\
SELECT event_seq, endpoint_seq, fence, attempts_made, scheduled_attempts, status, completed_at,
    id, type_seq, created_at, expires_at, body, order_group, ordering_key
FROM (
    SELECT *, sum(octet_length(body)) OVER (ORDER BY event_seq) - octet_length(body) AS bytes_before
    FROM (
        SELECT d.event_seq, d.endpoint_seq, d.fence, d.attempts_made, d.scheduled_attempts, d.status, d.completed_at,
            e.id, e.type_seq, e.created_at, e.expires_at, e.body, d.order_group, e.ordering_key
        FROM {deliveries} d JOIN events e ON e.seq = d.event_seq
        WHERE {events}                   -- $1: endpoint_seq
          AND {ended}
          AND (e.expires_at IS NULL OR e.expires_at > $3)
          AND (cardinality($4::bigint[]) = 0 OR e.type_seq = ANY ($4))  -- event types; empty: all
          AND ($5::bigint IS NULL OR e.created_at > $5)  -- created after
          AND ($6::bigint IS NULL OR e.created_at < $6)  -- created before{filters}
        ORDER BY d.endpoint_seq, d.event_seq
        LIMIT $8{lock}                   -- deliveries
    ) chosen
) summed
WHERE bytes_before <= $7                 -- limit of body bytes
ORDER BY event_seq
"""
_ENDED: Final = f"""d.status = ANY ($2::smallint[])
          AND d.trigger <> {TEST}
          AND d.completed_at <= $3       -- when the replay was created"""
# A delivery that a replay created counts as missing until its first attempt.
_UNATTEMPTED: Final = f"d.status = {FAILED} AND d.attempts_made = 0 AND d.trigger <> {TEST}"
# Compare pairs, so that the planner uses the index that begins with the endpoint.
# With another index, PostgreSQL would read these events' deliveries to all endpoints.
_BETWEEN: Final = "(d.endpoint_seq, d.event_seq) >= ($1, {first}) AND (d.endpoint_seq, d.event_seq) <= ($1, {last})"
REPLAYABLE_NEXT: Final = _REPLAYABLE.format(
    deliveries="deliveries", events=_BETWEEN.format(first="$9", last="$10"), ended=_ENDED, filters="", lock=""
)
_FILTERS: Final = """
          AND ($11::text IS NULL OR e.object_id = $11)
          AND (cardinality($12::smallint[]) = 0 OR d.last_outcome = ANY ($12))  -- outcomes; empty: all
          AND (cardinality($13::int[]) = 0 OR EXISTS (  -- lowest and highest status codes; empty: all
            SELECT FROM attempts a, unnest($13, $14::int[]) AS r(low, high)
            WHERE a.event_seq = d.event_seq AND a.endpoint_seq = d.endpoint_seq AND a.number = d.attempts_made
              AND a.status_code BETWEEN r.low AND r.high OFFSET 0))"""
# The range never contains more than $15 deliveries.
# The limit makes the planner find the deliveries first, with the index that begins with the endpoint.
# Without the limit, the planner would expect few matches and search all events.
REPLAYABLE_FILTERED: Final = _REPLAYABLE.format(
    deliveries=f"""(
            SELECT * FROM deliveries d WHERE {_BETWEEN.format(first="$9", last="$10")}
            ORDER BY d.endpoint_seq, d.event_seq LIMIT $15)""",  # noqa: S608
    events="TRUE",
    ended=_ENDED,
    filters=_FILTERS,
    lock="",
)
# Like REPLAYABLE_NEXT, but also includes events without a delivery.
# An event with an attempt is not missing: retention deletes old deliveries before their attempts.
# Because of the OFFSET clauses, PostgreSQL searches an index for each event.
REPLAYABLE_OR_MISSING: Final = f"""\
SELECT event_seq, endpoint_seq, fence, attempts_made, scheduled_attempts, status, completed_at,
    id, type_seq, created_at, expires_at, body, order_group, ordering_key
FROM (
    SELECT *, sum(octet_length(body)) OVER (ORDER BY event_seq) - octet_length(body) AS bytes_before
    FROM (
        SELECT e.seq AS event_seq, $1::bigint AS endpoint_seq, coalesce(d.fence, 0) AS fence,
            coalesce(d.attempts_made, 0) AS attempts_made, coalesce(d.scheduled_attempts, 0) AS scheduled_attempts,
            coalesce(d.status, {FAILED}) AS status, d.completed_at,
            e.id, e.type_seq, e.created_at, e.expires_at, e.body, d.order_group, e.ordering_key
        FROM events e LEFT JOIN LATERAL (
            SELECT * FROM deliveries WHERE event_seq = e.seq AND endpoint_seq = $1 OFFSET 0) d ON TRUE
        WHERE e.account_seq = $11
          AND e.seq >= $9 AND e.seq <= $10
          AND (e.expires_at IS NULL OR e.expires_at > $3)
          AND (cardinality($4::bigint[]) = 0 OR e.type_seq = ANY ($4))  -- event types; empty: all
          AND ($5::bigint IS NULL OR e.created_at > $5)  -- created after
          AND ($6::bigint IS NULL OR e.created_at < $6)  -- created before
          AND CASE WHEN d.event_seq IS NULL THEN
                e.type_seq = ANY ($12::bigint[])  -- types of missing events
                AND NOT EXISTS (
                    SELECT FROM deliveries t WHERE t.event_seq = e.seq AND t.trigger = {TEST} OFFSET 0)
                AND NOT EXISTS (
                    SELECT FROM attempts a WHERE a.event_seq = e.seq AND a.endpoint_seq = $1 OFFSET 0)
              ELSE ({_ENDED}
                OR {_UNATTEMPTED}) END
        ORDER BY e.seq
        LIMIT $8                         -- deliveries
    ) chosen
) summed
WHERE bytes_before <= $7                 -- limit of body bytes
ORDER BY event_seq
"""  # noqa: S608
# The listed deliveries matched the filters in an earlier read. Select those without a later attempt.
# Lock the rows, so that they do not change before the lease.
# $9 contains the events, and $10 is true if missing events match.
REPLAYABLE_AGAIN: Final = _REPLAYABLE.format(
    deliveries="deliveries",
    events="d.endpoint_seq = $1 AND d.event_seq = ANY ($9::bigint[])",
    ended=f"({_ENDED}\n            OR $10::boolean AND {_UNATTEMPTED})",
    filters="",
    lock=" FOR UPDATE OF d",
)
NTH_DELIVERY: Final = f"""\
SELECT event_seq FROM deliveries d
WHERE {_BETWEEN.format(first="$2", last="$3")}  -- $1: endpoint_seq; $2, $3: the first event and the last
ORDER BY endpoint_seq, event_seq
LIMIT 1 OFFSET $4                        -- deliveries before it
"""  # noqa: S608
NTH_EVENT: Final = """\
SELECT seq FROM events
WHERE account_seq = $1 AND seq >= $2 AND seq <= $3
ORDER BY seq
LIMIT 1 OFFSET $4                        -- events before it
"""
# A settlement that counts an attempt for the replay waits for this lock, so reads while the lock is held are
# consistent.
LOCK_REPLAY: Final = "SELECT FROM replays WHERE seq = $1 FOR UPDATE"
# `returned` lists the released deliveries that are no longer pending: a process returned their leases unused.
REPLAY_PROGRESS: Final = f"""\
SELECT state, total, next_event_seq, last_event_seq, delivered, failed, skipped,
    (SELECT count(*) FROM deliveries WHERE replay_seq = r.seq AND status = {PENDING}) AS outstanding,
    (SELECT coalesce(array_agg(event_seq ORDER BY event_seq), '{{}}') FROM deliveries
     WHERE replay_seq = r.seq AND status <> {PENDING}) AS returned
FROM replays r
WHERE seq = $1
"""  # noqa: S608
# An ordered delivery is stored as blocked instead of leased.
LEASE_REPLAYED: Final = f"""\
UPDATE deliveries d
SET status = {PENDING},
    due_at = CASE WHEN d.order_group IS NULL THEN $6::bigint END,  -- end of the lease
    lease_owner = CASE WHEN d.order_group IS NULL THEN $7::bigint ELSE 0 END,  -- the process
    fence = d.fence + 1,
    trigger = {REPLAY},
    resume_status = d.status,
    resume_due_at = NULL,
    replay_seq = $8
FROM unnest(
        $1::bigint[],                    -- event_seq
        $2::bigint[],                    -- endpoint_seq
        $3::int[],                       -- expected fence, status and time
        $4::smallint[],
        $5::bigint[]
    ) AS s(event_seq, endpoint_seq, fence, status, completed_at)
WHERE d.event_seq = s.event_seq AND d.endpoint_seq = s.endpoint_seq AND d.fence = s.fence
  AND d.status = s.status AND d.completed_at = s.completed_at
RETURNING d.event_seq
"""  # noqa: S608
LEASE_MISSING: Final = f"""\
INSERT INTO deliveries (event_seq, endpoint_seq, account_seq, status, due_at, lease_owner, fence, trigger,
    resume_status, failed_reason, completed_at, replay_seq, order_group)
SELECT event_seq, $3::bigint, $4::bigint, {PENDING},
    CASE WHEN order_group IS NULL THEN $5::bigint END,  -- end of the lease
    CASE WHEN order_group IS NULL THEN $6::bigint ELSE 0 END,  -- the process
    1, {REPLAY}, {FAILED}, {int(FailedReason.EXHAUSTED)},
    $7::bigint,                          -- now
    $8::bigint,                          -- the replay
    order_group
FROM unnest($1::bigint[], $2::bigint[]) AS m(event_seq, order_group) JOIN events e ON e.seq = m.event_seq
WHERE e.erased_at IS NULL
FOR SHARE OF e                           -- an erasure waits, and then finds the delivery
ON CONFLICT DO NOTHING
RETURNING event_seq
"""  # noqa: S608
# The statistics use these rows to count deliveries of past events.
NOTE_MISSING: Final = f"""\
INSERT INTO delivery_changes (event_seq, endpoint_seq, account_seq, created_at, old_status, new_status)
SELECT event_seq, $3::bigint, $4::bigint, created_at, {CREATED}, {PENDING}
FROM unnest(
        $1::bigint[],                    -- event_seq
        $2::bigint[]                     -- timestamp of the event
    ) AS m(event_seq, created_at)
"""  # noqa: S608
LEAVE_REPLAY: Final = """\
UPDATE deliveries d SET replay_seq = NULL
FROM unnest(
        $1::bigint[]                     -- event_seq
    ) AS s(event_seq)
WHERE d.event_seq = s.event_seq AND d.endpoint_seq = $2
"""
UPDATE_REPLAY: Final = """\
UPDATE replays
SET state = $2, completed_at = $3, total = $4, skipped = $5,
    next_event_seq = $6,                 -- the replay continues with this event
    updated_at = $7
WHERE seq = $1
"""
