"""Arguments and files that commands of both programs read."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from uplift_webhooks.cli.kit.errors import CliError, ExitCode

Limit = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most this many, the newest first.")]
State = Annotated[
    str | None,
    typer.Option(
        "--state",
        metavar="enabled|paused|disabled|failing",
        help="Only those in this state; failing: enabled ones whose last attempt failed.",
    ),
]
Text = Annotated[str | None, typer.Option("--text", help="Only those with this in URL or description.")]
Description = Annotated[str, typer.Option("--description", help="What people should know about it.")]
Held = Annotated[
    str,
    typer.Option(
        "--held", metavar="send|drop|keep", help="Its held deliveries: send them in order, cancel them, or keep them."
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
        raise CliError(f"{input_name(source)} cannot be read: {error.strerror}", remedy, ExitCode.USAGE) from error


def input_name(source: str) -> str:
    """The name of an input for people."""
    return "standard input" if source == "-" else source
