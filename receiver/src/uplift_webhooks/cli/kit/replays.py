"""Options for the commands that create a replay."""

from typing import Annotated, Any, Final

import typer

from uplift_webhooks.cli.kit.errors import CliError, ExitCode

ReplayedEndpoint = Annotated[
    str, typer.Argument(metavar="ENDPOINT", help="ID or uid of the endpoint, or a unique ID prefix.")
]
ReplayedStatuses = Annotated[
    list[str] | None,
    typer.Option(
        "--status",
        metavar="failed|cancelled|delivered",
        help="Status of the deliveries to replay. Repeatable. Default: failed.",
    ),
]
ReplayedTypes = Annotated[
    list[str] | None,
    typer.Option(
        "--type",
        metavar="TYPE",
        help="Event type, or a pattern such as movement.*. Repeatable. Default: all event types.",
    ),
]
Rate = Annotated[
    int | None, typer.Option("--rate", metavar="N", help="Maximum number of deliveries per second. Default: 50.")
]
IncludeMissing = Annotated[
    bool,
    typer.Option(
        "--include-missing",
        help="Also send events that the endpoint missed because it did not exist or was not subscribed yet.",
    ),
]
OnlyMissing = Annotated[
    bool, typer.Option("--only-missing", help="Send only events without a delivery to the endpoint.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count the matching deliveries.")]
REPLAY_OPTIONS: Final = {
    "endpoint": "ENDPOINT",
    "status": "--status",
    "types": "--type",
    "created_after": "--after",
    "created_before": "--before",
    "rate_per_second": "--rate",
    "include_missing": "--include-missing",
}
"""The argument and the options of the commands that create a replay. The keys are API fields."""


def replay_body(
    *,
    status: list[str] | None,
    types: list[str] | None,
    after: str | None,
    before: str | None,
    rate: int | None,
    include_missing: bool,
    only_missing: bool,
    dry_run: bool,
) -> dict[str, Any]:
    """Return the request body to create a replay, without the endpoint.

    Raises CliError if `only_missing` is combined with `status`.
    """
    if only_missing and status:
        raise CliError("--only-missing cannot be combined with --status", "omit one of these options", ExitCode.USAGE)
    given = {
        "status": [] if only_missing else status,
        "types": types,
        "created_after": after,
        "created_before": before,
        "rate_per_second": rate,
        "include_missing": include_missing or only_missing or None,
        "dry_run": dry_run or None,
    }
    return {name: value for name, value in given.items() if value is not None}
