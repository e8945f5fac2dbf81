"""A seeded simulation: random failures of receivers, kills, restarts, database outages, and owners who pause, enable,
cancel, resend and test (promises 1 to 3, 6).

To reproduce a failure, run the test again with `-k seed`.
"""

import contextlib
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from tests.engines import Place

from uplift_server.core.deliveries.test_events import DATA_WITHOUT_EXAMPLE
from uplift_server.core.http.exchange import Exchange, Failure
from uplift_server.core.lifecycle import FailedReason, Status, Trigger
from uplift_server.core.operations.statistics import total
from uplift_server.delivery.sending.http.request import Request
from uplift_server.service import errors
from uplift_server.store.errors import Unavailable
from uplift_server.store.records import HeldAction
from uplift_server.store.statistics import ALL_ACCOUNTS, by_hour

from .owner import Owner
from .test_engine import Failing, header
from .world import SECOND, Script, World, answer

DELAYS_MS = (2 * SECOND, 10 * SECOND, 30 * SECOND)
STEPS = 60
ACTS = (*("pause",) * 3, "send", "send", "drop", "keep", *("cancel",) * 3, "resend", "resend", "test", "test")


@dataclass
class Witness:
    """The knowledge of an observer who sees only responses and requests."""

    owed: set[tuple[bytes, int]] = field(default_factory=set)
    """The event ID and endpoint number of each accepted event."""
    bodies: dict[str, bytes] = field(default_factory=dict)
    sent: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    delivered: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    kill_times: list[int] = field(default_factory=list)
    lost_in_flight: int = 0
    """Attempts that kills interrupted, or whose outcome was not stored."""
    deleted_at: dict[str, int] = field(default_factory=dict)
    off: set[str] = field(default_factory=set)
    """Hosts with a paused endpoint: from the response to the pause to the call that enables it."""
    first_sent: dict[str, int] = field(default_factory=dict)
    """The number of the first request, by delivery."""
    held: list[list[str]] = field(default_factory=list)
    """Held deliveries that were never sent, at each enable, in order of acceptance."""
    cancelled: set[str] = field(default_factory=set)
    """Deliveries that were cancelled and not resent since."""
    may_be_cancelled: set[str] = field(default_factory=set)
    """Deliveries that were cancelled or dropped at any time."""
    resends: dict[str, int] = field(default_factory=lambda: defaultdict(int))


def script(world: World, dice: random.Random, witness: Witness, host: str, mood: dict[str, float]) -> Script:
    """Return a receiver that responds with 200 with a given probability, and otherwise randomly."""

    def answering(request: Request) -> Exchange | None:
        key = header(request, "x-uplift-delivery")
        assert witness.bodies.setdefault(header(request, "webhook-id"), request.body) == request.body
        assert host not in witness.deleted_at
        if is_test(request):
            assert key not in witness.sent, "a test was made twice"
        else:
            assert host not in witness.off, "an attempt at an endpoint that is off"
            assert key not in witness.cancelled, "an attempt of a cancelled delivery"
        witness.first_sent.setdefault(key, len(witness.first_sent))
        witness.sent[key].append(world.clock.now)
        if dice.random() < mood[host]:
            witness.delivered[key] += 1
            return answer(200)
        kind = dice.randrange(5)
        if kind == 0:
            return None
        if kind == 1:
            return Exchange(world.clock.now, 500, failure=Failure.CONNECT, error="refused")
        if kind == 2:
            return answer(429, retry_after="3")
        return answer(dice.choice([301, 404, 500, 503]))

    return answering


def is_test(request: Request) -> bool:
    """Whether a request is a test event: it has no number in its data."""
    return request.body.endswith(b'"data":' + DATA_WITHOUT_EXAMPLE + b"}")


def unsettled(world: World) -> int:
    """Return the number of attempts whose outcome is not stored."""
    return sum(world.sender.in_flight.values()) + len(world.parts.settler._gathered)


