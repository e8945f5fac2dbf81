"""The event catalog command."""

from typing import Annotated

import typer

from uplift_server.cli.accounts import Wide
from uplift_server.cli.reach import reach
from uplift_server.cli.session import Session, command
from uplift_webhooks.cli.kit import catalog
from uplift_webhooks.cli.kit.inputs import Limit
from uplift_webhooks.cli.kit.lookup import SEARCHED_MAX, event_type


def register(app: typer.Typer) -> None:
    """Register the command of this module."""
    command(app, "event-types", examples=("uplift-server event-types", "uplift-server event-types athlete.created"))(
        event_types
    )


def event_types(
    session: Session,
    name: Annotated[str | None, typer.Argument(metavar="TYPE", help="Event type to show.")] = None,
    limit: Limit = SEARCHED_MAX,
    wide: Wide = False,
) -> None:
    """List the event types of the catalog, or show one with its schema and example."""
    with reach(session.config()) as client:
        if name is not None:
            catalog.show_event_type(session.output, event_type(client, name))
            return
        catalog.list_event_types(session.output, client, limit, wide=wide)
