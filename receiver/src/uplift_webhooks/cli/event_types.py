"""`uplift event-types`: list and show the event types in the catalog."""

from typing import Annotated

import typer

from uplift_webhooks.cli.kit import catalog
from uplift_webhooks.cli.kit.inputs import Limit
from uplift_webhooks.cli.kit.lookup import SEARCHED_MAX, find_type
from uplift_webhooks.cli.kit.program import add, noun
from uplift_webhooks.cli.session import Session, command


def register(app: typer.Typer) -> None:
    """Add the `event-types` commands to the program."""
    group = noun("List and show the event types of the catalog.")
    add(app, "event-types", group)
    command(group, "list", examples=("uplift event-types",))(list_types)
    command(group, "show", examples=("uplift event-types athlete.created",))(show)


def list_types(session: Session, limit: Limit = SEARCHED_MAX) -> None:
    """List the event types."""
    catalog.list_event_types(session.output, session.calls(), limit)


def show(
    session: Session, name: Annotated[str, typer.Argument(metavar="TYPE", help="Name of the event type.")]
) -> None:
    """Show an event type with its schema and example."""
    catalog.show_event_type(session.output, find_type(session.calls(), name))
