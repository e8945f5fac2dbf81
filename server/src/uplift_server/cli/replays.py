"""Commands for replays."""

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
from uplift_webhooks.cli.kit.inputs import Limit
from uplift_webhooks.cli.kit.output import Output
from uplift_webhooks.cli.kit.program import Group
from uplift_webhooks.cli.kit.rejections import options
from uplift_webhooks.cli.kit.tables import Column

LOOK_SECONDS: Final = 0.5
"""The interval to update the progress of a replay."""
_RUNNING: Final = frozenset({ReplayState.RUNNING.text})
_REASONS: Final = {
    "counting": "counting deliveries",
    "endpoint_paused": "waiting: its endpoint is paused",
    "endpoint_disabled": "waiting: its endpoint is disabled",
    "endpoint_failing": "waiting: the circuit breaker of its endpoint is open",
}

replay_app: Final = typer.Typer(
    cls=Group,
    help="Send many deliveries of an endpoint again, as a job that can be watched, paused and cancelled.",
    no_args_is_help=True,
)

Chosen = Annotated[str, typer.Argument(metavar="REPLAY", help="Id or unique beginning of it.")]
Wait = Annotated[bool, typer.Option("--wait", help="Stay until it has ended, and show how far it is.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    app.add_typer(replay_app, name="replay")


@command(
    replay_app,
    "create",
    examples=(
        "uplift-server replay create ep_0197f0c2 --dry-run",
        "uplift-server replay create ep_0197f0c2 --status failed --status cancelled --wait",
        "uplift-server replay create ep_0197f0c2 --type 'movement.*' --after 2026-01-01T00:00:00Z --rate 200",
    ),
)
def create_replay(
    session: Session,
    endpoint: Annotated[str, typer.Argument(help="Whose deliveries: id or unique beginning of it.")],
    account: AnyAccount = None,
    status: Annotated[
        list[str] | None,
        typer.Option("--status", help="How they ended: failed (if absent), cancelled, delivered; repeatable."),
    ] = None,
    types: Annotated[
        list[str] | None, typer.Option("--type", help="An event type or group.*; repeatable. All if absent.")
    ] = None,
    after: Annotated[str | None, typer.Option("--after", help="Only of events accepted after this instant.")] = None,
    before: Annotated[str | None, typer.Option("--before", help="Only of events accepted before this instant.")] = None,
    rate: Annotated[int | None, typer.Option("--rate", help="How many a second at most; 50 if absent.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many there are.")] = False,
    wait: Wait = False,
) -> None:
    """Send an endpoint's failed deliveries again, or those that ended otherwise; each once, the oldest first."""
    names = {
        "endpoint": "ENDPOINT",
        "status": "--status",
        "types": "--type",
        "created_after": "--after",
        "created_before": "--before",
        "rate_per_second": "--rate",
    }
    with reach(session.config()) as client:
        owner = lookup.owner(client, account)
        given = {
            "endpoint": lookup.endpoint(client, endpoint, owner)["id"],
            "status": status,
            "types": types,
            "created_after": after,
            "created_before": before,
            "rate_per_second": rate,
            "dry_run": dry_run or None,
        }
        body = {name: value for name, value in given.items() if value is not None}
        with options(**names):
            made = client.post("/v1/replays", body, account=owner)
        if not client.sends and not dry_run:
            session.output.note(f"It is stored; it begins {when_sent(session.config())}")
        _show(session, client, made, owner, wait=wait and not dry_run)


@command(replay_app, "list", examples=("uplift-server replay list", "uplift-server replay list --account acc_0197f0c2"))
def list_replays(session: Session, account: AnyAccount = None, limit: Limit = 50, wide: Wide = False) -> None:
    """List replays, the newest first."""
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
                Column("created_at", "CREATED", "instant", dropped=1),
            ],
            empty="No replays yet. Start one: uplift-server replay create ENDPOINT",
            wide=wide,
        )


@command(replay_app, "show", examples=("uplift-server replay show rpl_0197f0c2 --wait",))
def show_replay(session: Session, replay: Chosen, account: AnyAccount = None, wait: Wait = False) -> None:
    """Show how far a replay is."""
    with reach(session.config()) as client:
        owner = lookup.owner(client, account)
        _show(session, client, lookup.replay(client, replay, owner), owner, wait=wait)


@command(replay_app, "pause", examples=("uplift-server replay pause rpl_0197f0c2",))
def pause_replay(session: Session, replay: Chosen, account: AnyAccount = None) -> None:
    """Pause a replay: what is in flight finishes, the rest waits."""
    _change(session, replay, account, "pause")


@command(replay_app, "resume", examples=("uplift-server replay resume rpl_0197f0c2",))
def resume_replay(session: Session, replay: Chosen, account: AnyAccount = None) -> None:
    """Let a paused replay go on."""
    _change(session, replay, account, "resume")


@command(replay_app, "cancel", examples=("uplift-server replay cancel rpl_0197f0c2",))
def cancel_replay(session: Session, replay: Chosen, account: AnyAccount = None) -> None:
    """End a replay: what is in flight finishes, nothing more is sent."""
    _change(session, replay, account, "cancel")


def _change(session: Session, replay: str, account: str | None, verb: str) -> None:
    with reach(session.config()) as client:
        owner = lookup.owner(client, account)
        found = lookup.replay(client, replay, owner)
        session.output.fields(client.post(f"/v1/replays/{segment(found['id'])}/{verb}", account=owner))


def _show(session: Session, client: Calls, replay: dict[str, Any], owner: str | None, *, wait: bool) -> None:
    """Show a replay now, or when it no longer runs."""
    if wait and not client.sends:
        remedy = remedy_to_send(session.config())
        raise CliError("nothing is sent by this command itself", remedy, ExitCode.TRY_LATER)
    if wait:
        with _Bar(session.output) as bar:
            while replay["state"] in _RUNNING:
                bar.draw(replay)
                time.sleep(LOOK_SECONDS)
                replay = client.get(f"/v1/replays/{segment(replay['id'])}", account=owner)
    session.output.fields(replay)


class _Bar:
    """A progress bar with rate and remaining time, on a terminal only."""

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
        """Update the bar."""
        now, sent = time.monotonic(), int(replay["sent"])
        rate = ""
        if self._before is not None:
            rate = f"{max(0, sent - self._before[1]) / max(now - self._before[0], 0.001):.0f} a second"
        self._before = (now, sent)
        self._progress.update(
            self._task,
            description=_REASONS.get(str(replay["reason"]), "sending"),
            total=replay["total"],
            completed=sent + int(replay["skipped"]),
            rate=rate,
        )
