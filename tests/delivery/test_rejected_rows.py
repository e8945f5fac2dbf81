"""The server does not store rows that conflict with stored rows. It stores and sends all other rows."""

import asyncio
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from structlog.testing import capture_logs
from tests.engines import Place

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import Status
from uplift_server.observe.counters import SetAside
from uplift_server.store.errors import Rejected, Unavailable
from uplift_server.store.hot_records import HealthRow, NewEvent, Settlement
from uplift_server.store.schema import attempts, deliveries

from .world import SECOND, World, respond

SET_ASIDE = "row not stored"


def store_conflicting_attempt(place: Place, event_seq: int, endpoint_seq: int, number: int = 1) -> None:
    """Store the row of an attempt that the server has not made."""
    place.run(
        lambda c: c.execute(
            sa.insert(attempts).values(
                event_seq=event_seq, endpoint_seq=endpoint_seq, number=number, trigger=0, started_at=1, duration_us=1,
                outcome=Outcome.TIMEOUT, request_head=b"", body_truncated=False,
            )
        )
    )  # fmt: skip


def set_aside_lines(logs: Sequence[Any], kind: SetAside) -> list[Any]:
    return [line for line in logs if line["event"] == SET_ASIDE and line["kind"] == kind.text]


async def test_an_outcome_is_stored_without_its_rejected_attempt(place: Place) -> None:
    async with World(place) as world:
        other = await world.new_account()
        first = await world.endpoint("one.test")
        await world.endpoint("two.test", account=other)
        world.sender.latency_ms["one.test"] = world.sender.latency_ms["two.test"] = SECOND
        stored = await world.accept(40) + await world.accept(40, account=other)
        store_conflicting_attempt(place, stored[7].seq, first.seq)
        before = sum(world.database.measures.commits.counts)
        with capture_logs() as logs:
            await world.run_for(10 * SECOND)
        commits = sum(world.database.measures.commits.counts) - before
        assert await world.statuses() == {Status.DELIVERED: 80}
        assert len(world.sender.sent) == 80
        [line] = set_aside_lines(logs, SetAside.ATTEMPT)
        assert (line["event_seq"], line["endpoint_seq"], line["number"]) == (stored[7].seq, first.seq, 1)
        assert world.parts.counters.set_aside == [0, 1, 0, 0]
        assert len(await world.attempts()) == 80
        # Writing the outcomes one at a time would need a commit for each.
        assert commits < 60, commits
        await world.accept(1, account=other)
        await world.run_for(2 * SECOND)
        assert (await world.statuses())[Status.DELIVERED] == 81


async def test_retries_follow_the_schedule_if_an_attempt_is_rejected(place: Place) -> None:
    async with World(place, delays_ms=(5 * SECOND, 5 * SECOND)) as world:
        endpoint = await world.endpoint("hooks.test", lambda _: respond(500))
        world.sender.latency_ms["hooks.test"] = SECOND
        [event] = await world.accept(1)
        store_conflicting_attempt(place, event.seq, endpoint.seq)
        await world.run_for(60 * SECOND)
        assert await world.statuses() == {Status.FAILED: 1}
        assert len(world.sender.sent) == 3


class RejectsOutcome:
    """A layer over a storage engine. It fails every settlement batch that contains the outcome of one event."""

    rejected: int | None = None
    settles = 0

    def settle(
        self, settlements: Sequence[Settlement], health: Sequence[HealthRow] = (), *, process_id: int = 0
    ) -> Any:
        if any(each.event_seq == self.rejected for each in settlements):
            self.settles += 1
            failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            failed.set_exception(Rejected("a row contradicts another"))
            return failed
        return super().settle(settlements, health, process_id=process_id)  # type: ignore[misc]


async def test_a_rejected_outcome_repeats_no_attempt_before_a_restart(place: Place) -> None:
    async with World(place, database=RejectsOutcome) as world:
        await world.endpoint("hooks.test")
        world.sender.latency_ms["hooks.test"] = SECOND
        stored = await world.accept(40)
        world.database.rejected = stored[20].seq
        with capture_logs() as logs:
            await world.run_for(300 * SECOND)
        assert await world.statuses() == {Status.DELIVERED: 39, Status.PENDING: 1}
        assert len(world.sender.sent) == 40
        assert [line["event_seq"] for line in set_aside_lines(logs, SetAside.DELIVERY)] == [stored[20].seq]
        assert world.parts.counters.set_aside == [0, 1, 1, 0]
        assert world.database.settles < 15
        await world.accept(5)
        await world.run_for(10 * SECOND)
        assert (await world.statuses())[Status.DELIVERED] == 44
        await world.restart()
        await world.run_for(60 * SECOND)
        assert await world.statuses() == {Status.DELIVERED: 45}
        assert len(world.sender.sent) == 46


