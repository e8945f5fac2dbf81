"""Commands that erase personal data."""

import sys
import time
from typing import Annotated, Any, Final

import typer

from uplift_server.cli import lookup
from uplift_server.cli.accounts import Account, Wide
from uplift_server.cli.reach import reach, remedy_to_send, when_sent
from uplift_server.cli.session import Session, command
from uplift_webhooks.cli.kit.calls import Calls, segment
from uplift_webhooks.cli.kit.errors import CliError, ExitCode
from uplift_webhooks.cli.kit.inputs import Limit
from uplift_webhooks.cli.kit.lookup import find
from uplift_webhooks.cli.kit.program import add, noun
from uplift_webhooks.cli.kit.rejections import options
from uplift_webhooks.cli.kit.tables import Column

LOOK_SECONDS: Final = 0.5
"""The interval between two checks of an erasure's state, in seconds."""

erasures_app: Final = noun("Erase personal data: the content of events and of their attempts.")
Wait = Annotated[bool, typer.Option("--wait", help="Wait until the erasure is completed.")]


def register(app: typer.Typer) -> None:
    """Add the `erasures` commands to the program."""
    add(app, "erasures", erasures_app)


@command(
    erasures_app,
    "create",
    examples=(
        "uplift-server erasures create --account 'Rapids Academy' --object-id 67b95880-eb2c-56f6-b4ed-97417b86b3ec",
        "uplift-server erasures create --account acc_0197f0c2 --object-id - --yes --wait < object-id.txt",
        "uplift-server erasures create --account acc_0197f0c2 --event 0197f0c2-5b1e-7c3a-9d5e-2f6a8b0c4d1e --yes",
    ),
)
def create(
    session: Session,
    account: Account,
    object_id: Annotated[
        str | None,
        typer.Option(
            "--object-id",
            metavar="ID",
            help="Erase the events with this ID at data.object.id. To read the ID from standard input, use -.",
        ),
    ] = None,
    event: Annotated[
        list[str] | None, typer.Option("--event", metavar="EVENT", help="Erase the event with this ID. Repeatable.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Erase the events instead of counting them.")] = False,
    wait: Wait = False,
) -> None:
    """Erase the events about an object, or events by ID.

    Without --yes, the command only counts the events. You cannot undo an erasure. The server keeps the IDs, types and
    times of erased events, and cancels their pending and held deliveries.
    """
    if (object_id is None) == (not event):
        raise CliError(
            "the command needs either an object ID or events", "pass --object-id, or --event for each event",
            ExitCode.USAGE,
        )  # fmt: skip
    if object_id == "-":
        object_id = sys.stdin.readline().rstrip("\r\n")
    body: dict[str, Any] = {"event_ids": event} if object_id is None else {"object_id": object_id}
    with reach(session.config()) as client, options(object_id="--object-id", event_ids="--event"):
        path = f"{lookup.account_path(client, account)}/erasures"
        if not yes:
            counted = client.post(path, {**body, "dry_run": True})
            session.output.fields(counted)
            if counted["events"]:
                session.output.note("To erase the events, repeat the command with --yes.")
            return
        if wait:
            _require_server(session, client)
        made = client.post(path, body)
        if not client.sends:
            session.output.note(f"The request for the erasure is stored. {when_sent(session.config())}")
        _show(session, client, made, path, wait=wait)


@command(erasures_app, "list", examples=("uplift-server erasures list --account 'Rapids Academy'",))
def list_erasures(session: Session, account: Account, limit: Limit = 50, wide: Wide = False) -> None:
    """List an account's erasures, newest first."""
    with reach(session.config()) as client:
        session.output.rows(
            client.items(f"{lookup.account_path(client, account)}/erasures", limit=limit),
            [
                Column("id", "ERASURE", "id"),
                Column("state", "STATE"),
                Column("events", "EVENTS"),
                Column("created_at", "CREATED", "timestamp"),
                Column("completed_at", "COMPLETED", "timestamp", dropped=1),
            ],
            empty="No erasures yet.",
            wide=wide,
        )


@command(erasures_app, "show", examples=("uplift-server erasures show ers_0197f0c2 --account 'Rapids Academy'",))
def show(
    session: Session,
    erasure: Annotated[str, typer.Argument(metavar="ERASURE", help="ID of the erasure, or a unique ID prefix.")],
    account: Account,
    wait: Wait = False,
) -> None:
    """Show an erasure. For a completed erasure, the output is the receipt."""
    session.output.streams = True
    with reach(session.config()) as client:
        path = f"{lookup.account_path(client, account)}/erasures"
        _show(session, client, find(client, path, "erasure", "ers_", erasure), path, wait=wait)


def _require_server(session: Session, client: Calls) -> None:
    """Raise CliError unless a server can erase the events."""
    if not client.sends:
        raise CliError("--wait requires a running server", remedy_to_send(session.config()), ExitCode.TRY_LATER)


def _show(session: Session, client: Calls, erasure: dict[str, Any], path: str, *, wait: bool) -> None:
    """Show an erasure. With `wait`, first wait until the erasure is completed."""
    if wait:
        _require_server(session, client)
    while wait and erasure["state"] == "running":
        time.sleep(LOOK_SECONDS)
        erasure = client.get(f"{path}/{segment(erasure['id'])}")
    session.output.fields(erasure)
