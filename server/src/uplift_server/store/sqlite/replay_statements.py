"""The statements for a running replay on SQLite. `store.sqlite.statements` describes how they take parameters."""

from typing import Final, NamedTuple

from uplift_server.core.lifecycle import FailedReason
from uplift_server.store.sqlite.many_rows import ManyRows
from uplift_server.store.status_sql import CREATED, FAILED, PENDING, REPLAY, TEST


class ReplayedRow(NamedTuple):
    """A delivery to lease for a replay, if the delivery still has this fence, status and end time."""

    event_seq: int
    endpoint_seq: int
    fence: int
    status: int
    completed_at: int
    lease_until: int
    process_id: int
    replay_seq: int


class MissingRow(NamedTuple):
    """A leased delivery that a replay creates for an event that has no delivery to the endpoint."""

    event_seq: int
    endpoint_seq: int
    account_seq: int
    created_at: int
    """The timestamp of the event."""
    now: int
    lease_until: int
    process_id: int
    replay_seq: int
    order_group: int | None


class DeliveryKey(NamedTuple):
    """The primary key of a delivery."""

    event_seq: int
    endpoint_seq: int


# `store.releases` uses the same conditions to count deliveries.
_REPLAYABLE: Final = """\
SELECT d.event_seq, d.endpoint_seq, d.fence, d.attempts_made, d.scheduled_attempts, d.status, d.completed_at,
    e.id, e.type_seq, e.created_at, e.expires_at, e.body, d.order_group, e.ordering_key
FROM deliveries d CROSS JOIN events e ON e.seq = d.event_seq
WHERE d.endpoint_seq = :endpoint_seq
  AND {events}
  AND {ended}
  AND (e.expires_at IS NULL OR e.expires_at > :selected_at)
  AND (:type_seqs = '[]' OR e.type_seq IN (SELECT value FROM json_each(:type_seqs)))  -- JSON list; empty: all types
  AND (:created_after IS NULL OR e.created_at > :created_after)
  AND (:created_before IS NULL OR e.created_at < :created_before){filters}
ORDER BY d.event_seq
LIMIT :limit                         -- deliveries
"""
_ENDED: Final = f"""d.status IN (SELECT value FROM json_each(:statuses))  -- JSON list
  AND d.trigger <> {TEST}
  AND d.completed_at <= :selected_at     -- when the replay was created"""  # noqa: S608
# A delivery that a replay created counts as missing until its first attempt.
_ENDED_OR_MISSING: Final = f"""({_ENDED}
    OR :missing_type_seqs IS NOT NULL AND d.status = {FAILED} AND d.attempts_made = 0 AND d.trigger <> {TEST})"""
_FILTERS: Final = """
  AND (:object_id IS NULL OR e.object_id = :object_id)
  AND (:outcomes = '[]' OR d.last_outcome IN (SELECT value FROM json_each(:outcomes)))  -- JSON list; empty: all
  AND (:status_codes = '[]' OR EXISTS (  -- JSON list of ranges; empty: all
    SELECT 1 FROM attempts a, json_each(:status_codes) codes
    WHERE a.event_seq = d.event_seq AND a.endpoint_seq = d.endpoint_seq AND a.number = d.attempts_made
      AND a.status_code BETWEEN json_extract(codes.value, '$[0]') AND json_extract(codes.value, '$[1]')))"""
