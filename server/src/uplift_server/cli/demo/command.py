"""The command `uplift-server demo`."""

import asyncio
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
import uvloop

from uplift_server.cli.session import Session, command
from uplift_webhooks.cli.kit.errors import CliError, ExitCode

if TYPE_CHECKING:
    from uplift_server.cli.demo.tally import Summary

RATE_PER_SECOND: Final = 25.0
PORT: Final = 8420


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    examples = ("uplift-server demo", "uplift-server demo --events 200", "uplift-server demo --events 50 --json")
    command(app, "demo", examples=examples)(demo)


def demo(
    session: Session,
    events: Annotated[
        int | None, typer.Option("--events", min=1, max=100_000, help="Send this many, then end; else until Ctrl-C.")
    ] = None,
    rate: Annotated[float, typer.Option("--rate", min=0.1, max=500, help="Events a second.")] = RATE_PER_SECOND,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="The server's port; a free one if it is taken.")
    ] = PORT,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Keep the data here, in place of a temporary directory.")
    ] = None,
) -> None:
    """Show the whole product at work: captures flow to two receivers, one of which fails at first and recovers.

    Both receivers run in this process and verify every request. With --events, the exit code is 0 only if every event
    arrived and was verified at both. Settings of the environment are not used.
    """
    # The server and all it needs are imported here, so that the help of other commands is quick.
    from uplift_server.cli.demo.run import Demo, Plan, free_port  # noqa: PLC0415
    from uplift_server.cli.demo.screen import Screen  # noqa: PLC0415

    with ExitStack() as stack:
        if data_dir is None:
            data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="uplift-demo-")))
        else:
            data_dir.mkdir(parents=True, exist_ok=True)
        screen = stack.enter_context(Screen(session.output, events))
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))

        async def course() -> "Summary":
            return await Demo(Plan(data_dir, events, rate, free_port(port)), screen).run()

        summary = runner.run(course())
    screen.summary(summary)
    if not summary.complete:
        raise CliError(
            "not every event arrived and was verified",
            "look at the lines above; with --data-dir the database is kept for a closer look",
            ExitCode.FAILED,
        )
    if events is not None:
        session.output.note("Without --events it goes on until Ctrl-C, and you can look at the API meanwhile.")
