"""`uplift events`: list and show events, with their deliveries."""

from typing import Annotated, Final

import typer

from uplift_webhooks.cli.kit.events import event_row, show_event
from uplift_webhooks.cli.kit.inputs import DELIVERY_OPTIONS, EventTypes, Limit, ObjectId, Test
from uplift_webhooks.cli.kit.lookup import find, matching
from uplift_webhooks.cli.kit.program import add, noun
from uplift_webhooks.cli.kit.rejections import options
from uplift_webhooks.cli.kit.tables import Column
from uplift_webhooks.cli.session import Session, command

_COLUMNS: Final = [
    Column("id", "EVENT"),
    Column("type", "TYPE", gives=True),
    Column("deliveries", "DELIVERIES", dropped=1),
    Column("created_at", "CREATED", dropped=2),
    Column("test", "TEST", dropped=3),
]
_REASONS: Final = [
    Column("endpoint", "ENDPOINT"),
    Column("reason", "REASON", dropped=1),
    Column("text", "EXPLANATION", folds=True),
    Column("hint", "HOW TO FIX", folds=True),
]


def register(app: typer.Typer) -> None:
    """Add the `events` commands to the program."""
    group = noun("List and show events.")
    add(app, "events", group)
    command(
        group,
        "list",
        examples=(
            "uplift events",
            "uplift events list --type movement.analytics.created --limit 10",
            "uplift events list --object-id athlete_4711",
        ),
    )(list_events)
    command(
        group,
        "show",
        examples=("uplift events 0197f0c2-5b1e", "uplift events show 0197f0c2-5b1e --body > body.json"),
    )(show)


def list_events(
    session: Session,
    event_type: EventTypes = None,
    object_id: ObjectId = None,
    test: Test = None,
    limit: Limit = 50,
) -> None:
    """List events, newest first.

    The list includes events without deliveries.
    """
    calls = session.calls()
    with options(**DELIVERY_OPTIONS):
        query = matching(calls, event_type=event_type, object_id=object_id, test=test)
        found = calls.items("/v1/events", limit=limit, **query)
        shown = found if session.output.as_json else map(event_row, found)
        session.output.rows(shown, _COLUMNS, empty="No events yet. To send a test event: uplift trigger")


def show(
    session: Session,
    event: Annotated[str, typer.Argument(metavar="EVENT", help="ID of the event, or a unique ID prefix.")],
    body_only: Annotated[
        bool,
        typer.Option("--body", help="Write only the request body: exactly the bytes that the server signs and sends."),
    ] = False,
) -> None:
    """Show an event with its body.

    The output also explains why the event did or did not reach each endpoint.
    """
    calls = session.calls()
    found = find(calls, "/v1/events", "event", "", event)
    show_event(session.output, calls, found, _REASONS, body_only=body_only)
