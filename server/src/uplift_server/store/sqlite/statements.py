"""The hot-path statements for SQLite, grouped by operation.

A statement with `:values` or `:rows` is a `ManyRows`. Its parameters are the fields of the NamedTuple next to it. All
other statements take named parameters. No statement that changes rows starts with WITH or a comment, because the driver
counts changed rows only for statements that start with a keyword such as INSERT or UPDATE.
"""

from typing import Final, NamedTuple

from uplift_server.core.lifecycle import FailedReason
from uplift_server.store.hot_records import AttemptRow
from uplift_server.store.sqlite.many_rows import ManyRows
from uplift_server.store.status_sql import FAILED, OPEN, PENDING, SCHEDULE, TEST, held, leased, waiting

# ---- append


class EventRow(NamedTuple):
    """An event to insert. The fields are in the column order of INSERT_EVENTS."""

    seq: int
    id: bytes
    account_seq: int
    type_seq: int
    created_at: int
    expires_at: int | None
    body: bytes
    object_id: str | None
    ordering_key: str | None


class EventObjectRow(NamedTuple):
    """A row in the object ID index. The fields are in the column order of INSERT_EVENT_OBJECTS."""

    first_seq: int
    object_key: int
    event_seq: int


class DeliveryRow(NamedTuple):
    """A delivery to insert. The fields are in the column order of INSERT_DELIVERIES."""

    event_seq: int
    endpoint_seq: int
    account_seq: int
    status: int
    due_at: int | None
    lease_owner: int
    fence: int
    """The fence: 1 if the delivery is stored as leased, otherwise 0."""
    order_group: int | None


class IdempotencyKeyRow(NamedTuple):
    """An idempotency key to insert. The fields are in the column order of INSERT_IDEMPOTENCY_KEYS."""

    account_seq: int
    key: str
    event_seq: int
    created_at: int


INSERT_EVENTS: Final = ManyRows(
    """\
INSERT INTO events (seq, id, account_seq, type_seq, created_at, expires_at, body, object_id, ordering_key)
:values""",
    EventRow,
    size_of=lambda row: len(row.body),
)
INSERT_EVENT_OBJECTS: Final = ManyRows(
    "INSERT INTO event_objects (first_seq, object_key, event_seq) :values", EventObjectRow
)
INSERT_DELIVERIES: Final = ManyRows(
    """\
INSERT INTO deliveries (event_seq, endpoint_seq, account_seq, status, due_at, lease_owner, fence, order_group)
:values""",
    DeliveryRow,
)
INSERT_IDEMPOTENCY_KEYS: Final = ManyRows(
    "INSERT INTO idempotency_keys (account_seq, key, event_seq, created_at) :values", IdempotencyKeyRow
)
HIGHEST_EVENT: Final = "SELECT coalesce(max(seq), 0) FROM events"
EVENT_BY_KEY: Final = """\
SELECT e.seq, e.id, e.created_at, e.type_seq, e.expires_at, e.ordering_key, e.body
FROM idempotency_keys k JOIN events e ON e.seq = k.event_seq
WHERE k.account_seq = :account_seq
  AND k.key = :key                   -- the event's idempotency key
"""
EVENT_BY_ID: Final = """\
SELECT seq, id, created_at, type_seq, expires_at, ordering_key, body
FROM events
WHERE id = :id                       -- the ID that the caller chose
  AND account_seq = :account_seq
"""

# ---- lease


class DueRow(NamedTuple):
    """A due delivery without its event's body. The fields are in the column order of DUE_DELIVERIES."""

    due_at: int
    event_seq: int
    endpoint_seq: int
    fence: int
    attempts_made: int
    scheduled_attempts: int
    trigger: int
    resume_status: int | None
    resume_due_at: int | None
    replay_seq: int | None
    order_group: int | None
    event_id_hex: str
    type_seq: int
    created_at: int
    expires_at: int | None
    body_bytes: int


class LeasedRow(NamedTuple):
    """The key of a delivery to lease, and its new column values."""

    process_id: int
    lease_until: int
    fence: int
    event_seq: int
    endpoint_seq: int


