"""The engine under a virtual clock: retries, restarts, concurrency, resends and outages."""

import asyncio
import hashlib
import hmac
import json
from itertools import pairwise
from typing import Any

import pytest
from tests.engines import Place

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import FailedReason, Status, Trigger
from uplift_server.core.people.audit import SYSTEM, AuditEntry
from uplift_server.delivery.sending.http.request import Request
from uplift_server.store.commands import Command, CommandKind
from uplift_server.store.errors import Unavailable

from .world import HOUR, MINUTE, SECOND, SECRET, START, World, respond

DEFAULT_DELAYS = [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]


def header(request: Request, name: str) -> str:
    """Return the value of a request header."""
    for line in request.head.decode().split("\r\n"):
        key, _, value = line.partition(": ")
        if key == name:
            return value
    raise AssertionError(f"no {name} in {request.head!r}")


async def test_an_event_is_delivered_immediately(place: Place) -> None:
    async with World(place) as world:
        await world.endpoint("one.test")
        await world.endpoint("two.test")
        (stored,) = await world.accept()
        assert sorted(to for _, to, _ in world.sender.sent) == ["one.test", "two.test"]
        assert await world.statuses() == {Status.DELIVERED: 2}
        assert [(a.event_seq, a.number, a.outcome) for a in await world.attempts()] == [
            (stored.seq, 1, Outcome.DELIVERED),
            (stored.seq, 1, Outcome.DELIVERED),
        ]


async def test_every_attempt_sends_the_same_body_with_both_signatures(place: Place) -> None:
    async with World(place) as world:
        await world.endpoint("one.test", lambda _: respond(500))
        (stored,) = await world.accept()
        await world.run_for(400 * SECOND)
        requests = [request for _, _, request in world.sender.sent]
        assert len(requests) == 3
        assert len({request.body for request in requests}) == 1
        body = json.loads(requests[0].body)
        assert (body["object"], body["type"], body["created"], body["data"]) == ("event", "a.b", START, {"n": 0})
        for number, request in enumerate(requests, 1):
            assert header(request, "x-uplift-attempt") == str(number)
            assert header(request, "webhook-id") == body["id"]
            assert header(request, "x-uplift-event") == "a.b"
            digest = hmac.new(SECRET.encode(), request.body, hashlib.sha256).hexdigest()
            assert header(request, "x-uplift-signature-256") == f"sha256={digest}"
        assert len({header(request, "x-uplift-delivery") for request in requests}) == 1
        assert len({header(request, "webhook-timestamp") for request in requests}) == 3
        assert len({header(request, "webhook-signature") for request in requests}) == 3
        assert stored.id.hex() in header(requests[0], "x-uplift-delivery")


async def test_the_default_schedule_makes_ten_attempts_in_three_days(place: Place) -> None:
    async with World(place, delays_ms=[seconds * SECOND for seconds in DEFAULT_DELAYS], scan_every_ms=HOUR) as world:
        await world.endpoint("one.test", lambda _: respond(500))
        await world.accept()
        await world.run_for(100 * HOUR)
        times = world.sender.times("one.test")
        waits = [later - earlier for earlier, later in pairwise(times)]
        assert len(waits) == len(DEFAULT_DELAYS)
        for wait, seconds in zip(waits, DEFAULT_DELAYS, strict=True):
            # Delays vary by 10%. An attempt starts no earlier than its due time, and no later than 1 s after it.
            assert 0.9 * seconds * SECOND <= wait <= 1.1 * seconds * SECOND + SECOND
        (row,) = await world.deliveries()
        assert (row.status, row.failed_reason, row.attempts_made) == (Status.FAILED, FailedReason.EXHAUSTED, 10)
        await world.run_for(100 * HOUR)
        assert len(world.sender.sent) == 10


@pytest.mark.parametrize("status", [301, 404, 410, 500, 503])
async def test_responses_other_than_2xx_are_retried(place: Place, status: int) -> None:
    responses = [respond(status), respond(204)]
    async with World(place) as world:
        await world.endpoint("one.test", lambda _: responses.pop(0))
        await world.accept()
        assert await world.statuses() == {Status.PENDING: 1}
        await world.run_for(6 * SECOND)
        assert await world.statuses() == {Status.DELIVERED: 1}


@pytest.mark.parametrize("status", [301, 404, 429, 500, 502, 503])
async def test_retry_after_lengthens_a_wait_and_never_shortens_it(place: Place, status: int) -> None:
    async with World(place) as world:
        await world.endpoint("long.test", lambda _: respond(status, retry_after="60"))
        await world.endpoint("fraction.test", lambda _: respond(status, retry_after="7.25"))
        await world.endpoint("short.test", lambda _: respond(status, retry_after="1"))
        await world.accept()
        waits = {row.endpoint_seq: row.due_at - START for row in await world.deliveries()}
        assert (waits[1], waits[2]) == (60 * SECOND, 7250)
        assert 4500 <= waits[3] <= 5500


