"""`uplift verify` and `uplift sign`: verify and sign requests on the command line, without a server."""

import json
import math
import os
import time
from typing import Annotated, Any, Final

import typer

from uplift_webhooks import SECRET_VARIABLE, Webhook, WebhookVerificationError
from uplift_webhooks import testing as signing
from uplift_webhooks.cli.kit.errors import CliError, ExitCode
from uplift_webhooks.cli.kit.inputs import read_input
from uplift_webhooks.cli.session import Session, command
from uplift_webhooks.webhook import TOLERANCE_SECONDS

BODY_BYTES_MAX: Final = 16 * 1024 * 1024
_REMEDY: Final = "use a readable file"

Body = Annotated[
    str,
    typer.Argument(
        metavar="BODY", help="File that contains the exact bytes of the request body, or - for standard input."
    ),
]
Secret = Annotated[
    list[str] | None,
    typer.Option(
        "--secret",
        metavar="SECRET",
        help=f"Signing secret. Repeatable. Default: {SECRET_VARIABLE}. Other users on this machine can see the values"
        " of command-line options.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the `verify` and `sign` commands to the program."""
    command(
        app,
        "verify",
        server=False,
        examples=(
            "uplift verify body.json --headers headers.txt --explain",
            "uplift verify body.json -H 'webhook-id: …' -H 'webhook-timestamp: …' -H 'webhook-signature: v1,…'",
        ),
    )(verify)
    command(
        app,
        "sign",
        server=False,
        examples=(
            "uplift sign body.json",
            "uplift sign body.json > headers.txt; curl -H @headers.txt --data-binary @body.json localhost:5000/webhook",
        ),
    )(sign)


def verify(
    session: Session,
    body: Body,
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", metavar="'NAME: VALUE'", help="Request header. Repeatable.")
    ] = None,
    headers: Annotated[
        str | None,
        typer.Option(
            "--headers",
            metavar="FILE",
            help="File that contains the headers: one NAME: VALUE per line, or a JSON object.",
        ),
    ] = None,
    secret: Secret = None,
    any_age: Annotated[bool, typer.Option("--any-age", help="Accept any timestamp.")] = False,
    allow_uplift_signature: Annotated[
        bool,
        typer.Option(
            "--allow-uplift-signature",
            help="Accept x-uplift-signature-256 if the request has no Standard Webhooks headers.",
        ),
    ] = False,
    explain: Annotated[bool, typer.Option("--explain", help="If verification fails, find the likely cause.")] = False,
) -> None:
    """Verify the signature of a saved request.

    The command works like the library's Webhook.verify and does not need a server. If verification fails, the command
    shows the cause and how to fix it.
    """
    content = read_input(body, BODY_BYTES_MAX, _REMEDY)
    found = [_pair(each) for each in header or ()] + (
        [] if headers is None else _pairs(read_input(headers, BODY_BYTES_MAX, _REMEDY))
    )
    if not found:
        raise CliError("the request has no headers", "pass the headers with -H or --headers", ExitCode.USAGE)
    webhook = Webhook(
        secret or None,
        allow_uplift_signature=allow_uplift_signature,
        tolerance_seconds=math.inf if any_age else TOLERANCE_SECONDS,
    )
    try:
        webhook.verify(content, found)
    except WebhookVerificationError as error:
        if explain:
            likely = webhook.explain(content, found)
            raise CliError(f"{_sentence(likely.text)} [{likely.cause}]", _sentence(likely.hint)) from error
        hint = f"{_sentence(error.hint)}; to find the likely cause, repeat the command with --explain"
        raise CliError(f"{_sentence(error.cause)} [{error.reason}]", hint) from error
    if session.output.as_json:
        session.output.json({"verified": True})
    else:
        session.output.line(("Verified", "green"), f": {len(content)} bytes")


def sign(
    session: Session,
    body: Body,
    secret: Secret = None,
    message_id: Annotated[
        str | None,
        typer.Option(
            "--id", metavar="ID", help="Value of the header webhook-id. Default: the ID in the body, or a new ID."
        ),
    ] = None,
    timestamp: Annotated[
        int | None,
        typer.Option(
            "--timestamp",
            metavar="SECONDS",
            min=0,
            help="Value of the header webhook-timestamp, in Unix seconds. Default: now.",
        ),
    ] = None,
) -> None:
    """Print the signature headers for a request body.

    Use them to send a test request with curl. The command does not need a server.
    """
    content = read_input(body, BODY_BYTES_MAX, _REMEDY)
    signed_at = int(time.time()) if timestamp is None else timestamp
    made = signing.sign(content, _secrets(secret), message_id=message_id, timestamp=signed_at)
    if session.output.as_json:
        session.output.json(made)
        return
    for name, value in made.items():
        session.output.line(f"{name}: {value}")


def _secrets(given: list[str] | None) -> list[str]:
    found = given or os.environ.get(SECRET_VARIABLE, "").split()
    if not found:
        raise CliError("the secret is not set", f"set {SECRET_VARIABLE}, or use --secret", ExitCode.USAGE)
    return found


def _pairs(content: bytes) -> list[tuple[str, str]]:
    """Parse a file of headers: a JSON object, or one header per line. Ignore a request line at the start."""
    text = content.decode("latin-1")
    if text.lstrip().startswith("{"):
        try:
            value: Any = json.loads(content)
        except ValueError as error:
            raise CliError(f"the headers are not valid JSON: {error}", "correct the file", ExitCode.USAGE) from error
        return [(name, str(each)) for name, each in value.items()]
    lines = [line.strip("\r") for line in text.split("\n") if line.strip()]
    return [_pair(line) for number, line in enumerate(lines) if number or ":" in line.partition(" ")[0]]


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition(":")
    if not separator or not name.strip():
        raise CliError(f"{text!r} is not a header", "use the form NAME: VALUE", ExitCode.USAGE)
    return name.strip(), value.strip()


def _sentence(text: str) -> str:
    return text[:1].lower() + text[1:].rstrip(".")
