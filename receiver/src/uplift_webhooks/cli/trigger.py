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
    """Add the command of this module to the program."""
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
        str | None, typer.Argument(metavar="TYPE", help="An event type; if absent, one that is wanted there.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", help="Send it to this endpoint: id or unique beginning of it.")
    ] = None,
    listen_session: Annotated[
        str | None,
        typer.Option("--session", help="Send it to this listen session: id or unique beginning of it."),
    ] = None,
) -> None:
    """Send the catalog's example of an event type, and say what came of it.

    It goes to the `uplift listen` that was started last, on this machine if there is one, and to nobody else.
    """
    if endpoint is not None and listen_session is not None:
        raise CliError("--endpoint and --session name two receivers", "give one of them", ExitCode.USAGE)
    calls = session.calls()
    if endpoint is not None:
        send_test(session, calls, endpoint, event_type)
        return
    chosen = _session(calls, listen_session)
    with known_type(calls, event_type), options(type="TYPE"):
        path = f"{_PATH}/{segment(chosen['id'])}/test"
        tested = calls.post(path, {} if event_type is None else {"type": event_type})
    if tested.get("answer") is None:
        session.output.note(f"No answer yet: waiting for up to {TEST_SECONDS_MAX:.0f} s")
        tested = {**tested, "answer": _answer(calls, chosen["id"], tested["event"])}
    session.output.streams = True
    session.output.fields({"session": chosen["id"], **tested})
    _judge(tested)


def _session(calls: Calls, text: str | None) -> dict[str, Any]:
    """Return the session that the user means: the newest connected one, preferably of this machine. Raises CliError."""
    if text is not None:
        return find(calls, _PATH, "listen session", "lsn_", text)
    found = [each for each in calls.items(_PATH, limit=_SESSIONS_SEARCHED) if each.get("connected")]
    if not found:
        remedy = "start `uplift listen`, or name an endpoint with --endpoint"
        raise CliError("no listen session is connected", remedy, ExitCode.NOT_FOUND)
    return next((each for each in found if each.get("description") == machine_name()), found[0])


def _answer(calls: Calls, session_id: str, event: str) -> dict[str, Any] | None:
    """Return the local server's response if it takes longer than the API waits; None after a timeout."""
    path = f"{_PATH}/{segment(session_id)}/answers"
    until = time.monotonic() + TEST_SECONDS_MAX
    while time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
        for each in calls.items(path, limit=_ANSWERS_SEARCHED):
            if each["event"] == event:
                return each
    return None


def _judge(tested: dict[str, Any]) -> None:
    """Return if the local server accepted the event. Raises CliError."""
    answer = tested.get("answer")
    if answer is None:
        raise CliError(
            f"there was no answer within {TEST_SECONDS_MAX:.0f} s",
            "look at what `uplift listen` says, and at your server",
        )
    status = answer.get("status_code")
    # A session without a local server reports that.
    if status is None and answer.get("error") != ONLY_PRINTED:
        raise CliError(str(answer.get("error") or "your server gave no answer"), "start or mend your server")
    if status is not None and not 200 <= status <= 299:
        if status in SECRET_DOUBTED:
            raise CliError(f"your server answered {status}", DOUBT_HINT)
        raise CliError(f"your server answered {status}", "mend your server: only 200 to 299 are success")
