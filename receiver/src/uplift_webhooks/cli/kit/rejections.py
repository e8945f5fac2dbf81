"""Error messages for rejected API calls, with the names and units of the command's arguments and options."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from uplift_webhooks.cli.kit.calls import CallRejected

_ASSIGNMENT: Final = re.compile(r"`([a-z_]+)` = `([^`]+)`")
_FIELD: Final = re.compile(r"`([a-z_]+)`")
_NUMBER: Final = re.compile(r"(?<![\w.])\d+(?![\w.]*\w)")


@dataclass(frozen=True, slots=True)
class Converted:
    """An option whose unit differs from the API field's unit.

    `write` takes a number in the API field's unit and returns text in the option's unit.
    """

    name: str
    write: Callable[[int], str]


Name = str | Converted
"""The command's name for an API field: an option, an argument, or the source of the field's value.

A name can end with text in parentheses. The error shows this text only in the part that says how to fix the problem.
"""


@contextmanager
def options(**names: Name) -> Iterator[None]:
    """Context manager: the error for a rejected call names CLI arguments and options instead of API fields."""
    try:
        yield
    except CallRejected as error:
        causes = [f"{_place(field, names)}: {_words(message, field, names)}" for field, message in error.problems]
        error.cause = "; ".join(causes) or _words(error.cause, "", names)
        wrong = dict.fromkeys(_name(field, names) for field, _ in error.problems)
        if wrong:
            error.remedy = f"correct {' and '.join(wrong)}"
        raise


def _name(field: str, names: dict[str, Name]) -> str:
    found = names.get(field) or names.get(field.partition(".")[0], field)
    return found.name if isinstance(found, Converted) else found


def _place(field: str, names: dict[str, Name]) -> str:
    """Return the name of the invalid option and, if known, the path of the invalid part of its value."""
    if field in names:
        return _name(field, names).partition(" (")[0]
    top, _, rest = field.partition(".")
    return f"{_name(top, names).partition(' (')[0]}{f' at {rest}' if rest and not rest.isdigit() else ''}"


def _words(message: str, field: str, names: dict[str, Name]) -> str:
    """Replace API fields and units in a message with option names and units."""

    def assigned(found: re.Match[str]) -> str:
        return f"{_name(found[1], names)} {found[2]}" if found[1] in names else found[0]

    text = _ASSIGNMENT.sub(assigned, message)
    text = _FIELD.sub(lambda found: _name(found[1], names) if found[1] in names else found[0], text)
    option = names.get(field)
    if isinstance(option, Converted):
        text = _NUMBER.sub(lambda found: option.write(int(found[0])), text)
    return text
