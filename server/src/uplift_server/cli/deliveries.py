"""Commands that list, show, resend and cancel deliveries."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Annotated, Any, Final

import typer

from uplift_server.cli import lookup
from uplift_server.cli.accounts import AnyAccount, Wide
from uplift_server.cli.reach import reach, when_sent
from uplift_server.cli.session import Session, command
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.lifecycle import Status
from uplift_server.core.scheduling.waiting import WaitingFor
from uplift_webhooks.cli.kit.calls import segment
from uplift_webhooks.cli.kit.errors import CliError, ExitCode
from uplift_webhooks.cli.kit.inputs import (
    DELIVERY_OPTIONS,
    After,
    AttemptOutcomes,
    AttemptStatusCodes,
    Before,
    Deliveries,
    Endpoints,
    EventTypes,
    Limit,
    ObjectId,
    Outcomes,
    StatusCodes,
    Statuses,
    Test,
    Yes,
    one_or_matching,
)
from uplift_webhooks.cli.kit.lookup import matching
from uplift_webhooks.cli.kit.program import add, noun
from uplift_webhooks.cli.kit.rejections import options
from uplift_webhooks.cli.kit.tables import Column, distance
from uplift_webhooks.cli.kit.views import resend_matching, show_delivery

_EVENT_DELIVERIES_MAX: Final = 10_000
"""Maximum number of an event's deliveries among which `list --event` searches."""
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
# On a terminal, one column shows the status and the cause of the last failure.
_TERMINAL_COLUMNS: Final = [
    Column("id", "DELIVERY", "id"),
    Column("endpoint", "ENDPOINT", "id"),
    Column("type", "TYPE", gives=True),
    Column("state", "STATUS"),
    Column("attempts_made", "ATTEMPTS", dropped=1),
    Column("created_at", "CREATED", "timestamp", dropped=2),
]
_ALL_ATTEMPTS_COLUMNS: Final = [
    Column("id", "ATTEMPT", "id"),
    Column("endpoint", "ENDPOINT", "id", dropped=3),
    Column("number", "NUMBER", dropped=2),
    Column("outcome", "OUTCOME"),
    Column("status_code", "CODE"),
    Column("duration_ms", "MS", dropped=1),
    Column("started_at", "STARTED", "timestamp", dropped=4),
]
attempt_app: Final = noun("List and show attempts.")
delivery_app: Final = noun("List, show, resend and cancel deliveries.")

Delivery = Annotated[str, typer.Argument(metavar="DELIVERY", help="ID of the delivery, or a unique ID prefix.")]
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
    """Add the `deliveries` and `attempts` commands to the program."""
    add(app, "deliveries", delivery_app, former="delivery")
    add(app, "attempts", attempt_app)


