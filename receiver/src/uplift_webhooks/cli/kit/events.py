"""Prints events to the terminal."""

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from uplift_webhooks.cli.kit.calls import Calls, segment
from uplift_webhooks.cli.kit.errors import CliError
from uplift_webhooks.cli.kit.output import Output
from uplift_webhooks.cli.kit.tables import Column

_BETWEEN: Final = re.compile(r"[\s,:]*")


def event_row(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event as a table row that omits delivery counts of zero."""
    return {**event, "deliveries": {status: count for status, count in event["deliveries"].items() if count} or "none"}


def show_event(
    output: Output,
    calls: Calls,
    found: dict[str, Any],
    columns: Sequence[Column],
    account: str | None = None,
    *,
    body_only: bool,
) -> None:
    """Print an event with its body and an explanation for each endpoint.

    `body_only`: write only the bytes of the body. Raises CliError if the body was erased.
    """
    path = f"/v1/events/{segment(found['id'])}"
    output.streams = True
    if body_only and found.get("erased_at"):
        raise CliError("the event was erased, so it has no body", "to see the event's deliveries, omit --body")
    if body_only:
        output.exactly(_member(calls.content(path), "body"))
        return
    if "body" not in found:
        found = calls.get(path, account=account)
    reasons = calls.get(f"{path}/explain", account=account)["data"]
    if output.as_json:
        output.json({**found, "endpoints": reasons})
        return
    output.fields(found)
    output.line("")
    output.rows(reasons, columns, empty="The account has no endpoints.")


def _member(content: bytes, name: str) -> bytes:
    """Return the JSON text of one member of an object, without changes. Raises ValueError if the member is missing."""
    text, decoder = content.decode(), json.JSONDecoder()
    position = text.index("{") + 1
    while True:
        key, position = decoder.raw_decode(text, _after(text, position))
        start = _after(text, position)
        _, position = decoder.raw_decode(text, start)
        if key == name:
            return text[start:position].encode()


def _after(text: str, position: int) -> int:
    """Return the position of the next JSON value after `position`."""
    found = _BETWEEN.match(text, position)
    assert found is not None, "it also matches the empty text"
    return found.end()
