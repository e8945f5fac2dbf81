"""The event catalog command."""

import json
from typing import Annotated, Any

import typer

from uplift_server.cli.accounts import Wide
from uplift_server.cli.reach import reach
from uplift_server.cli.session import Session, command
from uplift_webhooks.cli.kit.inputs import Limit
from uplift_webhooks.cli.kit.lookup import SEARCHED_MAX, event_type
from uplift_webhooks.cli.kit.tables import Column


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
            _show(session, event_type(client, name))
            return
        session.output.rows(
            client.items("/v1/event-types", limit=limit),
            [Column("name", "TYPE"), Column("description", "DESCRIPTION", folds=True)],
            empty="The catalog is empty.",
            wide=wide,
        )


def _show(session: Session, found: dict[str, Any]) -> None:
    if session.output.as_json:
        session.output.json(found)
        return
    documents = ("schema", "example")
    session.output.fields({name: value for name, value in found.items() if name not in documents})
    for name in documents:
        session.output.line("")
        session.output.line((name, "bold"))
        session.output.line(json.dumps(found.get(name), indent=2, ensure_ascii=False))
