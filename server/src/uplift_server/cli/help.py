"""What is told about the program itself: its options without types that say nothing, and the completion of shells."""

import sys
from collections.abc import Sequence
from typing import Any, Final

from typer._completion_shared import get_completion_script, install
from typer.core import TyperCommand, TyperGroup

_SHELLS: Final = frozenset({"bash", "zsh", "fish", "powershell", "pwsh"})


class Command(TyperCommand):
    """A command whose help calls flags by their names alone."""

    def get_params(self, ctx: Any) -> list[Any]:
        """All parameters."""
        return _untyped(super().get_params(ctx))


class Group(TyperGroup):
    """A group of commands with the same help."""

    def get_params(self, ctx: Any) -> list[Any]:
        """All parameters."""
        return _untyped(super().get_params(ctx))


def complete(arguments: Sequence[str], program: str) -> None:
    """Print or install the completion of the shell that is named, and end; return where none is.

    Typer's own options look for the shell they run in, and take a name for something else.
    """
    if len(arguments) != 2 or arguments[1] not in _SHELLS:
        return
    option, shell = arguments
    if option == "--show-completion":
        variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
        print(get_completion_script(prog_name=program, complete_var=variable, shell=shell))
        sys.exit(0)
    if option == "--install-completion":
        _, path = install(shell=shell, prog_name=program)
        print(f"The completion of {shell} is installed in {path}: start the shell anew.")
        sys.exit(0)


def _untyped(params: list[Any]) -> list[Any]:
    """Parameters whose flags show no `<bool>`."""
    for each in params:
        if getattr(each, "is_flag", False) and each.metavar is None:
            each.metavar = ""
    return params
