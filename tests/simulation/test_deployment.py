"""A simulation that skips quiet periods evicts no process, and skips no scan that is due."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from uplift_server.core.deliveries.health import HealthRule
from uplift_server.core.endpoint_settings import AttemptTimeouts
from uplift_server.core.scheduling.circuit_breaker import BreakerRule
from uplift_server.core.scheduling.retry_schedule import RetrySchedule
from uplift_server.delivery.engine import EngineSettings
from uplift_server.delivery.health.monitor import HealthSettings

from .clock import DAY, HOUR, MINUTE, SECOND, VirtualTime
from .deployment import Deployment
from .model import Model
from .receivers import TIMEOUT_MS, Network

SKIPS = 3


def new_deployment(time: VirtualTime) -> Deployment:
    """Return a cluster without processes."""
    settings = EngineSettings(
        schedule=RetrySchedule((SECOND,)),
        breaker=BreakerRule(0, MINUTE),
        timeouts=AttemptTimeouts(TIMEOUT_MS, TIMEOUT_MS),
        lease_ms=30 * SECOND,
        in_flight_max=10,
        endpoint_in_flight_max=10,
        retention_ms=0,
        health=HealthSettings(HealthRule(3 * DAY, 5 * DAY), sends_email=False, operator_email=None),
        scan_every_ms=5 * SECOND,
    )
    network = Network(time, Model(time, seen_within_ms=0, late_ms=0))
    return Deployment(random.Random(1), time, network, settings, is_clustered=True)


async def heartbeats(deployment: Deployment) -> dict[int, int]:
    """Return the time of the last heartbeat of each process, by its ID. A process that rejoins gets a new ID."""
    query = "SELECT seq, seen_at FROM processes"
    rows = await deployment.database.read(lambda c: c.exec_driver_sql(query).all())
    return dict(rows)


async def skip_during_heartbeats(deployment: Deployment) -> None:
    """Skip quiet periods that begin in the millisecond in which two processes send their heartbeats."""
    time = deployment.time
    for _ in range(2):
        assert await deployment.start() is not None
    members = (await heartbeats(deployment)).keys()
    assert len(members) == 2
    for skips in range(SKIPS):
        deployment.touch(5 * SECOND)
        await deployment.advance(time.now + 5 * SECOND)
        assert deployment.skips == skips
        (last,) = set((await heartbeats(deployment)).values())
        deployment.touch(last + 5 * SECOND - time.now)
        await deployment.advance(time.now + HOUR)
        assert deployment.skips == skips + 1
        deployment.touch(5 * SECOND)
        await deployment.advance(time.now + 5 * SECOND)
        assert (await heartbeats(deployment)).keys() == members


async def scan_after_lost_notifications(deployment: Deployment) -> None:
    """Lose the notifications of a change, so that a process learns of it only from its next scan."""
    assert await deployment.start() is not None
    await deployment.advance(deployment.time.now + HOUR)
    deployment.bus.loss = 1.0
    skips = deployment.skips
    deployment.touch()
    await deployment.advance(deployment.time.now + deployment.settings.scan_every_ms + SECOND)
    assert deployment.skips == skips
    await deployment.advance(deployment.time.now + HOUR)
    assert deployment.skips > skips


@pytest.mark.parametrize("play", [skip_during_heartbeats, scan_after_lost_notifications])
def test_a_skip_changes_nothing(play: Callable[[Deployment], Awaitable[None]]) -> None:
    async def run() -> None:
        deployment = new_deployment(VirtualTime())
        await deployment.open()
        try:
            await play(deployment)
        finally:
            await deployment.close()

    asyncio.run(run())
