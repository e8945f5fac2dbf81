"""Commands for endpoints."""

from typing import Annotated, Final

import typer

from uplift_server.cli import lookup
from uplift_server.cli.accounts import Account, AnyAccount, Wide
from uplift_server.cli.reach import reach, remedy_to_send
from uplift_server.cli.session import Session, command
from uplift_webhooks.cli.kit.calls import Calls, segment
from uplift_webhooks.cli.kit.endpoint_settings import SETTING_OPTIONS, endpoint_body, with_setting_options
from uplift_webhooks.cli.kit.errors import CliError, ExitCode
from uplift_webhooks.cli.kit.inputs import Description, Held, Limit, State, Text
from uplift_webhooks.cli.kit.program import Group
from uplift_webhooks.cli.kit.rejections import options
from uplift_webhooks.cli.kit.tables import Column
from uplift_webhooks.cli.kit.views import endpoint_row, show_endpoint, show_test

endpoint_app: Final = typer.Typer(
    cls=Group,
    help="Create, test, pause, enable and delete endpoints; `uplift-server endpoints` lists and shows them.",
    no_args_is_help=True,
)

Endpoint = Annotated[str, typer.Argument(help="Id or unique beginning of it.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    app.add_typer(endpoint_app, name="endpoint")
    command(
        app,
        "endpoints",
        examples=(
            "uplift-server endpoints",
            "uplift-server endpoints --state failing --text rapids",
            "uplift-server endpoints ep_0197f0c2",
        ),
    )(endpoints)


def endpoints(
    session: Session,
    endpoint: Annotated[str | None, typer.Argument(help="Show this one: id or unique beginning of it.")] = None,
    state: State = None,
    text: Text = None,
    account: AnyAccount = None,
    limit: Limit = 50,
    wide: Wide = False,
) -> None:
    """List endpoints, or show one."""
    with reach(session.config()) as client, options(state="--state", text="--text"):
        owner = lookup.owner(client, account)
        if endpoint is not None:
            show_endpoint(session.output, lookup.endpoint(client, endpoint, owner))
            return
        found = client.items("/v1/endpoints", limit=limit, account=owner, state=state, text=text)
        filtered = "No endpoints like that. All there are: uplift-server endpoints"
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
            if state or text
            else "No endpoints yet. Create one: uplift-server endpoint create URL --account ACCOUNT",
            wide=wide,
        )


@command(
    endpoint_app,
    "create",
    examples=(
        "uplift-server endpoint create https://rapids.example/uplift --account acc_0197f0c2",
        "uplift-server endpoint create https://rapids.example/uplift --account acc_0197f0c2 --type 'movement.*'",
    ),
)
@with_setting_options
def create_endpoint(
    session: Session,
    url: Annotated[str, typer.Argument(help="Where to send: https, or http on a private network that is allowed.")],
    account: Account,
    event_types: Annotated[
        list[str] | None, typer.Option("--type", help="Event type or pattern such as movement.*; repeatable.")
    ] = None,
    description: Description = "",
    **settings: int | None,
) -> None:
    """Create an endpoint, and print its secret once."""
    body = endpoint_body(url, event_types, description, settings)
    types = "--type (`uplift-server event-types` lists them)"
    with (
        reach(session.config()) as client,
        options(url="the URL", event_types=types, description="--description", **SETTING_OPTIONS),
    ):
        owner = lookup.account(client, account)["id"]
        show_endpoint(session.output, client.post("/v1/endpoints", body, account=owner))
    session.output.note("Give the secret to the receiver; `uplift-server endpoint secret show` shows it again.")


@command(endpoint_app, "pause", examples=("uplift-server endpoint pause ep_0197f0c2",))
def pause_endpoint(session: Session, endpoint: Endpoint, account: AnyAccount = None) -> None:
    """Send nothing more to an endpoint; what is pending and what comes is held."""
    _change(session, endpoint, account, "pause")


@command(
    endpoint_app,
    "enable",
    examples=("uplift-server endpoint enable ep_0197f0c2", "uplift-server endpoint enable ep_0197f0c2 --held drop"),
)
def enable_endpoint(
    session: Session,
    endpoint: Endpoint,
    held: Held = "send",
    account: AnyAccount = None,
) -> None:
    """Let an endpoint get deliveries again, and say what becomes of what it holds."""
    _change(session, endpoint, account, "enable", {"held": held})


@command(endpoint_app, "disable", examples=("uplift-server endpoint disable ep_0197f0c2",))
def disable_endpoint(session: Session, endpoint: Endpoint, account: AnyAccount = None) -> None:
    """Switch an endpoint off as its operator; what is pending and what comes is held."""
    _change(session, endpoint, account, "disable")


@command(
    endpoint_app,
    "test",
    examples=(
        "uplift-server endpoint test ep_0197f0c2",
        "uplift-server endpoint test ep_0197f0c2 --type athlete.created",
    ),
)
def send_test(
    session: Session,
    endpoint: Endpoint,
    event_type: Annotated[
        str | None, typer.Option("--type", help="An event type; if absent, one that the endpoint wants.")
    ] = None,
    account: AnyAccount = None,
) -> None:
    """Send one event to an endpoint, now, whatever its state, and show what comes of it."""
    config = session.config()
    with reach(config) as client:
        if not client.sends:
            raise CliError("nothing is sent by this command itself", remedy_to_send(config), ExitCode.TRY_LATER)
        path, owner = place(client, endpoint, account)
        with options(type="--type (`uplift-server event-types` lists them)"):
            answer = client.post(f"{path}/test", {} if event_type is None else {"type": event_type}, account=owner)
        show_test(session.output, client, answer, "uplift-server", owner)


def _change(
    session: Session, endpoint: str, account: str | None, verb: str, body: dict[str, object] | None = None
) -> None:
    with reach(session.config()) as client:
        path, owner = place(client, endpoint, account)
        # The error of a rejected pause mentions `held`, too.
        with options(held="--held"):
            show_endpoint(session.output, client.post(f"{path}/{verb}", body, account=owner))


def place(client: Calls, endpoint: str, account: str | None) -> tuple[str, str | None]:
    """Return the API path of an endpoint, and its account."""
    owner = lookup.owner(client, account)
    found = lookup.endpoint(client, endpoint, owner)
    return f"/v1/endpoints/{segment(found['id'])}", owner or found.get("account")


@command(endpoint_app, "delete", examples=("uplift-server endpoint delete ep_0197f0c2",))
def delete_endpoint(session: Session, endpoint: Endpoint, account: AnyAccount = None) -> None:
    """Delete an endpoint; its pending deliveries are cancelled."""
    with reach(session.config()) as client:
        owner = lookup.owner(client, account)
        found = lookup.endpoint(client, endpoint, owner)
        client.delete(f"/v1/endpoints/{segment(found['id'])}", account=owner or found.get("account"))
        session.output.fields({"id": found["id"], "deleted": True})
