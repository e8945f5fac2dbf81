"""Commands that send, list, show and explain events."""

import json
from typing import Annotated, Any, Final

import typer

from uplift_server.cli import lookup
from uplift_server.cli.accounts import AnyAccount, Wide
from uplift_server.cli.event_files import send_file
from uplift_server.cli.reach import reach, when_sent
from uplift_server.cli.session import Session, command
from uplift_server.core.limits import EVENT_DATA_BYTES_MAX
from uplift_webhooks.cli.kit.calls import Calls, segment
from uplift_webhooks.cli.kit.errors import CliError, ExitCode
from uplift_webhooks.cli.kit.events import event_row, show_event
from uplift_webhooks.cli.kit.inputs import (
    DELIVERY_OPTIONS,
    After,
    Before,
    EventTypes,
    Limit,
    ObjectId,
    Test,
    input_name,
    read_input,
)
from uplift_webhooks.cli.kit.lookup import find_type, known_type, matching
from uplift_webhooks.cli.kit.program import add, noun
from uplift_webhooks.cli.kit.rejections import options
from uplift_webhooks.cli.kit.tables import Column

_COLUMNS: Final = [
    Column("id", "EVENT", "id"),
    Column("account", "ACCOUNT", "id", dropped=2),
    Column("type", "TYPE", gives=True),
    Column("deliveries", "DELIVERIES", dropped=1),
    Column("created_at", "CREATED", "timestamp", dropped=3),
    Column("test", "TEST", dropped=4),
]
_EXPLANATION_COLUMNS: Final = [
    Column("endpoint", "ENDPOINT", "id"),
    Column("reason", "REASON"),
    Column("text", "EXPLANATION", folds=True),
    Column("hint", "HOW TO FIX", folds=True),
]
_ENDPOINT_ID_CHARACTERS: Final = len("ep_") + 32
event_app: Final = noun("List, show, send and explain events.")

Event = Annotated[str, typer.Argument(metavar="EVENT", help="ID of the event, or a unique ID prefix.")]


def register(app: typer.Typer) -> None:
    """Add the `events` commands to the program."""
    add(app, "events", event_app)
    sent = (
        "uplift-server events send movement.analytics.created --account acc_0197f0c2",
        "uplift-server events send movement.analytics.created --account acc_0197f0c2 --data data.json",
        "uplift-server events send movement.analytics.created --account acc_0197f0c2 --data - < data.json",
        "uplift-server events send --file events.jsonl --account acc_0197f0c2",
    )
    command(event_app, "send", examples=sent)(send)
    command(app, "send", examples=sent, hidden=True)(send)
    explained = (
        "uplift-server events explain 0197f0c2-5b1e-7c3a-9d5e-2f6a8b0c4d1e",
        "uplift-server events explain 0197f0c2 --endpoint ep_0197f0c2",
    )
    command(event_app, "explain", examples=explained)(explain)
    command(app, "explain", examples=explained, hidden=True)(explain)


@command(
    event_app,
    "list",
    examples=("uplift-server events --account acc_0197f0c2", "uplift-server events list --object-id athlete_4711"),
)
def list_events(
    session: Session,
    account: AnyAccount = None,
    event_type: EventTypes = None,
    object_id: ObjectId = None,
    after: After = None,
    before: Before = None,
    test: Test = None,
    limit: Limit = 50,
    wide: Wide = False,
) -> None:
    """List events, newest first.

    The list includes events without deliveries.
    """
    with reach(session.config()) as client, options(**DELIVERY_OPTIONS):
        owner = lookup.owner(client, account)
        query = matching(
            client, owner, event_type=event_type, object_id=object_id, after=after, before=before, test=test
        )
        found = client.items("/v1/events", limit=limit, account=owner, **query)
        session.output.rows(
            found if session.output.as_json else map(event_row, found),
            _COLUMNS,
            empty="No matching events. To send one: uplift-server events send TYPE --account ACCOUNT",
            wide=wide,
        )


@command(
    event_app,
    "show",
    examples=("uplift-server events 0197f0c2-5b1e", "uplift-server events show 0197f0c2-5b1e --body > body.json"),
)
def show(
    session: Session,
    event: Event,
    body_only: Annotated[
        bool,
        typer.Option("--body", help="Write only the request body: exactly the bytes that the server signs and sends."),
    ] = False,
    account: AnyAccount = None,
) -> None:
    """Show an event with its body.

    The output also explains why the event did or did not reach each endpoint.
    """
    with reach(session.config()) as client:
        owner = lookup.owner(client, account)
        found = lookup.event(client, event, owner)
        owner = owner or found.get("account")
        show_event(session.output, client, found, _EXPLANATION_COLUMNS, owner, body_only=body_only)


