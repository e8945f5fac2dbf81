"""`uplift endpoints`: manage endpoints and show their health."""

from typing import Annotated, Any, Final

import typer

from uplift_webhooks.cli import secrets
from uplift_webhooks.cli.kit.calls import Calls, segment
from uplift_webhooks.cli.kit.endpoint_auth import with_auth_changes, with_auth_options
from uplift_webhooks.cli.kit.endpoint_settings import (
    ENDPOINT_OPTIONS,
    NewDescription,
    NewTypes,
    NewUrl,
    endpoint_body,
    endpoint_changes,
    with_setting_options,
)
from uplift_webhooks.cli.kit.filters import (
    Filter,
    PreviewedFilter,
    PreviewedTypes,
    PreviewLimit,
    preview_filter,
)
from uplift_webhooks.cli.kit.inputs import (
    Cause,
    Description,
    Held,
    Limit,
    Metadata,
    Paused,
    State,
    Text,
    Uid,
)
from uplift_webhooks.cli.kit.lookup import find, find_type, known_type
from uplift_webhooks.cli.kit.program import add, noun
from uplift_webhooks.cli.kit.rejections import options
from uplift_webhooks.cli.kit.tables import Column
from uplift_webhooks.cli.kit.views import endpoint_row, show_check, show_endpoint, show_test
from uplift_webhooks.cli.session import Session, command

_PATH: Final = "/v1/endpoints"
_COLUMNS: Final = [
    Column("id", "ENDPOINT"),
    Column("url", "URL", gives=True, dropped=1),
    Column("state", "STATE"),
    Column("health", "HEALTH", dropped=2),
    Column("event_types", "TYPES", gives=True, dropped=3),
]

Endpoint = Annotated[str, typer.Argument(metavar="ENDPOINT", help="ID or uid of the endpoint, or a unique ID prefix.")]
TestType = Annotated[
    str | None,
    typer.Option("--type", metavar="TYPE", help="Event type. Default: a type that the endpoint is subscribed to."),
]


def register(app: typer.Typer) -> None:
    """Add the `endpoints` commands to the program."""
    group = noun("List, show, create, update, test, verify, pause, enable and delete endpoints.")
    add(app, "endpoints", group)
    command(group, "list", examples=("uplift endpoints", "uplift endpoints list --state failing --cause dns"))(
        list_endpoints
    )
    command(group, "show", examples=("uplift endpoints ep_0197f0c2",))(show)
    command(
        group,
        "create",
        examples=("uplift endpoints create https://rapids.example/uplift --type 'movement.*'",),
    )(with_setting_options(with_auth_options(create)))
    command(
        group,
        "update",
        examples=("uplift endpoints update ep_0197f0c2 --url https://rapids.example/hooks --max-in-flight 4",),
    )(with_setting_options(with_auth_changes(update)))
    command(
        group,
        "preview-filter",
        examples=("""uplift endpoints preview-filter '{"object": {"movement": ["pitching"]}}' --type 'movement.*'""",),
    )(preview)
    command(group, "pause", examples=("uplift endpoints pause ep_0197f0c2",))(pause)
    command(
        group,
        "enable",
        examples=("uplift endpoints enable ep_0197f0c2", "uplift endpoints enable ep_0197f0c2 --held drop"),
    )(enable)
    command(group, "delete", examples=("uplift endpoints delete ep_0197f0c2 --yes",))(delete)
    secrets.register(group)
    command(group, "test", examples=("uplift endpoints test ep_0197f0c2 --type athlete.created",))(run_test)
    command(group, "verify", examples=("uplift endpoints verify ep_0197f0c2",))(verify)


def list_endpoints(
    session: Session,
    state: State = None,
    event_type: Annotated[
        list[str] | None,
        typer.Option("--type", metavar="TYPE", help="Only endpoints that are subscribed to this event type."),
    ] = None,
    text: Text = None,
    cause: Cause = None,
    limit: Limit = 50,
) -> None:
    """List endpoints, newest first."""
    calls = session.calls()
    with options(state="--state", event_type="--type", text="--text", cause="--cause"):
        for name in event_type or ():
            find_type(calls, name)
        found = calls.items(_PATH, limit=limit, state=state, event_type=event_type, text=text, cause=cause)
        session.output.rows(
            found if session.output.as_json else map(endpoint_row, found),
            _COLUMNS,
            empty="No matching endpoints. To list all: uplift endpoints"
            if state or event_type or text or cause
            else "No endpoints yet. To create one: uplift endpoints create URL",
        )


def show(session: Session, endpoint: Endpoint) -> None:
    """Show an endpoint with its health."""
    session.output.streams = True
    show_endpoint(session.output, find(session.calls(), _PATH, "endpoint", "ep_", endpoint))