async def step(world: World, dice: random.Random, witness: Witness, hosts: dict[str, int]) -> None:
    """Run one random step."""
    what = dice.random()
    if what < 0.45:
        try:
            for appended in await world.accept(dice.randrange(1, 6)):
                witness.owed.update((appended.id, endpoint) for endpoint in hosts.values())
        except Unavailable:
            pass
    elif what < 0.5:
        witness.lost_in_flight += unsettled(world)
        witness.kill_times.append(world.clock.now)
        await world.kill()
    elif what < 0.54:
        if "settle" in world.database.broken:
            witness.lost_in_flight += unsettled(world)
        await world.restart()
    elif what < 0.6:
        verbs = ["append", "settle", "lease_due", "release_held", "write", "append_then"]
        world.database.broken = frozenset(dice.sample(verbs, dice.randrange(1, 4)))
    elif what < 0.72:
        world.database.broken = frozenset()
    elif what < 0.98:
        with contextlib.suppress(Unavailable, errors.ServiceError):
            await act(world, dice, witness, hosts)
    elif len(hosts) > 2:
        host = dice.choice(sorted(hosts))
        with contextlib.suppress(Unavailable):
            await world.delete_endpoint(hosts[host])
            witness.deleted_at[host] = world.clock.now
            del hosts[host]
    await world.run_for(dice.randrange(1, 8 * SECOND))


async def act(world: World, dice: random.Random, witness: Witness, hosts: dict[str, int]) -> None:
    """Run one random action of an owner. A rejected action has no effect."""
    owner = Owner(world)
    host = dice.choice(sorted(hosts))
    seq = hosts[host]
    what = dice.choice(ACTS)
    if what == "pause":
        await owner.pause(seq)
        witness.off.add(host)
    elif what == "test":
        await owner.test(seq)
    elif what in ("cancel", "resend"):
        rows = {(bytes(row.event_id), row.endpoint_seq) for row in await world.delivery_ids()}
        event_id = dice.choice(sorted(event for event, endpoint in rows if endpoint == seq) or [bytes(16)])
        key = owner.delivery(event_id, seq)
        if what == "cancel":
            await owner.cancel(event_id, seq)
            witness.cancelled.add(key)
            witness.may_be_cancelled.add(key)
        elif key in witness.cancelled:
            # The request is sent before the response.
            witness.cancelled.discard(key)
            try:
                await owner.resend(event_id, seq)
            except (Unavailable, errors.ServiceError):
                witness.cancelled.add(key)
                raise
            witness.resends[key] += 1
        else:
            await owner.resend(event_id, seq)
            witness.resends[key] += 1
    else:
        await enable(world, witness, host, seq, HeldAction[what.upper()])


async def enable(world: World, witness: Witness, host: str, seq: int, held: HeldAction) -> None:
    """Enable an endpoint, and record its held deliveries."""
    owner = Owner(world)
    ids = {row.event_seq: bytes(row.event_id) for row in await world.event_ids()}
    own = [row for row in await world.deliveries() if row.endpoint_seq == seq]
    keys = [owner.delivery(ids[row.event_seq], seq) for row in own if row.status == Status.HELD]
    was_off = host in witness.off
    # Deliveries that were pending at the pause and not leased are held first, if that is not complete.
    waiting = [row for row in own if was_off and row.status == Status.PENDING and row.lease_owner == 0]
    pending = [owner.delivery(ids[row.event_seq], seq) for row in waiting]
    # The endpoint receives requests before the response.
    witness.off.discard(host)
    try:
        await owner.enable(seq, held)
    except Unavailable:
        if was_off:
            witness.off.add(host)
        raise
    witness.held.append([key for key in keys if key not in witness.first_sent])
    if held is HeldAction.DROP:
        witness.may_be_cancelled.update(keys, pending)


