"""Commands for events and deliveries."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final

import typer

from uplift_server.cli import lookup
from uplift_server.cli.accounts import AnyAccount, Wide
from uplift_server.cli.event_files import send_file
from uplift_server.cli.reach import reach, when_sent
from uplift_server.cli.session import Session, command
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import Status
from uplift_server.core.limits import EVENT_DATA_BYTES_MAX
from uplift_server.core.scheduling.waiting import WaitingFor
from uplift_webhooks.cli.kit.calls import Calls, segment
from uplift_webhooks.cli.kit.errors import CliError, ExitCode
from uplift_webhooks.cli.kit.inputs import (
    DELIVERY_OPTIONS,
    After,
    Before,
    Endpoints,
    EventTypes,
    Limit,
    ObjectId,
    Outcomes,
    StatusCodes,
    Statuses,
    Test,
    Yes,
    input_name,
    one_or_matching,
    read_input,
)
from uplift_webhooks.cli.kit.lookup import event_type as find_type
from uplift_webhooks.cli.kit.lookup import known_type
from uplift_webhooks.cli.kit.program import Group
from uplift_webhooks.cli.kit.rejections import options
from uplift_webhooks.cli.kit.tables import Column, distance
from uplift_webhooks.cli.kit.views import resend_matching, show_delivery

_COLUMNS: Final = [
    Column("id", "DELIVERY", "id"),
    Column("endpoint", "ENDPOINT", "id"),
    Column("type", "TYPE", gives=True),
    Column("status", "STATUS"),
    Column("attempts_made", "ATTEMPTS"),
    Column("last_outcome", "LAST OUTCOME"),
    Column("next_attempt_at", "NEXT ATTEMPT"),
    Column("created_at", "CREATED"),
    Column("waiting_for", "WAITING FOR"),
]
# The terminal shows the status and the cause of the last failure in one column.
_TERMINAL_COLUMNS: Final = [
    Column("id", "DELIVERY", "id"),
    Column("endpoint", "ENDPOINT", "id"),
    Column("type", "TYPE", gives=True),
    Column("state", "STATUS"),
    Column("attempts_made", "ATTEMPTS", dropped=1),
    Column("created_at", "CREATED", "timestamp", dropped=2),
]
_EXPLANATION_COLUMNS: Final = [
    Column("endpoint", "ENDPOINT", "id"),
    Column("reason", "REASON"),
    Column("text", "EXPLANATION", folds=True),
    Column("hint", "HOW TO FIX", folds=True),
]
delivery_app: Final = typer.Typer(
    cls=Group,
    help="Resend and cancel deliveries. To list them, use `uplift-server deliveries`.",
    no_args_is_help=True,
)

Delivery = Annotated[str, typer.Argument(metavar="DELIVERY", help="ID of the delivery, or a unique ID prefix.")]
_ENDPOINT_ID_CHARACTERS: Final = len("ep_") + 32
_ATTEMPT_COLUMNS: Final = [
    Column("number", "ATTEMPT"),
    Column("started_at", "STARTED", "timestamp"),
    Column("outcome", "OUTCOME"),
    Column("status_code", "CODE"),
    Column("duration_ms", "MS"),
    Column("trigger", "TRIGGER", dropped=1),
    Column("hint", "CAUSE AND HOW TO FIX", folds=True),
]


def register(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.add_typer(delivery_app, name="delivery")
    command(
        app,
        "send",
        examples=(
            "uplift-server send movement.analytics.created --account acc_0197f0c2",
            "uplift-server send movement.analytics.created --account acc_0197f0c2 --data data.json",
            "uplift-server send movement.analytics.created --account acc_0197f0c2 --data - < data.json",
            "uplift-server send --file events.jsonl --account acc_0197f0c2",
        ),
    )(send)
    command(
        app,
        "deliveries",
        examples=(
            "uplift-server deliveries --status failed",
            "uplift-server deliveries --account acc_0197f0c2 --endpoint ep_0197f0c2 --limit 10",
            "uplift-server deliveries --status-code 5xx --object-id athlete_4711",
            "uplift-server deliveries dlv_0197f0c2",
        ),
    )(deliveries)
    command(
        app,
        "explain",
        examples=(
            "uplift-server explain 0197f0c2-5b1e-7c3a-9d5e-2f6a8b0c4d1e",
            "uplift-server explain 0197f0c2 --endpoint ep_0197f0c2",
        ),
    )(explain)


def explain(
    session: Session,
    event: Annotated[str, typer.Argument(metavar="EVENT", help="ID of the event, or a unique ID prefix.")],
    endpoint: Annotated[
        str | None,
        typer.Option(
            "--endpoint",
            metavar="ENDPOINT",
            help="ID or uid of an endpoint, or a unique ID prefix. Default: all endpoints of the account.",
        ),
    ] = None,
    account: AnyAccount = None,
    wide: Wide = False,
) -> None:
    """Explain why an event did or did not reach each endpoint of its account.

    The output explains how to fix each problem. For a deleted endpoint, use the full ID.
    """
    with reach(session.config()) as client:
        owner = lookup.owner(client, account)
        found = lookup.event(client, event, owner)
        owner = owner or found.get("account")
        # Lists omit deleted endpoints, so a deleted one requires its full ID.
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
            help="ID of the account, a unique ID prefix, or its name. With --file: for events without an account.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="FILE", help="JSON file with the event's data, or - for standard input."
                     " Default: the example from the catalog."),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option("--file", metavar="FILE", help="Send many events: a file with a JSON object in each line, or - for"
                     " standard input. Fields: type, data, account, id, idempotency_key, expires_at."),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(
            "--idempotency-key",
            metavar="KEY",
            help="Idempotency key. If you repeat the command with the same key, the server sends the event once.",
        ),
    ] = None,
) -> None:  # fmt: skip
    """Send an event to the subscribed endpoints of an account, or all events of a file.

    When the command exits with 0, the events and their deliveries are stored. If no server is running, the deliveries
    wait until you start one. If you repeat a command with --file, the server does not store the same lines again.
    """
    if (event_type is None) == (file is None):
        raise CliError("send takes TYPE or --file", "pass one of them", ExitCode.USAGE)
    if file is not None and (data is not None or idempotency_key is not None):
        raise CliError("--file does not allow --data and --idempotency-key", "omit them", ExitCode.USAGE)
    if event_type is not None and account is None:
        raise CliError("the option --account is missing", "list accounts with `uplift-server accounts`", ExitCode.USAGE)
    content = None if data is None else _read_json(data)
    with reach(session.config()) as client:
        owner = None if account is None else lookup.account(client, account)["id"]
        if event_type is None or owner is None:
            send_file(client, session.output, file or "-", owner)
            if not client.sends:
                session.output.note(f"The events are stored. {when_sent(session.config())}")
        else:
            _send_one(session, client, event_type, owner, content, idempotency_key)


def _send_one(
    session: Session, client: Calls, event_type: str, owner: str, content: object, idempotency_key: str | None
) -> None:
    """Send one event."""
    if content is None:
        content = _example(client, event_type)
    body = {"type": event_type, "data": content}
    with (
        known_type(client, event_type),
        options(type="TYPE", data="the data in --data", idempotency_key="--idempotency-key"),
    ):
        sent = client.post("/v1/events", body, account=owner, idempotency_key=idempotency_key)
    created = _delivery_count(client, sent["id"], owner)
    session.output.fields(sent if created is None else {**sent, "deliveries": created})
    if created == 0:
        session.output.note(
            f"The event is stored without deliveries: no subscription of the account matches it. For details, run:"
            f" uplift-server explain {sent['id']}"
        )
    elif not client.sends:
        session.output.note(f"The event is stored. {when_sent(session.config())}")


def _delivery_count(client: Calls, event_id: str, owner: str) -> int | None:
    """Return the number of deliveries of a stored event; None if that request fails."""
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


def deliveries(
    session: Session,
    delivery: Annotated[
        str | None,
        typer.Argument(metavar="DELIVERY", help="ID of the delivery to show, or a unique ID prefix."),
    ] = None,
    account: AnyAccount = None,
    status: Statuses = None,
    endpoint: Endpoints = None,
    event: Annotated[
        str | None, typer.Option("--event", metavar="EVENT", help="Only this event: its ID or a unique ID prefix.")
    ] = None,
    event_type: EventTypes = None,
    outcome: Outcomes = None,
    status_code: StatusCodes = None,
    object_id: ObjectId = None,
    after: After = None,
    before: Before = None,
    test: Test = None,
    limit: Limit = 50,
    wide: Wide = False,
) -> None:
    """List deliveries, newest first, or show one with its attempts.

    For each failed attempt, the output shows the cause and how to fix it.
    """
    known = [each.text for each in Status]
    for name in status or ():
        if name not in known:
            cause = f"there is no delivery status {name!r}"
            raise CliError(cause, f"use one of: {', '.join(known)}", ExitCode.USAGE)
    if event is not None and (outcome or status_code or object_id or after or before or test is not None):
        raise CliError("--event allows only --status, --endpoint and --type", "omit the other options", ExitCode.USAGE)
    with reach(session.config()) as client:
        owner = lookup.owner(client, account)
        if delivery is not None:
            found_one = lookup.delivery(client, delivery, owner)
            show_delivery(session.output, client, found_one, _ATTEMPT_COLUMNS, owner or found_one.get("account"))
            return
        path = "/v1/deliveries"
        if event is not None:
            path = f"/v1/events/{segment(lookup.event(client, event, owner)['id'])}/deliveries"
        filters = {
            "status": status,
            "endpoint": [lookup.endpoint(client, each, owner)["id"] for each in endpoint or ()],
            "type": event_type,
        }
        if event is not None:
            found = _filtered(client.items(path, limit=limit, account=owner), filters)
        else:
            found = client.items(
                path,
                limit=limit,
                account=owner,
                **filters,
                outcome=outcome,
                status_code=status_code,
                object_id=object_id,
                created_after=after,
                created_before=before,
                test=test,
            )
        for_people = session.output.results.is_terminal and not session.output.as_json
        with (
            known_type(client, event_type[0] if event_type and len(event_type) == 1 else None),
            options(**DELIVERY_OPTIONS),
        ):
            session.output.rows(
                map(_for_people, found) if for_people else found,
                _TERMINAL_COLUMNS if for_people else _COLUMNS,
                empty="No matching deliveries. To send an event: uplift-server send TYPE --account ACCOUNT",
                wide=wide,
            )


@command(
    delivery_app,
    "resend",
    examples=(
        "uplift-server delivery resend dlv_0197f0c2",
        "uplift-server delivery resend --account acc_0197f0c2 --status-code 5xx --after 2026-01-31T08:00:00Z",
        "uplift-server delivery resend --account acc_0197f0c2 --endpoint ep_0197f0c2 --outcome tls_error --yes",
    ),
)
def resend_delivery(
    session: Session,
    delivery: Annotated[
        str | None, typer.Argument(metavar="DELIVERY", help="ID of one delivery, or a unique ID prefix.")
    ] = None,
    account: AnyAccount = None,
    status: Statuses = None,
    endpoint: Endpoints = None,
    event_type: EventTypes = None,
    outcome: Outcomes = None,
    status_code: StatusCodes = None,
    object_id: ObjectId = None,
    after: After = None,
    before: Before = None,
    yes: Yes = False,
) -> None:
    """Resend one delivery immediately, or all of an account that match filters.

    You can resend one delivery in any status, unless an attempt is in flight or the endpoint is not enabled. Success
    completes the delivery. Failure does not change its retry schedule.

    With filters, the command counts the matching deliveries by endpoint. With --yes, it also starts a replay for each
    endpoint. The default status is failed.
    """
    given = one_or_matching(
        delivery,
        status=status,
        endpoint=endpoint,
        type=event_type,
        outcome=outcome,
        status_code=status_code,
        object_id=object_id,
        created_after=after,
        created_before=before,
    )
    if delivery is not None:
        if not _change(session, delivery, account, "resend"):
            session.output.note(f"The delivery is stored. {when_sent(session.config())}")
        return
    if account is None:
        raise CliError("a resend with filters needs an account", "pass --account ACCOUNT", ExitCode.USAGE)
    with reach(session.config()) as client:
        owner = lookup.owner(client, account)
        if endpoint:
            given["endpoint"] = [lookup.endpoint(client, each, owner)["id"] for each in endpoint]
        resend_matching(session.output, client, given, owner, starts=yes)
        if yes and not client.sends:
            session.output.note(f"The replays are stored. {when_sent(session.config())}")


@command(delivery_app, "cancel", examples=("uplift-server delivery cancel dlv_0197f0c2",))
def cancel_delivery(session: Session, delivery: Delivery, account: AnyAccount = None) -> None:
    """Cancel a pending or held delivery.

    The server makes no further attempts. You cannot cancel a delivery while an attempt is in flight.
    """
    _change(session, delivery, account, "cancel")


def _change(session: Session, delivery: str, account: str | None, verb: str) -> bool:
    """Resend or cancel a delivery. Return whether a running server processes the request."""
    with reach(session.config()) as client:
        owner = lookup.owner(client, account)
        found = lookup.delivery(client, delivery, owner)
        path = f"/v1/deliveries/{segment(found['id'])}/{verb}"
        session.output.fields(client.post(path, account=owner or found.get("account")))
        return client.sends


def _for_people(delivery: dict[str, Any]) -> dict[str, Any]:
    return {**delivery, "state": stands(delivery)}


def stands(delivery: dict[str, Any]) -> str:
    """Describe the status and the last failure of a delivery, such as `in 4 min: timeout`."""
    status, outcome = delivery["status"], delivery.get("last_outcome")
    if status == Status.PENDING.text:
        waiting_for, due = delivery.get("waiting_for"), distance(delivery.get("next_attempt_at") or "now")
        is_past = due == "now" or due.endswith("ago")
        if waiting_for == WaitingFor.PROBE:
            return f"circuit open, {'probe due' if is_past else f'probe {due}'}"
        # A due delivery waits briefly, or until a server is running.
        if waiting_for == WaitingFor.WORKER:
            return "due or in flight"
        status = "in flight" if waiting_for is None else "due" if is_past else due
    elif status == Status.FAILED.text and outcome is None:
        outcome = delivery.get("failed_reason")
    return status if outcome in (None, Outcome.DELIVERED.text) else f"{status}: {outcome}"


def _filtered(items: Iterator[dict[str, Any]], filters: Mapping[str, Sequence[str] | None]) -> Iterator[dict[str, Any]]:
    """Filter the deliveries of an event, because the API cannot filter them."""
    return (each for each in items if all(not values or each.get(name) in values for name, values in filters.items()))
