"""`uplift replays`: jobs that resend many deliveries of an endpoint."""

from typing import Annotated, Any, Final

import typer

from uplift_webhooks.cli.kit.calls import Calls, segment
from uplift_webhooks.cli.kit.inputs import Limit
from uplift_webhooks.cli.kit.lookup import find
from uplift_webhooks.cli.kit.tables import Column
from uplift_webhooks.cli.nouns import noun
from uplift_webhooks.cli.session import Session, command

_PATH: Final = "/v1/replays"
_COLUMNS: Final = [
    Column("id", "REPLAY"),
    Column("endpoint", "ENDPOINT", dropped=4),
    Column("state", "STATE"),
    Column("total", "TOTAL"),
    Column("delivered", "DELIVERED"),
    Column("failed", "FAILED"),
    Column("skipped", "SKIPPED", dropped=2),
    Column("created_at", "CREATED", dropped=3),
]

Replay = Annotated[str, typer.Argument(metavar="REPLAY", help="ID of the replay, or a unique ID prefix.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    group = noun(app, "replays", "List, show, pause, resume and cancel replays.")
    command(group, "list", examples=("uplift replays",))(list_replays)
    command(group, "show", examples=("uplift replays rpl_0197f0c2",))(show)
    command(group, "pause", examples=("uplift replays pause rpl_0197f0c2",))(pause)
    command(group, "resume", examples=("uplift replays resume rpl_0197f0c2",))(resume)
    command(group, "cancel", examples=("uplift replays cancel rpl_0197f0c2",))(cancel)


def list_replays(session: Session, limit: Limit = 50) -> None:
    """List replays, newest first."""
    session.output.rows(
        session.calls().items(_PATH, limit=limit),
        _COLUMNS,
        empty="No replays yet. To resend deliveries: uplift deliveries resend --status failed",
    )


def show(session: Session, replay: Replay) -> None:
    """Show a replay and its progress."""
    session.output.fields(_find(session.calls(), replay))


def pause(session: Session, replay: Replay) -> None:
    """Pause a running replay. The server finishes attempts in flight."""
    _change(session, replay, "pause")


def resume(session: Session, replay: Replay) -> None:
    """Resume a paused replay."""
    _change(session, replay, "resume")


def cancel(session: Session, replay: Replay) -> None:
    """Cancel a replay.

    The server finishes attempts in flight. It does not send the other deliveries of the replay.
    """
    _change(session, replay, "cancel")


def _change(session: Session, replay: str, verb: str) -> None:
    calls = session.calls()
    session.output.fields(calls.post(f"{_PATH}/{segment(_find(calls, replay)['id'])}/{verb}"))


def _find(calls: Calls, replay: str) -> dict[str, Any]:
    return find(calls, _PATH, "replay", "rpl_", replay)
