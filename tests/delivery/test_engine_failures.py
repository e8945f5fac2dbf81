"""The engine with large bodies, defects, interruptions by a stop, and egress failures."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

import pytest
from tests.engines import Place

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.events.catalog import WEBHOOK_CREATED
from uplift_server.core.http.exchange import Exchange, Failure
from uplift_server.core.lifecycle import Status
from uplift_server.core.limits import LANE_BODY_BYTES_MAX
from uplift_server.delivery.ingest import BacklogFull
from uplift_server.store.hot_records import HealthRow, LeasedDelivery, LeaseRequest, Settlement

from .test_engine import Failing, resend
from .world import MINUTE, SECOND, World, respond

LARGE = 200 * 1024


async def test_large_bodies_of_a_hanging_endpoint_do_not_delay_other_endpoints(place: Place) -> None:
    async with World(place) as world:
        other = await world.new_account()
        await world.endpoint("hangs.test", lambda _: None)
        await world.endpoint("well.test", account=other)
        for _ in range(8):
            await world.accept(40, pad=LARGE)
        lane = world.parts.lanes.find(1)
        assert lane is not None
        assert lane.waiting_bytes <= LANE_BODY_BYTES_MAX + LARGE * 20
        await world.accept(5, account=other)
        assert len(world.sender.times("well.test")) == 5


def counts_of(hosts: Sequence[str]) -> list[int]:
    """Return the number of requests to each of the three endpoints."""
    return [hosts.count(f"{name}.test") for name in ("one", "two", "three")]


async def test_large_bodies_are_sent_in_turns(place: Place) -> None:
    async with World(place) as world:
        for name in ("one", "two", "three"):
            await world.endpoint(f"{name}.test", lambda _: respond(500), event_types=())
        await world.accept(150, pad=LARGE)
        for name in ("one", "two", "three"):
            world.sender.scripts[f"{name}.test"] = lambda _: respond(200)
        before = len(world.sender.sent)
        await world.run_for(20 * SECOND)
        retried = [to for _, to, _ in world.sender.sent[before:]]
        assert len(retried) == 450
        # Each lease has about forty of these bodies, and a served endpoint goes to the end of the queue. Differences
        # can only come from one lease and from jitter.
        ahead = [max(counts) - min(counts) for counts in (counts_of(retried[:sent]) for sent in range(300))]
        assert max(ahead) < 80


class Defective:
    """A database in which a programming error prevents leases, or the settlement of one event."""

    broken = False
    rejected_seq: int | None = None

    def lease_due(self, requests: Sequence[LeaseRequest], **rest: Any) -> Awaitable[list[LeasedDelivery]]:
        if self.broken:
            raise ZeroDivisionError
        return super().lease_due(requests, **rest)

    async def settle(  # type: ignore[override]
        self, settlements: Sequence[Settlement], health: Sequence[HealthRow] = (), *, process_id: int = 0
    ) -> frozenset[tuple[int, int]]:
        if any(settlement.event_seq == self.rejected_seq for settlement in settlements):
            raise ZeroDivisionError
        return await super().settle(settlements, health, process_id=process_id)


async def test_a_failed_loop_stops_the_process(place: Place) -> None:
    async with World(place, database=Defective) as world:
        stopped = []
        world.on_loop_failure = lambda _: stopped.append(True)
        await world.endpoint("one.test", lambda _: respond(500))
        await world.accept()
        world.database.broken = True
        await world.run_for(10 * SECOND)
        assert stopped == [True]


async def test_a_defect_at_the_end_of_an_attempt_frees_its_slot(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async with World(place, endpoint_in_flight_max=2) as world:
        defects: list[BaseException | None] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: defects.append(context.get("exception")))
        await world.endpoint("one.test", lambda _: respond(500))
        with monkeypatch.context() as patch:
            patch.setattr("uplift_server.delivery.sending.attempts.first_line", lambda _: int("no number"))
            await world.accept(4)
        assert [type(each) for each in defects] == [ValueError] * 4
        assert world.parts.lanes.load().in_flight == 0
        # The server does not repeat the attempts until it is restarted.
        await world.run_for(MINUTE)
        assert len(world.sender.sent) == 4
        world.sender.scripts["one.test"] = lambda _: respond(200)
        await world.restart()
        await world.run_for(MINUTE)
        assert await world.statuses() == {Status.DELIVERED: 4}


async def test_a_rejected_outcome_does_not_affect_other_outcomes(place: Place) -> None:
    async with World(place, database=Defective) as world:
        await world.endpoint("one.test")
        [first] = await world.accept(1)
        world.database.rejected_seq = first.seq + 1
        await world.accept(2)
        assert [row.status for row in await world.deliveries()] == [Status.DELIVERED, Status.PENDING, Status.DELIVERED]
        await world.restart()
        await world.run_for(40 * SECOND)
        assert await world.statuses() == {Status.DELIVERED: 3}


async def test_a_drain_starts_no_attempts(place: Place) -> None:
    async with World(place, database=Failing) as world:
        await world.endpoint("one.test", lambda _: respond(200))
        world.sender.latency_ms["one.test"] = 2000
        await world.accept(1)
        world.database.broken = frozenset({"settle"})
        await world.run_for(2100)
        drain = asyncio.ensure_future(world.engine.drain())
        await world.settle()
        world.database.broken = frozenset()
        sent = len(world.sender.sent)
        await world.stepping(drain)
        assert len(world.sender.sent) == sent


async def test_attempts_aborted_by_a_stop_do_not_count(place: Place) -> None:
    async with World(place) as world:
        await world.endpoint("one.test", lambda _: respond(200))
        world.sender.latency_ms["one.test"] = 60 * SECOND
        await world.accept(3)
        await world.restart()
        assert {(row.status, row.attempts_made) for row in await world.deliveries()} == {(Status.PENDING, 0)}
        world.sender.latency_ms["one.test"] = 0
        await world.run_for(100)
        await world.accept(0)
        await world.run_for(70 * SECOND)
        assert await world.statuses() == {Status.DELIVERED: 3}


async def test_egress_failures_do_not_count_as_attempts_or_for_health(place: Place) -> None:
    fault = Exchange(0, 1000, failure=Failure.EGRESS, error="the egress proxy is down")
    async with World(place, breaker_failures=2) as world:
        endpoint = await world.endpoint("one.test", lambda _: fault)
        await world.accept()
        await world.run_for(600 * SECOND)
        (row,) = await world.deliveries()
        assert (row.status, row.scheduled_attempts) == (Status.PENDING, 0)
        assert 5 <= row.attempts_made <= 11
        assert endpoint.health.status == "unknown"
        assert world.parts.status.next_probe_at(endpoint.seq) is None
        world.sender.scripts["one.test"] = lambda _: respond(200)
        await world.run_for(120 * SECOND)
        assert await world.statuses() == {Status.DELIVERED: 1}


async def test_registration_event_never_counts_for_health(place: Place) -> None:
    async with World(place, breaker_failures=2) as world:
        await world.add_event_type(WEBHOOK_CREATED)
        endpoint = await world.endpoint("one.test", lambda _: respond(500))
        await world.accept(5, event_type=WEBHOOK_CREATED)
        assert endpoint.health.status == "unknown"
        assert world.parts.status.next_probe_at(endpoint.seq) is None
        await world.accept(5)
        assert endpoint.health.status == "failing"


async def test_a_resend_ignores_an_open_circuit_breaker(place: Place) -> None:
    async with World(place, breaker_failures=3, delays_ms=[3600 * SECOND]) as world:
        endpoint = await world.endpoint("one.test", lambda _: respond(500))
        stored = await world.accept(20)
        await world.run_for(300 * SECOND)
        probe_at = world.parts.status.next_probe_at(endpoint.seq)
        assert probe_at is not None
        assert probe_at > world.clock.now
        world.sender.scripts["one.test"] = lambda _: respond(200)
        sent = len(world.sender.sent)
        await resend(world, stored[0].seq, endpoint.seq)
        assert world.sender.sent[sent][0] == world.clock.now
        # The success of the resend closes the circuit breaker.
        assert world.parts.status.next_probe_at(endpoint.seq) is None


async def test_a_failed_resend_keeps_the_status_delivered(place: Place) -> None:
    async with World(place) as world:
        endpoint = await world.endpoint("one.test")
        (stored,) = await world.accept()
        (before,) = await world.deliveries()
        world.sender.scripts["one.test"] = lambda _: respond(500)
        await world.run_for(SECOND)
        await resend(world, stored.seq, endpoint.seq)
        (row,) = await world.deliveries()
        assert (row.status, row.completed_at, row.attempts_made) == (Status.DELIVERED, before.completed_at, 2)
        # The endpoint is deleted during a resend: the delivery stays delivered.
        world.sender.scripts["one.test"] = lambda _: None
        await resend(world, stored.seq, endpoint.seq)
        await world.delete_endpoint(endpoint.seq)
        await world.run_for(60 * SECOND)
        (row,) = await world.deliveries()
        assert (row.status, row.last_outcome) == (Status.DELIVERED, Outcome.TIMEOUT)


async def test_without_dispatch_events_are_stored_but_not_sent(place: Place) -> None:
    async with World(place) as world:
        await world.endpoint("one.test")
        await world.stepping(world.engine.drain())
        await world.database.close()
        await world._open(dispatch=False)
        await world.accept(3)
        await world.run_for(10 * SECOND)
        assert world.sender.sent == []
        await world.restart()
        await world.run_for(SECOND)
        assert await world.statuses() == {Status.DELIVERED: 3}


async def test_events_with_the_same_chosen_id_in_one_request_are_sent_once(place: Place) -> None:
    async with World(place) as world:
        other = await world.new_account()
        await world.endpoint("one.test")
        await world.endpoint("two.test", account=other)
        own, foreign = (world.draft(b'{"n":1}', account=each, id=bytes(range(16))) for each in (world.account, other))
        drafts = [(world.account.seq, own), (world.account.seq, own), (other.seq, foreign), (world.account.seq, own)]
        stored = await world.parts.event_ingest.accept_for(drafts)
        assert isinstance(stored, list)
        assert [appended.duplicate for appended in stored] == [False, True, False, True]
        await world.settle()
        assert sorted(to for _, to, _ in world.sender.sent) == ["one.test", "two.test"]
        assert await world.statuses() == {Status.DELIVERED: 2}


async def test_a_request_with_too_many_deliveries_is_rejected(place: Place) -> None:
    async with World(place) as world:
        for number in range(60):
            await world.endpoint(f"r{number}.test")
        draft = world.draft()
        with pytest.raises(BacklogFull, match="61000 events and deliveries"):
            world.parts.event_ingest.accept_for([(world.account.seq, draft)] * 1000)
        assert world.parts.event_ingest.waiting_events == 0


async def test_slow_receivers_leave_slots_for_fast_receivers(place: Place) -> None:
    async with World(place, in_flight_max=100) as world:
        other = await world.new_account()
        await world.endpoint("quick.test", account=other)
        await world.accept(1, account=other)
        for number in range(20):
            await world.endpoint(f"slow{number}.test")
        await world.accept(5)
        await world.run_for(SECOND)
        for number in range(20):
            world.sender.latency_ms[f"slow{number}.test"] = 12 * SECOND
        for _ in range(60):
            await world.accept(5)
            await world.accept(1, account=other)
            await world.run_for(500)
        assert len(world.sender.times("quick.test")) == 61
