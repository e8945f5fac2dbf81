"""`uplift listen`: a listen session for the developer's local server."""

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
"""The timeout of Uplift's attempts."""
UNREACHABLE_SECONDS_MAX: Final = 30.0
"""How long an event waits for an unreachable local server."""
_SESSIONS: Final = "/v1/listen-sessions"
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def register(app: typer.Typer) -> None:
    """Add the command of this module to the program."""
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
            help="Your server: a URL, 5000, 5000/webhook, or /webhook. Without it, events are only printed.",
        ),
    ] = None,
    events: Annotated[
        list[str] | None,
        typer.Option(
            "--events", metavar="TYPES", help="Event types and group.*, with commas between. Without it, all."
        ),
    ] = None,
    since_when: Annotated[
        str | None,
        typer.Option("--since", metavar="WHEN", help="Begin 15m ago, at an instant, or behind an event (its id)."),
    ] = None,
    print_secret: Annotated[
        bool, typer.Option("--print-secret", help="Print the secret that events are signed with here, and end.")
    ] = False,
    show_secret: Annotated[
        bool, typer.Option("--show-secret", help="Tell the secret also where what is told may be kept: logs, --json.")
    ] = False,
    exit_on_disconnect: Annotated[
        str | None,
        typer.Option("--exit-on-disconnect", metavar="DURATION", help="End with 75 after so long without connection."),
    ] = None,
    duplicate: Annotated[bool, typer.Option("--duplicate", help="Hand every event over twice.")] = False,
    shuffle: Annotated[bool, typer.Option("--shuffle", help="Change the order of events that wait.")] = False,
    fail: Annotated[
        str, typer.Option("--fail", metavar="SHARE", help="Take 20% of events for failed, and retry them a bit later.")
    ] = "0%",
) -> None:
    """Get events on this machine, without a public URL, as endpoints get them: exact bytes, signed, in order.

    Events that come while the connection is lost are handed over when it is back. Ctrl-C ends it.
    """
    target = _option("--forward-to", read_target, forward_to)
    timing = Timing(give_up_seconds=_option("--exit-on-disconnect", duration_seconds, exit_on_disconnect))
    mischief = Mischief(duplicate, shuffle, _option("--fail", share, fail) or 0.0)
    if target is None and (duplicate or shuffle or mischief.fail):
        cause = "--duplicate, --shuffle and --fail are about a server of yours, and none is named"
        raise CliError(cause, "name it with --forward-to", ExitCode.USAGE)
    types = [name.strip() for each in events or () for name in each.split(",") if name.strip()]
    with _stopped_by_signals():
        calls = session.calls()
        # Read once: without progress, a replacing session starts where this one did.
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
                session.output.state("The session has expired: another one goes on where it was")
                begun = expired.begun
                made = _session(calls, types, expired.behind or start or made["created_at"])
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
    """Listen until a signal, or until the session must be replaced. Raises Ended."""
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
    """Let Ctrl-C and SIGTERM end only the block."""

    def stop() -> None:
        raise KeyboardInterrupt

    with suppress(KeyboardInterrupt), _on_signals(stop):
        yield


@contextmanager
def _on_signals(act: Callable[[], object]) -> Iterator[None]:
    """Handle Ctrl-C and SIGTERM in the block, and restore the previous handlers.

    When a loop closes, asyncio's handlers restore the system's, which end the program with 143.
    """

    def handle(_number: int, _frame: FrameType | None) -> None:
        act()

    before: list[tuple[signal.Signals, Any]] = []
    try:
        # Only the main thread can set signal handlers. Tests call this from others.
        with suppress(ValueError):
            before.extend((number, signal.signal(number, handle)) for number in _SIGNALS)
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _session(calls: Calls, types: list[str], start: str | None) -> dict[str, Any]:
    """Create a session. Raises CliError."""
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
            error.remedy = "give --since a duration such as 15m, an instant, or the id of an event"
        raise
    return made


def _written(types: list[str], error: CallRejected) -> str:
    """Return an unknown type as the user wrote it."""
    return next((each for each in types if f" {each}." in error.cause), types[0])


def _explained(calls: Calls, made: dict[str, Any], ended: Ended) -> CliError:
    """Return why the session ended, and whether its key was revoked."""
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
    """End the session. If the server does not respond, it deletes the session within a day."""
    with suppress(CliError), closing(Calls(calls.api_url, calls.api_key, calls.advice, timeout_seconds=3)) as hasty:
        hasty.delete(f"{_SESSIONS}/{segment(made['id'])}")


def _option(name: str, read: Any, text: str | None) -> Any:
    """Parse an option's value. Raises CliError."""
    if text is None:
        return None
    try:
        return read(text)
    except ValueError as error:
        raise CliError(f"{name} cannot be used: {error}", f"correct {name}", ExitCode.USAGE) from error
