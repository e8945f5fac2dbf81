"""`uplift replays`: manage jobs that resend many deliveries to an endpoint."""

from typing import Annotated, Any, Final

import typer

from uplift_webhooks.cli.kit.calls import Calls, segment
from uplift_webhooks.cli.kit.inputs import After, Before, Limit
from uplift_webhooks.cli.kit.lookup import find
from uplift_webhooks.cli.kit.program import add, noun
from uplift_webhooks.cli.kit.rejections import options
from uplift_webhooks.cli.kit.replays import (
    REPLAY_OPTIONS,
    DryRun,
    IncludeMissing,
    OnlyMissing,
    Rate,
    ReplayedEndpoint,
    ReplayedStatuses,
    ReplayedTypes,
    replay_body,
)
from uplift_webhooks.cli.kit.tables import Column
from uplift_webhooks.cli.kit.views import print_replay
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
    """Add the `replays` commands to the program."""
    group = noun("List, show, create, pause, resume and cancel replays.")
    add(app, "replays", group)
    command(group, "list", examples=("uplift replays",))(list_replays)
    command(group, "show", examples=("uplift replays rpl_0197f0c2",))(show)
    command(
        group,
        "create",
        examples=(
            "uplift replays create ep_0197f0c2 --dry-run",
            "uplift replays create ep_0197f0c2 --status failed --status cancelled",
            "uplift replays create ep_0197f0c2 --include-missing --after 2026-01-31T08:00:00Z",
        ),
    )(create)
    command(group, "pause", examples=("uplift replays pause rpl_0197f0c2",))(pause)
    command(group, "resume", examples=("uplift replays resume rpl_0197f0c2",))(resume)
    command(group, "cancel", examples=("uplift replays cancel rpl_0197f0c2",))(cancel)


def list_replays(session: Session, limit: Limit = 50) -> None:
    """List replays, newest first."""
    session.output.rows(
        session.calls().items(_PATH, limit=limit),
        _COLUMNS,
        empty="No replays yet. To create one: uplift replays create ENDPOINT",
    )


def show(session: Session, replay: Replay) -> None:
    """Show a replay and its progress."""
    session.output.streams = True
    print_replay(session.output, _find(session.calls(), replay))


def create(
    session: Session,
    endpoint: ReplayedEndpoint,
    status: ReplayedStatuses = None,
    types: ReplayedTypes = None,
    after: After = None,
    before: Before = None,
    rate: Rate = None,
    include_missing: IncludeMissing = False,
    only_missing: OnlyMissing = False,
    dry_run: DryRun = False,
) -> None:
    """Replay an endpoint's failed deliveries, oldest first.

    The server sends each matching delivery once. The replay continues after the command exits. To replay every delivery
    that never succeeded, use `--status failed --status cancelled`.
    """
    body = replay_body(
        status=status,
        types=types,
        after=after,
        before=before,
        rate=rate,
        include_missing=include_missing,
        only_missing=only_missing,
        dry_run=dry_run,
    )
    calls = session.calls()
    body["endpoint"] = find(calls, "/v1/endpoints", "endpoint", "ep_", endpoint)["id"]
    with options(**REPLAY_OPTIONS):
        made = calls.post(_PATH, body)
    print_replay(session.output, made)
    if not dry_run:
        session.output.note(f"To see the progress: uplift replays show {made['id']}")


def pause(session: Session, replay: Replay) -> None:
    """Pause a running replay. The server finishes attempts in flight."""
    _change(session, replay, "pause")


def resume(session: Session, replay: Replay) -> None:
    """Resume a paused replay."""
    _change(session, replay, "resume")


def cancel(session: Session, replay: Replay) -> None:
    """Cancel a replay.

    The server finishes attempts in flight, but does not send the replay's remaining deliveries.
    """
    _change(session, replay, "cancel")


def _change(session: Session, replay: str, verb: str) -> None:
    calls = session.calls()
    print_replay(session.output, calls.post(f"{_PATH}/{segment(_find(calls, replay)['id'])}/{verb}"))


def _find(calls: Calls, replay: str) -> dict[str, Any]:
    return find(calls, _PATH, "replay", "rpl_", replay)
