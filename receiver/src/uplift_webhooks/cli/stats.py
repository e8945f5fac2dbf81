"""`uplift stats`: show delivery and attempt statistics."""

from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any, Final

import typer

from uplift_webhooks.cli.kit.calls import Calls
from uplift_webhooks.cli.kit.inputs import Limit
from uplift_webhooks.cli.kit.rejections import options
from uplift_webhooks.cli.kit.tables import Column
from uplift_webhooks.cli.session import Session, command

_PATH: Final = "/v1/stats"
_PAGE_GROUPS: Final = 500
_OPTIONS: Final = {"period": "--period", "since": "--since", "until": "--until", "by": "--by"}
_GROUPED: Final = ("type", "endpoint")
_HEADINGS: Final = {"type": "TYPE", "endpoint": "ENDPOINT", "hour": "HOUR", "day": "DAY"}
_COUNTS: Final = [
    Column("deliveries", "DELIVERIES"),
    Column("delivered", "DELIVERED"),
    Column("failed", "FAILED"),
    Column("pending", "PENDING", dropped=3),
    Column("held", "HELD", dropped=4),
    Column("cancelled", "CANCELLED", dropped=5),
    Column("attempts", "ATTEMPTS", dropped=2),
    Column("first_try_rate", "FIRST TRY", dropped=1),
]


def register(app: typer.Typer) -> None:
    """Add the `stats` command to the program."""
    command(
        app,
        "stats",
        examples=(
            "uplift stats",
            "uplift stats --period 7d",
            "uplift stats --by endpoint --since 2026-01-31T00:00:00Z --until 2026-02-01T00:00:00Z",
        ),
    )(stats)


def stats(
    session: Session,
    period: Annotated[
        str | None, typer.Option("--period", metavar="1h|24h|7d|30d", help="Period that ends now. Default: 24h.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="Start of a range (ISO 8601). Default: one day before --until."),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="End of a range (ISO 8601). Default: now.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by", metavar="hour|day|type|endpoint", help="Group the statistics by hour, day, type or endpoint."
        ),
    ] = None,
    limit: Limit = 50,
) -> None:
    """Show how many deliveries and attempts succeeded and failed.

    Without --by, the command shows the totals, and the number of failed attempts for each outcome. --limit applies only
    with --by type or --by endpoint.
    """
    asked = {"period": period, "since": since, "until": until, "by": by}
    with options(**_OPTIONS):
        calls = session.calls()
        if by in _GROUPED:
            found = islice(_groups(calls, asked, limit), limit)
            _rows(session, by, found, by)
            return
        answer = calls.get(_PATH, **asked)
    if by is not None:
        _rows(session, by, answer["buckets"], "at")
        return
    if session.output.as_json:
        session.output.json(answer)
        return
    session.output.fields({"since": answer["since"], "until": answer["until"], **_with_percent(answer["totals"])})
    session.output.fields({"failures": answer["failures"]})


def _groups(calls: Calls, asked: dict[str, str | None], limit: int) -> Iterator[dict[str, Any]]:
    """Yield the statistics groups from all pages. A page can contain fewer groups than its limit."""
    cursor = None
    while True:
        answer = calls.get(_PATH, **asked, limit=min(limit, _PAGE_GROUPS), cursor=cursor)
        yield from answer["groups"]
        cursor = answer["next_cursor"]
        if cursor is None:
            return


def _rows(session: Session, by: str, found: Any, name: str) -> None:
    columns = [Column(name, _HEADINGS[by], gives=by == "type"), *_COUNTS]
    shown = found if session.output.as_json else map(_with_percent, found)
    session.output.rows(shown, columns, empty="No deliveries in this range.")


def _with_percent(numbers: dict[str, Any]) -> dict[str, Any]:
    rate = numbers["first_try_rate"]
    return numbers if rate is None else {**numbers, "first_try_rate": f"{rate:.1%}"}
