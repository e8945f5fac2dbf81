"""Replays on the raw driver: what a running one leases next, in few statements that read few rows.

They stand beside those of SQLite (`store.sqlite.replaying`) and mean the same.
"""

from collections.abc import Sequence
from typing import Any, Final

from uplift_server.core.deliveries.replays import ReplayState
from uplift_server.core.lifecycle import Status, Trigger
from uplift_server.store import releases
from uplift_server.store.hot_records import Ahead, Candidate, LeasedDelivery, ReplayLease, ReplayRelease
from uplift_server.store.postgres.connection import Raw
from uplift_server.store.releases import CandidateRow, ReplayProgress
from uplift_server.store.replays import Choice, Replay

# What counts as chosen stands in `store.releases`, too, which counts them. No more is read than the first whose body
# exceeds the bytes.
_CHOSEN: Final = (
    "SELECT event_seq, endpoint_seq, fence, attempts_made, scheduled_attempts, status, completed_at,"  # noqa: S608
    " id, type_seq, created_at, expires_at, body FROM ("
    "SELECT *, sum(octet_length(body)) OVER (ORDER BY event_seq) - octet_length(body) AS before FROM ("
    "SELECT d.event_seq, d.endpoint_seq, d.fence, d.attempts_made, d.scheduled_attempts, d.status, d.completed_at,"
    " e.id, e.type_seq, e.created_at, e.expires_at, e.body FROM deliveries d JOIN events e ON e.seq = d.event_seq"
    " WHERE {where} AND d.status = ANY ($2::smallint[])"
    f" AND d.trigger <> {int(Trigger.TEST)} AND d.completed_at <= $3"
    " AND (e.expires_at IS NULL OR e.expires_at > $3)"
    " AND (cardinality($4::bigint[]) = 0 OR e.type_seq = ANY ($4))"
    " AND ($5::bigint IS NULL OR e.created_at > $5) AND ($6::bigint IS NULL OR e.created_at < $6)"
    " ORDER BY d.endpoint_seq, d.event_seq LIMIT $8{lock}) chosen) summed WHERE before <= $7 ORDER BY event_seq"
)
# As one range of pairs, which only the index that begins with the endpoint can serve: another would go through all
# endpoints' deliveries of these events.
_BETWEEN: Final = "(d.endpoint_seq, d.event_seq) >= ($1, {first}) AND (d.endpoint_seq, d.event_seq) <= ($1, {last})"
_AHEAD: Final = _CHOSEN.format(where=_BETWEEN.format(first="$9", last="$10"), lock="")
# Locked, so that it is leased as it was read.
_AGAIN: Final = _CHOSEN.format(
    where="d.endpoint_seq = $1 AND d.event_seq = ANY ($9::bigint[])", lock=" FOR UPDATE OF d"
)
_AT: Final = (
    f"SELECT event_seq FROM deliveries d WHERE {_BETWEEN.format(first='$2', last='$3')}"  # noqa: S608
    " ORDER BY endpoint_seq, event_seq LIMIT 1 OFFSET $4"
)
# Whoever counts an attempt of a replay waits for this, too: what is read under it belongs together.
_LOCK: Final = "SELECT FROM replays WHERE seq = $1 FOR UPDATE"
_STANDS: Final = (
    "SELECT state, total, next_event_seq, last_event_seq, delivered, failed, skipped,"
    " (SELECT count(*) FROM deliveries WHERE replay_seq = r.seq AND status = 0),"
    # What it released once and is not pending was given back.
    " (SELECT coalesce(array_agg(event_seq ORDER BY event_seq), '{}') FROM deliveries"
    " WHERE replay_seq = r.seq AND status <> 0) FROM replays r WHERE seq = $1"
)
_LEASE: Final = (
    f"UPDATE deliveries d SET status = {int(Status.PENDING)}, due_at = $6, lease_owner = $7,"  # noqa: S608
    f" fence = d.fence + 1, trigger = {int(Trigger.REPLAY)}, resume_status = d.status, resume_due_at = NULL,"
    " replay_seq = $8"
    " FROM unnest($1::bigint[], $2::bigint[], $3::int[], $4::smallint[], $5::bigint[])"
    " AS s(event_seq, endpoint_seq, fence, status, completed_at)"
    " WHERE d.event_seq = s.event_seq AND d.endpoint_seq = s.endpoint_seq AND d.fence = s.fence"
    " AND d.status = s.status AND d.completed_at = s.completed_at RETURNING d.event_seq"
)
_LET_GO: Final = (
    "UPDATE deliveries d SET replay_seq = NULL FROM unnest($1::bigint[]) AS s(event_seq)"
    " WHERE d.event_seq = s.event_seq AND d.endpoint_seq = $2"
)
_NOTE: Final = (
    "UPDATE replays SET state = $2, completed_at = $3, total = $4, skipped = $5, next_event_seq = $6, updated_at = $7"
    " WHERE seq = $1"
)


