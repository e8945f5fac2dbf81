"""Retries start at most 100 ms after their scheduled time while there is capacity."""

from typing import Any

import pytest
from tests.engines import Place

from uplift_server.core.lifecycle import Status
from uplift_server.store.errors import Unavailable

from .fleet import Fleet
from .world import SECOND, START, World, respond

DELAY_MS_MAX = 100


async def scheduled(world: World) -> dict[str, list[int]]:
    """Return the scheduled times of the pending deliveries in order, by host."""
    times: dict[str, list[int]] = {}
    for row in await world.deliveries():
        if row.status == Status.PENDING:
            times.setdefault(f"{row.endpoint_seq}.test", []).append(row.due_at)
    return {host: sorted(at) for host, at in times.items()}


def assert_on_time(world: World, times: dict[str, list[int]]) -> None:
    """Check that the latest attempts of each host started at these times, or at most DELAY_MS_MAX later."""
    for host, due in times.items():
        started = world.sender.times(host)[-len(due) :]
        late = [at - due_at for at, due_at in zip(started, due, strict=True)]
        assert all(0 <= ms <= DELAY_MS_MAX for ms in late), (host, late)


@pytest.mark.parametrize("delay_ms", [200, 5 * SECOND])
async def test_retries_of_one_endpoint_start_at_their_scheduled_times(place: Place, delay_ms: int) -> None:
    async with World(place, delays_ms=[delay_ms, 300 * SECOND]) as world:
        await world.endpoint("1.test", lambda _: respond(500))
        await world.accept(9)
        times = await scheduled(world)
        assert len(set(times["1.test"])) > 1
        await world.run_for(2 * delay_ms)
        assert len(world.sender.sent) == 18
        assert_on_time(world, times)


async def test_retries_start_at_their_scheduled_times_after_a_crash(place: Place) -> None:
    async with World(place) as world:
        for host in ("1.test", "2.test"):
            await world.endpoint(host, lambda _: respond(500))
        await world.accept(9)
        await world.kill()
        times = await scheduled(world)
        await world.run_for(6 * SECOND)
        assert len(world.sender.sent) == 36
        assert_on_time(world, times)


class SlowToSettle:
    """A database that is unavailable for the first settlement."""

    refusals = 1

    def settle(self, *args: Any, **kwargs: Any) -> Any:
        if self.refusals:
            self.refusals -= 1
            return self._unavailable()
        return super().settle(*args, **kwargs)  # type: ignore[misc]

    async def _unavailable(self) -> Any:
        raise Unavailable("disk full")


async def test_a_retry_already_due_when_settled_starts_immediately(place: Place) -> None:
    async with World(place, delays_ms=[200, 300 * SECOND], database=SlowToSettle) as world:
        await world.endpoint("1.test", lambda _: respond(500))
        await world.accept()
        await world.run_for(400)
        first, second = world.sender.times("1.test")
        assert (first, second - START <= 250 + DELAY_MS_MAX) == (START, True)


async def test_retries_start_at_their_scheduled_times_in_several_processes(place: Place) -> None:
    async with Fleet(place) as fleet:
        await fleet.start()
        await fleet.start()
        for number in range(1, 7):
            await fleet.endpoint(f"{number}.test", lambda _: respond(500))
        await fleet.run_for(3 * SECOND)
        await fleet.accept(9)
        await fleet.run_for(SECOND)
        times = await scheduled(fleet)
        assert [len(due) for due in times.values()] == [9] * 6
        await fleet.run_for(6 * SECOND)
        assert all(peer.sender.sent for peer in fleet.peers)
        assert_on_time(fleet, times)
