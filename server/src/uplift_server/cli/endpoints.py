"""Commands that manage endpoints."""

from typing import Annotated, Any, Final

import typer

from uplift_server.cli import lookup
from uplift_server.cli.accounts import Account, AnyAccount, Wide
from uplift_server.cli.reach import reach, remedy_to_send
from uplift_server.cli.session import Session, command
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
from uplift_webhooks.cli.kit.errors import CliError, ExitCode
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
from uplift_webhooks.cli.kit.program import add, noun
from uplift_webhooks.cli.kit.rejections import options
from uplift_webhooks.cli.kit.tables import Column
from uplift_webhooks.cli.kit.views import endpoint_row, show_check, show_endpoint, show_test

endpoint_app: Final = noun("List, show, create, update, test, verify, pause, enable, disable and delete endpoints.")

Endpoint = Annotated[str, typer.Argument(metavar="ENDPOINT", help="ID or uid of the endpoint, or a unique ID prefix.")]


def register(app: typer.Typer) -> None:
    """Add the `endpoints` commands to the program."""
    add(app, "endpoints", endpoint_app, former="endpoint")


@command(
    endpoint_app,
    "list",
    examples=(
        "uplift-server endpoints",
        "uplift-server endpoints list --state failing --text rapids",
        "uplift-server endpoints list --cause dns",
    ),
)
def list_endpoints(
    session: Session,
    state: State = None,
    text: Text = None,
    cause: Cause = None,
    account: AnyAccount = None,
    limit: Limit = 50,
    wide: Wide = False,
) -> None:
    """List endpoints, newest first."""
    with reach(session.config()) as client, options(state="--state", text="--text", cause="--cause"):
        owner = lookup.owner(client, account)
        found = client.items("/v1/endpoints", limit=limit, account=owner, state=state, text=text, cause=cause)
        filtered = "No matching endpoints. To list all: uplift-server endpoints"
        session.output.rows(
            found if session.output.as_json else map(endpoint_row, found),
            [
                Column("id", "ENDPOINT", "id"),
                Column("url", "URL", gives=True),
                Column("state", "STATE"),
                Column("health", "HEALTH"),
                Column("event_types", "TYPES", folds=True),
            ],
            empty=filtered
            if state or text or cause
            else "No endpoints yet. To create one: uplift-server endpoints create URL --account ACCOUNT",
            wide=wide,
        )


@command(endpoint_app, "show", examples=("uplift-server endpoints ep_0197f0c2",))
def show(session: Session, endpoint: Endpoint, account: AnyAccount = None) -> None:
    """Show an endpoint with its health."""
    with reach(session.config()) as client:
        found = lookup.endpoint(client, endpoint, lookup.owner(client, account))
    session.output.streams = True
    show_endpoint(session.output, found)