def create(
    session: Session,
    url: Annotated[
        str, typer.Argument(metavar="URL", help="URL of the endpoint: HTTPS, or HTTP on an allowed private network.")
    ],
    event_types: Annotated[
        list[str] | None,
        typer.Option(
            "--type",
            metavar="TYPE",
            help="Event type, or a pattern such as movement.*. Repeatable. Default: all event types except operational"
            " ones.",
        ),
    ] = None,
    description: Description = "",
    uid: Uid = None,
    metadata: Metadata = None,
    filter_text: Filter = None,
    paused: Paused = False,
    **settings: Any,
) -> None:
    """Create an endpoint and print its secret.

    The server sends the endpoint a registration event (webhook.created).
    """
    calls = session.calls()
    body = endpoint_body(url, event_types, description, uid, metadata, filter_text, paused, settings)
    with options(url="the URL", event_types="--type", **ENDPOINT_OPTIONS):
        show_endpoint(session.output, calls.post(_PATH, body))
    session.output.note("Set UPLIFT_WEBHOOK_SECRET on your server to this secret. The dashboard also shows it.")


def update(
    session: Session,
    endpoint: Endpoint,
    url: NewUrl = None,
    event_types: NewTypes = None,
    description: NewDescription = None,
    uid: Uid = None,
    metadata: Metadata = None,
    filter_text: Filter = None,
    **settings: Any,
) -> None:
    """Update an endpoint. If you omit an option, its field stays unchanged."""
    body = endpoint_changes(url, event_types, description, uid, metadata, filter_text, settings)
    calls = session.calls()
    with options(url="--url", event_types="--type", **ENDPOINT_OPTIONS):
        show_endpoint(session.output, calls.patch(_place(calls, endpoint), body))


def preview(
    session: Session, pattern: PreviewedFilter, event_types: PreviewedTypes = None, limit: PreviewLimit = 20
) -> None:
    """Show which of the newest events match a filter.

    For each event that does not match, the output names the first path that does not match.
    """
    preview_filter(session.output, session.calls(), pattern, event_types, limit)


def pause(session: Session, endpoint: Endpoint) -> None:
    """Pause an endpoint.

    The server holds the endpoint's pending and new deliveries until you enable the endpoint.
    """
    calls = session.calls()
    # The API error for a disabled endpoint names the field `held`, which is the option --held in commands.
    with options(held="--held"):
        show_endpoint(session.output, calls.post(f"{_place(calls, endpoint)}/pause"))


def enable(
    session: Session,
    endpoint: Endpoint,
    held: Held = "send",
) -> None:
    """Enable a paused or disabled endpoint.

    The command resets the endpoint's health and applies --held to the held deliveries. If the endpoint is already
    enabled, the command applies --held only to deliveries that are still held after an earlier `--held keep`.
    """
    calls = session.calls()
    with options(held="--held"):
        show_endpoint(session.output, calls.post(f"{_place(calls, endpoint)}/enable", {"held": held}))


def delete(
    session: Session,
    endpoint: Endpoint,
    yes: Annotated[bool, typer.Option("--yes", help="Delete the endpoint instead of showing it.")] = False,
) -> None:
    """Delete an endpoint and cancel its pending and held deliveries.

    You cannot undo the deletion. Without --yes, the command only shows the endpoint.
    """
    calls = session.calls()
    found = find(calls, _PATH, "endpoint", "ep_", endpoint)
    if not yes:
        show_endpoint(session.output, found)
        session.output.note("To delete this endpoint, repeat the command with --yes.")
        return
    calls.delete(f"{_PATH}/{segment(found['id'])}")
    session.output.fields({"id": found["id"], "deleted": True})


def run_test(session: Session, endpoint: Endpoint, event_type: TestType = None) -> None:
    """Send a test event to an endpoint and show the attempt.

    You can test an endpoint in any state. A test never affects the endpoint's health. The exit code is 0 if the
    endpoint accepts the event, and 1 otherwise.
    """
    send_test(session, session.calls(), endpoint, event_type)


def verify(session: Session, endpoint: Endpoint) -> None:
    """Check that your server verifies signatures.

    The server sends a test event with a wrong signature, then one with a valid signature. The exit code is 0 if your
    server rejects the first and accepts the second, and 1 otherwise.
    """
    calls = session.calls()
    show_check(session.output, calls.post(f"{_place(calls, endpoint)}/verify"))


def send_test(session: Session, calls: Calls, endpoint: str, event_type: str | None) -> None:
    """Send a test event to an endpoint and print the attempt. Raises CliError if the attempt failed."""
    path = _place(calls, endpoint)
    with known_type(calls, event_type), options(type="the event type"):
        answer = calls.post(f"{path}/test", {} if event_type is None else {"type": event_type})
    session.output.streams = True
    show_test(session.output, calls, answer, "uplift")


def _place(calls: Calls, endpoint: str) -> str:
    """Return the API path of the endpoint that the user named."""
    return f"{_PATH}/{segment(find(calls, _PATH, 'endpoint', 'ep_', endpoint)['id'])}"
