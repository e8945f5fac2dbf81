"""A seeded simulation: receivers that fail at random, kills, restarts, a database that goes away (promises 1 to 3, 6).

A failing seed is a complete bug report: run it again with `-k seed`.
"""

import random
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from uplift_server.core.deliveries import FailedReason, Status
from uplift_server.core.exchange import Exchange, Failure
from uplift_server.delivery.sender.request import Request
from uplift_server.store.errors import Unavailable

from .test_engine import Failing, header
from .world import SECOND, Script, World, answer

DELAYS_MS = (2 * SECOND, 10 * SECOND, 30 * SECOND)
STEPS = 60


@dataclass
class Witness:
    """What an onlooker knows who sees only answers and requests."""

    owed: set[tuple[bytes, int]] = field(default_factory=set)
    """(event id, endpoint number) of every event that was answered as accepted."""
    bodies: dict[str, bytes] = field(default_factory=dict)
    sent: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    delivered: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    kill_times: list[int] = field(default_factory=list)
    lost_in_flight: int = 0
    """Attempts that kills cut off, or whose outcome the database had not taken yet."""
    deleted_at: dict[str, int] = field(default_factory=dict)


def script(world: World, dice: random.Random, witness: Witness, host: str, mood: dict[str, float]) -> Script:
    """A receiver that answers 200 with the probability of its mood, and otherwise anything."""

    def answering(request: Request) -> Exchange | None:
        key = header(request, "x-uplift-delivery")
        assert witness.bodies.setdefault(header(request, "webhook-id"), request.body) == request.body
        assert host not in witness.deleted_at
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


def unsettled(world: World) -> int:
    """How many attempts there are whose outcome the database does not have."""
    return sum(world.sender.in_flight.values()) + len(world.engine.settler._gathered)


async def step(world: World, dice: random.Random, witness: Witness, hosts: dict[str, int]) -> None:
    """One thing that happens."""
    what = dice.random()
    if what < 0.55:
        try:
            for appended in await world.accept(dice.randrange(1, 6)):
                witness.owed.update((appended.id, endpoint) for endpoint in hosts.values())
        except Unavailable:
            pass
    elif what < 0.63:
        witness.lost_in_flight += unsettled(world)
        witness.kill_times.append(world.clock.now)
        await world.kill()
    elif what < 0.68:
        if "settle" in world.database.broken:
            witness.lost_in_flight += unsettled(world)
        await world.restart()
    elif what < 0.76:
        world.database.broken = frozenset(dice.sample(["append", "settle", "lease_due"], dice.randrange(1, 3)))
    elif what < 0.9:
        world.database.broken = frozenset()
    elif what < 0.92 and len(hosts) > 2:
        host = dice.choice(sorted(hosts))
        endpoint = hosts.pop(host)
        witness.deleted_at[host] = world.clock.now
        await world.delete_endpoint(endpoint)
    await world.run_for(dice.randrange(1, 8 * SECOND))


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_happens_every_promise_holds(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    witness = Witness()
    mood = {f"r{number}.test": dice.choice([1.0, 0.9, 0.5, 0.1, 0.0]) for number in range(4)}
    async with World(tmp_path, database=Failing, delays_ms=DELAYS_MS, breaker_failures=dice.choice([0, 10])) as world:
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
        for _ in range(20):
            await world.run_for(60 * SECOND)
            if not (await world.statuses()).get(Status.PENDING):
                break
        await check(world, witness, hosts)


async def check(world: World, witness: Witness, hosts: dict[str, int]) -> None:
    """Every promise, from what is stored and what was seen."""
    rows = {(row.event_seq, row.endpoint_seq): row for row in await world.deliveries()}
    stored = {(bytes(row.event_id), row.endpoint_seq): row for row in await world.delivery_ids()}
    assert witness.owed <= set(stored), "an accepted event was lost"
    attempts_max = len(DELAYS_MS) + 1
    for key, row in rows.items():
        assert row.status != Status.PENDING, f"{key} was never finished"
        assert row.scheduled_attempts <= attempts_max
        if row.status == Status.FAILED:
            assert row.failed_reason == FailedReason.EXHAUSTED
            assert row.scheduled_attempts == attempts_max
        if row.status == Status.CANCELLED:
            assert row.endpoint_seq not in hosts.values()
    numbers = defaultdict(list)
    for attempt in await world.attempts():
        numbers[attempt.event_seq, attempt.endpoint_seq].append(attempt.number)
    for key, row in rows.items():
        assert numbers[key] == list(range(1, row.attempts_made + 1))
    duplicates = sum(count - 1 for count in witness.delivered.values() if count > 1)
    assert duplicates <= witness.lost_in_flight, "more duplicates than attempts cut off by kills"
    for times in witness.sent.values():
        for before, after in pairwise(times):
            if not any(before <= kill <= after for kill in witness.kill_times):
                assert after - before >= 0.9 * DELAYS_MS[0], "a retry came before it was due"
    assert world.engine.lanes.bytes_held == 0
