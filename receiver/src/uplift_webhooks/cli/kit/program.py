"""Programs that use typer: their commands, help and completion. Only this module uses private APIs of typer."""

import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Final, Protocol

import typer
from typer._click.exceptions import MissingParameter, UsageError
from typer._completion_shared import get_completion_script, install
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from uplift_webhooks.cli.kit.errors import ExitCode
from uplift_webhooks.cli.kit.output import failure_json

_EXIT_CODES: Final = (
    "Exit codes: 0 success, 1 failure, 2 invalid usage or configuration, 3 not allowed, 4 not found,"
    " 75 temporary failure (try again later), 130 stopped by Ctrl-C."
)
_NOUNS: Final = "Short forms: `{0} deliveries` lists deliveries, and `{0} deliveries ID` shows one delivery."
_SIMILARITY_LEAST: Final = 0.8
_SHELLS: Final = frozenset({"bash", "zsh", "fish", "powershell", "pwsh"})
_HELP: Final = frozenset({"-h", "--help"})


class Command(TyperCommand):
    """A command whose help shows flags without a type, and whose error for a missing parameter lists its choices."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments. If a parameter is missing, the error lists the choices for it."""
        try:
            return super().parse_args(ctx, args)
        except MissingParameter as error:
            if error.param is not None and error.param.metavar and not ctx.resilient_parsing:
                error.message = getattr(self.callback, "choices")(error.param.metavar, ctx.params)  # noqa: B009
            raise

    def get_params(self, ctx: Any) -> list[Any]:
        """Return all parameters. The help shows flags without a type."""
        return _untyped(super().get_params(ctx))


class Group(TyperGroup):
    """A group of commands whose help shows flags without a type."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return all parameters. The help shows flags without a type."""
        return _untyped(super().get_params(ctx))


