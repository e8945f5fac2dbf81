"""The command `uplift-server fleet`, which shows problems with the server and its endpoints."""

from typing import Final

import typer

from uplift_server.cli.reach import reach
from uplift_server.cli.session import Session, command
from uplift_webhooks.cli.kit.errors import ExitCode
from uplift_webhooks.cli.kit.tables import Column

_STYLES: Final = {"attention": "yellow", "critical": "red"}


def register(app: typer.Typer) -> None:
    """Add the `fleet` command to the program."""
    command(app, "fleet", examples=("uplift-server fleet", "uplift-server fleet --json"))(fleet)


def fleet(session: Session) -> None:
    """Show problems with the server and its endpoints.

    The list shows the worst problems first, then the failing endpoints grouped by cause. The exit code is 1 if a
    problem is critical.
    """
    output = session.output
    with reach(session.config()) as client:
        found = client.get("/v1/fleet")
    if output.as_json:
        output.json(found)
    else:
        pending = found["pending_deliveries"]
        output.line(f"{'Unknown number of' if pending is None else f'{pending:,}'} pending deliveries.")
        for problem in found["problems"]:
            output.line()
            output.line((problem["severity"], _STYLES[problem["severity"]]), f": {problem['title']}.")
            output.line(f"  {problem['extent']}")
            if problem["since"] is not None:
                output.line(f"  Since {problem['since']}.")
            output.line(f"  Next step: {problem['next_step']}")
        if not found["problems"]:
            output.line("No endpoint is failing, and deliveries are on time.")
        if found["failing"]:
            output.line()
            output.rows(
                found["failing"],
                [
                    Column("title", "CAUSE", gives=True),
                    Column("endpoints", "ENDPOINTS"),
                    Column("accounts", "ACCOUNTS"),
                    Column("since", "SINCE", "timestamp"),
                    Column("pending_deliveries", "PENDING"),
                    Column("oldest_due_at", "OLDEST DUE", "timestamp"),
                ],
                empty="",
                wide=False,
            )
    if found["status"] == "critical":
        raise typer.Exit(ExitCode.FAILED)
