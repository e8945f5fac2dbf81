"""Commands that create and control replays."""

import time
from typing import Annotated, Any, Final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from uplift_server.cli import lookup
from uplift_server.cli.accounts import AnyAccount, Wide
from uplift_server.cli.reach import reach, remedy_to_send, when_sent
from uplift_server.cli.session import Session, command
from uplift_server.core.deliveries.replays import ReplayState
from uplift_webhooks.cli.kit.calls import Calls, segment
from uplift_webhooks.cli.kit.errors import CliError, ExitCode
from uplift_webhooks.cli.kit.inputs import After, Before, Limit
from uplift_webhooks.cli.kit.output import Output
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

LOOK_SECONDS: Final = 0.5
"""The interval between two updates of a replay's progress, in seconds."""
_RUNNING: Final = frozenset({ReplayState.RUNNING.text})
_REASONS: Final = {
    "counting": "counting deliveries",
    "endpoint_paused": "waiting: the endpoint is paused",
    "endpoint_disabled": "waiting: the endpoint is disabled",
    "endpoint_failing": "waiting: the endpoint's circuit breaker is open",
}

replay_app: Final = noun("List, show, create, pause, resume and cancel replays of an endpoint's deliveries.")

Chosen = Annotated[str, typer.Argument(metavar="REPLAY", help="ID of the replay, or a unique ID prefix.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until the replay ends, and show progress on a terminal.")]


def register(app: typer.Typer) -> None:
    """Add the `replays` commands to the program."""
    add(app, "replays", replay_app, former="replay")


@command(
    replay_app,
    "create",
    examples=(
        "uplift-server replays create ep_0197f0c2 --dry-run",
        "uplift-server replays create ep_0197f0c2 --status failed --status cancelled --wait",
        "uplift-server replays create ep_0197f0c2 --type 'movement.*' --after 2026-01-01T00:00:00Z --rate 200",
        "uplift-server replays create ep_0197f0c2 --include-missing --after 2026-01-01T00:00:00Z",
    ),
)
def create_replay(
    session: Session,
    endpoint: ReplayedEndpoint,
    account: AnyAccount = None,
    status: ReplayedStatuses = None,
    types: ReplayedTypes = None,
    after: After = None,
    before: Before = None,
    rate: Rate = None,
    include_missing: IncludeMissing = False,
    only_missing: OnlyMissing = False,
    dry_run: DryRun = False,
    wait: Wait = False,
) -> None:
    """Replay an endpoint's failed deliveries, oldest first.

    The server sends each matching delivery once. The replay continues after the command exits and after the server
    restarts. To replay every delivery that never succeeded, use `--status failed --status cancelled`.
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
    with reach(session.config()) as client:
        if wait and not dry_run:
            _require_server(session, client)
        owner = lookup.owner(client, account)
        body["endpoint"] = lookup.endpoint(client, endpoint, owner)["id"]
        with options(**REPLAY_OPTIONS):
            made = client.post("/v1/replays", body, account=owner)
        if not client.sends and not dry_run:
            session.output.note(f"The replay is stored. {when_sent(session.config())}")
        _show(session, client, made, owner, wait=wait and not dry_run)


@command(
    replay_app, "list", examples=("uplift-server replays list", "uplift-server replays list --account acc_0197f0c2")
)
def list_replays(session: Session, account: AnyAccount = None, limit: Limit = 50, wide: Wide = False) -> None:
    """List replays, newest first."""
    with reach(session.config()) as client:
        owner = lookup.owner(client, account)
        session.output.rows(
            client.items("/v1/replays", limit=limit, account=owner),
            [
                Column("id", "REPLAY", "id"),
                Column("endpoint", "ENDPOINT", "id"),
                Column("state", "STATE"),
                Column("total", "TOTAL"),
                Column("delivered", "DELIVERED"),
                Column("failed", "FAILED"),
                Column("skipped", "SKIPPED", dropped=2),
                Column("created_at", "CREATED", "timestamp", dropped=1),
            ],
            empty="No replays yet. To create one: uplift-server replays create ENDPOINT",
            wide=wide,
        )


@command(replay_app, "show", examples=("uplift-server replays show rpl_0197f0c2 --wait",))
def show_replay(session: Session, replay: Chosen, account: AnyAccount = None, wait: Wait = False) -> None:
    """Show a replay and its progress."""
    session.output.streams = True
    with reach(session.config()) as client:
        owner = lookup.owner(client, account)
        _show(session, client, lookup.replay(client, replay, owner), owner, wait=wait)


@command(replay_app, "pause", examples=("uplift-server replays pause rpl_0197f0c2",))
def pause_replay(session: Session, replay: Chosen, account: AnyAccount = None) -> None:
    """Pause a running replay.

    The server finishes attempts in flight. To continue, use `uplift-server replays resume`.
    """
    _change(session, replay, account, "pause")


@command(replay_app, "resume", examples=("uplift-server replays resume rpl_0197f0c2",))
def resume_replay(session: Session, replay: Chosen, account: AnyAccount = None) -> None:
    """Resume a paused replay."""
    _change(session, replay, account, "resume")


@command(replay_app, "cancel", examples=("uplift-server replays cancel rpl_0197f0c2",))
def cancel_replay(session: Session, replay: Chosen, account: AnyAccount = None) -> None:
    """Cancel a replay.

    The server finishes attempts in flight, but does not send the replay's remaining deliveries.
    """
    _change(session, replay, account, "cancel")


def _change(session: Session, replay: str, account: str | None, verb: str) -> None:
    with reach(session.config()) as client:
        owner = lookup.owner(client, account)
        found = lookup.replay(client, replay, owner)
        print_replay(session.output, client.post(f"/v1/replays/{segment(found['id'])}/{verb}", account=owner))


def _show(session: Session, client: Calls, replay: dict[str, Any], owner: str | None, *, wait: bool) -> None:
    """Show a replay. With `wait`, show its progress until the replay ends."""
    if wait:
        _require_server(session, client)
        with _Bar(session.output) as bar:
            while replay["state"] in _RUNNING:
                bar.draw(replay)
                time.sleep(LOOK_SECONDS)
                replay = client.get(f"/v1/replays/{segment(replay['id'])}", account=owner)
    print_replay(session.output, replay)


def _require_server(session: Session, client: Calls) -> None:
    """Raise CliError unless a server can send the replay's deliveries."""
    if not client.sends:
        raise CliError("--wait requires a running server", remedy_to_send(session.config()), ExitCode.TRY_LATER)


class _Bar:
    """A progress bar that shows the rate and the remaining time. It appears only on a terminal."""

    def __init__(self, output: Output) -> None:
        self._drawn = not output.as_json and output.notes.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=output.notes,
            transient=True,
        )
        self._task = self._progress.add_task("", total=None, rate="")
        self._before: tuple[float, int] | None = None

    def __enter__(self) -> "_Bar":
        if self._drawn:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._drawn:
            self._progress.stop()

    def draw(self, replay: dict[str, Any]) -> None:
        """Update the progress bar."""
        now, sent = time.monotonic(), int(replay["sent"])
        rate = ""
        if self._before is not None:
            rate = f"{max(0, sent - self._before[1]) / max(now - self._before[0], 0.001):.0f} per second"
        self._before = (now, sent)
        self._progress.update(
            self._task,
            description=_REASONS.get(str(replay["reason"]), "sending"),
            total=replay["total"],
            completed=sent + int(replay["skipped"]),
            rate=rate,
        )
