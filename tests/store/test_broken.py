"""The conformance suite is worth something: stores with one deliberate defect do not pass it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa

from uplift_server.store.hot_records import (
    Ahead,
    Appended,
    DueEndpoint,
    HealthRow,
    HeldWish,
    IdempotencyConflict,
    LeasedDelivery,
    LeaseWish,
    NewEvent,
    Released,
    ReplayLease,
    ReplayRelease,
    Settlement,
)
from uplift_server.store.replays import Choice, Replay
from uplift_server.store.schema import deliveries, replays
from uplift_server.store.sqlite import SqliteDatabase

from .conformance import CHECKS
from .replay_conformance import REPLAY_CHECKS
from .test_sqlite import sqlite_bench

R = TypeVar("R")
Groups = Sequence[Sequence[NewEvent]]
Results = list[list[Appended] | IdempotencyConflict]


class ForgetsDeliveries(SqliteDatabase):
    def append(self, groups: Groups) -> Awaitable[Results]:
        return super().append([[event._replace(deliveries=()) for event in group] for group in groups])


class ForgetsKeys(SqliteDatabase):
    def append(self, groups: Groups) -> Awaitable[Results]:
        return super().append([[event._replace(idempotency_key=None) for event in group] for group in groups])


class SharesKeysBetweenAccounts(SqliteDatabase):
    def append(self, groups: Groups) -> Awaitable[Results]:
        return super().append([[event._replace(account_seq=1) for event in group] for group in groups])


class StoresGroupsInPieces(SqliteDatabase):
    async def append(self, groups: Groups) -> Results:  # type: ignore[override]
        results: Results = []
        for group in groups:
            parts = await super().append([[event] for event in group])
            conflict = next((part for part in parts if isinstance(part, IdempotencyConflict)), None)
            results.append(conflict or [item for part in parts if isinstance(part, list) for item in part])
        return results


class IgnoresContent(SqliteDatabase):
    async def append(self, groups: Groups) -> Results:  # type: ignore[override]
        results = await super().append(groups)
        return [[Appended(1, r.event_id, 0, True)] if isinstance(r, IdempotencyConflict) else r for r in results]


class LeasesTooEarly(SqliteDatabase):
    def lease_due(self, wishes: Sequence[LeaseWish], *, now: int, **rest: Any) -> Awaitable[list[LeasedDelivery]]:
        return super().lease_due(wishes, now=now + 1, **rest)


class LeasesTwice(SqliteDatabase):
    async def lease_due(self, wishes: Sequence[LeaseWish], *, now: int, **rest: Any) -> list[LeasedDelivery]:  # type: ignore[override]
        leased = await super().lease_due(wishes, now=now, **rest)
        await self.release([(d.event_seq, d.endpoint_seq, d.fence) for d in leased], now=now)
        return leased


class IgnoresLimits(SqliteDatabase):
    def lease_due(self, wishes: Sequence[LeaseWish], **rest: Any) -> Awaitable[list[LeasedDelivery]]:
        return super().lease_due([LeaseWish(wish.endpoint_seq, 1000) for wish in wishes], **rest)


class IgnoresBodySizes(SqliteDatabase):
    def lease_due(self, wishes: Sequence[LeaseWish], **rest: Any) -> Awaitable[list[LeasedDelivery]]:
        return super().lease_due(wishes, **rest | {"body_bytes_max": 1 << 40})


class IgnoresFences(SqliteDatabase):
    async def settle(  # type: ignore[override]
        self, settlements: Sequence[Settlement], health: Sequence[HealthRow] = ()
    ) -> frozenset[tuple[int, int]]:
        fences = await self.read(
            lambda c: {(r.event_seq, r.endpoint_seq): r.fence for r in c.execute(sa.select(deliveries))}
        )
        return await super().settle(
            [s._replace(fence=fences[s.event_seq, s.endpoint_seq]) for s in settlements], health
        )


class KeepsNoAttempts(SqliteDatabase):
    def settle(
        self, settlements: Sequence[Settlement], health: Sequence[HealthRow] = ()
    ) -> Awaitable[frozenset[tuple[int, int]]]:
        return super().settle([s._replace(attempt=None) for s in settlements], health)


class HidesLostLeases(SqliteDatabase):
    async def settle(  # type: ignore[override]
        self, settlements: Sequence[Settlement], health: Sequence[HealthRow] = ()
    ) -> frozenset[tuple[int, int]]:
        await super().settle(settlements, health)
        return frozenset()


class ForgetsHealth(SqliteDatabase):
    def settle(
        self, settlements: Sequence[Settlement], health: Sequence[HealthRow] = ()
    ) -> Awaitable[frozenset[tuple[int, int]]]:
        return super().settle(settlements, ())


class ForgetsReplays(SqliteDatabase):
    def settle(
        self, settlements: Sequence[Settlement], health: Sequence[HealthRow] = ()
    ) -> Awaitable[frozenset[tuple[int, int]]]:
        return super().settle([s._replace(replay_seq=None) for s in settlements], health)


class CountsLostAttempts(SqliteDatabase):
    async def settle(  # type: ignore[override]
        self, settlements: Sequence[Settlement], health: Sequence[HealthRow] = ()
    ) -> frozenset[tuple[int, int]]:
        lost = await super().settle(settlements, health)
        numbers = [s.replay_seq for s in settlements if (s.event_seq, s.endpoint_seq) in lost]
        await self.write(
            lambda c: c.execute(
                sa.update(replays).where(replays.c.seq.in_(numbers)).values(delivered=replays.c.delivered + 1)
            )
        )
        return lost


class LeasesForNoReplay(SqliteDatabase):
    async def lease_due(self, wishes: Sequence[LeaseWish], **rest: Any) -> list[LeasedDelivery]:  # type: ignore[override]
        return [replace(leased, replay_seq=None) for leased in await super().lease_due(wishes, **rest)]


class ReleasesAnybodysLease(SqliteDatabase):
    async def release(self, leases: Sequence[tuple[int, int, int]], *, now: int) -> None:  # type: ignore[override]
        for event, endpoint, _ in leases:
            await super().release([(event, endpoint, fence) for fence in range(1, 9)], now=now)


class ReclaimsLiveLeases(SqliteDatabase):
    def reclaim(self, *, now: int, owner: int | None = None, limit: int = 1000) -> Awaitable[int]:
        return super().reclaim(now=now + 10**6, owner=owner, limit=limit)


class ReclaimsEverybodys(SqliteDatabase):
    def reclaim(self, *, now: int, owner: int | None = None, limit: int = 1000) -> Awaitable[int]:
        return super().reclaim(now=now + 10**9 if owner else now, limit=limit)


class MissesEndpoints(SqliteDatabase):
    async def due_endpoints(self, *, after: int = 0, limit: int = 1000) -> list[DueEndpoint]:
        return (await super().due_endpoints(after=after, limit=limit))[:2]


class ListsLeasedEndpoints(SqliteDatabase):
    async def due_endpoints(self, *, after: int = 0, limit: int = 1000) -> list[DueEndpoint]:
        return [DueEndpoint(4, 0), *await super().due_endpoints(after=after, limit=limit)]


class KeepsHalfWrites(SqliteDatabase):
    async def write(self, body: Callable[[sa.Connection], R]) -> R:
        failure: list[Exception] = []

        def swallowed(connection: sa.Connection) -> Any:
            try:
                return body(connection)
            except Exception as error:
                failure.append(error)

        result: R = await super().write(swallowed)
        if failure:
            raise failure[0]
        return result


class Reorders(SqliteDatabase):
    async def lease_due(self, wishes: Sequence[LeaseWish], **rest: Any) -> list[LeasedDelivery]:  # type: ignore[override]
        return list(reversed(await super().lease_due(wishes, **rest)))


class MiscountsFences(SqliteDatabase):
    async def lease_due(self, wishes: Sequence[LeaseWish], **rest: Any) -> list[LeasedDelivery]:  # type: ignore[override]
        return [replace(leased, fence=1) for leased in await super().lease_due(wishes, **rest)]


class ReleasesTheNewestFirst(SqliteDatabase):
    async def release_held(self, wishes: Sequence[HeldWish], *, now: int) -> list[Released]:  # type: ignore[override]
        def newest(connection: sa.Connection, wish: HeldWish) -> int:
            own = (deliveries.c.endpoint_seq == wish.endpoint_seq, deliveries.c.status == 3)
            seqs = list(connection.scalars(sa.select(deliveries.c.event_seq).where(*own)))
            return max(wish.after, *sorted(seqs)[: -wish.limit or None], 0)

        late = [wish._replace(after=await self.read(lambda c, w=wish: newest(c, w))) for wish in wishes]
        return await super().release_held(late, now=now)


class ReleasesMoreThanIsTaken(SqliteDatabase):
    async def release_held(self, wishes: Sequence[HeldWish], *, now: int) -> list[Released]:  # type: ignore[override]
        return await super().release_held(wishes, now=0)


class ReleasesWhatIsKept(SqliteDatabase):
    def release_held(self, wishes: Sequence[HeldWish], *, now: int) -> Awaitable[list[Released]]:
        return super().release_held([wish._replace(after=0) for wish in wishes], now=now)


class StoresEventsAlone(SqliteDatabase):
    async def append_then(self, event: NewEvent, body: Callable[[sa.Connection, int], R]) -> R:
        (result,) = await self.append([[event]])
        assert isinstance(result, list)
        return await self.write(lambda c: body(c, result[0].seq))


class SendsThemToTheEnd(SqliteDatabase):
    async def release(self, leases: Sequence[tuple[int, int, int]], *, now: int) -> None:  # type: ignore[override]
        await super().release(leases, now=now)
        for event, endpoint, _ in leases:
            own = (deliveries.c.event_seq == event, deliveries.c.endpoint_seq == endpoint)
            await self.write(lambda c, own=own: c.execute(sa.update(deliveries).where(*own).values(due_at=now)))


class ForgetsTests(SqliteDatabase):
    async def settle(  # type: ignore[override]
        self, settlements: Sequence[Settlement], health: Sequence[HealthRow] = ()
    ) -> frozenset[tuple[int, int]]:
        lost = await super().settle(settlements, health)
        await self.write(lambda c: c.execute(sa.update(deliveries).values(trigger=0)))
        return lost


class ReplaysWhatHasChanged(SqliteDatabase):
    def release_replay(
        self, replay_seq: int, choice: Choice, ahead: Ahead, lease: ReplayLease
    ) -> Awaitable[ReplayRelease]:
        return super().release_replay(replay_seq, replace(choice, made_at=1 << 60), ahead, lease)


class ReplaysWithoutLimit(SqliteDatabase):
    def release_replay(
        self, replay_seq: int, choice: Choice, ahead: Ahead, lease: ReplayLease
    ) -> Awaitable[ReplayRelease]:
        return super().release_replay(replay_seq, choice, ahead, lease._replace(outstanding_max=1000))


class ReplaysWhatHasExpired(SqliteDatabase):
    def release_replay(
        self, replay_seq: int, choice: Choice, ahead: Ahead, lease: ReplayLease
    ) -> Awaitable[ReplayRelease]:
        return super().release_replay(replay_seq, choice, ahead, lease._replace(now=0))


class LooksAheadTooFar(SqliteDatabase):
    async def look_ahead(self, replay: Replay, *, rows: int, **rest: Any) -> Ahead:
        return await super().look_ahead(replay, rows=rows + 1, **rest)


class LooksAheadToOtherTypes(SqliteDatabase):
    async def look_ahead(self, replay: Replay, **rest: Any) -> Ahead:
        return await super().look_ahead(replace(replay, choice=replace(replay.choice, type_seqs=())), **rest)


DEFECTS = [
    LooksAheadTooFar,
    LooksAheadToOtherTypes,
    ReplaysWhatHasChanged,
    ReplaysWithoutLimit,
    ReplaysWhatHasExpired,
    ForgetsDeliveries,
    ForgetsKeys,
    SharesKeysBetweenAccounts,
    StoresGroupsInPieces,
    IgnoresContent,
    LeasesTooEarly,
    LeasesTwice,
    IgnoresLimits,
    IgnoresBodySizes,
    IgnoresFences,
    KeepsNoAttempts,
    HidesLostLeases,
    ForgetsHealth,
    ForgetsReplays,
    CountsLostAttempts,
    LeasesForNoReplay,
    ReleasesAnybodysLease,
    ReleasesTheNewestFirst,
    ReleasesMoreThanIsTaken,
    ReleasesWhatIsKept,
    ReclaimsLiveLeases,
    ReclaimsEverybodys,
    MissesEndpoints,
    ListsLeasedEndpoints,
    KeepsHalfWrites,
    StoresEventsAlone,
    ForgetsTests,
    SendsThemToTheEnd,
    Reorders,
    MiscountsFences,
]


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.__name__)
async def test_a_broken_store_is_caught(defect: type[SqliteDatabase], tmp_path: Path) -> None:
    for number, check in enumerate([*CHECKS, *REPLAY_CHECKS]):
        folder = tmp_path / str(number)
        folder.mkdir()
        async with sqlite_bench(folder, defect) as bench:
            try:
                await check(bench)
            except (AssertionError, ValueError):
                return
    pytest.fail("no check of the suite catches it")