@command(
    delivery_app,
    "list",
    examples=(
        "uplift-server deliveries --status failed",
        "uplift-server deliveries list --account acc_0197f0c2 --endpoint ep_0197f0c2 --limit 10",
        "uplift-server deliveries list --status-code 5xx --object-id athlete_4711",
    ),
)
def list_deliveries(
    session: Session,
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
    """List deliveries, newest first.

    A delivery must match every filter option. If you repeat an option, a delivery must match one of its values.
    """
    known = [each.text for each in Status]
    for name in status or ():
        if name not in known:
            cause = f"there is no delivery status {name!r}"
            raise CliError(cause, f"use one of: {', '.join(known)}", ExitCode.USAGE)
    if event is not None and (outcome or status_code or object_id or after or before or test is not None):
        raise CliError(
            "--event can be combined only with --status, --endpoint and --type",
            "omit the other options",
            ExitCode.USAGE,
        )
    with reach(session.config()) as client:
        owner = lookup.owner(client, account)
        query = matching(
            client,
            owner,
            status=status,
            endpoint=endpoint,
            event_type=event_type,
            outcome=outcome,
            status_code=status_code,
            object_id=object_id,
            after=after,
            before=before,
            test=test,
        )
        if event is None:
            found = client.items("/v1/deliveries", limit=limit, account=owner, **query)
        else:
            path = f"/v1/events/{segment(lookup.event(client, event, owner)['id'])}/deliveries"
            found = islice(_filtered(client.items(path, limit=_EVENT_DELIVERIES_MAX, account=owner), query), limit)
        for_people = session.output.results.is_terminal and not session.output.as_json
        with options(**DELIVERY_OPTIONS):
            session.output.rows(
                map(_for_people, found) if for_people else found,
                _TERMINAL_COLUMNS if for_people else _COLUMNS,
                empty="No matching deliveries. To send an event: uplift-server events send TYPE --account ACCOUNT",
                wide=wide,
            )


@command(delivery_app, "show", examples=("uplift-server deliveries dlv_0197f0c2",))
def show(session: Session, delivery: Delivery, account: AnyAccount = None) -> None:
    """Show a delivery with its attempts.

    The output shows the delivery's status, event, endpoint and next attempt. For each attempt, the output shows the
    time, the outcome, the status code and the duration. For a failed attempt, the output also shows the cause and how
    to fix it.
    """
    with reach(session.config()) as client:
        owner = lookup.owner(client, account)
        found = lookup.delivery(client, delivery, owner)
        session.output.streams = True
        show_delivery(session.output, client, found, _ATTEMPT_COLUMNS, owner or found.get("account"))


@command(
    delivery_app,
    "resend",
    examples=(
        "uplift-server deliveries resend dlv_0197f0c2",
        "uplift-server deliveries resend --account acc_0197f0c2 --status-code 5xx --after 2026-01-31T08:00:00Z",
        "uplift-server deliveries resend --account acc_0197f0c2 --endpoint ep_0197f0c2 --outcome tls_error --yes",
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
    """Resend one delivery immediately, or all of an account's deliveries that match your filters.

    You can resend one delivery in any status if no attempt is in flight and the endpoint is enabled. If the attempt
    succeeds, the status becomes delivered. If the attempt fails, the retry schedule does not change.

    With filters, the command counts the matching deliveries for each endpoint. To resend these deliveries, add --yes:
    the server then starts a replay for each endpoint. By default, only failed deliveries match.
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
        raise session.missing("--account", "ACCOUNT")
    with reach(session.config()) as client:
        owner = lookup.owner(client, account)
        if endpoint:
            given["endpoint"] = [lookup.endpoint(client, each, owner)["id"] for each in endpoint]
        resend_matching(session.output, client, given, owner, starts=yes)
        if yes and not client.sends:
            session.output.note(f"The replays are stored. {when_sent(session.config())}")


@command(delivery_app, "cancel", examples=("uplift-server deliveries cancel dlv_0197f0c2",))
def cancel_delivery(session: Session, delivery: Delivery, account: AnyAccount = None) -> None:
    """Cancel a pending or held delivery.

    The server makes no further attempts. You cannot cancel a delivery while an attempt is in flight.
    """
    _change(session, delivery, account, "cancel")


def _change(session: Session, delivery: str, account: str | None, verb: str) -> bool:
    """Resend or cancel a delivery.

    Return True if the running server handled the request, or False if the command used a temporary server.
    """
    with reach(session.config()) as client:
        owner = lookup.owner(client, account)
        found = lookup.delivery(client, delivery, owner)
        path = f"/v1/deliveries/{segment(found['id'])}/{verb}"
        session.output.fields(client.post(path, account=owner or found.get("account")))
        return client.sends


def _for_people(delivery: dict[str, Any]) -> dict[str, Any]:
    return {**delivery, "state": stands(delivery)}


def stands(delivery: dict[str, Any]) -> str:
    """Return the status and the last failure of a delivery, such as `failed: timeout`.

    For a pending delivery, a more exact state replaces the status, such as `due`, `blocked` or `in 4 min: timeout`.
    """
    status, outcome = delivery["status"], delivery.get("last_outcome")
    if status == Status.PENDING.text:
        waiting_for, due = delivery.get("waiting_for"), distance(delivery.get("next_attempt_at") or "now")
        is_past = due == "now" or due.endswith("ago")
        if waiting_for == WaitingFor.PROBE:
            return f"circuit open, {'probe due' if is_past else f'probe {due}'}"
        # Another process has leased the delivery, so the API server cannot tell whether an attempt is in flight.
        if waiting_for == WaitingFor.WORKER:
            return "due or in flight"
        if waiting_for == WaitingFor.ORDER:
            return "blocked"
        status = "in flight" if waiting_for is None else "due" if is_past else due
    elif status == Status.FAILED.text and outcome is None:
        outcome = delivery.get("failed_reason")
    return status if outcome in (None, Outcome.DELIVERED.text) else f"{status}: {outcome}"


@command(
    attempt_app,
    "list",
    examples=(
        "uplift-server attempts --endpoint ep_0197f0c2 --status-code 5xx",
        "uplift-server attempts list --account acc_0197f0c2 --outcome timeout --after 2026-01-31T08:00:00Z",
    ),
)
def list_attempts(
    session: Session,
    account: AnyAccount = None,
    endpoint: Endpoints = None,
    delivery: Deliveries = None,
    event_type: EventTypes = None,
    outcome: AttemptOutcomes = None,
    status_code: AttemptStatusCodes = None,
    object_id: ObjectId = None,
    after: After = None,
    before: Before = None,
    limit: Limit = 50,
    wide: Wide = False,
) -> None:
    """List attempts, newest event first.

    An attempt must match every filter option. If you repeat an option, an attempt must match one of its values.
    """
    with reach(session.config()) as client, options(**DELIVERY_OPTIONS):
        owner = lookup.owner(client, account)
        query = matching(
            client,
            owner,
            endpoint=endpoint,
            delivery=delivery,
            event_type=event_type,
            outcome=outcome,
            status_code=status_code,
            object_id=object_id,
            after=after,
            before=before,
        )
        session.output.rows(
            client.items("/v1/attempts", limit=limit, account=owner, **query),
            _ALL_ATTEMPTS_COLUMNS,
            empty="No matching attempts. To list deliveries: uplift-server deliveries",
            wide=wide,
        )


@command(attempt_app, "show", examples=("uplift-server attempts att_0197f0c2",))
def show_attempt(
    session: Session,
    attempt: Annotated[str, typer.Argument(metavar="ATTEMPT", help="ID of the attempt, or a unique ID prefix.")],
    account: AnyAccount = None,
) -> None:
    """Show an attempt with its request and response."""
    with reach(session.config()) as client:
        found = lookup.attempt(client, attempt, lookup.owner(client, account))
    session.output.streams = True
    session.output.fields(found)


def _filtered(items: Iterator[dict[str, Any]], filters: Mapping[str, Sequence[str] | None]) -> Iterator[dict[str, Any]]:
    """Return the deliveries that match the filters. The API cannot filter the deliveries of a single event."""
    return (each for each in items if all(not values or each.get(name) in values for name, values in filters.items()))
