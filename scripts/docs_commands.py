"""The commands of a program as Markdown, from their `--help`."""

import importlib
import re
from collections.abc import Iterator
from typing import Any, Final

import typer

from uplift_server.api.documentation.reference_tables import table

_MODULES: Final = {"uplift-server": "uplift_server.cli.main", "uplift": "uplift_webhooks.cli.main"}
_NAMES: Final = re.compile(
    r"(?<![\w/.-])(--[a-z][a-z-]*|UPLIFT_[A-Z_]*[A-Z…]|(?:x-uplift|webhook)-[a-z0-9-]+|(?:secret|operator)\.key)(?![\w-])"
)
_COMMON: Final = frozenset({"--config", "--json", "--debug", "--help"})
"""Options that every command has. The page describes them once, so the sections of the commands omit them."""


def commands(program: str) -> str:
    """Return every command with its usage, options and examples, grouped by the panels of the program's help."""
    root: Any = typer.main.get_command(importlib.import_module(_MODULES[program]).app)
    panels: dict[str, list[str]] = {}
    for path, each in _leaves(root, ()):
        panels.setdefault(root.commands[path[0]].rich_help_panel, []).append(
            _command(f"{program} {' '.join(path)}", each)
        )
    return "\n".join(part for panel, parts in panels.items() for part in (f"## {panel}\n", *parts))


def _leaves(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the path of each command that is not a group and not hidden."""
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, each in command.commands.items():
        if not each.hidden:
            yield from _leaves(each, (*path, name))


def _command(name: str, command: Any) -> str:
    shown = [each for each in command.params if not each.hidden and not _COMMON & {*each.opts}]
    arguments = [each for each in shown if each.param_type_name == "argument"]
    options = [each for each in shown if each.param_type_name == "option"]
    required = [_option(each) for each in options if each.required]
    usage = [name, *map(_argument, arguments), *required, "[OPTIONS]"]
    rows = [(f"`{_value(each)}`", _about(each)) for each in arguments]
    rows += [(f"`{_option(each)}`", _about(each)) for each in sorted(options, key=lambda each: not each.required)]
    parts = [f"### `{name}`\n", f"{_paragraphs(command.help or '')}\n", f"```text\n{' '.join(usage)}\n```\n"]
    if rows:
        parts.append(table(("Argument or option", "Description"), rows))
    examples = [line for line in (command.epilog or "").removeprefix("Examples:").split("\n") if line.strip()]
    if examples:
        parts.append("```console\n" + "".join(f"$ {each.strip()}\n" for each in examples) + "```\n")
    return "\n".join(parts)


def _argument(argument: Any) -> str:
    value = _value(argument)
    return value if argument.required else f"[{value}]"


def _option(option: Any) -> str:
    name = option.opts[0]
    return name if option.is_flag else f"{name} {_value(option)}"


def _value(parameter: Any) -> str:
    if parameter.metavar:
        return str(parameter.metavar)
    if parameter.type_descriptor.annotation in {int, float}:
        return "N"
    name = parameter.name if parameter.param_type_name == "argument" else parameter.opts[0].lstrip("-")
    return str(name).upper().replace("-", "_")


def _about(parameter: Any) -> str:
    """Return the help of a parameter, with facts that the help omits."""
    about = _marked(" ".join((parameter.help or "").split()))
    default = parameter.default
    if parameter.required and parameter.param_type_name == "option":
        about += " Required."
    if parameter.multiple and "Repeatable" not in about:
        about += " Repeatable."
    if default not in (None, False, "", ()) and parameter.show_default and "Default" not in about:
        about += f" Default: `{getattr(default, 'value', default)}`."
    return about


def _paragraphs(text: str) -> str:
    return "\n\n".join(_marked(" ".join(each.split())) for each in re.split(r"\n\s*\n", text.strip()))


def _marked(text: str) -> str:
    """Mark the names of options, settings and headers as code, unless they are marked."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(each if each.startswith("`") else _NAMES.sub(r"`\1`", each) for each in parts)