class Noun(Group):
    """The commands for one type of object, such as endpoints.

    If the user omits the subcommand, the group runs `show` if there is an argument, otherwise `list`.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        shown = f", and `{self.name} ID` runs `{self.name} show ID`" if "show" in self.commands else ""
        self.epilog = f"Without a command, `{self.name}` runs `{self.name} list`{shown}."

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the subcommand `show` or `list` if the user omitted it."""
        if not args or (args[0] not in self.commands and args[0] not in _HELP):
            # Do not treat a mistyped subcommand as an ID: typer suggests the right subcommand.
            mistyped = args and get_close_matches(args[0], self.commands, cutoff=_SIMILARITY_LEAST)
            unknown = mistyped or self._has_unknown_command(ctx, args)
            named = "show" in self.commands and not unknown and self._has_argument(ctx, args)
            if named or not args or args[0].startswith("-"):
                args = ["show" if named else "list", *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the subcommand that the user entered.

        If no subcommand has this name or a similar one, the error lists all subcommands.
        """
        try:
            return super().resolve_command(ctx, args)
        except UsageError as error:
            if error.message.endswith("."):
                shown = [name for name, each in self.commands.items() if not each.hidden]
                error.message += f" Use one of: {', '.join(shown)}."
            raise

    def _has_unknown_command(self, ctx: Any, args: list[str]) -> bool:
        """Return whether the first argument is an unknown command, such as `retry` in `deliveries retry ID`."""
        if "show" not in self.commands or not args or not (args[0].replace("-", "").isalpha() and args[0].islower()):
            return False
        try:
            _, left, _ = self.commands["show"].make_parser(ctx).parse_args(list(args))
        except TyperException:
            return False
        return any(not each.startswith("-") for each in left)

    def _has_argument(self, ctx: Any, args: list[str]) -> bool:
        """Return whether the user passed a positional argument. The values of `list` options do not count."""
        parser = self.commands["list"].make_parser(ctx)
        parser.ignore_unknown_options = True
        try:
            _, left, _ = parser.parse_args(list(args))
        except TyperException:
            return False
        return any(not each.startswith("-") for each in left)


class Commands(Protocol):
    """The interface of a module that contains commands."""

    def register(self, app: typer.Typer, /) -> None:
        """Add the commands to a program."""


class _Program(Group):
    """The root group of a program. With `--json`, it reports usage errors as JSON."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        name = str(self.name)
        given = list(sys.argv[1:] if args is None else args)
        _complete(given, name)
        options = given[: given.index("--")] if "--" in given else given
        if not standalone_mode or "--json" not in options:
            return super().main(given, prog_name, complete_var, standalone_mode, windows_expand_args, **extra)
        try:
            code = super().main(given, prog_name, complete_var, False, windows_expand_args, **extra)
        except TyperException as error:
            place = getattr(getattr(error, "ctx", None), "command_path", name)
            cause = " ".join(error.format_message().split()).rstrip(".")
            print(failure_json(cause, f"see `{place} --help`", error.exit_code), file=sys.stderr)
            code = error.exit_code
        return sys.exit(code if isinstance(code, int) else ExitCode.OK)


def program(name: str, version: str, about: str, *, epilog: Sequence[str] = ()) -> typer.Typer:
    """Return a program that has `--version` and shell completion, but no commands. `epilog` follows the help text."""
    app = typer.Typer(
        name=name,
        help=about,
        epilog="\n\n".join((_NOUNS.format(name), *epilog, _EXIT_CODES)),
        cls=_Program,
        no_args_is_help=True,
        # Rich tracebacks show local variables, including keys and secrets.
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    def show_version(wanted: bool) -> None:
        if wanted:
            print(f"{name} {version}")
            raise typer.Exit

    @app.callback(help=about)
    def shared(
        version: Annotated[
            bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version.")
        ] = False,
    ) -> None:
        pass

    return app


def noun(about: str) -> typer.Typer:
    """Return a group of commands for one type of object, such as `list`, `show` and `create` for endpoints."""
    return typer.Typer(cls=Noun, help=about)


def group(about: str) -> typer.Typer:
    """Return a command group that prints its help if the command is omitted."""
    return typer.Typer(cls=Group, help=about, no_args_is_help=True)


def add(app: typer.Typer, name: str, commands: typer.Typer, *, former: str | None = None) -> None:
    """Add a command group to a program. `former`: a previous name that still works but is not in the help."""
    app.add_typer(commands, name=name)
    if former is not None:
        app.add_typer(commands, name=former, hidden=True)


def register(app: typer.Typer, panels: Mapping[str, Sequence[Commands]]) -> None:
    """Add the commands of each module to a program. The help lists the panels in the order of `panels`."""
    for panel, modules in panels.items():
        commands, groups = len(app.registered_commands), len(app.registered_groups)
        for each in modules:
            each.register(app)
        for added in app.registered_commands[commands:]:
            added.rich_help_panel = panel
        for added_group in app.registered_groups[groups:]:
            added_group.rich_help_panel = panel


def require_standard_output() -> None:
    """Exit with an error if standard output is closed."""
    if sys.stdout is None:
        print(
            "Error: standard output is closed\nHow to fix: redirect standard output to a file or to /dev/null",
            file=sys.stderr,
        )
        sys.exit(ExitCode.FAILED)


def _complete(arguments: Sequence[str], program_name: str) -> None:
    """Print or install the completion for the named shell and exit.

    Without the name of a shell, do nothing. Typer's own options detect the current shell and do not accept a name.
    """
    if len(arguments) != 2 or arguments[1] not in _SHELLS:
        return
    option, shell = arguments
    if option == "--show-completion":
        variable = f"_{program_name.replace('-', '_').upper()}_COMPLETE"
        print(get_completion_script(prog_name=program_name, complete_var=variable, shell=shell))
        sys.exit(0)
    if option == "--install-completion":
        _, path = install(shell=shell, prog_name=program_name)
        print(f"Installed completion for {shell} in {path}. To use it, start a new shell.")
        sys.exit(0)


def _untyped(params: list[Any]) -> list[Any]:
    """Change the help of flags so that it does not show `<bool>`. Return the changed parameters."""
    for each in params:
        if getattr(each, "is_flag", False) and each.metavar is None:
            each.metavar = ""
    return params
