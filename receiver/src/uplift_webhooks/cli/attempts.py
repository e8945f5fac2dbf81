"""`uplift attempts`: list and show the attempts of all deliveries."""

from typing import Annotated, Final

import typer

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
)
from uplift_webhooks.cli.kit.lookup import find, matching
from uplift_webhooks.cli.kit.program import add, noun
from uplift_webhooks.cli.kit.rejections import options
from uplift_webhooks.cli.kit.tables import Column
from uplift_webhooks.cli.session import Session, command

_COLUMNS: Final = [
    Column("id", "ATTEMPT"),
    Column("endpoint", "ENDPOINT", dropped=3),
    Column("number", "NUMBER", dropped=2),
    Column("outcome", "OUTCOME"),
    Column("status_code", "CODE"),
    Column("duration_ms", "MS", dropped=1),
    Column("started_at", "STARTED", dropped=4),
]
_PATH: Final = "/v1/attempts"

Attempt = Annotated[str, typer.Argument(metavar="ATTEMPT", help="ID of the attempt, or a unique ID prefix.")]


def register(app: typer.Typer) -> None:
    """Add the `attempts` commands to the program."""
    group = noun("List and show attempts.")
    add(app, "attempts", group)
    command(
        group,
        "list",
        examples=(
            "uplift attempts",
            "uplift attempts list --endpoint ep_0197f0c2 --status-code 5xx",
            "uplift attempts list --outcome timeout --after 2026-01-31T08:00:00Z",
        ),
    )(list_attempts)
    command(group, "show", examples=("uplift attempts att_0197f0c2", "uplift attempts show 0197f0c2 --json"))(show)


def list_attempts(
    session: Session,
    endpoint: Endpoints = None,
    delivery: Deliveries = None,
    event_type: EventTypes = None,
    outcome: AttemptOutcomes = None,
    status_code: AttemptStatusCodes = None,
    object_id: ObjectId = None,
    after: After = None,
    before: Before = None,
    limit: Limit = 50,
) -> None:
    """List attempts, newest event first.

    An attempt must match every filter option. If you repeat an option, an attempt must match one of its values.
    """
    calls = session.calls()
    query = matching(
        calls,
        endpoint=endpoint,
        delivery=delivery,
        event_type=event_type,
        outcome=outcome,
        status_code=status_code,
        object_id=object_id,
        after=after,
        before=before,
    )
    with options(**DELIVERY_OPTIONS):
        found = calls.items(_PATH, limit=limit, **query)
        session.output.rows(found, _COLUMNS, empty="No matching attempts. To list deliveries: uplift deliveries")


def show(session: Session, attempt: Attempt) -> None:
    """Show an attempt with its request and response."""
    found = find(session.calls(), _PATH, "attempt", "att_", attempt)
    session.output.streams = True
    session.output.fields(found)
