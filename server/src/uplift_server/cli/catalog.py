"""Commands that manage the event catalog."""

from typing import Annotated, Final

import typer

from uplift_server.cli.accounts import Wide
from uplift_server.cli.reach import reach
from uplift_server.cli.session import Session, command
from uplift_webhooks.cli.kit import catalog
from uplift_webhooks.cli.kit.inputs import Limit
from uplift_webhooks.cli.kit.lookup import SEARCHED_MAX, find_type
from uplift_webhooks.cli.kit.program import add, noun

type_app: Final = noun("List and show the event types of the catalog.")


def register(app: typer.Typer) -> None:
    """Add the `event-types` commands to the program."""
    add(app, "event-types", type_app)


@command(type_app, "list", examples=("uplift-server event-types",))
def list_types(session: Session, limit: Limit = SEARCHED_MAX, wide: Wide = False) -> None:
    """List the event types."""
    with reach(session.config()) as client:
        catalog.list_event_types(session.output, client, limit, wide=wide)


@command(type_app, "show", examples=("uplift-server event-types show athlete.created",))
def show_type(
    session: Session, name: Annotated[str, typer.Argument(metavar="TYPE", help="Name of the event type.")]
) -> None:
    """Show an event type with its schema and example."""
    with reach(session.config()) as client:
        catalog.show_event_type(session.output, find_type(client, name))