async def test_health_is_stored_despite_a_rejected_attempt(place: Place) -> None:
    async with World(place, delays_ms=(600 * SECOND,)) as world:
        endpoint = await world.endpoint("hooks.test", lambda _: respond(500))
        world.sender.latency_ms["hooks.test"] = SECOND
        stored = await world.accept(2)
        store_conflicting_attempt(place, stored[0].seq, endpoint.seq)
        await world.run_for(5 * SECOND)
        [(failures,)] = place.query("SELECT consecutive_failures FROM endpoints")
        assert failures == 2


class RejectsHealth:
    """A layer over a storage engine. It fails every settlement batch that contains the health of one endpoint."""

    rejected: int | None = None

    def settle(
        self, settlements: Sequence[Settlement], health: Sequence[HealthRow] = (), *, process_id: int = 0
    ) -> Any:
        if any(each.endpoint_seq == self.rejected for each in health):
            failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            failed.set_exception(Rejected("a row contradicts another"))
            return failed
        return super().settle(settlements, health, process_id=process_id)  # type: ignore[misc]


async def test_rejected_health_affects_only_its_endpoint(place: Place) -> None:
    async with World(place, database=RejectsHealth, delays_ms=(600 * SECOND,)) as world:
        found = [await world.endpoint(f"r{number}.test", lambda _: respond(500)) for number in range(9)]
        world.database.rejected = found[4].seq
        with capture_logs() as logs:
            await world.accept(2)
            await world.run_for(5 * SECOND)
        stored = place.query("SELECT seq, consecutive_failures FROM endpoints ORDER BY seq")
        assert [tuple(row) for row in stored] == [
            (endpoint.seq, 0 if endpoint is found[4] else 2) for endpoint in found
        ]
        assert {line["endpoint_seq"] for line in set_aside_lines(logs, SetAside.HEALTH)} == {found[4].seq}
        assert len(await world.attempts()) == 18


async def accept_together(world: World, count: int) -> list[Any]:
    """Accept events in one turn of the event loop. Return the response or error of each."""
    drafts = [world.draft(b'{"n":%d}' % n) for n in range(count)]
    accepting = [world.parts.event_ingest.accept(world.account.seq, [draft]) for draft in drafts]
    found = await asyncio.gather(*accepting, return_exceptions=True)
    await world.settle()
    return found


async def test_a_leftover_row_does_not_block_new_events(place: Place) -> None:
    async with World(place) as world:
        endpoint = await world.endpoint("hooks.test")
        [known] = await world.accept(1)
        place.run(
            lambda c: c.execute(
                sa.insert(deliveries).values(
                    event_seq=known.seq + 3, endpoint_seq=endpoint.seq, account_seq=world.account.seq,
                    status=Status.CANCELLED, due_at=None, lease_owner=0, fence=0,
                )
            )
        )  # fmt: skip
        for _ in range(3):
            await accept_together(world, 1)
        results = await accept_together(world, 16) + await accept_together(world, 1)
        assert [each for each in results if isinstance(each, BaseException)] == []


class RejectsEventSeven:
    """A layer over a storage engine. It fails every batch that contains one particular event."""

    appends = 0

    def append(self, groups: Sequence[Sequence[NewEvent]]) -> Any:
        if any(event.data == b'{"n":7}' for group in groups for event in group):
            self.appends += 1
            failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            failed.set_exception(Rejected("a row contradicts another"))
            return failed
        return super().append(groups)  # type: ignore[misc]


async def test_an_unstorable_event_fails_alone(place: Place) -> None:
    async with World(place, database=RejectsEventSeven) as world:
        await world.endpoint("hooks.test")
        with capture_logs() as logs:
            results = await accept_together(world, 64)
        assert [n for n, each in enumerate(results) if isinstance(each, BaseException)] == [7]
        assert isinstance(results[7], Unavailable)
        assert len(set_aside_lines(logs, SetAside.EVENT)) == 1
        assert world.parts.counters.set_aside == [1, 0, 0, 0]
        assert world.database.appends == 7
        await world.run_for(5 * SECOND)
        assert await world.statuses() == {Status.DELIVERED: 63}
