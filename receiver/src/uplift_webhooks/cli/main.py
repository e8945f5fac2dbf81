"""The program `uplift`: all commands, and its beginning."""

import sys
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer
from typer.exceptions import TyperException

from uplift_webhooks import __version__
from uplift_webhooks.cli import deliveries, endpoints, events, ips, listen, trigger, verification
from uplift_webhooks.cli.errors import ExitCode
from uplift_webhooks.cli.help import Group, complete
from uplift_webhooks.cli.output import failure_json


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
        complete(given, "uplift")
        options = given[: given.index("--")] if "--" in given else given
        if not standalone_mode or "--json" not in options:
            return super().main(given, prog_name, complete_var, standalone_mode, windows_expand_args, **extra)
        try:
            code = super().main(given, prog_name, complete_var, False, windows_expand_args, **extra)
        except TyperException as error:
            place = getattr(getattr(error, "ctx", None), "command_path", "uplift")
            cause = " ".join(error.format_message().split()).rstrip(".")
            print(failure_json(cause, f"see `{place} --help`", error.exit_code), file=sys.stderr)
            code = error.exit_code
        return sys.exit(code if isinstance(code, int) else ExitCode.OK)


app: Final = typer.Typer(
    name="uplift",
    help="Uplift's webhooks, for those who receive them.",
    epilog="Server and key: --api-url and --api-key, UPLIFT_API_URL and UPLIFT_API_KEY, or a profile."
    "\n\nExit codes: 0 ok, 1 failed, 2 usage, 3 not allowed, 4 not found, 75 try again later, 130 stopped by Ctrl-C.",
    cls=_Program,
    no_args_is_help=True,
    # Its own traceback rendering would show local variables, and with them keys and secrets.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"uplift {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Uplift's webhooks, for those who receive them."""


# In the order of the help: developing, looking, changing.
for _each in (listen, trigger, verification, events, deliveries, endpoints, ips):
    _each.register(app)


def start() -> None:
    """Run the command that the arguments name."""
    if sys.stdout is None:
        print("Error: standard output is closed\nRemedy: send it to a file, or to /dev/null", file=sys.stderr)
        sys.exit(ExitCode.FAILED)
    app()
