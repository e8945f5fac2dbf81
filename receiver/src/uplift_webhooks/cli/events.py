"""`uplift events`: events and their deliveries."""

import json
import re
from typing import Annotated, Any, Final

import typer

from uplift_webhooks.cli.kit.calls import segment
from uplift_webhooks.cli.kit.errors import CliError
from uplift_webhooks.cli.kit.inputs import EventTypes, Limit, ObjectId, Test
from uplift_webhooks.cli.kit.lookup import event_type as find_type
from uplift_webhooks.cli.kit.lookup import find
from uplift_webhooks.cli.kit.rejections import options
from uplift_webhooks.cli.kit.tables import Column
from uplift_webhooks.cli.nouns import noun
from uplift_webhooks.cli.session import Session, command

_BETWEEN: Final = re.compile(r"[\s,:]*")
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
    """Add the commands of this module to the program."""
    group = noun(app, "events", "List and show events.")
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
    with options(type="--type", object_id="--object-id", test="--test"):
        for name in event_type or ():
            find_type(calls, name)
        found = calls.items("/v1/events", limit=limit, type=event_type, object_id=object_id, test=test)
        shown = found if session.output.as_json else map(_for_people, found)
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
    session.output.streams = True
    if body_only and found.get("erased_at"):
        raise CliError("the event was erased, so it has no body", "to see its deliveries, omit --body")
    if body_only:
        session.output.exactly(_member(calls.content(f"/v1/events/{segment(found['id'])}"), "body"))
        return
    if "body" not in found:
        found = calls.get(f"/v1/events/{segment(found['id'])}")
    reasons = calls.get(f"/v1/events/{segment(found['id'])}/explain")["data"]
    if session.output.as_json:
        session.output.json({**found, "endpoints": reasons})
        return
    session.output.fields(found)
    session.output.line("")
    session.output.rows(reasons, _REASONS, empty="The account has no endpoints.")


def _member(content: bytes, name: str) -> bytes:
    """Return the unchanged text of a member of a JSON object. Raises ValueError if it is missing."""
    text, decoder = content.decode(), json.JSONDecoder()
    position = text.index("{") + 1
    while True:
        key, position = decoder.raw_decode(text, _after(text, position))
        start = _after(text, position)
        _, position = decoder.raw_decode(text, start)
        if key == name:
            return text[start:position].encode()


def _after(text: str, position: int) -> int:
    """Return the position of the next value."""
    found = _BETWEEN.match(text, position)
    assert found is not None, "it also matches the empty text"
    return found.end()


def _for_people(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event with its delivery counts above zero."""
    return {**event, "deliveries": {status: count for status, count in event["deliveries"].items() if count} or "none"}
