"""Options and output of the `rejected-events` commands in `uplift` and `uplift-server`."""

from typing import Annotated, Any, Final

import typer

from uplift_webhooks.cli.kit.output import Output
from uplift_webhooks.cli.kit.tables import Column

REJECTED_EVENTS_PATH: Final = "/v1/rejected-events"
REJECTED_EVENT_OPTIONS: Final = {
    "event_type": "--type",
    "event_id": "--event-id",
    "idempotency_key": "--idempotency-key",
    "since": "--since",
    "until": "--until",
}
"""The options that filter rejected events. The keys are API parameters."""
RejectedTypes = Annotated[
    list[str] | None, typer.Option("--type", metavar="TYPE", help="Only rejected events with this event type.")
]
RejectedIds = Annotated[
    str | None, typer.Option("--event-id", metavar="ID", help="Only rejected events with this event ID.")
]
RejectedKeys = Annotated[
    str | None, typer.Option("--idempotency-key", metavar="KEY", help="Only rejected events with this idempotency key.")
]
Since = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="Only events rejected at this time or later (ISO 8601).")
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Only events rejected before this time (ISO 8601).")
]
RejectedEventId = Annotated[
    str, typer.Argument(metavar="REJECTED_EVENT", help="ID of the rejected event, or a unique ID prefix.")
]
NO_REJECTED_EVENTS: Final = "No matching rejected events."
_ERRORS: Final = [Column("field", "FIELD"), Column("code", "CODE"), Column("message", "MESSAGE", folds=True)]


def rejected_event_row(rejected: dict[str, Any]) -> dict[str, Any]:
    """Return a rejected event as a table row. The column `cause` contains the event's first error."""
    problem = rejected["problem"]
    errors = problem.get("errors")
    if not errors:
        return {**rejected, "cause": problem["detail"]}
    field, message, more = errors[0]["field"], errors[0]["message"], len(errors) - 1
    cause = f"{field}: {message}" if field else message
    return {**rejected, "cause": f"{cause} ({more} more)" if more else cause}


def show_rejected_event(output: Output, rejected: dict[str, Any]) -> None:
    """Print a rejected event. The text output ends with the errors in the event's fields."""
    output.streams = True
    if output.as_json:
        output.json(rejected)
        return
    problem = dict(rejected["problem"])
    errors = problem.pop("errors", [])
    output.fields({**rejected, "problem": problem})
    if errors:
        output.rows(errors, _ERRORS, empty="")