async def look_ahead(raw: Raw, replay: Replay, *, first: int, rows: int, limit: int, body_bytes_max: int) -> Ahead:
    """See the contract."""
    ahead = await _ahead(raw, replay, first, min(rows, limit), limit, body_bytes_max)
    if 2 * len(ahead.candidates) < limit and ahead.through < replay.last_event_seq and rows > limit:
        # Most deliveries from there on are not to be replayed. To count far costs: only now.
        ahead = await _ahead(raw, replay, first, rows, limit, body_bytes_max)
    return ahead


async def _ahead(raw: Raw, replay: Replay, first: int, rows: int, limit: int, body_bytes_max: int) -> Ahead:
    """What is to be replayed of the next so many of the endpoint's deliveries."""
    choice, last = replay.choice, replay.last_event_seq
    at = await raw.fetchval(_AT, choice.endpoint_seq, first, last, rows - 1)
    through: int = last if at is None else at
    rows_ahead = await raw.fetch(_AHEAD, *_wanted(choice), body_bytes_max, limit, first, through)
    found, cut = releases.candidates(map(CandidateRow._make, rows_ahead), body_bytes_max)
    return Ahead(found, found[-1].delivery.event_seq if cut or len(found) == limit else through)


async def release(raw: Raw, replay_seq: int, choice: Choice, ahead: Ahead, lease: ReplayLease) -> ReplayRelease:
    """See the contract."""
    async with raw.transaction():
        await raw.execute(_LOCK, replay_seq)
        return await _release(raw, replay_seq, choice, ahead, lease)


async def _release(raw: Raw, replay_seq: int, choice: Choice, ahead: Ahead, lease: ReplayLease) -> ReplayRelease:
    endpoint = choice.endpoint_seq
    [row] = await raw.fetch(_STANDS, replay_seq)
    stands = ReplayProgress(*row)
    if stands.state != ReplayState.RUNNING:
        return ReplayRelease(ReplayState(stands.state), [], stands.outstanding, stands.next_event_seq)
    # A repeat finds that it has come further.
    ahead = ahead.after(stands.next_event_seq - 1)
    room = max(0, min(lease.limit, lease.outstanding_max - stands.outstanding))
    again = stands.given_back[:room]
    fresh = ahead.candidates[: room - len(again)]
    leased: list[LeasedDelivery] = []
    if again:
        found, through = await _again(raw, choice, again, lease)
        again = [seq for seq in again if seq <= through]
        leased += await _leased(raw, replay_seq, choice, found, lease)
        taken = {delivery.event_seq for delivery in leased}
        await raw.execute(_LET_GO, [seq for seq in again if seq not in taken], endpoint)
    leased += await _leased(raw, replay_seq, choice, fresh, lease)
    stands = stands.after(ahead, again=len(again), fresh=len(fresh), leased=len(leased))
    completed_at = lease.now if stands.state == ReplayState.COMPLETED else None
    await raw.execute(
        _NOTE,
        replay_seq,
        int(stands.state),
        completed_at,
        stands.total,
        stands.skipped,
        stands.next_event_seq,
        lease.now,
    )
    return ReplayRelease(ReplayState(stands.state), leased, stands.outstanding, stands.next_event_seq)


async def _leased(
    raw: Raw, replay_seq: int, choice: Choice, candidates: Sequence[Candidate], lease: ReplayLease
) -> list[LeasedDelivery]:
    """Lease those that are still to be replayed. What has changed since it was read is looked at once more."""
    fit = releases.unexpired(candidates, lease.now)
    if not fit:
        return []
    pending = await _lease(raw, replay_seq, fit, lease)
    if len(pending) < len(fit):
        changed = [each.delivery.event_seq for each in fit if each.delivery.event_seq not in pending]
        fit = [each for each in fit if each.delivery.event_seq in pending]
        found, _ = await _again(raw, choice, changed, lease)
        found = releases.unexpired(found, lease.now)
        if found:
            await _lease(raw, replay_seq, found, lease)
        fit = sorted([*fit, *found], key=lambda each: each.delivery.event_seq)
    return releases.leased(fit, replay_seq, lease)


async def _lease(raw: Raw, replay_seq: int, candidates: Sequence[Candidate], lease: ReplayLease) -> set[int]:
    """Lease those that are as they were read; the events of them."""
    rows = [(d.event_seq, d.endpoint_seq, d.fence - 1, d.resume_status, completed_at) for d, completed_at in candidates]
    found = await raw.fetch(_LEASE, *zip(*rows, strict=True), lease.until, lease.owner, replay_seq)
    return {seq for (seq,) in found}


async def _again(
    raw: Raw, choice: Choice, event_seqs: Sequence[int], lease: ReplayLease
) -> tuple[list[Candidate], int]:
    """Those of the deliveries that are still to be replayed, as far as their bodies fit, and up to which it looked."""
    rows = await raw.fetch(_AGAIN, *_wanted(choice), lease.body_bytes_max, len(event_seqs), event_seqs)
    found, cut = releases.candidates(map(CandidateRow._make, rows), lease.body_bytes_max)
    return found, found[-1].delivery.event_seq if cut else event_seqs[-1]


def _wanted(choice: Choice) -> tuple[Any, ...]:
    return (
        choice.endpoint_seq,
        choice.statuses,
        choice.made_at,
        choice.type_seqs,
        choice.created_after,
        choice.created_before,
    )
