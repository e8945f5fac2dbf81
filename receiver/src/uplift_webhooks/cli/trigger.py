"""`uplift trigger`: send an example event to a listen session or an endpoint, and show the result."""

import time
from typing import Annotated, Any, Final

import typer

from uplift_webhooks.cli.endpoints import send_test
from uplift_webhooks.cli.kit.calls import Calls, segment
from uplift_webhooks.cli.kit.errors import CliError, ExitCode
from uplift_webhooks.cli.kit.lookup import find, known_type
from uplift_webhooks.cli.kit.rejections import options
from uplift_webhooks.cli.kit.views import LOOK_SECONDS, TEST_SECONDS_MAX
from uplift_webhooks.cli.listening.handover import ONLY_PRINTED
from uplift_webhooks.cli.listening.machine import machine_name
from uplift_webhooks.cli.narration import DOUBT_HINT, SECRET_DOUBTED
from uplift_webhooks.cli.session import Session, command

_PATH: Final = "/v1/listen-sessions"
_SESSIONS_SEARCHED: Final = 200
_ANSWERS_SEARCHED: Final = 200


def register(app: typer.Typer) -> None:
    """Add the `trigger` command to the program."""
    command(
        app,
        "trigger",
        examples=(
            "uplift trigger",
            "uplift trigger movement.analytics.created",
            "uplift trigger athlete.created --endpoint ep_0197f0c2",
        ),
    )(trigger)


def trigger(
    session: Session,
    event_type: Annotated[
        str | None,
        typer.Argument(
            metavar="TYPE", help="Event type. Default: a type that the endpoint or session is subscribed to."
        ),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option("--endpoint", metavar="ENDPOINT", help="Send to this endpoint: its ID or a unique ID prefix."),
    ] = None,
    listen_session: Annotated[
        str | None,
        typer.Option("--session", metavar="SESSION", help="Send to this listen session: its ID or a unique ID prefix."),
    ] = None,
) -> None:
    """Send a test event and show the response.

    The event is the catalog's example for the event type. By default, the server sends the event to the newest
    connected `uplift listen` session on this machine. If this machine has no session, the server sends the event to the
    newest session on any machine. The server does not store events for listen sessions.

    The command waits up to 60 seconds. The exit code is 0 if the receiver accepts the event, and 1 otherwise.
    """
    if endpoint is not None and listen_session is not None:
        raise CliError("--endpoint cannot be combined with --session", "omit one of these options", ExitCode.USAGE)
    calls = session.calls()
    if endpoint is not None:
        send_test(session, calls, endpoint, event_type)
        return
    chosen = _session(calls, listen_session)
    with known_type(calls, event_type), options(type="TYPE"):
        path = f"{_PATH}/{segment(chosen['id'])}/test"
        tested = calls.post(path, {} if event_type is None else {"type": event_type})
    if tested.get("answer") is None:
        session.output.note(f"No response yet: waiting up to {TEST_SECONDS_MAX:.0f} seconds")
        tested = {**tested, "answer": _answer(calls, chosen["id"], tested["event"])}
    session.output.streams = True
    session.output.fields({"session": chosen["id"], **tested})
    _judge(tested)


def _session(calls: Calls, text: str | None) -> dict[str, Any]:
    """Return the session with this ID.

    Without an ID, return the newest connected session on this machine, or on any machine if this machine has none.
    """
    if text is not None:
        how = "use the session ID that `uplift listen` prints, or omit --session"
        return find(calls, _PATH, "listen session", "lsn_", text, how=how)
    found = [each for each in calls.items(_PATH, limit=_SESSIONS_SEARCHED) if each.get("connected")]
    if not found:
        remedy = "run `uplift listen` in another terminal, or use --endpoint"
        raise CliError("no listen session is connected", remedy, ExitCode.NOT_FOUND)
    return next((each for each in found if each.get("description") == machine_name()), found[0])


def _answer(calls: Calls, session_id: str, event: str) -> dict[str, Any] | None:
    """Wait up to TEST_SECONDS_MAX for the local server's response to an event.

    Return the response, or None after the timeout. The API call that sends the event has a shorter timeout.
    """
    path = f"{_PATH}/{segment(session_id)}/answers"
    until = time.monotonic() + TEST_SECONDS_MAX
    while time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
        for each in calls.items(path, limit=_ANSWERS_SEARCHED):
            if each["event"] == event:
                return each
    return None


def _judge(tested: dict[str, Any]) -> None:
    """Raise CliError unless the local server accepted the event."""
    answer = tested.get("answer")
    if answer is None:
        raise CliError(
            f"your server did not respond within {TEST_SECONDS_MAX:.0f} seconds",
            "check the output of `uplift listen` and of your server",
        )
    status = answer.get("status_code")
    # ONLY_PRINTED is not a failure: a session without a local server reports this error for each event.
    if status is None and answer.get("error") != ONLY_PRINTED:
        raise CliError(
            str(answer.get("error") or "your server did not respond"),
            "start your server, or check its output for errors",
        )
    if status is not None and not 200 <= status <= 299:
        if status in SECRET_DOUBTED:
            raise CliError(f"your server responded with {status}", DOUBT_HINT)
        raise CliError(f"your server responded with {status}", "respond with a status code from 200 to 299")
