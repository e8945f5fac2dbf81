"""The program `uplift-server`: all commands, and its entry point."""

import os
import sys
from typing import Final

import typer

from uplift_server import __version__
from uplift_server.cli import (
    accounts,
    audit,
    backup,
    catalog,
    deliveries,
    doctor,
    endpoints,
    mail,
    members,
    replays,
    retention,
    secret_key,
    secrets,
    serve,
    setup,
)
from uplift_server.cli.demo import command as demo
from uplift_webhooks.cli.kit.program import program, require_standard_output

app: Final[typer.Typer] = program(
    "uplift-server",
    __version__,
    "Uplift Webhooks: accepts events, signs them and delivers them to every subscribed endpoint.",
)
# In the order of the help: run the server, prepare it, use it.
for _each in (
    serve,
    demo,
    setup,
    backup,
    doctor,
    mail,
    secret_key,
    retention,
    accounts,
    members,
    endpoints,
    secrets,
    catalog,
    deliveries,
    replays,
    audit,
):
    _each.register(app)


def run() -> None:
    """The entry point."""
    # What we make holds events, which are personal, and keys: nobody else on this machine may read it.
    os.umask(0o077)
    _need_streams()
    app()


def _need_streams() -> None:
    """End if standard output is closed; with any of the three closed, a file of the database would get its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is the one that is missing.
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - stays open
    require_standard_output()
