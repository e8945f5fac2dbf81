"""`uplift listen`: forward events to a local server during development."""

import asyncio
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import datetime, timezone
from types import FrameType
from typing import Annotated, Any, Final

import typer

from uplift_webhooks.cli.kit.calls import CallRejected, Calls, segment
from uplift_webhooks.cli.kit.errors import CliError, ExitCode
from uplift_webhooks.cli.kit.lookup import unknown_type
from uplift_webhooks.cli.kit.rejections import options
from uplift_webhooks.cli.listening.handover import Handover, Printed
from uplift_webhooks.cli.listening.listener import Expired, Listener, Timing
from uplift_webhooks.cli.listening.local_server import LocalServer
from uplift_webhooks.cli.listening.machine import machine_name
from uplift_webhooks.cli.listening.mischief import Mischief
from uplift_webhooks.cli.listening.stream import Address, Ended
from uplift_webhooks.cli.listening.target import Target, read_target
from uplift_webhooks.cli.narration import Narration
from uplift_webhooks.cli.quantities import duration_seconds, share, since
from uplift_webhooks.cli.session import Session, command

LOCAL_TIMEOUT_SECONDS: Final = 15.0
"""Time limit for the local server's response, in seconds. It is equal to the Uplift server's default timeout."""
UNREACHABLE_SECONDS_MAX: Final = 30.0
"""How long the command keeps an event for a local server that is not reachable, in seconds."""
_SESSIONS: Final = "/v1/listen-sessions"
_SIGNALS: Final = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""The signals that stop the command. A closed terminal sends SIGHUP, which Windows does not have."""


def register(app: typer.Typer) -> None:
    """Add the `listen` command to the program."""
    command(
        app,
        "listen",
        examples=(
            "uplift listen --forward-to http://localhost:5000/webhook",
            "uplift listen --forward-to 5000/webhook --events 'movement.*' --since 15m",
            'export UPLIFT_WEBHOOK_SECRET="$(uplift listen --print-secret)"',
            "uplift listen --forward-to 5000/webhook --duplicate --fail 20%",
        ),
    )(listen)


def listen(
    session: Session,
    forward_to: Annotated[
        str | None,
        typer.Option(
            "--forward-to",
            metavar="URL",
            help="Local server that receives the events: a URL, a port (5000), a port and path (5000/webhook), a host"
            " and port (web:8000), or a path (/webhook on port 80). Default: only print events.",
        ),
    ] = None,
    events: Annotated[
        list[str] | None,
        typer.Option(
            "--events",
            metavar="TYPES",
            help="Event types and patterns such as movement.*, separated by commas. Default: all event types except"
            " operational ones.",
        ),
    ] = None,
    since_when: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="WHEN",
            help="Start in the past: a duration such as 15m, a timestamp (ISO 8601), or an event ID. With an event"
            " ID, the stream starts after this event.",
        ),
    ] = None,
    print_secret: Annotated[
        bool, typer.Option("--print-secret", help="Print the secret of your listen sessions and exit.")
    ] = False,
    show_secret: Annotated[
        bool,
        typer.Option(
            "--show-secret",
            help="Show the secret even in a pipe, in CI or with --json. Default: show it only on a terminal.",
        ),
    ] = False,
    exit_on_disconnect: Annotated[
        str | None,
        typer.Option(
            "--exit-on-disconnect",
            metavar="DURATION",
            help="Exit with code 75 after this time (such as 2m) without a connection. Default: reconnect without a"
            " limit.",
        ),
    ] = None,
    duplicate: Annotated[bool, typer.Option("--duplicate", help="Forward every event twice.")] = False,
    shuffle: Annotated[bool, typer.Option("--shuffle", help="Forward waiting events in random order.")] = False,
    fail: Annotated[
        str,
        typer.Option(
            "--fail",
            metavar="SHARE",
            help="Treat this percentage of events as failed, and forward them again. Example: 20%.",
        ),
    ] = "0%",
) -> None:
    """Forward events to a local server, without a public URL.

    The local server receives the same bytes and headers as an endpoint, signed with the secret of your API key. The
    command forwards one event at a time, in order. After a lost connection, the command reconnects and continues with
    the next event. An event that it forwards again has the header x-uplift-redelivered: true.

    The API key needs the scope `listen`. The command does not affect your endpoints or other sessions. To test
    idempotency, use --duplicate, --shuffle and --fail. Ctrl-C stops the command with exit code 0.
    """
    target = _option("--forward-to", read_target, forward_to)
    timing = Timing(give_up_seconds=_option("--exit-on-disconnect", duration_seconds, exit_on_disconnect))
    mischief = Mischief(duplicate, shuffle, _option("--fail", share, fail) or 0.0)
    if target is None and (duplicate or shuffle or mischief.fail):
        cause = "--duplicate, --shuffle and --fail require --forward-to"
        raise CliError(cause, "add --forward-to with the URL of your local server", ExitCode.USAGE)
    types = [name.strip() for each in events or () for name in each.split(",") if name.strip()]
    with _stopped_by_signals():
        calls = session.calls()
        # Compute the start time only once, because a later session that replaces this one may need the same start time.
        start = None if since_when is None else since(since_when, datetime.now(timezone.utc))
        made = _session(calls, types, start)
        try:
            if print_secret:
                if session.output.as_json:
                    session.output.json({"secret": made["secret"]})
                else:
                    session.output.line(made["secret"])
                return
            narration = Narration(session.output, made, target, show_secret=show_secret)
            begun: Mapping[str, int] = {}
            while expired := asyncio.run(_listen(calls, made, target, narration, timing, mischief, begun)):
                session.output.state("The session expired. A new session continues with the next event.")
                begun = expired.begun
                start = expired.behind or start or made["created_at"]
                made = _session(calls, types, start)
                narration = Narration(session.output, made, target, show_secret=show_secret)
        except Ended as ended:
            raise _explained(calls, made, ended) from ended
        finally:
            _end(calls, made)


async def _listen(
    calls: Calls,
    made: dict[str, Any],
    target: Target | None,
    narration: Narration,
    timing: Timing,
    mischief: Mischief,
    begun: Mapping[str, int],
) -> Expired | None:
    """Forward events until a signal arrives.

    Return Expired if a new session must replace this session. Raises Ended if the session ended for another reason.
    """
    address = Address(calls.api_url, made["id"], {"authorization": f"Bearer {calls.api_key}"})
    taker: Handover | Printed = Printed()
    if target is not None:
        taker = Handover(
            LocalServer(target, timeout_seconds=LOCAL_TIMEOUT_SECONDS),
            made["secret"],
            narration,
            docs_url=f"{calls.api_url}/docs",
            unreachable_seconds=UNREACHABLE_SECONDS_MAX,
        )
        await taker.probe()
    listener = Listener(address, taker, narration, timing=timing, mischief=mischief, begun=begun)
    listening = asyncio.ensure_future(listener.run())
    loop = asyncio.get_running_loop()
    with _on_signals(lambda: loop.call_soon_threadsafe(listening.cancel)):
        try:
            await listening
        except asyncio.CancelledError:
            return None
        except Expired as expired:
            return expired
    raise AssertionError


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """End only the block, not the program, on Ctrl-C and SIGTERM."""

    def stop() -> None:
        raise KeyboardInterrupt

    with suppress(KeyboardInterrupt), _on_signals(stop):
        yield


@contextmanager
def _on_signals(act: Callable[[], object]) -> Iterator[None]:
    """Call `act` on Ctrl-C and SIGTERM in the block, and restore the previous handlers after the block.

    Handlers that asyncio sets are not enough: when a loop closes, asyncio restores the system's handlers, which end the
    program with code 143.
    """

    def handle(_number: int, _frame: FrameType | None) -> None:
        act()

    before: list[tuple[signal.Signals, Any]] = []
    try:
        # Only the main thread can set signal handlers. Tests call this function from other threads.
        with suppress(ValueError):
            # Under nohup, the command keeps ignoring SIGHUP.
            numbers = [
                each for each in _SIGNALS if each.name != "SIGHUP" or signal.getsignal(each) is not signal.SIG_IGN
            ]
            before.extend((number, signal.signal(number, handle)) for number in numbers)
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _session(calls: Calls, types: list[str], start: str | None) -> dict[str, Any]:
    body: dict[str, object] = {"description": machine_name()}
    if types:
        body["event_types"] = types
    if start is not None:
        body["since"] = start
    try:
        with options(event_types="--events", since="--since"):
            made: dict[str, Any] = calls.post(_SESSIONS, body)
    except CallRejected as error:
        if error.fields.get("event_types") == "event_type_unknown":
            raise unknown_type(calls, _written(types, error), groups_too=True) from error
        if "since" in error.fields:
            error.remedy = "set --since to a duration such as 15m, a timestamp, or an event ID"
        raise
    return made


def _written(types: list[str], error: CallRejected) -> str:
    """Return the unknown event type that the error names, as the user entered it."""
    return next((each for each in types if f" {each}." in error.cause), types[0])


def _explained(calls: Calls, made: dict[str, Any], ended: Ended) -> CliError:
    """Return the error to report when the session has ended. If the cause is unknown, ask the server."""
    if ended.unknown:
        try:
            calls.get(f"{_SESSIONS}/{segment(made['id'])}")
        except CallRejected as error:
            if error.code is ExitCode.NOT_ALLOWED:
                return error
        except CliError:
            pass
    return CliError(ended.cause, ended.remedy, ended.code)


def _end(calls: Calls, made: dict[str, Any]) -> None:
    """Delete the session. If this call fails, the server deletes the session after 1 day without a connection."""
    with suppress(CliError), closing(Calls(calls.api_url, calls.api_key, calls.advice, timeout_seconds=3)) as hasty:
        hasty.delete(f"{_SESSIONS}/{segment(made['id'])}")


def _option(name: str, read: Any, text: str | None) -> Any:
    if text is None:
        return None
    try:
        return read(text)
    except ValueError as error:
        raise CliError(f"{name} is not valid: {error}", f"correct {name}", ExitCode.USAGE) from error