async def test_expired_events_are_not_sent(place: Place) -> None:
    async with World(place) as world:
        await world.endpoint("one.test", lambda _: respond(500))
        await world.accept(expires_at=START + 60 * SECOND)
        await world.run_for(10 * MINUTE)
        assert len(world.sender.sent) == 2
        (row,) = await world.deliveries()
        assert (row.status, row.failed_reason) == (Status.FAILED, FailedReason.EXPIRED)


async def test_retries_continue_after_a_restart(place: Place) -> None:
    async with World(place) as world:
        await world.endpoint("one.test", lambda _: respond(500))
        await world.accept()
        await world.restart()
        await world.run_for(6 * SECOND)
        await world.restart()
        world.sender.scripts["one.test"] = lambda _: respond(200)
        await world.run_for(400 * SECOND)
        assert await world.statuses() == {Status.DELIVERED: 1}
        assert [row.number for row in await world.attempts()] == [1, 2, 3]


async def test_deliveries_in_flight_at_a_kill_are_attempted_again(place: Place) -> None:
    async with World(place) as world:
        await world.endpoint("one.test", lambda _: None)
        await world.accept(20)
        assert world.sender.in_flight["one.test"] == 4
        world.sender.scripts["one.test"] = lambda _: respond(200)
        await world.kill()
        await world.run_for(2 * SECOND)
        assert await world.statuses() == {Status.DELIVERED: 20}
        # Duplicates are exactly the attempts in flight at the kill.
        assert len(world.sender.sent) == 20 + 4


async def test_a_hanging_endpoint_uses_only_its_own_slots(place: Place) -> None:
    async with World(place, in_flight_max=40) as world:
        await world.endpoint("hangs.test", lambda _: None)
        await world.endpoint("well.test")
        for _ in range(30):
            await world.accept(10)
        assert world.sender.in_flight_most["hangs.test"] == 4
        assert len(world.sender.times("well.test")) == 300
        assert set(world.sender.times("well.test")) == {START}
        # Only a few of the deliveries that wait for the hanging endpoint are in memory.
        await world.run_for(2 * SECOND)
        await world.accept(100)
        assert world.parts.lanes.find(1).waiting_count <= 300  # type: ignore[union-attr]


async def test_many_hanging_endpoints_leave_slots_for_others(place: Place) -> None:
    async with World(place, in_flight_max=40) as world:
        await world.endpoint("well.test")
        await world.accept(1)
        for number in range(30):
            await world.endpoint(f"hangs{number}.test", lambda _: None)
        for _ in range(10):
            await world.accept(20)
            await world.run_for(100)
        times = world.sender.times("well.test")
        assert len(times) == 201
        assert max(times) - START <= 1000


async def test_an_endpoint_that_starts_to_hang_uses_few_slots(place: Place) -> None:
    async with World(place) as world:
        await world.endpoint("one.test")
        await world.accept(100)
        world.sender.scripts["one.test"] = lambda _: None
        for _ in range(20):
            await world.accept(1)
            await world.run_for(100)
        assert world.sender.in_flight["one.test"] <= 5
        await world.run_for(20 * SECOND)
        assert world.sender.in_flight["one.test"] <= 1


async def test_accounts_share_the_process_fairly(place: Place) -> None:
    async with World(place, in_flight_max=16) as world:
        greedy, modest = await world.new_account(), await world.new_account()
        for number in range(10):
            await world.endpoint(f"greedy{number}.test", account=greedy)
            world.sender.latency_ms[f"greedy{number}.test"] = 100
        await world.endpoint("modest.test", account=modest)
        world.sender.latency_ms["modest.test"] = 100
        await world.accept(100, account=greedy)
        await world.accept(20, account=modest)
        await world.run_for(1000)
        # The account with one endpoint got all slots of its window, although the other account had work for all slots.
        assert len(world.sender.times("modest.test")) == 20
        assert sum(len(world.sender.times(f"greedy{number}.test")) for number in range(10)) < 1000


async def test_a_rate_limit_is_respected(place: Place) -> None:
    async with World(place) as world:
        await world.endpoint("one.test", rate_limit_per_second=10)
        await world.accept(40)
        await world.run_for(4200)
        times = world.sender.times("one.test")
        assert len(times) == 40
        assert min(b - a for a, b in pairwise(times)) >= 100
        assert times[-1] - times[0] >= 3900


