"""Replays on the raw driver: what a running one leases next, in few statements that read few rows.

Between two rows or statements the driver lets go of the interpreter, and beside a busy event loop the whole group that
is being committed waits for it to come back.
"""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from uplift_server.core.deliveries.replays import ReplayState
from uplift_server.core.lifecycle import Status, Trigger
from uplift_server.store import releases
from uplift_server.store.hot_records import Ahead, Candidate, LeasedDelivery, ReplayLease, ReplayRelease
from uplift_server.store.replays import Choice, Replay
from uplift_server.store.sqlite.rows import ManyRows
from uplift_server.store.sqlite.writer import Writing

# What counts as chosen stands in `store.releases`, too, which counts them.
_AHEAD: Final = (
    "SELECT d.event_seq, d.endpoint_seq, d.fence, d.attempts_made, d.scheduled_attempts, d.status, d.completed_at,"  # noqa: S608
    " e.id, e.type_seq, e.created_at, e.expires_at, e.body FROM deliveries d CROSS JOIN events e ON e.seq = d.event_seq"
    " WHERE d.endpoint_seq = :endpoint AND d.event_seq BETWEEN :first AND :through"
    " AND d.status IN (SELECT value FROM json_each(:statuses))"
    f" AND d.trigger <> {int(Trigger.TEST)} AND d.completed_at <= :made_at"
    " AND (e.expires_at IS NULL OR e.expires_at > :made_at)"
    " AND (:types = '[]' OR e.type_seq IN (SELECT value FROM json_each(:types)))"
    " AND (:after IS NULL OR e.created_at > :after) AND (:before IS NULL OR e.created_at < :before)"
    " ORDER BY d.event_seq LIMIT :limit"
)
_AT: Final = (
    "SELECT event_seq FROM deliveries WHERE endpoint_seq = ? AND event_seq BETWEEN ? AND ?"
    " ORDER BY event_seq LIMIT 1 OFFSET ?"
)
_STANDS: Final = (
    "SELECT state, total, next_event_seq, last_event_seq, delivered, failed, skipped,"
    " (SELECT count(*) FROM deliveries WHERE replay_seq = replays.seq AND status = 0),"
    # What it released once and is not pending was given back.
    " (SELECT group_concat(event_seq) FROM deliveries WHERE replay_seq = replays.seq AND status <> 0)"
    " FROM replays WHERE seq = ?"
)
_LEASE: Final = ManyRows(
    f"UPDATE deliveries SET status = {int(Status.PENDING)}, due_at = s.column4, lease_owner = s.column5,"  # noqa: S608
    f" fence = s.column3 + 1, trigger = {int(Trigger.REPLAY)}, resume_status = deliveries.status,"
    " resume_due_at = NULL, replay_seq = s.column6 FROM ({rows}) s"
    " WHERE deliveries.event_seq = s.column1 AND deliveries.endpoint_seq = s.column2 AND deliveries.fence = s.column3"
    " AND deliveries.status = s.column7 AND deliveries.completed_at = s.column8",
    8,
)
_LEASED: Final = "SELECT event_seq FROM deliveries WHERE replay_seq = ? AND status = 0"
_LET_GO: Final = ManyRows(
    "UPDATE deliveries SET replay_seq = NULL FROM ({rows}) s"
    " WHERE deliveries.event_seq = s.column1 AND deliveries.endpoint_seq = s.column2",
    2,
)
_NOTE: Final = (
    "UPDATE replays SET state = ?, completed_at = ?, total = ?, skipped = ?, next_event_seq = ?, updated_at = ?"
    " WHERE seq = ?"
)


def look_ahead(
    raw: sqlite3.Connection, replay: Replay, *, first: int, rows: int, limit: int, body_bytes_max: int
) -> Ahead:
    """See the contract."""
    ahead = _ahead(raw, replay, first, min(rows, limit), limit, body_bytes_max)
    if 2 * len(ahead.candidates) < limit and ahead.through < replay.last_event_seq and rows > limit:
        # Most deliveries from there on are not to be replayed. To count far costs: only now.
        ahead = _ahead(raw, replay, first, rows, limit, body_bytes_max)
    return ahead


