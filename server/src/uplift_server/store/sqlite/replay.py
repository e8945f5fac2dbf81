"""Read and lease the next deliveries of a running replay on SQLite.

The driver releases the interpreter lock between two statements and between two rows. If the event loop is busy, the
transaction then waits for the lock. Therefore, this module uses few statements with few rows.
"""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from uplift_server.core.deliveries.replays import ReplayState
from uplift_server.store import releases
from uplift_server.store.hot_records import Candidate, LeasedDelivery, ReplayBatch, ReplayLease, ReplayRelease
from uplift_server.store.releases import CandidateRow, ReplayProgress
from uplift_server.store.replays import Replay, ReplaySelection
from uplift_server.store.sqlite import replay_statements as statements
from uplift_server.store.sqlite.order_groups import unblock_first
from uplift_server.store.sqlite.replay_statements import DeliveryKey, MissingRow, ReplayedRow


def read_replay_batch(
    raw: sqlite3.Connection, replay: Replay, *, first: int, rows: int, limit: int, body_bytes_max: int
) -> ReplayBatch:
    """Read the next deliveries of a replay, starting at event number `first`.

    Search the endpoint's next `rows` deliveries. If the replay includes events without a delivery to the endpoint,
    search the account's next `rows` events instead. Return up to `limit` matching deliveries.
    """
    batch = _read_batch(raw, replay, first, min(rows, limit), limit, body_bytes_max)
    if 2 * len(batch.candidates) < limit and batch.through < replay.last_event_seq and rows > limit:
        # Scan many deliveries only if most of the next ones do not match, because such a scan is expensive.
        batch = _read_batch(raw, replay, first, rows, limit, body_bytes_max)
    return batch


def _read_batch(
    raw: sqlite3.Connection, replay: Replay, first: int, rows: int, limit: int, body_bytes_max: int
) -> ReplayBatch:
    """Read up to `limit` matching deliveries from the next `rows` deliveries or events, as in `read_replay_batch`."""
    choice, last = replay.selection, replay.last_event_seq
    nth = {"first": first, "last": last, "skipped": rows - 1}
    if choice.missing is None:
        statement = statements.REPLAYABLE_NEXT
        end = raw.execute(statements.NTH_DELIVERY, {**nth, "endpoint_seq": choice.endpoint_seq}).fetchone()
    else:
        statement = statements.REPLAYABLE_OR_MISSING
        end = raw.execute(statements.NTH_EVENT, {**nth, "account_seq": replay.account_seq}).fetchone()
    (through,) = (last,) if end is None else end
    wanted = {**_parameters(choice, limit), "first": first, "through": through, "account_seq": replay.account_seq}
    found, cut = _candidates(raw, statement, wanted, body_bytes_max)
    return ReplayBatch(found, found[-1].delivery.event_seq if cut or len(found) == limit else through)


def release_replay(
    raw: sqlite3.Connection, replay_seq: int, choice: ReplaySelection, batch: ReplayBatch, lease: ReplayLease
) -> ReplayRelease:
    """Release deliveries of a running replay for one attempt each. Lease those without an order group.

    First, release the deliveries that were returned to the replay without an attempt. Then release the deliveries of
    `batch`.
    """
    of_replay = {"replay_seq": replay_seq}
    (returned,) = raw.execute(statements.RETURNED, of_replay).fetchone()
    row = raw.execute(statements.REPLAY_PROGRESS, of_replay).fetchone()
    progress = ReplayProgress._make([*row, sorted(json.loads(returned))])
    if progress.state != ReplayState.RUNNING:
        return ReplayRelease(ReplayState(progress.state), [], 0, progress.outstanding, progress.next_event_seq)
    # Skip the candidates that the replay has already released, in case this call is repeated.
    batch = batch.after(progress.next_event_seq - 1)
    room = max(0, min(lease.limit, lease.outstanding_max - progress.outstanding))
    again = progress.returned[:room]
    fresh = batch.candidates[: room - len(again)]
    leased: list[LeasedDelivery] = []
    if again:
        found, through = _again(raw, choice, again, lease)
        again = [seq for seq in again if seq <= through]
        leased += _lease(raw, replay_seq, choice, found, lease)
        taken = {delivery.event_seq for delivery in leased}
        left = [DeliveryKey(seq, choice.endpoint_seq) for seq in again if seq not in taken]
        statements.LEAVE_REPLAY.run(raw, left)
    leased += _lease(raw, replay_seq, choice, fresh, lease)
    ordered = [delivery.event_seq for delivery in leased if delivery.order_group is not None]
    if ordered:
        unblock_first(raw, choice.endpoint_seq, ordered, now=lease.now)
    progress = progress.after(batch, again=len(again), fresh=len(fresh), leased=len(leased))
    raw.execute(
        statements.UPDATE_REPLAY,
        {
            "replay_seq": replay_seq,
            "state": int(progress.state),
            "completed_at": lease.now if progress.state == ReplayState.COMPLETED else None,
            "total": progress.total,
            "skipped": progress.skipped,
            "next_event_seq": progress.next_event_seq,
            "now": lease.now,
        },
    )
    leased = [delivery for delivery in leased if delivery.order_group is None]
    state = ReplayState(progress.state)
    return ReplayRelease(state, leased, len(ordered), progress.outstanding, progress.next_event_seq)