async def test_probes_do_not_count_as_scheduled_attempts(place: Place) -> None:
    async with World(place, breaker_failures=10, delays_ms=[60 * SECOND] * 9) as world:
        endpoint = await world.endpoint("one.test", lambda _: respond(500))
        await world.accept(100)
        await world.run_for(30 * SECOND)
        sent = len(world.sender.sent)
        leased = {row.event_seq for row in await world.deliveries() if row.lease_owner}
        assert world.parts.status.waiting_events(endpoint.seq) == leased
        probe_at = world.parts.status.next_probe_at(endpoint.seq)
        assert probe_at is not None
        assert probe_at > world.clock.now
        load = world.parts.status.load()
        assert (load.in_flight, load.waiting, load.probes) == (0, len(leased), {endpoint.seq: probe_at})
        # At first, the engine starts one attempt per slot, and one more for each of the nine failures before the
        # breaker opens. Then, it sends only probes, at growing intervals.
        assert sent <= 16 + 9 + 6
        untouched = [row for row in await world.deliveries() if row.attempts_made == 0]
        assert len(untouched) >= 100 - sent
        world.sender.scripts["one.test"] = lambda _: respond(200)
        await world.run_for(90 * SECOND)
        assert await world.statuses() == {Status.DELIVERED: 100}


async def test_deleting_an_endpoint_cancels_its_deliveries(place: Place) -> None:
    async with World(place) as world:
        endpoint = await world.endpoint("one.test", lambda _: None)
        await world.accept(60)
        await world.delete_endpoint(endpoint.seq)
        await world.run_for(SECOND)
        assert len(world.sender.sent) == 4
        await world.run_for(40 * SECOND)
        assert len(world.sender.sent) == 4
        assert await world.statuses() == {Status.CANCELLED: 60}


async def resend(world: World, event_seq: int, endpoint_seq: int) -> None:
    """Resend a delivery as the service does."""
    entry = AuditEntry(world.account.seq, world.clock.now, SYSTEM, "delivery.resent", "dlv_", {})
    command = Command(CommandKind.RESEND, world.account.seq, endpoint_seq, entry, event_seq)
    resending = asyncio.ensure_future(world.parts.commands.execute(command))
    # This task also waits for the clock, but must not count as a loop of the engine.
    world.callers.add(resending)
    await world.stepping(asyncio.wait([resending]))
    world.callers.remove(resending)
    resending.result()
    await world.settle()


async def test_a_successful_resend_completes_the_delivery(place: Place) -> None:
    async with World(place, scan_every_ms=60 * SECOND) as world:
        endpoint = await world.endpoint("one.test", lambda _: respond(500))
        (stored,) = await world.accept()
        world.sender.scripts["one.test"] = lambda _: respond(200)
        await resend(world, stored.seq, endpoint.seq)
        assert await world.statuses() == {Status.DELIVERED: 1}
        await world.run_for(10 * MINUTE)
        assert len(world.sender.sent) == 2
        assert [row.trigger for row in await world.attempts()] == [Trigger.SCHEDULE, Trigger.RESEND]


async def test_a_failed_resend_does_not_change_the_schedule(place: Place) -> None:
    async with World(place, scan_every_ms=60 * SECOND) as world:
        endpoint = await world.endpoint("one.test", lambda _: respond(500))
        (stored,) = await world.accept()
        (before,) = await world.deliveries()
        await world.run_for(SECOND)
        await resend(world, stored.seq, endpoint.seq)
        (after,) = await world.deliveries()
        assert (after.status, after.due_at, after.scheduled_attempts) == (Status.PENDING, before.due_at, 1)
        assert after.attempts_made == 2
        await world.run_for(10 * MINUTE)
        (failed,) = await world.deliveries()
        assert (failed.status, failed.attempts_made, failed.scheduled_attempts) == (Status.FAILED, 4, 3)
        await resend(world, stored.seq, endpoint.seq)
        (row,) = await world.deliveries()
        assert (row.status, row.attempts_made) == (Status.FAILED, 5)
        assert (row.completed_at, row.failed_reason) == (failed.completed_at, FailedReason.EXHAUSTED)


async def test_a_drain_settles_attempts_in_flight_and_releases_the_rest(place: Place) -> None:
    async with World(place, endpoint_in_flight_max=4) as world:
        await world.endpoint("one.test")
        world.sender.latency_ms["one.test"] = 3000
        await world.accept(10)
        began = world.clock.now
        await world.restart()
        assert world.clock.now - began <= 20 * SECOND
        assert await world.statuses() == {Status.DELIVERED: 4, Status.PENDING: 6}
        world.sender.latency_ms["one.test"] = 0
        await world.run_for(5 * SECOND)
        assert await world.statuses() == {Status.DELIVERED: 10}
        assert len(world.sender.sent) == 10