# A statement that reads many rows returns them as one JSON value.
# Otherwise, the writer would wait for the interpreter lock for every row (see ManyRows).
DUE_DELIVERIES: Final = f"""\
SELECT json_group_array(json((
    SELECT json_group_array(json_array(
        d.due_at, d.event_seq, d.endpoint_seq, d.fence, d.attempts_made, d.scheduled_attempts, d.trigger,
        d.resume_status, d.resume_due_at, d.replay_seq, d.order_group, hex(e.id), e.type_seq, e.created_at,
        e.expires_at, length(e.body)))
    FROM (SELECT * FROM deliveries
          WHERE endpoint_seq = request.value AND {waiting()} AND due_at <= :now
          ORDER BY due_at, event_seq
          LIMIT :limit               -- deliveries of each endpoint
         ) d
    JOIN events e ON e.seq = d.event_seq
)))
FROM json_each(:endpoint_seqs) request  -- JSON list; the result has a list for each, in this order
"""  # noqa: S608
BODIES: Final = """\
SELECT json_group_array(json_array(seq, length(body))), CAST(group_concat(body, '') AS BLOB)
FROM events
WHERE seq IN (SELECT value FROM json_each(:event_seqs))  -- JSON list
"""
LEASE: Final = ManyRows(
    """\
UPDATE deliveries
SET lease_owner = leased.process_id, due_at = leased.lease_until, fence = leased.fence
FROM (:rows) leased
WHERE deliveries.event_seq = leased.event_seq AND deliveries.endpoint_seq = leased.endpoint_seq""",
    LeasedRow,
)

# A loose index scan: it jumps from the first entry of one endpoint to the first entry of the next.
DUE_ENDPOINTS: Final = f"""\
WITH RECURSIVE waiting(endpoint_seq) AS (
    SELECT min(endpoint_seq) FROM deliveries
    WHERE {waiting()}
      AND endpoint_seq > :after      -- the last endpoint of the previous page
    UNION ALL
    SELECT (SELECT min(d.endpoint_seq) FROM deliveries d
            WHERE {waiting("d")} AND d.endpoint_seq > waiting.endpoint_seq)
    FROM waiting WHERE waiting.endpoint_seq IS NOT NULL
    LIMIT :limit                     -- endpoints
)
SELECT json_group_array(json_array(
    endpoint_seq,
    (SELECT min(d.due_at) FROM deliveries d
     WHERE {waiting("d")} AND d.endpoint_seq = waiting.endpoint_seq)))
FROM waiting WHERE endpoint_seq IS NOT NULL
"""  # noqa: S608
NEXT_DUE: Final = f"""\
SELECT json_group_array(json_array(request.value, (
    SELECT min(due_at) FROM deliveries WHERE endpoint_seq = request.value AND {waiting()})))
FROM json_each(:endpoint_seqs) request  -- JSON list
"""  # noqa: S608

# ---- settle


class SettledRow(NamedTuple):
    """The key and fence of a delivery to settle, and its new column values."""

    status: int
    due_at: int | None
    attempts_made: int
    scheduled_attempts: int
    last_outcome: int | None
    failed_reason: int | None
    completed_at: int | None
    event_seq: int
    endpoint_seq: int
    fence: int
    attempts_before: int
    """The number of the delivery's attempts before this settlement."""


class EndpointHealthRow(NamedTuple):
    """The health of an endpoint after a batch of settlements.

    The fields are those of `HealthRow` in the same order, followed by `process_seq`.
    """

    endpoint_seq: int
    consecutive_failures: int
    failing_since: int | None
    last_success_at: int | None
    last_failure_at: int | None
    last_outcome: int | None
    excused_ms: int
    last_status_code: int | None
    last_error: str | None
    last_location: str | None
    probe_at: int | None
    process_seq: int
    """The ID of the process that writes the health, or 0 if only one process uses the database.

    If the process was evicted, the update changes nothing.
    """