def _lease(
    raw: sqlite3.Connection,
    replay_seq: int,
    choice: ReplaySelection,
    candidates: Sequence[Candidate],
    lease: ReplayLease,
) -> list[LeasedDelivery]:
    """Lease the candidates that still match the replay. Read candidates again if they changed after the first read."""
    leased = releases.unexpired(candidates, lease)
    changed = statements.LEASE_REPLAYED.run(raw, _rows(replay_seq, leased, lease))
    if choice.missing is not None:
        created = _missing_rows(replay_seq, choice.missing.account_seq, leased, lease)
        statements.NOTE_MISSING.run(raw, created)
        changed += statements.LEASE_MISSING.run(raw, created)
    if changed < len(leased):
        pending = {seq for (seq,) in raw.execute(statements.LEASED_BY_REPLAY, {"replay_seq": replay_seq})}
        others = [each.delivery.event_seq for each in leased if each.delivery.event_seq not in pending]
        found, _ = _again(raw, choice, others, lease)
        found = releases.unexpired(found, lease)
        statements.LEASE_REPLAYED.run(raw, _rows(replay_seq, found, lease))
        leased = [each for each in leased if each.delivery.event_seq in pending]
        leased = sorted([*leased, *found], key=lambda each: each.delivery.event_seq)
    return releases.leased(leased, replay_seq, lease)


def _again(
    raw: sqlite3.Connection, choice: ReplaySelection, event_seqs: Sequence[int], lease: ReplayLease
) -> tuple[list[Candidate], int]:
    """Read these events' deliveries again.

    Return the deliveries that still match, and the last event number that was read. If the bodies exceed their size
    limit, the read ends before the last event in `event_seqs`.
    """
    wanted = {**_parameters(choice, len(event_seqs)), "event_seqs": json.dumps(event_seqs)}
    found, cut = _candidates(raw, statements.REPLAYABLE_AGAIN, wanted, lease.body_bytes_max)
    return found, found[-1].delivery.event_seq if cut else event_seqs[-1]


def _candidates(
    raw: sqlite3.Connection, statement: str, parameters: dict[str, Any], body_bytes_max: int
) -> tuple[list[Candidate], bool]:
    return releases.candidates(map(CandidateRow._make, raw.execute(statement, parameters)), body_bytes_max)


def _parameters(choice: ReplaySelection, limit: int) -> dict[str, Any]:
    return {
        "endpoint_seq": choice.endpoint_seq,
        "statuses": json.dumps(choice.statuses),
        "type_seqs": json.dumps(choice.type_seqs),
        "selected_at": choice.selected_at,
        "created_after": choice.created_after,
        "created_before": choice.created_before,
        "object_id": choice.object_id,
        "outcomes": json.dumps(choice.outcomes),
        "status_codes": json.dumps(choice.status_codes),
        "missing_type_seqs": None if choice.missing is None else json.dumps(choice.missing.type_seqs),
        "limit": limit,
    }


def _rows(replay_seq: int, candidates: Sequence[Candidate], lease: ReplayLease) -> list[ReplayedRow]:
    return [
        ReplayedRow(
            event_seq=d.event_seq,
            endpoint_seq=d.endpoint_seq,
            fence=d.fence - 1,
            status=int(d.resume_status or 0),
            completed_at=completed_at,
            lease_until=lease.until,
            process_id=lease.process_id,
            replay_seq=replay_seq,
        )
        for d, completed_at, _ in candidates
        if completed_at is not None
    ]


def _missing_rows(
    replay_seq: int, account_seq: int, candidates: Sequence[Candidate], lease: ReplayLease
) -> list[MissingRow]:
    return [
        MissingRow(
            d.event_seq, d.endpoint_seq, account_seq, d.created_at, lease.now, lease.until, lease.process_id,
            replay_seq, d.order_group,
        )
        for d, completed_at, _ in candidates
        if completed_at is None
    ]  # fmt: skip
