"""The command `uplift-server demo`, which runs a server with failing receivers."""

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

RATE_PER_SECOND: Final = 2.0
"""The default number of events per second. It is low enough for people to read the output."""
COUNTED_RATE_PER_SECOND: Final = 25.0
"""The default number of events per second with `--events`. It is high enough for the demo to end soon."""
PORT: Final = 8420


def register(app: typer.Typer) -> None:
    """Add the `demo` command to the program."""
    examples = ("uplift-server demo", "uplift-server demo --events 200", "uplift-server demo --events 50 --json")
    command(app, "demo", examples=examples)(demo)


def demo(
    session: Session,
    events: Annotated[
        int | None,
        typer.Option(
            "--events", metavar="N", min=1, max=100_000, help="Number of events. Default: unlimited, until Ctrl-C."
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate",
            metavar="N",
            min=0.1,
            max=500,
            help=f"Events per second, 0.1 to 500. "
            f"Default: {RATE_PER_SECOND:g} per second, or {COUNTED_RATE_PER_SECOND:g} with --events.",
        ),
    ] = None,
    port: Annotated[
        int,
        typer.Option(
            "--port",
            metavar="PORT",
            min=0,
            max=65535,
            help="Port of the server. If the port is in use, the demo uses a free port.",
        ),
    ] = PORT,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", metavar="DIR", help="Directory for the data. Default: a temporary directory."),
    ] = None,
) -> None:
    """Run a demo: a server, an account and local receivers.

    The server sends sample events. The receivers verify every signature. The first receiver never fails. The second
    receiver fails at first, so you see retries. The third receiver fails for 10 minutes at a time, so you see a failing
    endpoint and its recovery. The demo prints links to the dashboard and ignores UPLIFT_… variables.

    With --events, the demo omits the third receiver, and the exit code is 0 only if the other receivers verified every
    event.
    """
    # Import here so that other commands start faster.
    from uplift_server.cli.demo.run import Demo, Plan, free_port  # noqa: PLC0415
    from uplift_server.cli.demo.screen import Screen  # noqa: PLC0415

    with ExitStack() as stack:
        if data_dir is None:
            data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="uplift-demo-")))
        else:
            data_dir.mkdir(parents=True, exist_ok=True)
        if rate is None:
            rate = RATE_PER_SECOND if events is None else COUNTED_RATE_PER_SECOND
        screen = stack.enter_context(Screen(session.output, events))
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))

        async def course() -> "Summary":
            return await Demo(Plan(data_dir, events, rate, free_port(port)), screen).run()

        summary = runner.run(course())
    screen.summary(summary)
    if summary.planned not in (None, summary.sent):
        cause = f"the demo was stopped after {summary.sent} of {summary.planned} events"
        raise CliError(cause, "repeat the command, and wait until it ends", ExitCode.INTERRUPTED)
    if not summary.complete:
        raise CliError(
            "some events did not arrive or were not verified",
            "check the lines above; to keep the database, repeat the demo with --data-dir",
            ExitCode.FAILED,
        )
    if events is not None:
        session.output.note("Without --events, the demo runs until Ctrl-C, so that you can try the dashboard and API.")