# - If a resend fails, the delivery keeps the reason and time of its earlier status.
# - A test delivery keeps its trigger.
# - The same fence means that there is no newer lease, even if the lease has expired and the delivery is held now.
# - A repeated settlement changes nothing, because the number of attempts differs.
SETTLE: Final = ManyRows(
    f"""\
UPDATE deliveries
SET status = s.status,
    due_at = s.due_at,
    attempts_made = s.attempts_made,
    scheduled_attempts = s.scheduled_attempts,
    last_outcome = coalesce(s.last_outcome, deliveries.last_outcome),
    failed_reason = CASE WHEN resume_status = s.status
        THEN coalesce(deliveries.failed_reason, s.failed_reason) ELSE s.failed_reason END,
    completed_at = CASE WHEN resume_status = s.status
        THEN coalesce(deliveries.completed_at, s.completed_at) ELSE s.completed_at END,
    lease_owner = 0,
    trigger = CASE trigger WHEN {TEST} THEN {TEST} ELSE {SCHEDULE} END,
    resume_status = NULL,
    resume_due_at = NULL
FROM (:rows) s
WHERE deliveries.event_seq = s.event_seq AND deliveries.endpoint_seq = s.endpoint_seq AND deliveries.fence = s.fence
  AND deliveries.status IN ({OPEN}) AND deliveries.attempts_made = s.attempts_before""",  # noqa: S608
    SettledRow,
)
INSERT_ATTEMPTS: Final = ManyRows(
    """\
INSERT INTO attempts (
    event_seq, endpoint_seq, number, trigger, started_at, duration_us, dns_ms, connect_ms, tls_ms, first_byte_ms,
    status_code, outcome, error, location, remote_address, request_head, response_head, response_body, body_truncated)
:values""",
    AttemptRow,
    size_of=lambda row: len(row.request_head) + len(row.response_head) + len(row.response_body),
)
# Never lower `excused_ms` while `failing_since` stays the same, because another process may have just raised it.
UPDATE_HEALTH: Final = ManyRows(
    """\
UPDATE endpoints
SET consecutive_failures = h.consecutive_failures,
    failing_since = h.failing_since,
    last_success_at = h.last_success_at,
    last_failure_at = h.last_failure_at,
    last_outcome = h.last_outcome,
    excused_ms = CASE WHEN endpoints.failing_since = h.failing_since
        THEN max(endpoints.excused_ms, h.excused_ms) ELSE h.excused_ms END,
    last_status_code = h.last_status_code,
    last_error = h.last_error,
    last_location = h.last_location,
    probe_at = h.probe_at
FROM (:rows) h
WHERE endpoints.seq = h.endpoint_seq
  AND (h.process_seq = 0 OR EXISTS (SELECT 1 FROM processes WHERE processes.seq = h.process_seq))""",
    EndpointHealthRow,
)

# ---- release


class ReleasedRow(NamedTuple):
    """A released lease, and the new due time of its delivery."""

    due_at: int
    event_seq: int
    endpoint_seq: int
    fence: int


# A leased delivery was due before the waiting deliveries of its endpoint, and stays first after its release.
_FIRST_WAITING: Final = f"""coalesce(
        (SELECT min(w.due_at) FROM deliveries w
         WHERE w.endpoint_seq = deliveries.endpoint_seq AND {waiting("w")}), deliveries.due_at)"""  # noqa: S608
RELEASE: Final = ManyRows(
    f"""\
UPDATE deliveries
SET lease_owner = 0,
    due_at = min(released.due_at, {_FIRST_WAITING})
FROM (:rows) released
WHERE deliveries.event_seq = released.event_seq AND deliveries.endpoint_seq = released.endpoint_seq
  AND deliveries.fence = released.fence AND {leased("deliveries")}""",  # noqa: S608
    ReleasedRow,
)
_RECLAIM: Final = f"""\
UPDATE deliveries
SET lease_owner = 0,
    due_at = min(due_at, :now, {_FIRST_WAITING})
WHERE (event_seq, endpoint_seq) IN (
    SELECT event_seq, endpoint_seq FROM deliveries
    WHERE {leased()} AND {{ended}}
    LIMIT :limit                     -- deliveries
)
"""  # noqa: S608
RECLAIM_EXPIRED: Final = _RECLAIM.format(ended="due_at <= :now")
RECLAIM_OWNED: Final = _RECLAIM.format(ended="lease_owner = :process_id")

# ---- release held deliveries

IS_WAITING: Final = f"""\
SELECT 1 FROM deliveries
WHERE endpoint_seq = :endpoint_seq AND {waiting()} AND due_at <= :now
LIMIT 1
"""  # noqa: S608
# Name the index: without table statistics, SQLite would scan all deliveries of the endpoint.
OLDEST_HELD: Final = f"""\
SELECT d.event_seq, e.expires_at <= :now
FROM deliveries d INDEXED BY deliveries_held JOIN events e ON e.seq = d.event_seq
WHERE d.endpoint_seq = :endpoint_seq AND {held("d")}
  AND d.event_seq > :after           -- the last event whose delivery is not released
ORDER BY d.event_seq
LIMIT :limit                         -- deliveries
"""  # noqa: S608
# Ordered deliveries are blocked until `unblock_first` runs.
RELEASE_HELD: Final = f"""\
UPDATE deliveries
SET status = {PENDING},
    due_at = CASE WHEN order_group IS NULL THEN :now END
WHERE endpoint_seq = :endpoint_seq
  AND event_seq IN (SELECT value FROM json_each(:event_seqs))  -- JSON list
"""  # noqa: S608
EXPIRE_HELD: Final = f"""\
UPDATE deliveries
SET status = {FAILED}, failed_reason = {int(FailedReason.EXPIRED)}, completed_at = :now
WHERE endpoint_seq = :endpoint_seq
  AND event_seq IN (SELECT value FROM json_each(:event_seqs))  -- JSON list
"""  # noqa: S608
