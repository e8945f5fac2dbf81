"""The program `uplift-server` and the registration of all its commands."""

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
    erasures,
    events,
    fleet,
    mail,
    members,
    outbox,
    rejected_events,
    replays,
    retention,
    secret_key,
    secrets,
    serve,
    setup,
)
from uplift_server.cli.demo import command as demo
from uplift_webhooks.cli.kit.program import program, register, require_standard_output

app: Final[typer.Typer] = program(
    "uplift-server",
    __version__,
    "Run and operate Uplift Webhooks, the server that delivers signed events to subscribed endpoints.",
    epilog=(
        "Shared options: every command has --json (one JSON object per line), --config FILE and --debug.",
        "IDs: commands accept a full ID or a unique ID prefix. For accounts, commands also accept the name.",
        (
            "Output: results go to standard output, everything else to standard error. On a terminal, lists are tables;"
            " in a pipe, columns are separated by tabs. NO_COLOR turns colors off."
        ),
        (
            "Server: commands call the running server at UPLIFT_HOST and UPLIFT_PORT. The key is UPLIFT_OPERATOR_KEY or"
            " the file operator.key next to the SQLite database. If no server is running, commands use the database"
            " directly and do not send deliveries."
        ),
    ),
)
register(
    app,
    {
        "Server": (serve, demo, setup, backup, doctor, fleet, mail, audit, secret_key, retention),
        "Accounts": (accounts, members),
        "Endpoints and events": (
            endpoints,
            secrets,
            catalog,
            events,
            outbox,
            rejected_events,
            deliveries,
            replays,
            erasures,
        ),
    },
)


def run() -> None:
    """Run the program. Only the user who runs the program can read the files that the program creates."""
    # The files contain keys and personal data, so other users must not be able to read them.
    os.umask(0o077)
    _open_standard_streams()
    app()


def _open_standard_streams() -> None:
    """Exit if standard output is closed. Replace a closed standard input or standard error with the null device.

    Without a replacement, the database file could get the descriptor of a closed stream.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The system assigns the lowest free descriptor, which is the missing one.
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - stays open
    require_standard_output()
