"""A change whose caller is cancelled still finishes, and its failure is logged."""

import asyncio

import pytest
from structlog.testing import capture_logs

from uplift_server.store.errors import Unavailable

from .world import World


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Unavailable("the database is away"), {"log_level": "warning", "cause": "the database is away"}),
        (ValueError("a defect"), {"log_level": "error"}),
    ],
)
async def test_the_failure_of_an_abandoned_change_is_logged(
    world: World, error: Exception, expected: dict[str, str]
) -> None:
    """An unavailable database is logged without a traceback."""
    is_released = asyncio.Event()

    async def change() -> None:
        await is_released.wait()
        raise error

    with capture_logs() as logs:
        caller = asyncio.create_task(world.context.run_shielded(change()))
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        is_released.set()
        await world.context.finish()
    [line] = logs
    assert expected.items() <= line.items()
    assert line["event"] == "background task failed"
    assert ("exc_info" in line) == (expected["log_level"] == "error")


async def test_the_failure_of_an_awaited_change_is_not_logged(world: World) -> None:
    async def change() -> None:
        raise Unavailable("the database is away")

    with capture_logs() as logs, pytest.raises(Unavailable):
        await world.context.run_shielded(change())
    assert logs == []
