"""The option for an endpoint's filter and the output of a filter preview, in `uplift` and `uplift-server`."""

import json
from typing import Annotated, Any, Final

import typer

from uplift_webhooks.cli.kit.calls import Calls
from uplift_webhooks.cli.kit.errors import CliError, ExitCode
from uplift_webhooks.cli.kit.inputs import input_name, read_input
from uplift_webhooks.cli.kit.output import Output
from uplift_webhooks.cli.kit.rejections import options
from uplift_webhooks.cli.kit.tables import Column

FILE_BYTES_MAX: Final = 64 * 1024
NONE: Final = "none"
_REMEDY: Final = 'use a JSON object, such as \'{"object": {"movement": ["pitching"]}}\', or @FILE'
_METAVAR: Final = "JSON|@FILE|none"
_COLUMNS: Final = [
    Column("id", "EVENT"),
    Column("type", "TYPE", gives=True),
    Column("matches", "MATCHES"),
    Column("path", "PATH", gives=True, dropped=1),
]
Filter = Annotated[
    str | None,
    typer.Option(
        "--filter",
        metavar=_METAVAR,
        help="Filter that an event's data must match. Enter none to deliver every event.",
    ),
]
PreviewedFilter = Annotated[str, typer.Argument(metavar=_METAVAR, help="Filter that an event's data must match.")]
PreviewedTypes = Annotated[
    list[str] | None,
    typer.Option("--type", metavar="TYPE", help="Only events of this type or pattern, such as movement.*. Repeatable."),
]
PreviewLimit = Annotated[
    int, typer.Option("--limit", metavar="N", min=1, max=100, help="Maximum number of events, 1 to 100.")
]


def filter_field(text: str | None) -> dict[str, Any]:
    """Return a dictionary with the request field `filter`, or an empty dictionary if the option is omitted.

    Raises CliError if the filter is not valid.
    """
    return {} if text is None else {"filter": filter_of(text)}


def filter_of(text: str) -> Any:
    """Parse a filter: JSON, `@FILE`, or `none`, which returns None. Raises CliError if parsing fails."""
    if text == NONE:
        return None
    content, name = text.encode("utf-8", "surrogateescape"), "the filter"
    if text.startswith("@"):
        name = input_name(text[1:])
        content = read_input(text[1:], FILE_BYTES_MAX + 1, "use a file with the filter as JSON")
        if len(content) > FILE_BYTES_MAX:
            raise CliError(f"{name} has more than {FILE_BYTES_MAX} bytes", _REMEDY, ExitCode.USAGE)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CliError(f"{name} is not valid JSON: {error}", _REMEDY, ExitCode.USAGE) from error


def preview_filter(
    output: Output, calls: Calls, text: str, types: list[str] | None, limit: int, account: str | None = None
) -> None:
    """Print the newest events, and whether each event matches a filter.

    Raises CliError if the filter is not valid, or if the API call fails.
    """
    body = {"filter": filter_of(text), "event_types": types or [], "limit": limit}
    with options(filter="the filter", event_types="--type", limit="--limit"):
        found = calls.post("/v1/endpoints/filter-preview", body, account=account)
    if output.as_json:
        output.json(found)
        return
    output.rows(found["events"], _COLUMNS, empty="No matching events are stored.")
    if found["events"]:
        output.note(f"{found['matched']} of {found['total']} events match.")
