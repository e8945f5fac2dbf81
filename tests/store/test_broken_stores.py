"""The conformance suite detects stores with one deliberate defect."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa
from msgspec import structs

from uplift_server.store.hot_records import (
    Appended,
    DueEndpoint,
    HealthRow,
    HeldRequest,
    IdempotencyConflict,
    LeasedDelivery,
    LeaseRequest,
    NewEvent,
    Released,
    ReplayBatch,
    ReplayLease,
    ReplayRelease,
    Settlement,
)
from uplift_server.store.replays import Replay, ReplaySelection
from uplift_server.store.schema import deliveries, replays
from uplift_server.store.sqlite import SqliteDatabase

from .conformance import CHECKS
from .replay_conformance import REPLAY_CHECKS
from .test_sqlite import sqlite_bench

R = TypeVar("R")
Groups = Sequence[Sequence[NewEvent]]
Results = list[list[Appended] | IdempotencyConflict]


class ForgetsDeliveries:
    def append(self, groups: Groups) -> Awaitable[Results]:
        return super().append([[event._replace(deliveries=()) for event in group] for group in groups])


class ForgetsKeys:
    def append(self, groups: Groups) -> Awaitable[Results]:
        return super().append([[event._replace(idempotency_key=None) for event in group] for group in groups])


class SharesKeysBetweenAccounts:
    def append(self, groups: Groups) -> Awaitable[Results]:
        return super().append([[event._replace(account_seq=1) for event in group] for group in groups])


class StoresGroupsInPieces:
    async def append(self, groups: Groups) -> Results:  # type: ignore[override]
        results: Results = []
        for group in groups:
            parts = await super().append([[event] for event in group])
            conflict = next((part for part in parts if isinstance(part, IdempotencyConflict)), None)
            results.append(conflict or [item for part in parts if isinstance(part, list) for item in part])
        return results


class IgnoresContent:
    async def append(self, groups: Groups) -> Results:  # type: ignore[override]
        results = await super().append(groups)
        return [[Appended(1, r.event_id, 0, True)] if isinstance(r, IdempotencyConflict) else r for r in results]


class LeasesTooEarly:
    def lease_due(self, requests: Sequence[LeaseRequest], *, now: int, **rest: Any) -> Awaitable[list[LeasedDelivery]]:
        return super().lease_due(requests, now=now + 1, **rest)


class LeasesTwice:
    async def lease_due(self, requests: Sequence[LeaseRequest], *, now: int, **rest: Any) -> list[LeasedDelivery]:  # type: ignore[override]
        leased = await super().lease_due(requests, now=now, **rest)
        await self.release([(d.event_seq, d.endpoint_seq, d.fence) for d in leased], now=now)
        return leased


class IgnoresLimits:
    def lease_due(self, requests: Sequence[LeaseRequest], **rest: Any) -> Awaitable[list[LeasedDelivery]]:
        return super().lease_due([LeaseRequest(request.endpoint_seq, 1000) for request in requests], **rest)


class IgnoresBodySizes:
    def lease_due(self, requests: Sequence[LeaseRequest], **rest: Any) -> Awaitable[list[LeasedDelivery]]:
        return super().lease_due(requests, **rest | {"body_bytes_max": 1 << 40})


class IgnoresFences:
    async def settle(  # type: ignore[override]
        self, settlements: Sequence[Settlement], health: Sequence[HealthRow] = (), *, process_id: int = 0
    ) -> frozenset[tuple[int, int]]:
        fences = await self.read(
            lambda c: {(r.event_seq, r.endpoint_seq): r.fence for r in c.execute(sa.select(deliveries))}
        )
        return await super().settle(
            [s._replace(fence=fences[s.event_seq, s.endpoint_seq]) for s in settlements], health, process_id=process_id
        )


class AcceptsEvictedProcesses:
    def settle(
        self, settlements: Sequence[Settlement], health: Sequence[HealthRow] = (), **_: Any
    ) -> Awaitable[frozenset[tuple[int, int]]]:
        return super().settle(settlements, health)


class KeepsNoAttempts:
    def settle(
        self, settlements: Sequence[Settlement], health: Sequence[HealthRow] = (), *, process_id: int = 0
    ) -> Awaitable[frozenset[tuple[int, int]]]:
        return super().settle([s._replace(attempt=None) for s in settlements], health, process_id=process_id)


class HidesLostLeases:
    async def settle(  # type: ignore[override]
        self, settlements: Sequence[Settlement], health: Sequence[HealthRow] = (), *, process_id: int = 0
    ) -> frozenset[tuple[int, int]]:
        await super().settle(settlements, health)
        return frozenset()


class ForgetsHealth:
    def settle(
        self, settlements: Sequence[Settlement], health: Sequence[HealthRow] = (), *, process_id: int = 0
    ) -> Awaitable[frozenset[tuple[int, int]]]:
        return super().settle(settlements, ())


class ForgetsCauses:
    def settle(
        self, settlements: Sequence[Settlement], health: Sequence[HealthRow] = (), *, process_id: int = 0
    ) -> Awaitable[frozenset[tuple[int, int]]]:
        return super().settle(settlements, [row._replace(last_error=None) for row in health], process_id=process_id)


class ForgetsReplays:
    def settle(
        self, settlements: Sequence[Settlement], health: Sequence[HealthRow] = (), *, process_id: int = 0
    ) -> Awaitable[frozenset[tuple[int, int]]]:
        return super().settle([s._replace(replay_seq=None) for s in settlements], health, process_id=process_id)


class CountsLostAttempts:
    async def settle(  # type: ignore[override]
        self, settlements: Sequence[Settlement], health: Sequence[HealthRow] = (), *, process_id: int = 0
    ) -> frozenset[tuple[int, int]]:
        lost = await super().settle(settlements, health, process_id=process_id)
        numbers = [s.replay_seq for s in settlements if (s.event_seq, s.endpoint_seq) in lost]
        await self.write(
            lambda c: c.execute(
                sa.update(replays).where(replays.c.seq.in_(numbers)).values(delivered=replays.c.delivered + 1)
            )
        )
        return lost


class ForgetsReplaysOfLeases:
    async def lease_due(self, requests: Sequence[LeaseRequest], **rest: Any) -> list[LeasedDelivery]:  # type: ignore[override]
        return [structs.replace(leased, replay_seq=None) for leased in await super().lease_due(requests, **rest)]


class ReleasesOtherLeases:
    async def release(self, leases: Sequence[tuple[int, int, int]], *, now: int) -> None:  # type: ignore[override]
        for event, endpoint, _ in leases:
            await super().release([(event, endpoint, fence) for fence in range(1, 9)], now=now)


class ReclaimsLiveLeases:
    def reclaim(self, *, now: int, process_id: int | None = None, limit: int = 1000) -> Awaitable[int]:
        return super().reclaim(now=now + 10**6, process_id=process_id, limit=limit)


class ReclaimsOtherLeases:
    def reclaim(self, *, now: int, process_id: int | None = None, limit: int = 1000) -> Awaitable[int]:
        return super().reclaim(now=now + 10**9 if process_id else now, limit=limit)


class MissesEndpoints:
    async def due_endpoints(self, *, after: int = 0, limit: int = 1000) -> list[DueEndpoint]:
        return (await super().due_endpoints(after=after, limit=limit))[:2]


class ListsLeasedEndpoints:
    async def due_endpoints(self, *, after: int = 0, limit: int = 1000) -> list[DueEndpoint]:
        return [DueEndpoint(4, 0), *await super().due_endpoints(after=after, limit=limit)]


class ForgetsLaterDueTimes:
    async def next_due(self, endpoint_seqs: Sequence[int]) -> list[DueEndpoint]:  # type: ignore[override]
        return [due for due in await super().next_due(endpoint_seqs) if due.endpoint_seq == 9]


class KeepsHalfWrites:
    async def write(self, body: Callable[[sa.Connection], R]) -> R:
        failure: list[Exception] = []

        def suppress_error(connection: sa.Connection) -> Any:
            try:
                return body(connection)
            except Exception as error:
                failure.append(error)

        result: R = await super().write(suppress_error)
        if failure:
            raise failure[0]
        return result


class LeasesOutOfOrder:
    async def lease_due(self, requests: Sequence[LeaseRequest], **rest: Any) -> list[LeasedDelivery]:  # type: ignore[override]
        return list(reversed(await super().lease_due(requests, **rest)))


class MiscountsFences:
    async def lease_due(self, requests: Sequence[LeaseRequest], **rest: Any) -> list[LeasedDelivery]:  # type: ignore[override]
        return [structs.replace(leased, fence=1) for leased in await super().lease_due(requests, **rest)]


class ReleasesTheNewestFirst:
    async def release_held(self, requests: Sequence[HeldRequest], *, now: int) -> list[Released]:  # type: ignore[override]
        def before_newest(connection: sa.Connection, request: HeldRequest) -> int:
            own = (deliveries.c.endpoint_seq == request.endpoint_seq, deliveries.c.status == 3)
            seqs = list(connection.scalars(sa.select(deliveries.c.event_seq).where(*own)))
            return max(request.after, *sorted(seqs)[: -request.limit or None], 0)

        late = [
            request._replace(after=await self.read(lambda c, w=request: before_newest(c, w))) for request in requests
        ]
        return await super().release_held(late, now=now)


class ReleasesExpiredDeliveries:
    async def release_held(self, requests: Sequence[HeldRequest], *, now: int) -> list[Released]:  # type: ignore[override]
        return await super().release_held(requests, now=0)


class ReleasesKeptDeliveries:
    def release_held(self, requests: Sequence[HeldRequest], *, now: int) -> Awaitable[list[Released]]:
        return super().release_held([request._replace(after=0) for request in requests], now=now)


class StoresEventsAlone:
    async def append_then(self, event: NewEvent, body: Callable[[sa.Connection, int], R]) -> R:
        (result,) = await self.append([[event]])
        assert isinstance(result, list)
        return await self.write(lambda c: body(c, result[0].seq))


class ReleasesToTheEnd:
    async def release(self, leases: Sequence[tuple[int, int, int]], *, now: int) -> None:  # type: ignore[override]
        await super().release(leases, now=now)
        for event, endpoint, _ in leases:
            own = (deliveries.c.event_seq == event, deliveries.c.endpoint_seq == endpoint)
            await self.write(lambda c, own=own: c.execute(sa.update(deliveries).where(*own).values(due_at=now)))


class ForgetsTests:
    async def settle(  # type: ignore[override]
        self, settlements: Sequence[Settlement], health: Sequence[HealthRow] = (), *, process_id: int = 0
    ) -> frozenset[tuple[int, int]]:
        lost = await super().settle(settlements, health, process_id=process_id)
        await self.write(lambda c: c.execute(sa.update(deliveries).values(trigger=0)))
        return lost


class ReplaysChangedDeliveries:
    def release_replay(
        self, replay_seq: int, choice: ReplaySelection, ahead: ReplayBatch, lease: ReplayLease
    ) -> Awaitable[ReplayRelease]:
        return super().release_replay(replay_seq, replace(choice, selected_at=1 << 60), ahead, lease)


class ReplaysWithoutLimit:
    def release_replay(
        self, replay_seq: int, choice: ReplaySelection, ahead: ReplayBatch, lease: ReplayLease
    ) -> Awaitable[ReplayRelease]:
        return super().release_replay(replay_seq, choice, ahead, lease._replace(outstanding_max=1000))


class ReplaysExpiredDeliveries:
    def release_replay(
        self, replay_seq: int, choice: ReplaySelection, ahead: ReplayBatch, lease: ReplayLease
    ) -> Awaitable[ReplayRelease]:
        return super().release_replay(replay_seq, choice, ahead, lease._replace(now=0))


class ReadsAheadTooFar:
    async def read_replay_batch(self, replay: Replay, *, rows: int, **rest: Any) -> ReplayBatch:
        return await super().read_replay_batch(replay, rows=rows + 1, **rest)


class ReadsAheadOtherTypes:
    async def read_replay_batch(self, replay: Replay, **rest: Any) -> ReplayBatch:
        return await super().read_replay_batch(
            replace(replay, selection=replace(replay.selection, type_seqs=())), **rest
        )


class ForgetsMissingEvents:
    async def read_replay_batch(self, replay: Replay, **rest: Any) -> ReplayBatch:
        existing = replace(replay.selection, missing=None)
        return await super().read_replay_batch(replace(replay, selection=existing), **rest)


class CreatesDeliveriesOfOldEvents:
    def release_replay(
        self, replay_seq: int, choice: ReplaySelection, ahead: ReplayBatch, lease: ReplayLease
    ) -> Awaitable[ReplayRelease]:
        return super().release_replay(replay_seq, choice, ahead, lease._replace(missing_after=0))


class IgnoresOrder:
    def append(self, groups: Groups) -> Awaitable[Results]:
        def unordered(event: NewEvent) -> NewEvent:
            return event._replace(deliveries=[each._replace(order_group=None) for each in event.deliveries])

        return super().append([[unordered(event) for event in group] for group in groups])


class HidesBlockedDeliveries:
    async def append(self, groups: Groups) -> Results:  # type: ignore[override]
        results = await super().append(groups)
        return [
            result if isinstance(result, IdempotencyConflict) else [each._replace(blocked=()) for each in result]
            for result in results
        ]


class ForgetsOrderGroupsOfLeases:
    async def lease_due(self, *arguments: Any, **named: Any) -> list[LeasedDelivery]:
        leased = await super().lease_due(*arguments, **named)
        for each in leased:
            each.order_group = None
        return leased


DEFECTS: dict[type, str] = {
    IgnoresOrder: "a_delivery_behind_an_open_one_is_blocked",
    HidesBlockedDeliveries: "a_delivery_behind_an_open_one_is_blocked",
    ForgetsOrderGroupsOfLeases: "blocked_deliveries_are_not_leased",
    ForgetsMissingEvents: "missing_events_are_replayed_in_order_with_existing_deliveries",
    CreatesDeliveriesOfOldEvents: "missing_events_are_replayed_in_order_with_existing_deliveries",
    ReadsAheadTooFar: "a_replay_batch_reads_a_limited_number_of_rows",
    ReadsAheadOtherTypes: "replay_batches_match_the_count",
    ReplaysChangedDeliveries: "returned_deliveries_come_first_if_they_still_match",
    ReplaysWithoutLimit: "a_replay_leases_its_batch_in_order_up_to_its_limits",
    ReplaysExpiredDeliveries: "expired_deliveries_are_skipped",
    ForgetsDeliveries: "events_are_stored_with_their_deliveries",
    ForgetsKeys: "a_repeated_key_returns_the_stored_event",
    SharesKeysBetweenAccounts: "keys_belong_to_accounts",
    StoresGroupsInPieces: "different_content_with_a_key_rejects_the_group",
    IgnoresContent: "different_content_with_a_key_rejects_the_group",
    LeasesTooEarly: "nothing_is_leased_before_it_is_due",
    LeasesTwice: "a_leased_delivery_is_not_leased_again",
    IgnoresLimits: "only_requested_endpoints_are_leased_earliest_first_within_the_limit",
    IgnoresBodySizes: "bodies_are_bounded",
    IgnoresFences: "a_lost_lease_writes_nothing_and_others_are_written",
    AcceptsEvictedProcesses: "an_evicted_process_writes_no_health",
    KeepsNoAttempts: "a_settled_delivery_ends_and_its_attempt_is_stored",
    HidesLostLeases: "a_lost_lease_writes_nothing_and_others_are_written",
    ForgetsHealth: "health_is_written_with_the_batch",
    ForgetsCauses: "cause_and_probe_are_written_with_health",
    ForgetsReplays: "counted_attempts_leave_a_replay_and_others_stay",
    CountsLostAttempts: "counted_attempts_leave_a_replay_and_others_stay",
    ForgetsReplaysOfLeases: "counted_attempts_leave_a_replay_and_others_stay",
    ReleasesOtherLeases: "released_leases_are_due_again",
    ReleasesTheNewestFirst: "held_deliveries_are_released_in_the_order_of_their_events",
    ReleasesExpiredDeliveries: "expired_deliveries_fail_instead_of_being_released",
    ReleasesKeptDeliveries: "held_deliveries_are_released_in_the_order_of_their_events",
    ReclaimsLiveLeases: "only_expired_leases_are_reclaimed",
    ReclaimsOtherLeases: "a_process_reclaims_its_leases_after_a_crash",
    MissesEndpoints: "endpoints_with_waiting_deliveries_are_listed",
    ListsLeasedEndpoints: "a_leased_delivery_is_not_leased_again",
    ForgetsLaterDueTimes: "endpoints_with_waiting_deliveries_are_listed",
    KeepsHalfWrites: "a_rejected_write_rolls_back_alone",
    StoresEventsAlone: "an_event_and_its_function_are_stored_together_or_not_at_all",
    ForgetsTests: "a_test_is_leased_with_its_event_and_stays_one",
    ReleasesToTheEnd: "released_deliveries_keep_their_place",
    LeasesOutOfOrder: "only_requested_endpoints_are_leased_earliest_first_within_the_limit",
    MiscountsFences: "released_leases_are_due_again",
}
"""For each defect: the name of the check that detects it."""


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.__name__)
async def test_a_broken_store_is_detected(defect: type, tmp_path: Path) -> None:
    """SQLite is enough: the checks are the same for both engines."""
    broken: Any = type(defect.__name__, (defect, SqliteDatabase), {})
    [check] = [each for each in (*CHECKS, *REPLAY_CHECKS) if each.__name__ == DEFECTS[defect]]
    async with sqlite_bench(tmp_path, broken) as bench:
        with pytest.raises((AssertionError, ValueError)):
            await check(bench)
