"""A seeded simulation with random receiver failures, kills, restarts, database outages and actions of owners.

To reproduce a failure, run the test again with `-k seed`.
"""

import contextlib
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from tests.engines import Place, chosen

from uplift_server.core.deliveries.test_events import DATA_WITHOUT_EXAMPLE
from uplift_server.core.http.exchange import Exchange, Failure
from uplift_server.core.lifecycle import FailedReason, Status, Trigger
from uplift_server.core.operations.statistics import total
from uplift_server.delivery.sending.http.request import Request
from uplift_server.service import errors
from uplift_server.store.errors import Unavailable
from uplift_server.store.records import HeldAction
from uplift_server.store.statistics import ALL_ACCOUNTS, by_bucket

from .owner import Owner
from .test_engine import Failing, header
from .world import SECOND, Script, World, respond

DELAYS_MS = (2 * SECOND, 10 * SECOND, 30 * SECOND)
STEPS = 60
ACTS = (*("pause",) * 3, "send", "send", "drop", "keep", *("cancel",) * 3, "resend", "resend", "test", "test")


@dataclass
class Observations:
    """The state as requests and responses show it, without the database."""

    expected: set[tuple[bytes, int]] = field(default_factory=set)
    """The event ID and the endpoint number of each delivery that an accepted event must have."""
    bodies: dict[str, bytes] = field(default_factory=dict)
    sent: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    delivered: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    kill_times: list[int] = field(default_factory=list)
    lost_in_flight: int = 0
    """The number of attempts that a kill interrupted, or whose outcome was not stored before a kill or restart."""
    deleted_at: dict[str, int] = field(default_factory=dict)
    paused: set[str] = field(default_factory=set)
    """Hosts whose endpoint is paused, from the response to the pause until the call that enables the endpoint."""
    first_sent: dict[str, int] = field(default_factory=dict)
    """For each delivery: the position of its first request among the first requests of all deliveries."""
    held: list[list[str]] = field(default_factory=list)
    """For each time an endpoint was enabled: its held deliveries that were never sent, in order of acceptance."""
    cancelled: set[str] = field(default_factory=set)
    """IDs of deliveries that were cancelled and not resent since then."""
    may_be_cancelled: set[str] = field(default_factory=set)
    """IDs of deliveries that were cancelled at any time, or that a drop may have cancelled."""
    resends: dict[str, int] = field(default_factory=lambda: defaultdict(int))


def script(
    world: World, rng: random.Random, observed: Observations, host: str, success_rates: dict[str, float]
) -> Script:
    """Return a receiver that responds with 200 at the success rate of its host, and otherwise fails randomly."""

    def respond_randomly(request: Request) -> Exchange | None:
        key = header(request, "x-uplift-delivery")
        assert observed.bodies.setdefault(header(request, "webhook-id"), request.body) == request.body
        assert host not in observed.deleted_at
        if is_test(request):
            assert key not in observed.sent, "a test event was sent twice"
        else:
            assert host not in observed.paused, "an attempt to a paused endpoint"
            assert key not in observed.cancelled, "an attempt of a cancelled delivery"
        observed.first_sent.setdefault(key, len(observed.first_sent))
        observed.sent[key].append(world.clock.now)
        if rng.random() < success_rates[host]:
            observed.delivered[key] += 1
            return respond(200)
        kind = rng.randrange(5)
        if kind == 0:
            return None
        if kind == 1:
            return Exchange(world.clock.now, 500, failure=Failure.CONNECT, error="refused")
        if kind == 2:
            return respond(429, retry_after="3")
        return respond(rng.choice([301, 404, 500, 503]))

    return respond_randomly


def is_test(request: Request) -> bool:
    """Return whether a request is a test event, which has no number in its data."""
    return request.body.endswith(b'"data":' + DATA_WITHOUT_EXAMPLE + b"}")


def unsettled(world: World) -> int:
    """Return the number of attempts whose outcome is not stored."""
    return sum(world.sender.in_flight.values()) + len(world.parts.settler._gathered)