@pytest.mark.parametrize("seed", range(8))
async def test_every_promise_holds_under_random_faults(seed: int, place: Place) -> None:
    dice = random.Random(seed)
    witness = Witness()
    mood = {f"r{number}.test": dice.choice([1.0, 0.9, 0.5, 0.1, 0.0]) for number in range(4)}
    async with World(place, database=Failing, delays_ms=DELAYS_MS, breaker_failures=dice.choice([0, 10])) as world:
        hosts = {}
        for host in mood:
            endpoint = await world.endpoint(host, script(world, dice, witness, host, mood))
            world.sender.latency_ms[host] = dice.choice([0, 0, 50, 4000])
            hosts[host] = endpoint.seq
        for _ in range(STEPS):
            await step(world, dice, witness, hosts)
        world.database.broken = frozenset()
        for host in mood:
            mood[host] = 1.0
        await world.settle()
        for host, seq in hosts.items():
            await enable(world, witness, host, seq, HeldAction.SEND)
        for _ in range(20):
            await world.run_for(60 * SECOND)
            if not {Status.PENDING, Status.HELD} & set(await world.statuses()):
                break
        await check(world, witness, hosts)


async def check(world: World, witness: Witness, hosts: dict[str, int]) -> None:
    """Check every promise with the stored rows and the observations."""
    rows = {(row.event_seq, row.endpoint_seq): row for row in await world.deliveries()}
    ids = {row.event_seq: bytes(row.event_id) for row in await world.event_ids()}
    stored = {(bytes(row.event_id), row.endpoint_seq): row for row in await world.delivery_ids()}
    assert witness.owed <= set(stored), "an accepted event was lost"
    attempts_max = len(DELAYS_MS) + 1
    for key, row in rows.items():
        assert row.status not in (Status.PENDING, Status.HELD), f"{key} was never finished"
        assert row.scheduled_attempts <= attempts_max
        if row.trigger == Trigger.TEST:
            assert row.attempts_made <= 1
            assert row.status in (Status.DELIVERED, Status.FAILED)
        elif row.status == Status.FAILED:
            assert row.failed_reason == FailedReason.EXHAUSTED
            assert row.scheduled_attempts == attempts_max
        if row.status == Status.CANCELLED and row.endpoint_seq in hosts.values():
            assert Owner(world).delivery(ids[row.event_seq], row.endpoint_seq) in witness.may_be_cancelled
    numbers = defaultdict(list)
    for attempt in await world.attempts():
        numbers[attempt.event_seq, attempt.endpoint_seq].append(attempt.number)
    for key, row in rows.items():
        assert numbers[key] == list(range(1, row.attempts_made + 1))
    duplicates = sum(max(0, count - 1 - witness.resends.get(key, 0)) for key, count in witness.delivered.items())
    assert duplicates <= witness.lost_in_flight, "more duplicates than attempts cut off by kills"
    for held in witness.held:
        order = [witness.first_sent[key] for key in held if key in witness.first_sent and key not in witness.resends]
        assert order == sorted(order), "held deliveries came in another order than that of acceptance"
    for key, times in witness.sent.items():
        if key in witness.resends:
            continue
        for before, after in pairwise(times):
            if not any(before <= kill <= after for kill in witness.kill_times):
                assert after - before >= 0.9 * DELAYS_MS[0], "a retry came before it was due"
    assert world.parts.lanes.bytes_held == 0
    await check_numbers(world)


async def check_numbers(world: World) -> None:
    """After all kills, restarts and outages, the statistics match the tables, without test deliveries."""
    await world.run_for(10 * SECOND)
    own = [row for row in await world.deliveries() if row.trigger != Trigger.TEST]
    made = [row for row in await world.attempts() if row.trigger != Trigger.TEST]
    hours = (await world.database.read(lambda c: by_hour(c, [ALL_ACCOUNTS], since=0)))[ALL_ACCOUNTS]
    told = total(each for _, each in hours)
    assert (told.deliveries, told.attempts) == (len(own), len(made))
    assert told.outcomes == Counter(row.outcome for row in made)
    ended = Counter(Status(row.status) for row in own)
    assert {status: getattr(told, status.text) for status in Status} == {status: ended[status] for status in Status}
