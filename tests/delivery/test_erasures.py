"""Erasures under a virtual clock: erased content is dropped from memory and is never stored again."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from tests.delivery.fleet import Fleet, fleet_with_endpoints, owner_and_other
from tests.delivery.world import HOUR, MINUTE, SECOND, World, respond
from tests.engines import Place

from uplift_server.core.events import envelope
from uplift_server.core.lifecycle import Status
from uplift_server.core.operations.singleton_jobs import SingletonJob
from uplift_server.store import erased_content, erasures
from uplift_server.store.erased_content import Erased
from uplift_server.store.erasures import EVENTS_PER_STEP, Erasure, NewErasure
from uplift_server.store.pages import PageRequest
from uplift_server.store.schema import endpoints, events
from uplift_server.store.schema_objects import event_objects

from .test_replays import replay, stored

HOST = "one.test"
LEASE_MS = 30 * SECOND


async def start_erasure(world: World, **chosen: Any) -> int:
    """Create an erasure as the service does. Return its number."""
    seqs: Sequence[int] | None = chosen.pop("event_seqs", None)
    last = await world.database.read(erasures.newest_seq)
    new = NewErasure(
        world.fresh_id(), world.account.seq, world.clock.now, last, event_seqs=seqs and tuple(sorted(seqs)), **chosen
    )
    created = await world.database.write(lambda c: erasures.create(c, new))
    world.parts.erasures.wake()
    return int(created.seq)


async def of(world: World, seq: int) -> Erasure:
    """Return a stored erasure."""
    found = await world.database.read(lambda c: erasures.page(c, world.account.seq, PageRequest(100)))
    return next(each for each in found.items if each.seq == seq)


async def bodies(world: World) -> list[bytes]:
    """Return the data of all events."""
    rows = await world.database.read(lambda c: list(c.execute(sa.select(events.c.body).order_by(events.c.seq)).all()))
    return [row.body for row in rows]


async def test_waiting_and_in_flight_deliveries_are_dropped(place: Place) -> None:
    async with World(place, endpoint_in_flight_max=1) as world:
        endpoint = await world.endpoint(HOST, lambda _: None)
        accepted = await world.accept(3)
        assert len(world.sender.sent) == 1
        erasure = await start_erasure(world, event_seqs=[each.seq for each in accepted])
        await world.run_for(SECOND)
        assert await world.statuses() == {Status.CANCELLED: 3}
        # The outcome of the attempt in flight could still reach the database.
        assert (await of(world, erasure)).completed_at is None
        world.sender.scripts[HOST] = lambda _: respond(200)
        [last] = await world.accept(1)
        await world.run_for(LEASE_MS + SECOND)
        done = await of(world, erasure)
        assert done.completed_at is not None
        assert (done.events, done.object_id, done.event_seqs) == (3, None, None)
        assert [each.event_seq for each in await world.attempts()] == [last.seq]
        assert len(world.sender.sent) == 2
        assert endpoint.health.failing_since is None
        assert world.parts.lanes.load().in_flight == 0


async def test_a_success_during_an_erasure_ends_the_failure(place: Place) -> None:
    async with World(place, delays_ms=()) as world:
        endpoint = await world.endpoint(HOST, lambda _: respond(500))
        await world.accept(1)
        await world.run_for(SECOND)
        assert endpoint.health.failing_since is not None
        world.sender.scripts[HOST] = lambda _: respond(200)
        world.sender.latency_ms[HOST] = 2 * SECOND
        [event] = await world.accept(1)
        await start_erasure(world, event_seqs=[event.seq])
        await world.run_for(SECOND)
        assert world.sender.in_flight[HOST]
        await world.run_for(MINUTE)
        assert (endpoint.health.failing_since, endpoint.health.last_status_code) == (None, 200)
        query = sa.select(endpoints.c.failing_since, endpoints.c.last_success_at)
        row = await world.database.read(lambda c: c.execute(query).one())
        assert (row.failing_since, row.last_success_at) == (None, endpoint.health.last_success_at)
        assert len(await world.attempts()) == 1


async def test_the_last_error_of_an_endpoint_is_erased(place: Place) -> None:
    """Pages, emails and the API show the first line of the last response, and the redirect target."""
    async with World(place) as world:
        answer = respond(302)._replace(location="https://club.example/athlete-1", response_body=b"Hello Zebulon")
        endpoint = await world.endpoint(HOST, lambda _: answer)
        other = await world.endpoint("other.test", lambda _: respond(500)._replace(response_body=b"Out of order"))
        [event] = await world.accept(1)
        await world.run_for(SECOND)
        assert endpoint.health.last_error == "Hello Zebulon"
        await start_erasure(world, event_seqs=[event.seq])
        await world.settle()
        for live in (endpoint, other):
            assert (live.health.last_error, live.health.last_location) == (None, None)
            assert live.health.failing_since is not None
        await world.run_for(SECOND)
        query = sa.select(endpoints.c.last_error, endpoints.c.last_location)
        rows = await world.database.read(lambda c: list(c.execute(query).all()))
        assert [tuple(row) for row in rows] == [(None, None)] * 2
        attempts = [(row.error, row.location, row.request_head, row.response_head) for row in await world.attempts()]
        assert attempts == [(None, None, b"", b"")] * 2
        assert not any(row.response_body.strip(b"\0") for row in await world.attempts())


class EndsDuringErasure:
    """A layer over a storage engine. It runs `hook` after the commit of an erased batch, before `write` returns."""

    hook: Callable[[], None] | None = None

    async def write(self, body: Any) -> Any:
        """Write, and run the hook."""
        written = await super().write(body)  # type: ignore[misc]
        if isinstance(written, Erased) and self.hook is not None:
            self.hook()
        return written


async def test_an_attempt_that_ends_during_the_erasure_leaves_no_content(place: Place) -> None:
    """The outcome of the attempt is dropped, but the attempt changes the health of the endpoint."""
    async with World(place, database=EndsDuringErasure, delays_ms=()) as world:
        world.sender.latency_ms[HOST] = 10
        endpoint = await world.endpoint(HOST, lambda _: respond(500)._replace(response_body=b"Hello Zebulon"))
        [event] = await world.accept(1)

        def end_attempt() -> None:
            while world.sender.in_flight[HOST]:
                world.clock.fire()

        world.database.hook = end_attempt
        erasure = await start_erasure(world, event_seqs=[event.seq])
        await world.run_for(MINUTE)
        assert (await of(world, erasure)).completed_at is not None
        assert await world.attempts() == []
        assert endpoint.health.failing_since is not None
        assert endpoint.health.last_error is None
        row = await world.database.read(lambda c: c.execute(sa.select(endpoints.c.last_error)).one())
        assert row.last_error is None


@pytest.mark.parametrize("silent", [False, True])
async def test_another_process_does_not_restore_the_content(place: Place, silent: bool) -> None:
    async with Fleet(place, endpoint_in_flight_max=1) as fleet:
        seqs = await fleet_with_endpoints(fleet, peers=2, hosts=8)
        [eraser] = [peer for peer in fleet.peers if peer.parts.jobs.holds(SingletonJob.ERASURE)]
        foreign = next(seq for seq in seqs if not eraser.owns(seq))
        owner, _ = owner_and_other(fleet, foreign)
        for number in range(8):
            fleet.sender.scripts[f"h{number}.test"] = lambda _: None
        fleet.switch_to(owner)
        accepted = await fleet.accept(2)
        before = len(fleet.sender.sent)
        fleet.bus.silent = silent
        fleet.switch_to(eraser)
        erasure = await start_erasure(fleet, event_seqs=[each.seq for each in accepted])
        await fleet.run_for(2 * MINUTE)
        assert (await of(fleet, erasure)).completed_at is not None
        assert set(await fleet.statuses()) == {Status.CANCELLED}
        assert len(fleet.sender.sent) == before
        assert await fleet.attempts() == []


async def test_the_owner_of_an_endpoint_forgets_an_error_without_notifications(place: Place) -> None:
    """The last error of an endpoint quotes the response. Its owner would write the text again."""
    async with Fleet(place, delays_ms=(HOUR,)) as fleet:
        if fleet.database.partitions is None:
            pytest.skip("SQLite has only one process")
        seqs = await fleet_with_endpoints(fleet, peers=2, hosts=8)
        [eraser] = [peer for peer in fleet.peers if peer.parts.jobs.holds(SingletonJob.ERASURE)]
        foreign = next(seq for seq in seqs if not eraser.owns(seq))
        owner, _ = owner_and_other(fleet, foreign)
        for number in range(8):
            fleet.sender.scripts[f"h{number}.test"] = lambda _: respond(500)._replace(response_body=b"Hello Zebulon")
        fleet.switch_to(owner)
        await fleet.run_for(MINUTE)  # the processes read new endpoints again after a while
        accepted = await fleet.accept(1)
        await fleet.run_for(SECOND)
        assert owner.parts.cache.endpoints[foreign].health.last_error == "Hello Zebulon"
        fleet.bus.silent = True
        fleet.switch_to(eraser)
        await start_erasure(fleet, event_seqs=[each.seq for each in accepted])
        await fleet.run_for(5 * SECOND)
        health = owner.parts.cache.endpoints[foreign].health
        assert (health.last_error, health.failing_since is not None) == (None, True)


async def test_a_replay_does_not_send_bodies_that_it_has_read(place: Place) -> None:
    async with World(place) as world:
        endpoint = await world.endpoint(HOST)
        accepted = await world.accept(30)
        await world.run_for(SECOND)
        replayed = await replay(world, endpoint, rate=10, statuses=(Status.DELIVERED,))
        await world.run_for(500)
        sent = len(world.sender.sent)
        assert 30 < sent < 60
        await start_erasure(world, event_seqs=[each.seq for each in accepted])
        await world.settle()
        await world.run_for(MINUTE)
        assert len(world.sender.sent) <= sent + 1
        assert all(body.rstrip().endswith(b'"data":null}') for body in await bodies(world))
        found = await stored(world, replayed)
        assert found.completed_at is not None
        assert found.skipped >= 30 - (sent + 1 - 30)
        assert await world.statuses() == {Status.DELIVERED: 30}


async def test_an_erasure_continues_after_a_kill(place: Place) -> None:
    count = 3 * EVENTS_PER_STEP
    async with World(place) as world:
        await world.accept(count)
        erasure = await start_erasure(world, event_seqs=range(1, count + 1))
        await world.settle()
        assert (await of(world, erasure)).events == EVENTS_PER_STEP
        await world.kill()
        await world.run_for(SECOND)
        done = await of(world, erasure)
        assert (done.events, done.completed_at is not None) == (count, True)
        assert all(body.rstrip().endswith(b'"data":null}') for body in await bodies(world))


async def test_events_without_a_stored_object_id_are_found(place: Place) -> None:
    """Releases without the index of object IDs did not store the object ID of an event."""
    async with World(place) as world:
        for object_id in (b'"athlete-1"', b'"athlete-2"', b"7", b'"athl\\u0065te-1"', b'"athlete-1"'):
            await world.parts.event_ingest.accept(world.account.seq, [world.draft(b'{"object":{"id":%b}}' % object_id)])
        other = await world.new_account()
        await world.parts.event_ingest.accept(other.seq, [world.draft(b'{"object":{"id":"athlete-1"}}', account=other)])

        def forget(connection: sa.Connection) -> None:
            connection.execute(sa.update(events).where(events.c.seq != 5).values(object_id=None))
            connection.execute(sa.delete(event_objects).where(event_objects.c.event_seq != 5))

        await world.database.write(forget)
        erasure = await start_erasure(world, object_id="athlete-1", object_digest="d")
        await world.run_for(SECOND)
        assert (await of(world, erasure)).events == 3
        left = [envelope.data_of(body) for body in await bodies(world) if b'"data":null' not in body]
        assert left == [b'{"object":{"id":"athlete-2"}}', b'{"object":{"id":7}}', b'{"object":{"id":"athlete-1"}}']


@pytest.mark.parametrize(("module", "step"), [(erased_content, "erase"), (erasures, "complete")])
async def test_a_defect_delays_only_its_erasure(
    place: Place, monkeypatch: pytest.MonkeyPatch, module: Any, step: str
) -> None:
    async with World(place) as world:
        await world.endpoint(HOST)
        first, second = await world.accept(2)
        correct = getattr(module, step)
        broken = await start_erasure(world, event_seqs=[first.seq])

        def fail_first(connection: sa.Connection, erasure: Erasure, *args: Any, **named: Any) -> Any:
            if erasure.seq == broken:
                raise ValueError("a defect")
            return correct(connection, erasure, *args, **named)

        monkeypatch.setattr(module, step, fail_first)
        sound = await start_erasure(world, event_seqs=[second.seq])
        await world.run_for(MINUTE)
        assert (await of(world, sound)).completed_at is not None
        assert (await of(world, broken)).completed_at is None
        monkeypatch.undo()
        await world.run_for(2 * MINUTE)
        assert (await of(world, broken)).completed_at is not None