async def step(world: World, rng: random.Random, observed: Observations, hosts: dict[str, int]) -> None:
    """Run one random step."""
    choice = rng.random()
    if choice < 0.45:
        try:
            for appended in await world.accept(rng.randrange(1, 6)):
                observed.expected.update((appended.id, endpoint) for endpoint in hosts.values())
        except Unavailable:
            pass
    elif choice < 0.5:
        observed.lost_in_flight += unsettled(world)
        observed.kill_times.append(world.clock.now)
        await world.kill()
    elif choice < 0.54:
        if "settle" in world.database.broken:
            observed.lost_in_flight += unsettled(world)
        await world.restart()
    elif choice < 0.6:
        verbs = ["append", "settle", "lease_due", "release_held", "write", "append_then"]
        world.database.broken = frozenset(rng.sample(verbs, rng.randrange(1, 4)))
    elif choice < 0.72:
        world.database.broken = frozenset()
    elif choice < 0.98:
        with contextlib.suppress(Unavailable, errors.ServiceError):
            await act(world, rng, observed, hosts)
    elif len(hosts) > 2:
        host = rng.choice(sorted(hosts))
        with contextlib.suppress(Unavailable):
            await world.delete_endpoint(hosts[host])
            observed.deleted_at[host] = world.clock.now
            del hosts[host]
    await world.run_for(rng.randrange(1, 8 * SECOND))


async def act(world: World, rng: random.Random, observed: Observations, hosts: dict[str, int]) -> None:
    """Run one random action of an owner. A rejected action has no effect."""
    owner = Owner(world)
    host = rng.choice(sorted(hosts))
    seq = hosts[host]
    choice = rng.choice(ACTS)
    if choice == "pause":
        await owner.pause(seq)
        observed.paused.add(host)
    elif choice == "test":
        await owner.test(seq)
    elif choice in ("cancel", "resend"):
        rows = {(bytes(row.event_id), row.endpoint_seq) for row in await world.delivery_ids()}
        event_id = rng.choice(sorted(event for event, endpoint in rows if endpoint == seq) or [bytes(16)])
        key = owner.delivery(event_id, seq)
        if choice == "cancel":
            await owner.cancel(event_id, seq)
            observed.cancelled.add(key)
            observed.may_be_cancelled.add(key)
        elif key in observed.cancelled:
            # The receiver may get the resent request before the caller gets the response.
            observed.cancelled.discard(key)
            try:
                await owner.resend(event_id, seq)
            except (Unavailable, errors.ServiceError):
                observed.cancelled.add(key)
                raise
            observed.resends[key] += 1
        else:
            await owner.resend(event_id, seq)
            observed.resends[key] += 1
    else:
        await enable(world, observed, host, seq, HeldAction[choice.upper()])


async def enable(world: World, observed: Observations, host: str, seq: int, held: HeldAction) -> None:
    """Enable an endpoint, and record its held deliveries."""
    owner = Owner(world)
    ids = {row.event_seq: bytes(row.event_id) for row in await world.event_ids()}
    own = [row for row in await world.deliveries() if row.endpoint_seq == seq]
    keys = [owner.delivery(ids[row.event_seq], seq) for row in own if row.status == Status.HELD]
    was_paused = host in observed.paused
    # Some deliveries that were pending and not leased at the pause may not be held yet. `enable` holds them first.
    waiting = [row for row in own if was_paused and row.status == Status.PENDING and row.lease_owner == 0]
    pending = [owner.delivery(ids[row.event_seq], seq) for row in waiting]
    # The receiver may get requests before the caller gets the response.
    observed.paused.discard(host)
    try:
        await owner.enable(seq, held)
    except Unavailable:
        if was_paused:
            observed.paused.add(host)
        raise
    observed.held.append([key for key in keys if key not in observed.first_sent])
    if held is HeldAction.DROP:
        observed.may_be_cancelled.update(keys, pending)