REPLAYABLE_NEXT: Final = _REPLAYABLE.format(
    events="d.event_seq BETWEEN :first AND :through", ended=_ENDED, filters=_FILTERS
)
# The listed deliveries matched the filters in an earlier read. Select those without a later attempt.
REPLAYABLE_AGAIN: Final = _REPLAYABLE.format(
    events="d.event_seq IN (SELECT value FROM json_each(:event_seqs))", ended=_ENDED_OR_MISSING, filters=""
)
# Like REPLAYABLE_NEXT, but also includes events without a delivery.
# An event with an attempt is not missing: retention deletes old deliveries before their attempts.
REPLAYABLE_OR_MISSING: Final = f"""\
SELECT e.seq, :endpoint_seq, coalesce(d.fence, 0), coalesce(d.attempts_made, 0), coalesce(d.scheduled_attempts, 0),
    coalesce(d.status, {FAILED}), d.completed_at, e.id, e.type_seq, e.created_at, e.expires_at, e.body,
    d.order_group, e.ordering_key
FROM events e INDEXED BY events_by_account
    LEFT JOIN deliveries d ON d.event_seq = e.seq AND d.endpoint_seq = :endpoint_seq
WHERE e.account_seq = :account_seq
  AND e.seq BETWEEN :first AND :through
  AND (e.expires_at IS NULL OR e.expires_at > :selected_at)
  AND (:type_seqs = '[]' OR e.type_seq IN (SELECT value FROM json_each(:type_seqs)))  -- JSON list; empty: all types
  AND (:created_after IS NULL OR e.created_at > :created_after)
  AND (:created_before IS NULL OR e.created_at < :created_before)
  AND CASE WHEN d.event_seq IS NULL THEN
        e.type_seq IN (SELECT value FROM json_each(:missing_type_seqs))  -- JSON list
        AND NOT EXISTS (SELECT 1 FROM deliveries t WHERE t.event_seq = e.seq AND t.trigger = {TEST})
        AND NOT EXISTS (SELECT 1 FROM attempts a WHERE a.event_seq = e.seq AND a.endpoint_seq = :endpoint_seq)
      ELSE {_ENDED_OR_MISSING} END
ORDER BY e.seq
LIMIT :limit                         -- deliveries
"""  # noqa: S608
NTH_DELIVERY: Final = """\
SELECT event_seq FROM deliveries
WHERE endpoint_seq = :endpoint_seq AND event_seq BETWEEN :first AND :last
ORDER BY event_seq
LIMIT 1 OFFSET :skipped              -- deliveries before it
"""
NTH_EVENT: Final = """\
SELECT seq FROM events
WHERE account_seq = :account_seq AND seq BETWEEN :first AND :last
ORDER BY seq
LIMIT 1 OFFSET :skipped              -- events before it
"""
REPLAY_PROGRESS: Final = f"""\
SELECT state, total, next_event_seq, last_event_seq, delivered, failed, skipped,
    (SELECT count(*) FROM deliveries WHERE replay_seq = replays.seq AND status = {PENDING}) AS outstanding
FROM replays
WHERE seq = :replay_seq
"""  # noqa: S608
# Lists the released deliveries that are no longer pending: the process returned their leases unused.
RETURNED: Final = f"""\
SELECT json_group_array(event_seq) FROM deliveries WHERE replay_seq = :replay_seq AND status <> {PENDING}
"""  # noqa: S608
# An ordered delivery is stored as blocked instead of leased.
LEASE_REPLAYED: Final = ManyRows(
    f"""\
UPDATE deliveries
SET status = {PENDING},
    due_at = CASE WHEN deliveries.order_group IS NULL THEN r.lease_until END,
    lease_owner = CASE WHEN deliveries.order_group IS NULL THEN r.process_id ELSE 0 END,
    fence = r.fence + 1,
    trigger = {REPLAY},
    resume_status = deliveries.status,
    resume_due_at = NULL,
    replay_seq = r.replay_seq
FROM (:rows) r
WHERE deliveries.event_seq = r.event_seq AND deliveries.endpoint_seq = r.endpoint_seq AND deliveries.fence = r.fence
  AND deliveries.status = r.status AND deliveries.completed_at = r.completed_at""",  # noqa: S608
    ReplayedRow,
)
# The statistics use these rows to count deliveries of past events. Insert them before the deliveries.
NOTE_MISSING: Final = ManyRows(
    f"""\
INSERT INTO delivery_changes (event_seq, endpoint_seq, account_seq, created_at, old_status, new_status)
SELECT event_seq, endpoint_seq, account_seq, created_at, {CREATED}, {PENDING}
FROM (:rows) m
WHERE NOT EXISTS (
    SELECT 1 FROM deliveries d WHERE d.event_seq = m.event_seq AND d.endpoint_seq = m.endpoint_seq)
  AND EXISTS (SELECT 1 FROM events e WHERE e.seq = m.event_seq AND e.erased_at IS NULL)""",  # noqa: S608
    MissingRow,
)
LEASE_MISSING: Final = ManyRows(
    f"""\
INSERT INTO deliveries (event_seq, endpoint_seq, account_seq, status, due_at, lease_owner, fence, trigger,
    resume_status, failed_reason, completed_at, replay_seq, order_group)
SELECT event_seq, endpoint_seq, account_seq, {PENDING},
    CASE WHEN order_group IS NULL THEN lease_until END,
    CASE WHEN order_group IS NULL THEN process_id ELSE 0 END,
    1, {REPLAY}, {FAILED}, {int(FailedReason.EXHAUSTED)}, now, replay_seq, order_group
FROM (:rows) m
WHERE EXISTS (SELECT 1 FROM events e WHERE e.seq = m.event_seq AND e.erased_at IS NULL)
ON CONFLICT DO NOTHING""",  # noqa: S608
    MissingRow,
)
LEASED_BY_REPLAY: Final = f"SELECT event_seq FROM deliveries WHERE replay_seq = :replay_seq AND status = {PENDING}"  # noqa: S608
UPDATE_REPLAY: Final = """\
UPDATE replays
SET state = :state, completed_at = :completed_at, total = :total, skipped = :skipped,
    next_event_seq = :next_event_seq,  -- the replay continues with this event
    updated_at = :now
WHERE seq = :replay_seq
"""
LEAVE_REPLAY: Final = ManyRows(
    """\
UPDATE deliveries SET replay_seq = NULL FROM (:rows) d
WHERE deliveries.event_seq = d.event_seq AND deliveries.endpoint_seq = d.endpoint_seq""",
    DeliveryKey,
)
COUNT_REPLAYED: Final = """\
UPDATE replays
SET delivered = delivered + :delivered,  -- successful attempts of the batch
    failed = failed + :failed            -- failed attempts of the batch
WHERE seq = :replay_seq
"""
