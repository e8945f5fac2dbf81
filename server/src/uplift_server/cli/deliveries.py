"""Events and their deliveries: sending one, and seeing what became of it."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from uplift_server.cli import lookup
from uplift_server.cli.accounts import Account, AnyAccount, Limit
from uplift_server.cli.client import ApiClient, segment
from uplift_server.cli.errors import CliError, ExitCode
from uplift_server.cli.reach import reach
from uplift_server.cli.session import Session, command
from uplift_server.core.deliveries import Status
from uplift_server.core.limits import EVENT_DATA_BYTES_MAX

_COLUMNS: Final = [
    ("id", "DELIVERY"),
    ("type", "TYPE"),
    ("status", "STATUS"),
    ("attempts_made", "ATTEMPTS"),
    ("last_outcome", "LAST OUTCOME"),
    ("next_attempt_at", "NEXT ATTEMPT"),
    ("created_at", "CREATED"),
]
_ATTEMPT_COLUMNS: Final = [
    ("number", "ATTEMPT"),
    ("started_at", "STARTED"),
    ("outcome", "OUTCOME"),
    ("status_code", "CODE"),
    ("duration_ms", "MS"),
    ("trigger", "TRIGGER"),
    ("hint", "WHY, AND WHAT TO DO"),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    command(
        app,
        "send",
        examples=(
            "uplift-server send movement.analytics.created --account acc_0197f0c2",
            "uplift-server send movement.analytics.created --account acc_0197f0c2 --data data.json",
            "echo '{\"object\": {}}' | uplift-server send movement.analytics.created --account acc_0197f0c2 --data -",
        ),
    )(send)
    command(
        app,
        "deliveries",
        examples=(
            "uplift-server deliveries --status failed",
            "uplift-server deliveries --account acc_0197f0c2 --endpoint ep_0197f0c2 --limit 10",
            "uplift-server deliveries dlv_0197f0c2",
        ),
    )(deliveries)


def send(
    session: Session,
    event_type: Annotated[str, typer.Argument(metavar="TYPE", help="The event type, such as athlete.created.")],
    account: Account,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="FILE", help="The event's data as JSON; - reads standard input. If absent, the"
                     " catalog's example is sent."),
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option("--idempotency-key", help="Makes it safe to repeat this very command.")
    ] = None,
) -> None:  # fmt: skip
    """Send an event to the account's endpoints."""
    content = None if data is None else _read_json(data)
    with reach(session.config()) as client:
        owner = lookup.account(client, account)["id"]
        if content is None:
            content = _example(client, event_type)
        body = {"type": event_type, "data": content}
        session.output.fields(client.post("/v1/events", body, account=owner, idempotency_key=idempotency_key))


def _example(client: ApiClient, event_type: str) -> object:
    example = client.get(f"/v1/event-types/{segment(event_type)}").get("example")
    if example is None:
        raise CliError(f"the catalog has no example of {event_type}", "give the data with --data FILE", ExitCode.USAGE)
    found: object = example
    return found


def _read_json(source: str) -> object:
    """What a file or standard input holds. Raises CliError."""
    name = "standard input" if source == "-" else source
    try:
        if source == "-":
            raw = sys.stdin.buffer.read(EVENT_DATA_BYTES_MAX * 2)
        else:
            with Path(source).open("rb") as file:
                raw = file.read(EVENT_DATA_BYTES_MAX * 2)
        content: object = json.loads(raw)
    except OSError as error:
        raise CliError(f"{name} cannot be read: {error.strerror}", "name a file with JSON", ExitCode.USAGE) from error
    except (ValueError, RecursionError) as error:
        raise CliError(f"{name} is not JSON: {error}", "correct it", ExitCode.USAGE) from error
    return content


def deliveries(
    session: Session,
    delivery: Annotated[str | None, typer.Argument(help="Show this one with its attempts: id or beginning.")] = None,
    account: AnyAccount = None,
    status: Annotated[
        str | None, typer.Option("--status", help=f"One of {', '.join(each.text for each in Status)}.")
    ] = None,
    endpoint: Annotated[str | None, typer.Option("--endpoint", help="Id or unique beginning of it.")] = None,
    event: Annotated[str | None, typer.Option("--event", help="The id of an event.")] = None,
    event_type: Annotated[str | None, typer.Option("--type", help="An event type.")] = None,
    limit: Limit = 50,
) -> None:
    """List deliveries, or show one with its attempts."""
    if status is not None and status not in {each.text for each in Status}:
        known = ", ".join(each.text for each in Status)
        raise CliError(f"{status!r} is no status of a delivery", f"choose one of {known}", ExitCode.USAGE)
    with reach(session.config()) as client:
        owner = None if account is None else lookup.account(client, account)["id"]
        if delivery is not None:
            _show(session, client, lookup.delivery(client, delivery, owner), owner)
            return
        path = "/v1/deliveries" if event is None else f"/v1/events/{segment(event)}/deliveries"
        chosen = None if endpoint is None else lookup.endpoint(client, endpoint, owner)["id"]
        filters = {"status": status, "endpoint": chosen, "type": event_type}
        found = client.items(path, limit=limit, account=owner, **(filters if event is None else {}))
        session.output.rows(
            found if event is None else _filtered(found, filters),
            _COLUMNS,
            empty="No deliveries like that. Send an event: uplift-server send TYPE --account ACCOUNT",
        )


def _filtered(items: Iterator[dict[str, Any]], filters: dict[str, str | None]) -> Iterator[dict[str, Any]]:
    """An event has few deliveries, and their list takes no filters."""
    wanted = {name: value for name, value in filters.items() if value is not None}
    return (each for each in items if all(each.get(name) == value for name, value in wanted.items()))


def _show(session: Session, client: ApiClient, delivery: dict[str, Any], owner: str | None) -> None:
    account = owner or delivery.get("account")
    path = f"/v1/deliveries/{segment(delivery['id'])}/attempts"
    attempts = list(client.items(path, limit=1000, account=account))
    if session.output.as_json:
        session.output.json({**delivery, "attempts": attempts})
        return
    session.output.fields(delivery)
    session.output.line("")
    session.output.rows(
        sorted(attempts, key=lambda each: int(each["number"])), _ATTEMPT_COLUMNS, empty="No attempt was made yet."
    )