class Failing:
    """A database with failing operations."""

    broken: frozenset[str] = frozenset()

    def append(self, *args: Any, **kwargs: Any) -> Any:
        return self._unavailable() if "append" in self.broken else super().append(*args, **kwargs)

    def settle(self, *args: Any, **kwargs: Any) -> Any:
        return self._unavailable() if "settle" in self.broken else super().settle(*args, **kwargs)

    def lease_due(self, *args: Any, **kwargs: Any) -> Any:
        return self._unavailable() if "lease_due" in self.broken else super().lease_due(*args, **kwargs)

    def append_then(self, *args: Any, **kwargs: Any) -> Any:
        return self._unavailable() if "append_then" in self.broken else super().append_then(*args, **kwargs)

    def release_held(self, *args: Any, **kwargs: Any) -> Any:
        return self._unavailable() if "release_held" in self.broken else super().release_held(*args, **kwargs)

    def write(self, *args: Any, **kwargs: Any) -> Any:
        return self._unavailable() if "write" in self.broken else super().write(*args, **kwargs)

    async def _unavailable(self) -> Any:
        raise Unavailable("disk full")


async def test_events_that_cannot_be_stored_are_rejected_and_not_sent(place: Place) -> None:
    async with World(place, database=Failing) as world:
        await world.endpoint("one.test")
        world.database.broken = frozenset({"append"})
        with pytest.raises(Unavailable, match="disk full"):
            await world.accept(3)
        assert world.sender.sent == []
        assert world.parts.lanes.bytes_held == 0
        assert world.parts.event_ingest.waiting_events == 0
        world.database.broken = frozenset()
        await world.accept(3)
        assert await world.statuses() == {Status.DELIVERED: 3}


async def test_unwritten_outcomes_are_kept_and_stop_new_attempts(place: Place) -> None:
    async with World(place, database=Failing) as world:
        await world.endpoint("one.test")
        world.database.broken = frozenset({"settle"})
        await world.accept(1)
        await world.accept(5)
        assert len(world.sender.sent) == 1
        await world.run_for(3 * SECOND)
        assert len(world.sender.sent) == 1
        world.database.broken = frozenset()
        await world.run_for(2 * SECOND)
        assert await world.statuses() == {Status.DELIVERED: 6}
        assert len(world.sender.sent) == 6


async def test_dispatch_survives_an_unavailable_database(place: Place) -> None:
    async with World(place, database=Failing) as world:
        await world.endpoint("one.test", lambda _: respond(500))
        await world.accept()
        world.sender.scripts["one.test"] = lambda _: respond(200)
        world.database.broken = frozenset({"lease_due"})
        await world.run_for(20 * SECOND)
        assert len(world.sender.sent) == 1
        world.database.broken = frozenset()
        await world.run_for(2 * SECOND)
        assert await world.statuses() == {Status.DELIVERED: 1}


class Silent:
    """A database whose commits do not return until the test allows it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.may_return = asyncio.Event()

    async def append(self, *args: Any, **kwargs: Any) -> Any:
        result = await super().append(*args, **kwargs)
        await self.may_return.wait()
        return result


async def test_a_caller_gets_a_response_while_the_database_is_down(place: Place) -> None:
    async with World(place, database=Silent) as world:
        await world.endpoint("one.test")
        task = asyncio.ensure_future(world.accept())
        await world.settle()
        await world.run_for(5 * SECOND)
        with pytest.raises(Unavailable, match="does not respond"):
            await task
        world.database.may_return.set()
        await world.settle()
        # The commit succeeded, so the event is delivered.
        assert await world.statuses() == {Status.DELIVERED: 1}


async def test_a_duplicate_is_not_sent_again(place: Place) -> None:
    async with World(place) as world:
        await world.endpoint("one.test")
        (first,) = await world.accept(idempotency_key="k")
        (again,) = await world.accept(idempotency_key="k")
        assert (again.id, again.duplicate) == (first.id, True)
        assert len(world.sender.sent) == 1
        assert world.parts.lanes.find(1).reserved == 0  # type: ignore[union-attr]


async def test_deliveries_beyond_the_memory_limit_are_leased_from_the_database(place: Place) -> None:
    async with World(place, endpoint_in_flight_max=8) as world:
        await world.endpoint("one.test")
        world.sender.latency_ms["one.test"] = 1000
        for _ in range(6):
            await world.accept(100)
        await world.run_for(100 * SECOND)
        assert await world.statuses() == {Status.DELIVERED: 600}
        assert len(world.sender.sent) == 600
        assert world.parts.lanes.bytes_held == 0
