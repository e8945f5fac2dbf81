"""`uplift deliveries`: list, show, resend and cancel deliveries."""

from typing import Annotated, Final

import typer

from uplift_webhooks.cli.kit.calls import segment
from uplift_webhooks.cli.kit.errors import CliError
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
    one_or_matching,
)
from uplift_webhooks.cli.kit.lookup import find, matching
from uplift_webhooks.cli.kit.program import add, noun
from uplift_webhooks.cli.kit.rejections import options
from uplift_webhooks.cli.kit.tables import Column
from uplift_webhooks.cli.kit.views import explain_wait, resend_matching, show_delivery
from uplift_webhooks.cli.session import Session, command

_COLUMNS: Final = [
    Column("id", "DELIVERY"),
    Column("endpoint", "ENDPOINT", dropped=4),
    Column("type", "TYPE", gives=True, dropped=2),
    Column("status", "STATUS"),
    Column("attempts_made", "ATTEMPTS", dropped=3),
    Column("last_outcome", "LAST OUTCOME", dropped=1),
    Column("next_attempt_at", "NEXT ATTEMPT", dropped=5),
    Column("created_at", "CREATED", dropped=6),
    Column("waiting_for", "WAITING FOR", dropped=7),
    Column("test", "TEST", dropped=8),
]
_ATTEMPT_COLUMNS: Final = [
    Column("number", "ATTEMPT"),
    Column("started_at", "STARTED", dropped=1),
    Column("outcome", "OUTCOME"),
    Column("status_code", "CODE"),
    Column("duration_ms", "MS", dropped=2),
    Column("hint", "CAUSE AND HOW TO FIX", folds=True),
]
_PATH: Final = "/v1/deliveries"

Delivery = Annotated[str, typer.Argument(metavar="DELIVERY", help="ID of the delivery, or a unique ID prefix.")]


def register(app: typer.Typer) -> None:
    """Add the `deliveries` commands to the program."""
    group = noun("List, show, resend and cancel deliveries.")
    add(app, "deliveries", group)
    command(
        group,
        "list",
        examples=(
            "uplift deliveries",
            "uplift deliveries list --status failed --endpoint ep_0197f0c2",
            "uplift deliveries list --status-code 404 --status-code 5xx --after 2026-01-31T08:00:00Z",
        ),
    )(list_deliveries)
    command(
        group, "show", examples=("uplift deliveries dlv_0197f0c2", "uplift deliveries show 0197f0c2 --response-body")
    )(show)
    command(
        group,
        "resend",
        examples=(
            "uplift deliveries resend dlv_0197f0c2",
            "uplift deliveries resend --status-code 5xx --after 2026-01-31T08:00:00Z",
            "uplift deliveries resend --outcome tls_error --endpoint ep_0197f0c2 --yes",
        ),
    )(resend)
    command(group, "cancel", examples=("uplift deliveries cancel dlv_0197f0c2",))(cancel)


def list_deliveries(
    session: Session,
    status: Statuses = None,
    endpoint: Endpoints = None,
    event_type: EventTypes = None,
    outcome: Outcomes = None,
    status_code: StatusCodes = None,
    object_id: ObjectId = None,
    after: After = None,
    before: Before = None,
    test: Test = None,
    limit: Limit = 50,
) -> None:
    """List deliveries, newest first.

    A delivery must match every filter option. If you repeat an option, a delivery must match one of its values.
    """
    calls = session.calls()
    query = matching(
        calls,
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
    with options(**DELIVERY_OPTIONS):
        found = calls.items(_PATH, limit=limit, **query)
        shown = found if session.output.as_json else map(explain_wait, found)
        session.output.rows(
            shown, _COLUMNS, empty="No matching deliveries. To send an event: uplift trigger --endpoint ENDPOINT"
        )


def show(
    session: Session,
    delivery: Delivery,
    response_body: Annotated[
        bool,
        typer.Option("--response-body", help="Write only the response body of the last attempt that has a response."),
    ] = False,
) -> None:
    """Show a delivery with its attempts.

    The output shows the delivery's status, event, endpoint and next attempt. For each attempt, the output shows the
    time, the outcome, the status code and the duration. For a failed attempt, the output also shows the cause and how
    to fix it. The server keeps the first 4 KiB of a response body.
    """
    calls = session.calls()
    found = find(calls, _PATH, "delivery", "dlv_", delivery)
    session.output.streams = True
    if response_body:
        attempts = calls.items(f"{_PATH}/{segment(found['id'])}/attempts", limit=1000)
        response = next((each["response"] for each in attempts if each["response"] is not None), None)
        if response is None:
            raise CliError(
                "no attempt of the delivery has a response",
                f"to see the attempts, run `uplift deliveries {found['id']}`",
            )
        session.output.exactly(response["body"].encode())
        return
    show_delivery(session.output, calls, found, _ATTEMPT_COLUMNS)


def resend(
    session: Session,
    delivery: Annotated[
        str | None, typer.Argument(metavar="DELIVERY", help="ID of one delivery, or a unique ID prefix.")
    ] = None,
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
    """Resend one delivery immediately, or all deliveries that match your filters.

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
    calls = session.calls()
    if delivery is not None:
        found = find(calls, _PATH, "delivery", "dlv_", delivery)
        session.output.fields(calls.post(f"{_PATH}/{segment(found['id'])}/resend"))
        session.output.note(f"To see the result: uplift deliveries {found['id']}")
        return
    if endpoint:
        given["endpoint"] = [find(calls, "/v1/endpoints", "endpoint", "ep_", each)["id"] for each in endpoint]
    resend_matching(session.output, calls, given, starts=yes)


def cancel(session: Session, delivery: Delivery) -> None:
    """Cancel a pending or held delivery.

    The server makes no further attempts. You cannot cancel a delivery while an attempt is in flight.
    """
    calls = session.calls()
    found = find(calls, _PATH, "delivery", "dlv_", delivery)
    session.output.fields(calls.post(f"{_PATH}/{segment(found['id'])}/cancel"))
