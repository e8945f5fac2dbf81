"""Read and lease the next deliveries of a running replay on PostgreSQL."""

from collections.abc import Sequence
from typing import Any

from uplift_server.core.deliveries.replays import ReplayState
from uplift_server.store import releases
from uplift_server.store.hot_records import Candidate, LeasedDelivery, ReplayBatch, ReplayLease, ReplayRelease
from uplift_server.store.postgres import replay_statements as statements
from uplift_server.store.postgres.connection import Raw, transaction
from uplift_server.store.postgres.order_groups import lock_order, unblock_first
from uplift_server.store.releases import CandidateRow, ReplayProgress
from uplift_server.store.replays import Replay, ReplaySelection


async def read_replay_batch(
    raw: Raw, replay: Replay, *, first: int, rows: int, limit: int, body_bytes_max: int
) -> ReplayBatch:
    """Read the next deliveries of a replay, starting at event number `first`.

    Search the endpoint's next `rows` deliveries. If the replay includes events without a delivery to the endpoint,
    search the account's next `rows` events instead. Return up to `limit` matching deliveries.
    """
    ahead = await _ahead(raw, replay, first, min(rows, limit), limit, body_bytes_max)
    if 2 * len(ahead.candidates) < limit and ahead.through < replay.last_event_seq and rows > limit:
        # Scan many deliveries only if most of the next ones do not match, because such a scan is expensive.
        ahead = await _ahead(raw, replay, first, rows, limit, body_bytes_max)
    return ahead


async def _ahead(raw: Raw, replay: Replay, first: int, rows: int, limit: int, body_bytes_max: int) -> ReplayBatch:
    """Read up to `limit` matching deliveries from the next `rows` deliveries or events, as in `read_replay_batch`."""
    choice, last = replay.selection, replay.last_event_seq
    if choice.missing is None:
        nth = await raw.fetchval(statements.NTH_DELIVERY, choice.endpoint_seq, first, last, rows - 1)
    else:
        nth = await raw.fetchval(statements.NTH_EVENT, choice.missing.account_seq, first, last, rows - 1)
    through: int = last if nth is None else nth
    wanted = (*_parameters(choice, body_bytes_max, limit), first, through)
    statement = statements.REPLAYABLE_NEXT
    if choice.missing is not None:
        statement = statements.REPLAYABLE_OR_MISSING
        wanted = (*wanted, *choice.missing)
    elif choice.object_id is not None or choice.outcomes or choice.status_codes:
        statement, codes = statements.REPLAYABLE_FILTERED, choice.status_codes
        ranges = ([low for low, _ in codes], [high for _, high in codes])
        wanted = (*wanted, choice.object_id, choice.outcomes, *ranges, rows)
    found, cut = await _candidates(raw, statement, wanted, body_bytes_max)
    return ReplayBatch(found, found[-1].delivery.event_seq if cut or len(found) == limit else through)


async def release_replay(
    raw: Raw, replay_seq: int, choice: ReplaySelection, ahead: ReplayBatch, lease: ReplayLease
) -> ReplayRelease:
    """Release deliveries of a running replay for one attempt each. Lease those without an order group.

    First, release the deliveries that were returned to the replay without an attempt. Then release the deliveries of
    the batch `ahead`.
    """
    async with transaction(raw):
        await lock_order(raw, [choice.endpoint_seq])
        await raw.execute(statements.LOCK_REPLAY, replay_seq)
        return await _release(raw, replay_seq, choice, ahead, lease)


async def _release(
    raw: Raw, replay_seq: int, choice: ReplaySelection, ahead: ReplayBatch, lease: ReplayLease
) -> ReplayRelease:
    [row] = await raw.fetch(statements.REPLAY_PROGRESS, replay_seq)
    progress = ReplayProgress(*row)
    if progress.state != ReplayState.RUNNING:
        return ReplayRelease(ReplayState(progress.state), [], 0, progress.outstanding, progress.next_event_seq)
    # Skip the candidates that the replay has already released, in case this call is repeated.
    ahead = ahead.after(progress.next_event_seq - 1)
    room = max(0, min(lease.limit, lease.outstanding_max - progress.outstanding))
    again = progress.returned[:room]
    fresh = ahead.candidates[: room - len(again)]
    leased: list[LeasedDelivery] = []
    if again:
        found, through = await _again(raw, choice, again, lease)
        again = [seq for seq in again if seq <= through]
        leased += await _leased(raw, replay_seq, choice, found, lease)
        taken = {delivery.event_seq for delivery in leased}
        left = [seq for seq in again if seq not in taken]
        await raw.execute(statements.LEAVE_REPLAY, left, choice.endpoint_seq)
    leased += await _leased(raw, replay_seq, choice, fresh, lease)
    ordered = [delivery.event_seq for delivery in leased if delivery.order_group is not None]
    if ordered:
        await unblock_first(raw, choice.endpoint_seq, ordered, now=lease.now)
    progress = progress.after(ahead, again=len(again), fresh=len(fresh), leased=len(leased))
    await raw.execute(
        statements.UPDATE_REPLAY,
        replay_seq,
        int(progress.state),
        lease.now if progress.state == ReplayState.COMPLETED else None,
        progress.total,
        progress.skipped,
        progress.next_event_seq,
        lease.now,
    )
    leased = [delivery for delivery in leased if delivery.order_group is None]
    state = ReplayState(progress.state)
    return ReplayRelease(state, leased, len(ordered), progress.outstanding, progress.next_event_seq)


