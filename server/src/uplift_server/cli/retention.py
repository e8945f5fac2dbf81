"""The command `uplift-server retention resume`, which resumes retention after a clock jump."""

from typing import Final

import typer

from uplift_server.cli.reach import reach
from uplift_server.cli.session import Session, command
from uplift_webhooks.cli.kit.program import add, group

retention_app: Final = group("Control the deletion of old events.")


def register(app: typer.Typer) -> None:
    """Add the `retention` commands to the program."""
    add(app, "retention", retention_app)


@command(retention_app, "resume", examples=("uplift-server retention resume",))
def resume(session: Session) -> None:
    """Resume retention after a clock jump.

    The server stops deleting old events if the clock jumps forward by more than half of UPLIFT_RETENTION. Check the
    clock before you run this command.
    """
    with reach(session.config()) as client:
        found = client.post("/v1/retention/resume")
    if session.output.as_json:
        session.output.json(found)
    else:
        session.output.line(f"Retention resumed at {found['resumed_at']}.")
