"""`uplift endpoints`: where events go."""

import time
from typing import Annotated, Any, Final

import typer

from uplift_webhooks.cli.kit.calls import Calls, segment
from uplift_webhooks.cli.kit.errors import CliError
from uplift_webhooks.cli.kit.lookup import find, known_type
from uplift_webhooks.cli.kit.rejections import options
from uplift_webhooks.cli.kit.tables import Column
from uplift_webhooks.cli.nouns import Limit, noun
from uplift_webhooks.cli.session import Session, command

LOOK_SECONDS: Final = 0.5
"""How often a test that takes longer is looked at."""
TEST_SECONDS_MAX: Final = 60.0
"""How long it is waited for: four times what an attempt may take by default."""
_PATH: Final = "/v1/endpoints"
_COLUMNS: Final = [
    Column("id", "ENDPOINT"),
    Column("url", "URL", gives=True, dropped=1),
    Column("state", "STATE"),
    Column("health", "HEALTH", dropped=2),
    Column("event_types", "TYPES", gives=True, dropped=3),
]

Endpoint = Annotated[str, typer.Argument(help="Id or unique beginning of it.")]
TriedType = Annotated[str | None, typer.Option("--type", help="An event type; if absent, one that the endpoint wants.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    group = noun(app, "endpoints", "Where events go, and how that fares.")
    command(group, "list", examples=("uplift endpoints", "uplift endpoints list --state failing --text rapids"))(
        list_endpoints
    )
    command(group, "show", examples=("uplift endpoints ep_0197f0c2",))(show)
    command(
        group,
        "create",
        examples=("uplift endpoints create https://rapids.example/uplift --type 'movement.*'",),
    )(create)
    command(group, "pause", examples=("uplift endpoints pause ep_0197f0c2",))(pause)
    command(
        group,
        "enable",
        examples=("uplift endpoints enable ep_0197f0c2", "uplift endpoints enable ep_0197f0c2 --held drop"),
    )(enable)
    command(group, "test", examples=("uplift endpoints test ep_0197f0c2 --type athlete.created",))(try_out)


def list_endpoints(
    session: Session,
    state: Annotated[
        str | None,
        typer.Option(
            "--state",
            metavar="enabled|paused|disabled|failing",
            help="Only those in this state; failing: enabled ones whose last attempt failed.",
        ),
    ] = None,
    text: Annotated[str | None, typer.Option("--text", help="Only those with this in URL or description.")] = None,
    limit: Limit = 50,
) -> None:
    """List endpoints."""
    with options(state="--state", text="--text"):
        found = session.calls().items(_PATH, limit=limit, state=state, text=text)
        session.output.rows(
            found if session.output.as_json else map(_row, found),
            _COLUMNS,
            empty="No endpoints like that. All there are: uplift endpoints"
            if state or text
            else "No endpoints yet. Create one: uplift endpoints create URL",
        )


def show(session: Session, endpoint: Endpoint) -> None:
    """Show an endpoint and its health."""
    session.output.streams = True
    _print(session, find(session.calls(), _PATH, "endpoint", "ep_", endpoint))


def create(
    session: Session,
    url: Annotated[str, typer.Argument(help="Where to send: https, unless the server allows private networks.")],
    event_types: Annotated[
        list[str] | None, typer.Option("--type", help="Event type or group.*; repeatable. Without it, all.")
    ] = None,
    description: Annotated[str, typer.Option("--description", help="What people should know about it.")] = "",
) -> None:
    """Create an endpoint, and print its secret once."""
    calls = session.calls()
    body: dict[str, object] = {"url": url, "event_types": event_types or []}
    if description:
        body["description"] = description
    with options(url="the URL", event_types="--type", description="--description"):
        _print(session, calls.post(_PATH, body))
    session.output.note("Give the secret to your server, as UPLIFT_WEBHOOK_SECRET; it is not shown again here.")


def pause(session: Session, endpoint: Endpoint) -> None:
    """Send nothing more to an endpoint; what is pending and what comes is held."""
    calls = session.calls()
    # A refusal to pause says how to enable.
    with options(held="--held"):
        _print(session, calls.post(f"{_place(calls, endpoint)}/pause"))


def enable(
    session: Session,
    endpoint: Endpoint,
    held: Annotated[
        str,
        typer.Option(
            "--held",
            metavar="send|drop|keep",
            help="What becomes of what it holds: sent in order, cancelled, or held on.",
        ),
    ] = "send",
) -> None:
    """Let an endpoint get deliveries again, and say what becomes of what it holds."""
    calls = session.calls()
    with options(held="--held"):
        _print(session, calls.post(f"{_place(calls, endpoint)}/enable", {"held": held}))


def try_out(session: Session, endpoint: Endpoint, event_type: TriedType = None) -> None:
    """Send one event to an endpoint, now, whatever its state, and show what comes of it."""
    send_test(session, session.calls(), endpoint, event_type)


def send_test(session: Session, calls: Calls, endpoint: str, event_type: str | None) -> None:
    """Test an endpoint, and print the attempt. Raises CliError where it failed."""
    path = _place(calls, endpoint)
    with known_type(calls, event_type), options(type="the event type"):
        answer = calls.post(f"{path}/test", {} if event_type is None else {"type": event_type})
    attempt = _attempt(calls, answer)
    session.output.streams = True
    session.output.fields(attempt)
    if attempt["outcome"] != "delivered":
        hint = attempt.get("hint") or "look at the endpoint's deliveries"
        raise CliError(f"the endpoint did not take it: {attempt['outcome']}", hint)


def _attempt(calls: Calls, answer: dict[str, Any]) -> dict[str, Any]:
    """The attempt of a test; where that takes longer than an answer, the delivery is looked at until it is over."""
    if "outcome" in answer:
        return answer
    path = f"/v1/deliveries/{segment(answer['id'])}"
    until = time.monotonic() + TEST_SECONDS_MAX
    while calls.get(path)["status"] == "pending" and time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
    for attempt in calls.items(f"{path}/attempts", limit=1):
        return attempt
    raise CliError("the attempt has not ended, or was cut off", f"look later: uplift deliveries {answer['id']}")


def _place(calls: Calls, endpoint: str) -> str:
    """The path of the endpoint a person means."""
    return f"{_PATH}/{segment(find(calls, _PATH, 'endpoint', 'ep_', endpoint)['id'])}"


def _row(endpoint: dict[str, Any]) -> dict[str, Any]:
    """An endpoint as a line of a table."""
    health = endpoint.get("health")
    status = health.get("status") if isinstance(health, dict) else None
    return {**endpoint, "health": status, "event_types": endpoint.get("event_types") or "all"}


def _print(session: Session, endpoint: dict[str, Any]) -> None:
    """One endpoint in full; for people its health in a block of its own, at the end."""
    if session.output.as_json:
        session.output.json(endpoint)
        return
    shown = {name: value for name, value in endpoint.items() if name != "health"}
    session.output.fields({**shown, "event_types": endpoint.get("event_types") or "all"})
    session.output.fields({"health": endpoint.get("health")})
