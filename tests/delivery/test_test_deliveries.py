"""Test deliveries: one immediate attempt in every endpoint state, without effect on health."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.engines import Place

from uplift_server.core.deliveries.causes import SIGNED_WRONGLY, cause_of
from uplift_server.core.deliveries.health import Health
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.deliveries.replays import ReplayState
from uplift_server.core.http.exchange import Exchange
from uplift_server.core.lifecycle import FailedReason, Status, Trigger
from uplift_server.core.people.audit import SYSTEM, AuditEntry
from uplift_server.core.security.signing import Signer
from uplift_server.delivery.sending.http.request import Request
from uplift_server.delivery.sending.test_deliveries import POLL_MS
from uplift_server.service import errors
from uplift_server.store import commands, endpoints
from uplift_server.store.commands import Command, CommandKind, NewTest
from uplift_server.store.errors import Unavailable
from uplift_server.store.hot_records import NewEvent
from uplift_server.store.records import DisabledReason, EndpointState
from uplift_server.store.schema_version import upgrade

from .owner import Owner
from .test_engine import Failing
from .test_replays import counts, replay, stored
from .world import HOUR, SECOND, SECRET, World, respond

HOST = "one.test"


@pytest.mark.parametrize("state", list(EndpointState))
@pytest.mark.parametrize("code", [200, 500])
async def test_a_test_makes_one_attempt_in_every_endpoint_state(place: Place, state: EndpointState, code: int) -> None:
    async with World(place, scan_every_ms=60 * SECOND) as world:
        endpoint = await world.endpoint(HOST, lambda _: respond(code))
        other = await world.endpoint("other.test")
        if state is not EndpointState.ENABLED:
            reason = DisabledReason.FAILING if state is EndpointState.DISABLED else None
            await world.deactivate(endpoint.seq, state, reason)
        result = await Owner(world).test(endpoint.seq)
        assert result.attempt is not None
        assert (result.attempt.trigger, result.attempt.number) == (Trigger.TEST, 1)
        assert result.attempt.status_code == code
        assert result.delivery.status is (Status.DELIVERED if code == 200 else Status.FAILED)
        assert result.delivery.completed_at is not None
        await world.run_for(HOUR)
        await world.restart()
        await world.run_for(HOUR)
        assert [host for _, host, _ in world.sender.sent] == [HOST]
        (row,) = await world.deliveries()
        assert (row.status, row.attempts_made, row.scheduled_attempts) == (result.delivery.status, 1, 0)
        assert world.cache.endpoints[endpoint.seq].health == Health()
        assert world.cache.endpoints[endpoint.seq].record.state is state
        assert other.seq != row.endpoint_seq


def new_test(world: World, endpoint_seq: int) -> Command:
    """Return a command that sends a test event."""
    entry = AuditEntry(world.account.seq, world.clock.now, SYSTEM, "endpoint.tested", "ep_", {})
    test = NewTest(world.fresh_id(), world.cache.event_types["a.b"].seq, None)
    return Command(CommandKind.TEST, world.account.seq, endpoint_seq, entry, test=test)


async def test_an_outcome_stored_before_the_wait_ends_the_wait(place: Place) -> None:
    """The outcome ends one wait. Later waits poll, because another process may run a later test."""
    async with World(place) as world:
        endpoint = await world.endpoint(HOST)
        await world.parts.commands.execute(new_test(world, endpoint.seq))
        await world.settle()
        waits = []
        for _ in range(2):
            began = world.clock.now
            await world.stepping(world.parts.commands.wait_for_test(endpoint.seq, SECOND))
            waits.append(world.clock.now - began)
        assert waits == [0, POLL_MS]


class DelaysResponses:
    """A database that commits settlements before the engine gets the response."""

    responds: asyncio.Event

    async def settle(self, *arguments: Any, **named: Any) -> Any:
        settled = await super().settle(*arguments, **named)  # type: ignore[misc]
        await self.responds.wait()
        return settled


async def test_the_next_test_starts_when_the_outcome_of_the_last_one_is_committed(place: Place) -> None:
    """The user may read the outcome before the engine gets the response of the commit."""
    async with World(place, database=DelaysResponses) as world:
        world.database.responds = asyncio.Event()
        endpoint = await world.endpoint(HOST)
        await world.parts.commands.execute(new_test(world, endpoint.seq))
        await world.settle()
        assert await world.statuses() == {Status.DELIVERED: 1}
        await world.parts.commands.execute(new_test(world, endpoint.seq))
        world.database.responds.set()
        await world.settle()
        assert await world.statuses() == {Status.DELIVERED: 2}


async def test_tests_do_not_count_for_health(place: Place) -> None:
    """Tests do not affect the health, the circuit breaker, the lane or the explanation of failures."""
    async with World(place, breaker_failures=2, delays_ms=[100 * HOUR]) as world:
        endpoint = await world.endpoint(HOST, lambda _: respond(404))
        await world.accept(1)
        fared, lane = endpoint.health, world.parts.lanes.of(endpoint)
        assert fared.status == "failing"
        window, mean_us = lane.window, lane.mean_us
        world.sender.scripts[HOST] = lambda _: None
        for _ in range(5):
            await Owner(world).test(endpoint.seq)
            await world.run_for(20 * SECOND)
        world.sender.scripts[HOST] = lambda _: respond(200)
        await Owner(world).test(endpoint.seq)
        assert (endpoint.health, lane.window, lane.mean_us) == (fared, window, mean_us)
        assert world.parts.status.next_probe_at(endpoint.seq) is None
        cause = cause_of(endpoint.health)
        assert cause is not None
        assert cause.code == "status_404"


def verifying(request: Request) -> Exchange:
    """Respond as a receiver that verifies both signatures."""
    lines = [line.split(b": ", 1) for line in request.head.split(b"\r\n")[1:] if line]
    headers = {name.lower(): value for name, value in lines}
    signed = Signer([SECRET], SECRET).sign(headers[b"webhook-id"], headers[b"webhook-timestamp"], request.body)
    return respond(204 if (headers[b"x-uplift-signature-256"], headers[b"webhook-signature"]) == signed else 401)


async def test_a_receiver_that_rejects_only_a_wrong_signature_is_verified(place: Place) -> None:
    async with World(place) as world:
        endpoint = await world.endpoint(HOST, verifying)
        check = await Owner(world).verify(endpoint.seq)
        assert check.verdict.code == "verified"
        assert check.wrong.attempt is not None
        assert (check.wrong.attempt.status_code, check.wrong.attempt.error) == (401, SIGNED_WRONGLY)
        assert check.valid is not None
        assert check.valid.attempt is not None
        assert (check.valid.attempt.status_code, check.valid.attempt.error) == (204, None)
        [stored] = await world.database.read(lambda c: endpoints.find(c, [endpoint.seq]))
        assert (stored.verified_at, stored.tested_at is not None) == (check.verified_at, True)
        assert world.cache.endpoints[endpoint.seq].health == Health()
        # Real events have valid signatures.
        await world.accept(1)
        await world.settle()
        assert (await world.statuses())[Status.DELIVERED] == 2


@pytest.mark.parametrize(("code", "verdict"), [(200, "accepts_wrong"), (401, "rejects_valid"), (500, "error")])
async def test_a_receiver_that_does_not_verify_is_not_verified(place: Place, code: int, verdict: str) -> None:
    async with World(place) as world:
        endpoint = await world.endpoint(HOST, lambda _: respond(code))
        check = await Owner(world).verify(endpoint.seq)
        assert (check.verdict.code, check.verified_at) == (verdict, None)
        [stored] = await world.database.read(lambda c: endpoints.find(c, [endpoint.seq]))
        assert stored.verified_at is None


async def test_a_slow_receiver_is_not_verified_within_5_seconds(place: Place) -> None:
    async with World(place) as world:
        endpoint = await world.endpoint(HOST, verifying)
        world.sender.latency_ms[HOST] = 6 * SECOND
        began = world.clock.now
        assert (await Owner(world).verify(endpoint.seq)).verdict.code == "slow"
        assert world.clock.now - began < 5 * SECOND


def test_a_stored_test_keeps_its_wrong_signature(tmp_path: Path) -> None:
    """Another process may execute the test, so its command stores whether the signature must be wrong."""
    path = tmp_path / "x.db"
    upgrade(path, now_ms=1)
    engine = sa.create_engine(f"sqlite:///{path}")
    entry = AuditEntry(1, 5, SYSTEM, "endpoint.tested", "ep_", {})
    with engine.begin() as connection:
        for wrong in (True, False):
            test = NewTest(bytes(16), 1, None, wrong)
            commands.add(connection, Command(CommandKind.TEST, 1, 1, entry, test=test), now=5)
        found, _ = commands.list_pending(connection, now=5)
    engine.dispose()
    assert [each.command.test and each.command.test.wrong_signature for each in found] == [True, False]


async def test_a_test_ignores_the_breaker_and_the_concurrency_limit(place: Place) -> None:
    async with World(place, breaker_failures=2) as world:
        endpoint = await world.endpoint(HOST, lambda _: None, max_in_flight=1)
        await world.accept(4)
        await world.run_for(31 * SECOND)
        probe_at = world.parts.status.next_probe_at(endpoint.seq)
        assert probe_at is not None
        await world.run_for(probe_at - world.clock.now + SECOND)
        assert world.sender.in_flight[HOST] == 1
        world.sender.scripts[HOST] = lambda _: respond(200)
        result = await Owner(world).test(endpoint.seq)
        assert result.delivery.status is Status.DELIVERED
        assert world.sender.in_flight_most[HOST] == 2


async def test_one_test_runs_at_a_time_and_slow_tests_return_early(place: Place) -> None:
    async with World(place) as world:
        endpoint = await world.endpoint(HOST)
        world.sender.latency_ms[HOST] = 6 * SECOND
        began = world.clock.now
        result = await Owner(world).test(endpoint.seq)
        assert (result.attempt, result.delivery.status, result.delivery.leased) == (None, Status.PENDING, True)
        assert world.clock.now - began < 4 * SECOND
        with pytest.raises(errors.Conflict, match="in flight"):
            await Owner(world).test(endpoint.seq)
        await world.run_for(6 * SECOND)
        assert await world.statuses() == {Status.DELIVERED: 1}
        world.sender.latency_ms[HOST] = 0
        assert (await Owner(world).test(endpoint.seq)).delivery.status is Status.DELIVERED


async def test_a_repeated_idempotency_key_returns_the_same_test(place: Place) -> None:
    """If the test is still in flight, the repeated request waits for its outcome."""
    async with World(place) as world:
        endpoint = await world.endpoint(HOST)
        world.sender.latency_ms[HOST] = 5 * SECOND
        first = await Owner(world).test(endpoint.seq, key="k")
        again = await Owner(world).test(endpoint.seq, key="k")
        assert (first.attempt, first.repeated) == (None, False)
        assert again.attempt is not None
        assert (again.delivery.event_id, again.repeated) == (first.delivery.event_id, True)
        await world.restart()
        later = await Owner(world).test(endpoint.seq, key="k")
        assert (later.delivery.event_id, later.attempt) == (first.delivery.event_id, again.attempt)
        assert len(world.sender.sent) == 1
        other = await world.endpoint("other.test")
        with pytest.raises(errors.IdempotencyConflict):
            await Owner(world).test(other.seq, key="k")


async def test_a_test_is_rejected_at_the_limit_of_the_process(place: Place) -> None:
    async with World(place, in_flight_max=1) as world:
        await world.endpoint("hangs.test", lambda _: None)
        await world.accept(1)
        endpoint = await world.endpoint(HOST)
        with pytest.raises(errors.Busy, match="limit of attempts in flight"):
            await Owner(world).test(endpoint.seq)
        assert await world.statuses() == {Status.PENDING: 1}
        await world.run_for(15 * SECOND)
        assert (await Owner(world).test(endpoint.seq)).delivery.status is Status.DELIVERED


async def test_a_test_is_rejected_beyond_the_rate_limit(place: Place) -> None:
    async with World(place) as world:
        endpoint = await world.endpoint(HOST, rate_limit_per_second=1)
        await world.run_for(5 * SECOND)
        for _ in range(2):
            await Owner(world).test(endpoint.seq)
        with pytest.raises(errors.RateLimited):
            await Owner(world).test(endpoint.seq)
        await world.run_for(2 * SECOND)
        await Owner(world).test(endpoint.seq)
        assert len(world.sender.times(HOST)) == 3


@pytest.mark.parametrize("is_paused", [False, True])
async def test_a_test_interrupted_by_a_kill_fails_without_a_retry(place: Place, is_paused: bool) -> None:
    async with World(place) as world:
        endpoint = await world.endpoint(HOST, lambda _: None)
        if is_paused:
            await world.pause(endpoint.seq)
        result = await Owner(world).test(endpoint.seq)
        assert result.attempt is None
        await world.kill()
        await world.run_for(10 * SECOND)
        (row,) = await world.deliveries()
        assert (row.status, row.failed_reason, row.attempts_made) == (Status.FAILED, FailedReason.EXHAUSTED, 0)
        assert row.completed_at is not None
        assert len(world.sender.sent) == 1
        assert row.trigger == Trigger.TEST
        # The interrupted test does not delay the next one.
        world.sender.scripts[HOST] = lambda _: respond(200)
        assert (await Owner(world).test(endpoint.seq)).delivery.status is Status.DELIVERED


async def test_a_drain_waits_for_a_test(place: Place) -> None:
    async with World(place) as world:
        endpoint = await world.endpoint(HOST)
        world.sender.latency_ms[HOST] = 6 * SECOND
        await Owner(world).test(endpoint.seq)
        await world.restart()
        assert await world.statuses() == {Status.DELIVERED: 1}


async def test_a_test_that_cannot_be_stored_frees_its_slot(place: Place) -> None:
    async with World(place, database=Failing) as world:
        endpoint = await world.endpoint(HOST, max_in_flight=1)
        world.database.broken = frozenset({"append_then"})  # type: ignore[attr-defined]
        for _ in range(2):
            with pytest.raises(Unavailable):
                await Owner(world).test(endpoint.seq)
        assert world.parts.lanes.in_flight == 0
        assert (await world.deliveries(), world.sender.sent) == ([], [])
        world.database.broken = frozenset()  # type: ignore[attr-defined]
        assert (await Owner(world).test(endpoint.seq)).delivery.status is Status.DELIVERED


async def test_a_test_is_rejected_while_outcomes_cannot_be_written(place: Place) -> None:
    async with World(place, database=Failing) as world:
        endpoint = await world.endpoint(HOST)
        world.database.broken = frozenset({"settle"})  # type: ignore[attr-defined]
        await world.accept(1)
        with pytest.raises(errors.Busy, match="is not sending deliveries"):
            await Owner(world).test(endpoint.seq)


class Interrupted:
    """A database that calls back after a read, or before or after a test is stored."""

    after_read: Callable[[], Awaitable[None]] | None = None
    """A function that runs once, after the next read."""
    before: Callable[[], Awaitable[None]] | None = None
    after: Callable[[], Awaitable[None]] | None = None

    async def read(self, body: Callable[[Any], Any]) -> Any:
        after_read, self.after_read = self.after_read, None
        result = await super().read(body)
        if after_read is not None:
            await after_read()
        return result

    async def append_then(self, event: NewEvent, body: Callable[[Any, int], Any]) -> Any:
        if self.before is not None:
            await self.before()
        result = await super().append_then(event, body)
        if self.after is not None:
            await self.after()
        return result


@pytest.mark.parametrize("when", ["after_read", "before", "after"])
async def test_a_test_of_a_deleted_endpoint_is_not_sent(place: Place, when: str) -> None:
    async with World(place, database=Interrupted) as world:
        endpoint = await world.endpoint(HOST)
        setattr(world.database, when, lambda: world.delete_endpoint(endpoint.seq))
        if when != "after":
            with pytest.raises(errors.Conflict, match="was deleted"):
                # With an idempotency key, the server first reads whether the key was used.
                await Owner(world).test(endpoint.seq, key="k")
            assert await world.deliveries() == []
        else:
            result = await Owner(world).test(endpoint.seq)
            assert (result.attempt, result.delivery.status) == (None, Status.FAILED)
        assert (world.sender.sent, world.parts.lanes.in_flight) == ([], 0)


async def test_a_test_is_rejected_during_a_drain(place: Place) -> None:
    async with World(place, database=Interrupted) as world:
        endpoint = await world.endpoint(HOST)

        async def stop() -> None:
            world.parts.lanes.draining = True

        world.database.after = stop  # type: ignore[attr-defined]
        result = await Owner(world).test(endpoint.seq)
        assert (result.attempt, world.sender.sent, world.parts.lanes.in_flight) == (None, [], 0)
        await world.restart()
        await world.run_for(10 * SECOND)
        assert await world.statuses() == {Status.FAILED: 1}
        assert world.sender.sent == []


async def test_a_test_is_never_repeated(place: Place) -> None:
    """Neither a resend nor a replay of failed deliveries repeats a test."""
    async with World(place, delays_ms=()) as world:
        endpoint = await world.endpoint(HOST, lambda _: respond(500))
        result = await Owner(world).test(endpoint.seq)
        (event,) = await world.accept(1)
        with pytest.raises(errors.Conflict, match="Send another test"):
            await Owner(world).resend(result.delivery.event_id, endpoint.seq)
        world.sender.scripts[HOST] = lambda _: respond(200)
        await world.run_for(SECOND)
        job = await replay(world, endpoint)
        await world.run_for(10 * SECOND)
        done = await stored(world, job)
        assert (done.state, counts(done)) == (ReplayState.COMPLETED, (1, 1, 0, 0))
        (test, real) = await world.deliveries()
        assert (test.status, real.status) == (Status.FAILED, Status.DELIVERED)
        assert real.event_seq == event.seq


async def test_a_test_in_flight_cannot_be_cancelled_or_held(place: Place) -> None:
    async with World(place) as world:
        endpoint = await world.endpoint(HOST, lambda _: None)
        result = await Owner(world).test(endpoint.seq)
        with pytest.raises(errors.Conflict, match="in flight"):
            await Owner(world).cancel(result.delivery.event_id, endpoint.seq)
        await Owner(world).pause(endpoint.seq)
        await world.run_for(20 * SECOND)
        (row,) = await world.deliveries()
        assert (row.status, row.last_outcome) == (Status.FAILED, Outcome.TIMEOUT)