@pytest.mark.parametrize("seed", range(8 if chosen().name == "sqlite" else 3))
async def test_every_invariant_holds_under_random_faults(seed: int, place: Place) -> None:
    rng = random.Random(seed)
    observed = Observations()
    success_rates = {f"r{number}.test": rng.choice([1.0, 0.9, 0.5, 0.1, 0.0]) for number in range(4)}
    async with World(place, database=Failing, delays_ms=DELAYS_MS, breaker_failures=rng.choice([0, 10])) as world:
        hosts = {}
        for host in success_rates:
            endpoint = await world.endpoint(host, script(world, rng, observed, host, success_rates))
            world.sender.latency_ms[host] = rng.choice([0, 0, 50, 4000])
            hosts[host] = endpoint.seq
        for _ in range(STEPS):
            await step(world, rng, observed, hosts)
        world.database.broken = frozenset()
        for host in success_rates:
            success_rates[host] = 1.0
        await world.settle()
        for host, seq in hosts.items():
            await enable(world, observed, host, seq, HeldAction.SEND)
        for _ in range(20):
            await world.run_for(60 * SECOND)
            if not {Status.PENDING, Status.HELD} & set(await world.statuses()):
                break
        await check(world, observed, hosts)


async def check(world: World, observed: Observations, hosts: dict[str, int]) -> None:
    """Check every invariant with the stored rows and the observations."""
    rows = {(row.event_seq, row.endpoint_seq): row for row in await world.deliveries()}
    ids = {row.event_seq: bytes(row.event_id) for row in await world.event_ids()}
    stored = {(bytes(row.event_id), row.endpoint_seq): row for row in await world.delivery_ids()}
    assert observed.expected <= set(stored), "an accepted event was lost"
    attempts_max = len(DELAYS_MS) + 1
    for key, row in rows.items():
        assert row.status not in (Status.PENDING, Status.HELD), f"{key} has no final status"
        assert row.scheduled_attempts <= attempts_max
        if row.trigger == Trigger.TEST:
            assert row.attempts_made <= 1
            assert row.status in (Status.DELIVERED, Status.FAILED)
        elif row.status == Status.FAILED:
            assert row.failed_reason == FailedReason.EXHAUSTED
            assert row.scheduled_attempts == attempts_max
        if row.status == Status.CANCELLED and row.endpoint_seq in hosts.values():
            assert Owner(world).delivery(ids[row.event_seq], row.endpoint_seq) in observed.may_be_cancelled
    numbers = defaultdict(list)
    for attempt in await world.attempts():
        numbers[attempt.event_seq, attempt.endpoint_seq].append(attempt.number)
    for key, row in rows.items():
        assert numbers[key] == list(range(1, row.attempts_made + 1))
    duplicates = sum(max(0, count - 1 - observed.resends.get(key, 0)) for key, count in observed.delivered.items())
    assert duplicates <= observed.lost_in_flight, "more duplicates than attempts interrupted by kills"
    for held in observed.held:
        order = [observed.first_sent[key] for key in held if key in observed.first_sent and key not in observed.resends]
        assert order == sorted(order), "held deliveries were not sent in order of acceptance"
    for key, times in observed.sent.items():
        if key in observed.resends:
            continue
        for before, after in pairwise(times):
            if not any(before <= kill <= after for kill in observed.kill_times):
                assert after - before >= 0.9 * DELAYS_MS[0], "a retry started before it was due"
    assert world.parts.lanes.bytes_held == 0
    await check_statistics(world)


async def check_statistics(world: World) -> None:
    """Check that the statistics match the tables. Test deliveries are not counted."""
    await world.run_for(10 * SECOND)
    own = [row for row in await world.deliveries() if row.trigger != Trigger.TEST]
    recorded = [row for row in await world.attempts() if row.trigger != Trigger.TEST]
    hours = (await world.database.read(lambda c: by_bucket(c, [ALL_ACCOUNTS], since=0)))[ALL_ACCOUNTS]
    totals = total(each for _, each in hours)
    assert (totals.deliveries, totals.attempts) == (len(own), len(recorded))
    assert totals.outcomes == Counter(row.outcome for row in recorded)
    ended = Counter(Status(row.status) for row in own)
    assert {status: getattr(totals, status.text) for status in Status} == {status: ended[status] for status in Status}
