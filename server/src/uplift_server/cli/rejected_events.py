"""Commands that list and show rejected events."""

from typing import Final

import typer

from uplift_server.cli import lookup
from uplift_server.cli.accounts import AnyAccount, Wide
from uplift_server.cli.reach import reach
from uplift_server.cli.session import Session, command
from uplift_webhooks.cli.kit.inputs import Limit
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

rejected_events_app: Final = noun("List and show rejected events: messages in NATS that are not valid events.")


def register(app: typer.Typer) -> None:
    """Add the `rejected-events` commands to the program."""
    add(app, "rejected-events", rejected_events_app)


@command(
    rejected_events_app,
    "list",
    examples=(
        "uplift-server rejected-events",
        "uplift-server rejected-events list --account 'Rapids Academy' --since 2026-01-31T08:00:00Z",
    ),
)
def list_rejected_events(
    session: Session,
    event_type: RejectedTypes = None,
    event_id: RejectedIds = None,
    idempotency_key: RejectedKeys = None,
    since: Since = None,
    until: Until = None,
    account: AnyAccount = None,
    limit: Limit = 50,
    wide: Wide = False,
) -> None:
    """List rejected events, newest first.

    Rejected events are messages in NATS that are not valid events. Without --account, the list includes messages
    without a known account.
    """
    with reach(session.config()) as client, options(**REJECTED_EVENT_OPTIONS):
        owner = lookup.owner(client, account)
        found = client.items(
            REJECTED_EVENTS_PATH,
            limit=limit,
            account=owner,
            event_type=event_type,
            event_id=event_id,
            idempotency_key=idempotency_key,
            since=since,
            until=until,
        )
        session.output.rows(
            found if session.output.as_json else map(rejected_event_row, found),
            [
                Column("id", "REJECTED EVENT", "id"),
                Column("subject", "SUBJECT", gives=True),
                Column("type", "TYPE", gives=True),
                Column("idempotency_key", "IDEMPOTENCY KEY", gives=True, dropped=1),
                Column("cause", "CAUSE", folds=True),
                Column("rejected_at", "REJECTED", "timestamp", dropped=2),
            ],
            empty=NO_REJECTED_EVENTS,
            wide=wide,
        )


@command(rejected_events_app, "show", examples=("uplift-server rejected-events rej_0197f0c2",))
def show(session: Session, rejected_event: RejectedEventId, account: AnyAccount = None) -> None:
    """Show a rejected event and the cause of the rejection."""
    with reach(session.config()) as client:
        found = lookup.rejected_event(client, rejected_event, lookup.owner(client, account))
    show_rejected_event(session.output, found)
