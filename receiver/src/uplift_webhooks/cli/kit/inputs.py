"""Arguments and input files that `uplift` and `uplift-server` accept."""

import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from uplift_webhooks.cli.kit.errors import CliError, ExitCode

SECRET_BYTES_MAX: Final = 1024
SecretFile = Annotated[
    str | None,
    typer.Option(
        "--secret-file",
        metavar="FILE",
        help="File that contains the new secret, or - for standard input. Default: the server generates a secret.",
    ),
]
Overlap = Annotated[
    str | None,
    typer.Option("--overlap", metavar="DURATION", help="Time until the old secret expires, 0 to 7d. Default: 24h."),
]
UpliftHeader = Annotated[
    str | None,
    typer.Option(
        "--uplift-header",
        metavar="old|new",
        help="Secret for the signature in x-uplift-signature-256 during the overlap. Default: old.",
    ),
]
Limit = Annotated[
    int, typer.Option("--limit", metavar="N", min=1, max=10_000, help="Maximum number of items, 1 to 10000.")
]
State = Annotated[
    str | None,
    typer.Option(
        "--state",
        metavar="enabled|paused|disabled|failing",
        help="Only endpoints in this state. Failing endpoints are enabled endpoints whose last attempt failed.",
    ),
]
Text = Annotated[
    str | None, typer.Option("--text", metavar="TEXT", help="Only endpoints with this text in the URL or description.")
]
Cause = Annotated[
    str | None,
    typer.Option("--cause", metavar="CAUSE", help="Only failing endpoints with this cause, such as dns or status_500."),
]
Description = Annotated[str, typer.Option("--description", metavar="TEXT", help="Description of the endpoint.")]
Uid = Annotated[
    str | None,
    typer.Option("--uid", metavar="UID", help="Your own ID, which you can use instead of the generated ID."),
]
Metadata = Annotated[
    list[str] | None,
    typer.Option("--metadata", metavar="NAME=VALUE", help="Your own metadata: one name and value. Repeatable."),
]
Paused = Annotated[
    bool,
    typer.Option(
        "--paused", help="Create a paused endpoint. The server holds its deliveries until you enable the endpoint."
    ),
]
Held = Annotated[
    str,
    typer.Option(
        "--held",
        metavar="send|drop|keep",
        help="Action for held deliveries: send them in order, drop (cancel) them, or keep them held.",
    ),
]


EventTypes = Annotated[list[str] | None, typer.Option("--type", metavar="TYPE", help="Only this event type.")]
Statuses = Annotated[
    list[str] | None,
    typer.Option(
        "--status", metavar="pending|delivered|failed|held|cancelled", help="Only deliveries with this status."
    ),
]
Outcomes = Annotated[
    list[str] | None,
    typer.Option(
        "--outcome", metavar="OUTCOME", help="Only deliveries whose last attempt had this outcome, such as tls_error."
    ),
]
StatusCodes = Annotated[
    list[str] | None,
    typer.Option(
        "--status-code",
        metavar="CODE",
        help="Only deliveries whose last attempt got this status code, such as 404, or any code of a class, such as"
        " 5xx.",
    ),
]
AttemptOutcomes = Annotated[
    list[str] | None,
    typer.Option("--outcome", metavar="OUTCOME", help="Only attempts with this outcome, such as tls_error."),
]
AttemptStatusCodes = Annotated[
    list[str] | None,
    typer.Option(
        "--status-code",
        metavar="CODE",
        help="Only attempts that got this status code, such as 404, or any code of a class, such as 5xx.",
    ),
]
Endpoints = Annotated[
    list[str] | None,
    typer.Option("--endpoint", metavar="ENDPOINT", help="Only this endpoint: its ID, uid or a unique ID prefix."),
]
Deliveries = Annotated[
    list[str] | None,
    typer.Option("--delivery", metavar="DELIVERY", help="Only this delivery: its ID or a unique ID prefix."),
]
ObjectId = Annotated[
    str | None,
    typer.Option("--object-id", metavar="ID", help="Only events with this ID at data.object.id."),
]
After = Annotated[
    str | None, typer.Option("--after", metavar="TIME", help="Only events accepted after this time (ISO 8601).")
]
Before = Annotated[
    str | None, typer.Option("--before", metavar="TIME", help="Only events accepted before this time (ISO 8601).")
]
Yes = Annotated[bool, typer.Option("--yes", help="Resend the matching deliveries instead of counting them.")]
Test = Annotated[
    bool | None,
    typer.Option(
        "--test/--no-test", help="Only test events (--test) or no test events (--no-test). Default: all events."
    ),
]
OWN_DATA_OPTIONS: Final = {"uid": "--uid", "metadata": "--metadata"}
"""The options for the uid and the metadata. The keys are API fields."""
DELIVERY_OPTIONS: Final = {
    "status": "--status",
    "endpoint": "--endpoint",
    "delivery": "--delivery",
    "type": "--type",
    "outcome": "--outcome",
    "status_code": "--status-code",
    "object_id": "--object-id",
    "created_after": "--after",
    "created_before": "--before",
    "test": "--test",
}
"""The options that filter events, deliveries and attempts. The keys are API parameters."""


def one_or_matching(delivery: str | None, **filters: object) -> dict[str, Any]:
    """Return the filters that the user passed. Raises CliError unless the user passed either a delivery or filters."""
    # Keep an empty text, such as an unset variable, for the server to reject. Without it, too much would match.
    given = {name: value for name, value in filters.items() if value is not None and value != []}
    if (delivery is None) == (not given):
        raise CliError(
            "the command needs either a delivery or filters",
            "pass either a delivery ID or filter options",
            ExitCode.USAGE,
        )
    return given


def metadata_of(values: list[str] | None) -> dict[str, str] | None:
    """Parse the values of `--metadata`. Raises CliError for a value without `=`."""
    if not values:
        return None
    for each in values:
        if "=" not in each:
            raise CliError(f"--metadata {each}: the value is missing", "use --metadata NAME=VALUE", ExitCode.USAGE)
    return {name: value for name, _, value in (each.partition("=") for each in values)}


def read_input(source: str, bytes_max: int, remedy: str) -> bytes:
    """Read at most `bytes_max` bytes from a file, or from standard input if `source` is `-`.

    Raises CliError if the file is not readable. `remedy` is the part of the error that says how to fix the problem.
    """
    try:
        if source == "-":
            return sys.stdin.buffer.read(bytes_max)
        with Path(source).open("rb") as file:
            return file.read(bytes_max)
    except OSError as error:
        raise CliError(f"cannot read {input_name(source)}: {error.strerror}", remedy, ExitCode.USAGE) from error


def read_secret(source: str) -> str:
    """Read a secret from a file or from standard input, without the final line break.

    A file is safer than an argument, because other users of the machine can see a command's arguments. Raises CliError
    if the file is not readable or is not UTF-8 text.
    """
    remedy = "use a text file with the secret in its first line"
    try:
        return read_input(source, SECRET_BYTES_MAX, remedy).decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise CliError(f"{input_name(source)} is not UTF-8 text", remedy, ExitCode.USAGE) from error


def input_name(source: str) -> str:
    """Return the name of an input for messages: `standard input` for `-`, otherwise the path."""
    return "standard input" if source == "-" else source