@command(
    endpoint_app,
    "create",
    examples=(
        "uplift-server endpoints create https://rapids.example/uplift --account acc_0197f0c2",
        "uplift-server endpoints create https://rapids.example/uplift --account acc_0197f0c2 --type 'movement.*'",
    ),
)
@with_setting_options
@with_auth_options
def create_endpoint(
    session: Session,
    url: Annotated[
        str, typer.Argument(metavar="URL", help="URL of the endpoint: HTTPS, or HTTP on an allowed private network.")
    ],
    account: Account,
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

    The server sends the endpoint a registration event (webhook.created) immediately.
    """
    body = endpoint_body(url, event_types, description, uid, metadata, filter_text, paused, settings)
    types = "--type (`uplift-server event-types` lists them)"
    with (
        reach(session.config()) as client,
        options(url="the URL", event_types=types, **ENDPOINT_OPTIONS),
    ):
        owner = lookup.account(client, account)["id"]
        show_endpoint(session.output, client.post("/v1/endpoints", body, account=owner))
    session.output.note("The receiver needs the secret. To view it again: uplift-server endpoints secret show ENDPOINT")


@command(
    endpoint_app,
    "update",
    examples=("uplift-server endpoints update ep_0197f0c2 --url https://rapids.example/hooks --max-in-flight 4",),
)
@with_setting_options
@with_auth_changes
def update_endpoint(
    session: Session,
    endpoint: Endpoint,
    url: NewUrl = None,
    event_types: NewTypes = None,
    description: NewDescription = None,
    uid: Uid = None,
    metadata: Metadata = None,
    filter_text: Filter = None,
    account: AnyAccount = None,
    **settings: Any,
) -> None:
    """Update an endpoint. If you omit an option, its field stays unchanged."""
    body = endpoint_changes(url, event_types, description, uid, metadata, filter_text, settings)
    types = "--type (`uplift-server event-types` lists them)"
    with (
        reach(session.config()) as client,
        options(url="--url", event_types=types, **ENDPOINT_OPTIONS),
    ):
        path, owner = place(client, endpoint, account)
        show_endpoint(session.output, client.patch(path, body, account=owner))


@command(
    endpoint_app,
    "preview-filter",
    examples=(
        """uplift-server endpoints preview-filter '{"object": {"movement": ["pitching"]}}' --account acc_0197f0c2""",
    ),
)
def preview(
    session: Session,
    pattern: PreviewedFilter,
    account: Account,
    event_types: PreviewedTypes = None,
    limit: PreviewLimit = 20,
) -> None:
    """Show which of an account's newest events match a filter.

    For each event that does not match, the output names the first path that does not match.
    """
    with reach(session.config()) as client:
        owner = lookup.account(client, account)["id"]
        preview_filter(session.output, client, pattern, event_types, limit, owner)


@command(endpoint_app, "pause", examples=("uplift-server endpoints pause ep_0197f0c2",))
def pause_endpoint(session: Session, endpoint: Endpoint, account: AnyAccount = None) -> None:
    """Pause an endpoint.

    The server holds the endpoint's pending and new deliveries until you enable the endpoint.
    """
    _change(session, endpoint, account, "pause")


@command(
    endpoint_app,
    "enable",
    examples=("uplift-server endpoints enable ep_0197f0c2", "uplift-server endpoints enable ep_0197f0c2 --held drop"),
)
def enable_endpoint(
    session: Session,
    endpoint: Endpoint,
    held: Held = "send",
    account: AnyAccount = None,
) -> None:
    """Enable a paused or disabled endpoint.

    The command resets the endpoint's health and applies --held to the held deliveries. If the endpoint is already
    enabled, the command applies --held only to deliveries that are still held after an earlier `--held keep`.
    """
    _change(session, endpoint, account, "enable", {"held": held})


@command(endpoint_app, "disable", examples=("uplift-server endpoints disable ep_0197f0c2",))
def disable_endpoint(session: Session, endpoint: Endpoint, account: AnyAccount = None) -> None:
    """Disable an endpoint as an operator.

    The server holds the endpoint's pending and new deliveries. The account's members see that an operator disabled the
    endpoint.
    """
    _change(session, endpoint, account, "disable")


@command(
    endpoint_app,
    "test",
    examples=(
        "uplift-server endpoints test ep_0197f0c2",
        "uplift-server endpoints test ep_0197f0c2 --type athlete.created",
    ),
)
def send_test(
    session: Session,
    endpoint: Endpoint,
    event_type: Annotated[
        str | None,
        typer.Option("--type", metavar="TYPE", help="Event type. Default: a type that the endpoint is subscribed to."),
    ] = None,
    account: AnyAccount = None,
) -> None:
    """Send a test event to an endpoint and show the attempt.

    You can test an endpoint in any state. A test never affects the endpoint's health. The exit code is 0 if the
    endpoint accepts the event, and 1 otherwise. This command requires a running server.
    """
    config = session.config()
    with reach(config) as client:
        if not client.sends:
            raise CliError("a test requires a running server", remedy_to_send(config), ExitCode.TRY_LATER)
        path, owner = place(client, endpoint, account)
        with options(type="--type (`uplift-server event-types` lists them)"):
            answer = client.post(f"{path}/test", {} if event_type is None else {"type": event_type}, account=owner)
        show_test(session.output, client, answer, "uplift-server", owner)


@command(endpoint_app, "verify", examples=("uplift-server endpoints verify ep_0197f0c2",))
def verify(session: Session, endpoint: Endpoint, account: AnyAccount = None) -> None:
    """Check that an endpoint's server verifies signatures.

    The server sends a test event with a wrong signature, then one with a valid signature. The exit code is 0 if the
    endpoint rejects the first and accepts the second, and 1 otherwise. This command requires a running server.
    """
    config = session.config()
    with reach(config) as client:
        if not client.sends:
            raise CliError("a signature check requires a running server", remedy_to_send(config), ExitCode.TRY_LATER)
        path, owner = place(client, endpoint, account)
        show_check(session.output, client.post(f"{path}/verify", account=owner))


def _change(
    session: Session, endpoint: str, account: str | None, verb: str, body: dict[str, object] | None = None
) -> None:
    with reach(session.config()) as client:
        path, owner = place(client, endpoint, account)
        # The API error for a disabled endpoint names the field `held`, which is the option --held in commands.
        with options(held="--held"):
            show_endpoint(session.output, client.post(f"{path}/{verb}", body, account=owner))


def place(client: Calls, endpoint: str, account: str | None) -> tuple[str, str | None]:
    """Return the API path of an endpoint and the ID of its account."""
    owner = lookup.owner(client, account)
    found = lookup.endpoint(client, endpoint, owner)
    return f"/v1/endpoints/{segment(found['id'])}", owner or found.get("account")


@command(endpoint_app, "delete", examples=("uplift-server endpoints delete ep_0197f0c2 --yes",))
def delete_endpoint(
    session: Session,
    endpoint: Endpoint,
    account: AnyAccount = None,
    yes: Annotated[bool, typer.Option("--yes", help="Confirm the deletion.")] = False,
) -> None:
    """Delete an endpoint and cancel its pending and held deliveries.

    You cannot undo the deletion.
    """
    with reach(session.config()) as client:
        owner = lookup.owner(client, account)
        found = lookup.endpoint(client, endpoint, owner)
        if not yes:
            raise CliError(
                f"the command deletes {found['id']} ({found['url']}) and cancels its pending and held deliveries",
                "to confirm, repeat the command with --yes",
                ExitCode.USAGE,
            )
        client.delete(f"/v1/endpoints/{segment(found['id'])}", account=owner or found.get("account"))
        session.output.fields({"id": found["id"], "deleted": True})