def explain(
    session: Session,
    event: Event,
    endpoint: Annotated[
        str | None,
        typer.Option(
            "--endpoint",
            metavar="ENDPOINT",
            help="ID or uid of an endpoint, or a unique ID prefix. Default: all endpoints in the account.",
        ),
    ] = None,
    account: AnyAccount = None,
    wide: Wide = False,
) -> None:
    """Explain why an event did or did not reach each endpoint in its account.

    The output explains how to fix each problem. For a deleted endpoint, use the full ID.
    """
    with reach(session.config()) as client:
        owner = lookup.owner(client, account)
        found = lookup.event(client, event, owner)
        owner = owner or found.get("account")
        # Lists omit deleted endpoints, so a deleted endpoint requires its full ID.
        is_full = endpoint is not None and endpoint.startswith("ep_") and len(endpoint) == _ENDPOINT_ID_CHARACTERS
        chosen = endpoint if endpoint is None or is_full else lookup.endpoint(client, endpoint, owner)["id"]
        with options(endpoint="--endpoint"):
            answer = client.get(f"/v1/events/{segment(found['id'])}/explain", account=owner, endpoint=chosen)
        session.output.rows(
            answer["data"], _EXPLANATION_COLUMNS, empty="The event's account has no endpoints.", wide=wide
        )


def send(
    session: Session,
    event_type: Annotated[
        str | None, typer.Argument(metavar="TYPE", help="Event type, such as athlete.created.", show_default=False)
    ] = None,
    account: Annotated[
        str | None,
        typer.Option(
            "--account",
            metavar="ACCOUNT",
            help="ID, uid or name of the account, or a unique ID prefix. With --file: the account for lines that"
            " do not name an account.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="FILE", help="JSON file with the event's data, or - for standard input."
                     " Default: the example from the catalog."),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option("--file", metavar="FILE", help="Send many events: a file that contains one JSON object per line,"
                     " or - for standard input. Fields: type, data, account, id, idempotency_key, expires_at,"
                     " ordering_key."),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(
            "--idempotency-key",
            metavar="KEY",
            help="Idempotency key. If you repeat the command with the same key, the server does not store the event"
            " again.",
        ),
    ] = None,
    ordering_key: Annotated[
        str | None,
        typer.Option(
            "--ordering-key",
            metavar="KEY",
            help="Ordering key. Endpoints with the ordering `key` receive events with the same ordering key in order.",
        ),
    ] = None,
) -> None:  # fmt: skip
    """Send an event to an account's subscribed endpoints, or send all events in a file.

    When the command exits with 0, the events and their deliveries are stored. If no server is running, the deliveries
    wait until you start one. If you repeat a command with --file, it does not store the same events again.
    """
    if (event_type is None) == (file is None):
        raise CliError("the command needs either TYPE or --file", "pass TYPE or --file", ExitCode.USAGE)
    if file is not None and any(each is not None for each in (data, idempotency_key, ordering_key)):
        text = "--file cannot be combined with --data, --idempotency-key or --ordering-key"
        raise CliError(text, "omit the other options, or omit --file", ExitCode.USAGE)
    if event_type is not None and account is None:
        raise session.missing("--account", "ACCOUNT")
    content = None if data is None else _read_json(data)
    with reach(session.config()) as client:
        owner = None if account is None else lookup.account(client, account)["id"]
        if event_type is None or owner is None:
            send_file(client, session.output, file or "-", owner)
            if not client.sends:
                session.output.note(f"The events are stored. {when_sent(session.config())}")
        else:
            body = {"type": event_type, "data": _example(client, event_type) if content is None else content}
            if ordering_key is not None:
                body["ordering_key"] = ordering_key
            _send_one(session, client, body, owner, idempotency_key)


def _send_one(session: Session, client: Calls, body: dict[str, Any], owner: str, idempotency_key: str | None) -> None:
    with (
        known_type(client, body["type"]),
        options(
            type="TYPE",
            data="the data in --data",
            idempotency_key="--idempotency-key",
            ordering_key="--ordering-key",
        ),
    ):
        sent = client.post("/v1/events", body, account=owner, idempotency_key=idempotency_key)
    created = _delivery_count(client, sent["id"], owner)
    session.output.fields(sent if created is None else {**sent, "deliveries": created})
    if created == 0:
        session.output.note(
            f"The event is stored without deliveries: no endpoint of the account matches it. For details, run:"
            f" uplift-server events explain {sent['id']}"
        )
    elif not client.sends:
        session.output.note(f"The event is stored. {when_sent(session.config())}")


def _delivery_count(client: Calls, event_id: str, owner: str) -> int | None:
    """Return the number of deliveries for a stored event, or None if the API call fails."""
    try:
        counts: dict[str, int] = client.get(f"/v1/events/{segment(event_id)}", account=owner)["deliveries"]
    except (CliError, KeyError):
        return None
    return sum(counts.values())


def _example(client: Calls, event_type: str) -> object:
    example = find_type(client, event_type).get("example")
    if example is None:
        raise CliError(f"the catalog has no example of {event_type}", "pass the data with --data", ExitCode.USAGE)
    found: object = example
    return found


def _read_json(source: str) -> object:
    """Read JSON from a file or standard input. Raises CliError."""
    raw = read_input(source, EVENT_DATA_BYTES_MAX * 2, "use a readable JSON file")
    try:
        content: object = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise CliError(
            f"{input_name(source)} is not valid JSON: {error}", "correct the JSON", ExitCode.USAGE
        ) from error
    return content
