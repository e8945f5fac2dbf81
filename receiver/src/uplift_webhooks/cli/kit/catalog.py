"""Prints event types to the terminal."""

import json
from typing import Any

from uplift_webhooks.cli.kit.calls import Calls
from uplift_webhooks.cli.kit.output import Output
from uplift_webhooks.cli.kit.tables import Column


def list_event_types(output: Output, calls: Calls, limit: int, *, wide: bool = False) -> None:
    """Print the event types in the catalog."""
    output.rows(
        calls.items("/v1/event-types", limit=limit),
        [Column("name", "TYPE"), Column("description", "DESCRIPTION", folds=True)],
        empty="The catalog is empty.",
        wide=wide,
    )


def show_event_type(output: Output, found: dict[str, Any]) -> None:
    """Print an event type with its schema and example."""
    output.streams = True
    if output.as_json:
        output.json(found)
        return
    documents = ("schema", "example")
    output.fields({name: value for name, value in found.items() if name not in documents})
    for name in documents:
        output.line("")
        output.line((name, "bold"))
        output.line(json.dumps(found.get(name), indent=2, ensure_ascii=False))
