"""Arguments and input files of both programs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from uplift_webhooks.cli.kit.errors import CliError, ExitCode

Limit = Annotated[
    int, typer.Option("--limit", metavar="N", min=1, max=10_000, help="Maximum number of items, 1 to 10000.")
]
State = Annotated[
    str | None,
    typer.Option(
        "--state",
        metavar="enabled|paused|disabled|failing",
        help="Only this state. failing: enabled endpoints whose last attempt failed.",
    ),
]
Text = Annotated[
    str | None, typer.Option("--text", metavar="TEXT", help="Only endpoints with this text in the URL or description.")
]
Description = Annotated[str, typer.Option("--description", metavar="TEXT", help="Description of the endpoint.")]
Held = Annotated[
    str,
    typer.Option(
        "--held", metavar="send|drop|keep", help="Held deliveries: send them in order, cancel them, or keep them held."
    ),
]


def read_input(source: str, bytes_max: int, remedy: str) -> bytes:
    """The first `bytes_max` bytes of a file, or of standard input if `source` is `-`. Raises CliError."""
    try:
        if source == "-":
            return sys.stdin.buffer.read(bytes_max)
        with Path(source).open("rb") as file:
            return file.read(bytes_max)
    except OSError as error:
        raise CliError(f"cannot read {input_name(source)}: {error.strerror}", remedy, ExitCode.USAGE) from error


def input_name(source: str) -> str:
    """Return the name of an input for people."""
    return "standard input" if source == "-" else source
