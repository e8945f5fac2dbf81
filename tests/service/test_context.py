"""Changes go on to their end when whoever asked for them has gone, and what becomes of them is told."""

import asyncio

import pytest
from structlog.testing import capture_logs

from uplift_server.store.errors import Unavailable

from .world import World


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Unavailable("the database is away"), {"log_level": "warning", "cause": "the database is away"}),
        (ValueError("a defect"), {"log_level": "error"}),
    ],
)
async def test_what_fails_when_nobody_waits_any_more_is_told(
    world: World, error: Exception, told: dict[str, str]
) -> None:
    """A database that is away is no defect: it needs no traceback."""
    is_over = asyncio.Event()

    async def change() -> None:
        await is_over.wait()
        raise error

    with capture_logs() as logs:
        asking = asyncio.create_task(world.context.carry_out(change()))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        is_over.set()
        await world.context.finish()
    [line] = logs
    assert told.items() <= line.items()
    assert line["event"] == "a change that nobody waited for failed"
    assert ("exc_info" in line) == (told["log_level"] == "error")


async def test_who_waits_is_told_alone(world: World) -> None:
    async def change() -> None:
        raise Unavailable("the database is away")

    with capture_logs() as logs, pytest.raises(Unavailable):
        await world.context.carry_out(change())
    assert logs == []