def _ahead(raw: sqlite3.Connection, replay: Replay, first: int, rows: int, limit: int, body_bytes_max: int) -> Ahead:
    """What is to be replayed of the next so many of the endpoint's deliveries."""
    choice, last = replay.choice, replay.last_event_seq
    at = raw.execute(_AT, (choice.endpoint_seq, first, last, rows - 1)).fetchone()
    through: int = last if at is None else at[0]
    wanted = {
        "endpoint": choice.endpoint_seq,
        "first": first,
        "through": through,
        "statuses": json.dumps(choice.statuses),
        "types": json.dumps(choice.type_seqs),
        "made_at": choice.made_at,
        "after": choice.created_after,
        "before": choice.created_before,
        "limit": limit,
    }
    found, cut = releases.candidates(raw.execute(_AHEAD, wanted), body_bytes_max)
    return Ahead(found, found[-1].delivery.event_seq if cut or len(found) == limit else through)


def release(writing: Writing, replay_seq: int, choice: Choice, ahead: Ahead, lease: ReplayLease) -> ReplayRelease:
    """See the contract."""
    raw, endpoint = writing.raw, choice.endpoint_seq
    *row, given_back = raw.execute(_STANDS, (replay_seq,)).fetchone()
    stands = releases.Standing._make([*row, sorted(map(int, given_back.split(","))) if given_back else []])
    if stands.state != ReplayState.RUNNING:
        return ReplayRelease(ReplayState(stands.state), [], stands.outstanding, stands.next_event_seq)
    # A repeat finds that it has come further.
    ahead = ahead.after(stands.next_event_seq - 1)
    room = max(0, min(lease.limit, lease.outstanding_max - stands.outstanding))
    again = stands.given_back[:room]
    fresh = ahead.candidates[: room - len(again)]
    leased: list[LeasedDelivery] = []
    if again:
        found, through = releases.again(writing.sql, choice, again, body_bytes_max=lease.body_bytes_max)
        again = [seq for seq in again if seq <= through]
        leased += _leased(writing, replay_seq, choice, found, lease)
        taken = {delivery.event_seq for delivery in leased}
        _LET_GO.run(raw, [(seq, endpoint) for seq in again if seq not in taken])
    leased += _leased(writing, replay_seq, choice, fresh, lease)
    stands = stands.after(ahead, again=len(again), fresh=len(fresh), leased=len(leased))
    completed_at = lease.now if stands.state == ReplayState.COMPLETED else None
    raw.execute(
        _NOTE,
        (int(stands.state), completed_at, stands.total, stands.skipped, stands.next_event_seq, lease.now, replay_seq),
    )
    return ReplayRelease(ReplayState(stands.state), leased, stands.outstanding, stands.next_event_seq)


def _leased(
    writing: Writing, replay_seq: int, choice: Choice, candidates: Sequence[Candidate], lease: ReplayLease
) -> list[LeasedDelivery]:
    """Lease those that are still to be replayed. What has changed since it was read is looked at once more."""
    fit = releases.unexpired(candidates, lease.now)
    if _LEASE.run(writing.raw, _rows(replay_seq, fit, lease)) < len(fit):
        pending = {seq for (seq,) in writing.raw.execute(_LEASED, (replay_seq,))}
        changed = [each.delivery.event_seq for each in fit if each.delivery.event_seq not in pending]
        fit = [each for each in fit if each.delivery.event_seq in pending]
        found, _ = releases.again(writing.sql, choice, changed, body_bytes_max=lease.body_bytes_max)
        found = releases.unexpired(found, lease.now)
        _LEASE.run(writing.raw, _rows(replay_seq, found, lease))
        fit = sorted([*fit, *found], key=lambda each: each.delivery.event_seq)
    for each in fit:
        each.delivery.lease_until = lease.until
        each.delivery.replay_seq = replay_seq
    return [each.delivery for each in fit]


def _rows(replay_seq: int, candidates: Sequence[Candidate], lease: ReplayLease) -> list[tuple[Any, ...]]:
    return [
        (d.event_seq, d.endpoint_seq, d.fence - 1, lease.until, lease.owner, replay_seq, d.resume_status, completed_at)
        for d, completed_at in candidates
    ]
