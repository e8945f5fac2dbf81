"""The program `uplift-server`: all commands, and its entry point."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer
from typer.exceptions import TyperException

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
from uplift_server.cli.errors import ExitCode
from uplift_server.cli.help import Group, complete
from uplift_server.cli.output import failure_json


class _Program(Group):
    """The program, which tells of wrong usage in JSON, too, where that was asked for."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        given = list(sys.argv[1:] if args is None else args)
        complete(given, "uplift-server")
        options = given[: given.index("--")] if "--" in given else given
        if not standalone_mode or "--json" not in options:
            return super().main(given, prog_name, complete_var, standalone_mode, windows_expand_args, **extra)
        try:
            code = super().main(given, prog_name, complete_var, False, windows_expand_args, **extra)
        except TyperException as error:
            place = getattr(getattr(error, "ctx", None), "command_path", "uplift-server")
            cause = " ".join(error.format_message().split()).rstrip(".")
            print(failure_json(cause, f"see `{place} --help`", error.exit_code), file=sys.stderr)
            code = error.exit_code
        return sys.exit(code if isinstance(code, int) else ExitCode.OK)


app: Final = typer.Typer(
    name="uplift-server",
    help="Uplift Webhooks: accepts events, signs them and delivers them to every endpoint that wants them.",
    epilog="Exit codes: 0 ok, 1 failed, 2 usage, 3 not allowed, 4 not found, 75 try again later, 130 stopped by"
    " Ctrl-C.",
    cls=_Program,
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
    if sys.stdout is None:
        print("Error: standard output is closed\nRemedy: send it to a file, or to /dev/null", file=sys.stderr)
        sys.exit(ExitCode.FAILED)
