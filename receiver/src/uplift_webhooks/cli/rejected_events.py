"""`uplift rejected-events`: show messages in the NATS event stream that are not valid events."""

from typing import Final

import typer

from uplift_webhooks.cli.kit.inputs import Limit
from uplift_webhooks.cli.kit.lookup import find
from uplift_webhooks.cli.kit.program import add, noun
from uplift_webhooks.cli.kit.rejected_events import (
    NO_REJECTED_EVENTS,
    REJECTED_EVENT_OPTIONS,
    REJECTED_EVENTS_PATH,
    RejectedEventId,
    RejectedIds,
    RejectedKeys,
    RejectedTypes,
    Since,
    Until,
    rejected_event_row,
    show_rejected_event,
)
from uplift_webhooks.cli.kit.rejections import options
from uplift_webhooks.cli.kit.tables import Column
from uplift_webhooks.cli.session import Session, command

_COLUMNS: Final = [
    Column("id", "REJECTED EVENT"),
    Column("type", "TYPE", gives=True),
    Column("idempotency_key", "IDEMPOTENCY KEY", gives=True, dropped=1),
    Column("cause", "CAUSE", folds=True),
    Column("rejected_at", "REJECTED", dropped=2),
]


def register(app: typer.Typer) -> None:
    """Add the `rejected-events` commands to the program."""
    group = noun("List and show rejected events.")
    add(app, "rejected-events", group)
    command(
        group,
        "list",
        examples=(
            "uplift rejected-events",
            "uplift rejected-events list --type athlete.updated --since 2026-01-31T08:00:00Z",
        ),
    )(list_rejected_events)
    command(group, "show", examples=("uplift rejected-events rej_0197f0c2",))(show)


def list_rejected_events(
    session: Session,
    event_type: RejectedTypes = None,
    event_id: RejectedIds = None,
    idempotency_key: RejectedKeys = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
) -> None:
    """List rejected events, newest first.

    A service that publishes an event to NATS gets no response from the server. If the event is not valid, this list
    shows the event and the cause.
    """
    calls = session.calls()
    with options(**REJECTED_EVENT_OPTIONS):
        found = calls.items(
            REJECTED_EVENTS_PATH,
            limit=limit,
            event_type=event_type,
            event_id=event_id,
            idempotency_key=idempotency_key,
            since=since,
            until=until,
        )
        shown = found if session.output.as_json else map(rejected_event_row, found)
        session.output.rows(shown, _COLUMNS, empty=NO_REJECTED_EVENTS)


def show(session: Session, rejected_event: RejectedEventId) -> None:
    """Show a rejected event and the cause of the rejection."""
    found = find(session.calls(), REJECTED_EVENTS_PATH, "rejected event", "rej_", rejected_event)
    show_rejected_event(session.output, found)