async def _leased(
    raw: Raw, replay_seq: int, choice: ReplaySelection, candidates: Sequence[Candidate], lease: ReplayLease
) -> list[LeasedDelivery]:
    """Lease the candidates that still match the replay. Read candidates again if they changed after the first read."""
    leased = releases.unexpired(candidates, lease)
    if not leased:
        return []
    pending = await _lease(raw, replay_seq, leased, lease)
    if choice.missing is not None:
        pending |= await _create_leased(raw, replay_seq, choice.missing.account_seq, leased, lease)
    if len(pending) < len(leased):
        changed = [each.delivery.event_seq for each in leased if each.delivery.event_seq not in pending]
        found, _ = await _again(raw, choice, changed, lease)
        found = releases.unexpired(found, lease)
        if found:
            await _lease(raw, replay_seq, found, lease)
        leased = [each for each in leased if each.delivery.event_seq in pending]
        leased = sorted([*leased, *found], key=lambda each: each.delivery.event_seq)
    return releases.leased(leased, replay_seq, lease)


async def _lease(raw: Raw, replay_seq: int, candidates: Sequence[Candidate], lease: ReplayLease) -> set[int]:
    """Lease the candidates that have not changed since they were read. Return the event numbers of these candidates."""
    rows = [
        (d.event_seq, d.endpoint_seq, d.fence - 1, d.resume_status, completed_at)
        for d, completed_at, _ in candidates
        if completed_at is not None
    ]
    if not rows:
        return set()
    found = await raw.fetch(
        statements.LEASE_REPLAYED, *zip(*rows, strict=True), lease.until, lease.process_id, replay_seq
    )
    return {row["event_seq"] for row in found}


async def _create_leased(
    raw: Raw, replay_seq: int, account_seq: int, candidates: Sequence[Candidate], lease: ReplayLease
) -> set[int]:
    """Create the candidate deliveries that do not exist yet, and lease them. Return their event numbers."""
    missing = {d.event_seq: d for d, completed_at, _ in candidates if completed_at is None}
    if not missing:
        return set()
    endpoint_seq = next(iter(missing.values())).endpoint_seq
    created = await raw.fetch(
        statements.LEASE_MISSING,
        list(missing),
        [delivery.order_group for delivery in missing.values()],
        endpoint_seq,
        account_seq,
        lease.until,
        lease.process_id,
        lease.now,
        replay_seq,
    )
    events = [row["event_seq"] for row in created]
    times = [missing[seq].created_at for seq in events]
    await raw.execute(statements.NOTE_MISSING, events, times, endpoint_seq, account_seq)
    return set(events)


async def _again(
    raw: Raw, choice: ReplaySelection, event_seqs: Sequence[int], lease: ReplayLease
) -> tuple[list[Candidate], int]:
    """Read these events' deliveries again.

    Return the deliveries that still match, and the last event number that was read. If the bodies exceed their size
    limit, the read ends before the last event in `event_seqs`.
    """
    missing = choice.missing is not None
    wanted = (*_parameters(choice, lease.body_bytes_max, len(event_seqs)), event_seqs, missing)
    found, cut = await _candidates(raw, statements.REPLAYABLE_AGAIN, wanted, lease.body_bytes_max)
    return found, found[-1].delivery.event_seq if cut else event_seqs[-1]


async def _candidates(
    raw: Raw, statement: str, parameters: Sequence[Any], body_bytes_max: int
) -> tuple[list[Candidate], bool]:
    rows = await raw.fetch(statement, *parameters)
    return releases.candidates(map(CandidateRow._make, rows), body_bytes_max)


def _parameters(choice: ReplaySelection, body_bytes_max: int, limit: int) -> tuple[Any, ...]:
    """Return the parameters $1 to $8, which all statements that find candidates have in common."""
    return (
        choice.endpoint_seq,
        choice.statuses,
        choice.selected_at,
        choice.type_seqs,
        choice.created_after,
        choice.created_before,
        body_bytes_max,
        limit,
    )
