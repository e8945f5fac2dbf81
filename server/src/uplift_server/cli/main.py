"""The program `uplift-server`: all commands, and its entry point."""

import os
from typing import Annotated, Final

import typer

from uplift_server import __version__
from uplift_server.cli import accounts, deliveries, doctor, endpoints, serve, setup
from uplift_server.cli.demo import command as demo

app: Final = typer.Typer(
    name="uplift-server",
    help="Uplift Webhooks: accepts events, signs them and delivers them to every endpoint that wants them.",
    epilog="Exit codes: 0 ok, 1 failed, 2 usage, 3 not allowed, 4 not found, 75 try again later.",
    no_args_is_help=True,
    # Its own traceback rendering would show local variables, and with them secrets.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"uplift-server {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Uplift Webhooks: accepts events, signs them and delivers them to every endpoint that wants them."""


# In the order of the help: running it, preparing it, using it.
for _each in (serve, demo, setup, doctor, accounts, endpoints, deliveries):
    _each.register(app)


def run() -> None:
    """The entry point."""
    # What we make holds events, which are personal, and keys: nobody else on this machine may read it.
    os.umask(0o077)
    app()
