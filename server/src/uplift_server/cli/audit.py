"""The command that shows the audit log."""

import json
from collections.abc import Iterator
from typing import Annotated, Any, Final

import typer

from uplift_server.cli import lookup
from uplift_server.cli.accounts import AnyAccount, Wide
from uplift_server.cli.reach import reach
from uplift_server.cli.session import Session, command
from uplift_server.core.people.audit import ACTIONS
from uplift_webhooks.cli.kit.errors import CliError, ExitCode
from uplift_webhooks.cli.kit.inputs import Limit
from uplift_webhooks.cli.kit.rejections import options
from uplift_webhooks.cli.kit.tables import Column

_COLUMNS: Final = [
    Column("at", "TIME", "timestamp"),
    Column("who", "ACTOR", gives=True),
    Column("action", "ACTION"),
    Column("subject", "SUBJECT", gives=True),
    Column("details_text", "DETAILS", folds=True, dropped=2),
    Column("address", "ADDRESS", dropped=1),
]

_NAMES: Final = {
    "actor": "--actor",
    "action": "--action",
    "created_after": "--after",
    "created_before": "--before",
}


def register(app: typer.Typer) -> None:
    """Add the `audit-log` command to the program."""
    command(
        app,
        "audit-log",
        examples=(
            "uplift-server audit-log --account 'Rapids Academy'",
            "uplift-server audit-log --action endpoint.changed --after 2026-01-01T00:00:00Z",
            "uplift-server audit-log --actor key_0197f0c25b1e7c3a9d5e2f6a8b0c4d1e",
        ),
    )(audit_log)


def audit_log(
    session: Session,
    account: AnyAccount = None,
    actor: Annotated[
        str | None,
        typer.Option(
            "--actor",
            metavar="ACTOR",
            help="Only actions by this actor: the ID of a key or member, or one of the words `system`, `operator`,"
            " `key` and `member`.",
        ),
    ] = None,
    action: Annotated[
        str | None, typer.Option("--action", metavar="ACTION", help="Only this action, such as endpoint.changed.")
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option(
            "--subject", metavar="SUBJECT", help="Only actions on this object: an ID, a uid or an event type."
        ),
    ] = None,
    after: Annotated[
        str | None, typer.Option("--after", metavar="TIMESTAMP", help="Only entries after this timestamp (ISO 8601).")
    ] = None,
    before: Annotated[
        str | None, typer.Option("--before", metavar="TIMESTAMP", help="Only entries before this timestamp (ISO 8601).")
    ] = None,
    limit: Limit = 50,
    wide: Wide = False,
) -> None:
    """Show the audit log, newest entries first.

    Each entry shows the time, the actor, the action, the changed object and the client's IP address.
    """
    if action is not None and action not in ACTIONS:
        known = ", ".join(ACTIONS)
        raise CliError(f"the audit log has no action {action!r}", f"use one of: {known}", ExitCode.USAGE)
    filters = {"actor": actor, "action": action, "subject": subject, "created_after": after, "created_before": before}
    with reach(session.config()) as client, options(**_NAMES):
        owner = lookup.owner(client, account)
        found = client.items("/v1/audit-log", limit=limit, account=owner, **filters)
        session.output.rows(
            found if session.output.as_json else _terminal_rows(found),
            _COLUMNS,
            empty="No matching entries.",
            wide=wide,
        )


def _terminal_rows(entries: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for entry in entries:
        actor, details = entry["actor"], entry["details"]
        yield {
            **entry,
            "who": actor["name"]
            if actor["kind"] in {"system", actor["name"].lower()}
            else f"{actor['kind']} {actor['name']}",
            "details_text": ", ".join(f"{name}: {_detail_text(value)}" for name, value in details.items()),
        }


def _detail_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
