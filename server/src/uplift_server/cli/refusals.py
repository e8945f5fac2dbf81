"""What the API refuses, in the words of a command: its own arguments and options, and their units."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from uplift_server.cli.client import ApiError
from uplift_server.core.durations import format_duration

_ASSIGNMENT: Final = re.compile(r"`([a-z_]+)` = `([^`]+)`")
_FIELD: Final = re.compile(r"`([a-z_]+)`")
_NUMBER: Final = re.compile(r"(?<![\w.])\d+(?![\w.]*\w)")


@dataclass(frozen=True, slots=True)
class Duration:
    """An option that takes a duration, where the API's field is a number of seconds."""

    name: str


Name = str | Duration
"""What a command calls a field of the API: an option, an argument, or where the value comes from.

What stands in brackets behind it is advice, which only the remedy gives.
"""


@contextmanager
def options(**names: Name) -> Iterator[None]:
    """Say of a refusal which argument or option it is about: by the names of the body's or query's fields."""
    try:
        yield
    except ApiError as error:
        told = [f"{_place(field, names)}: {_words(message, field, names)}" for field, message in error.problems]
        error.cause = "; ".join(told) or _words(error.cause, "", names)
        wrong = dict.fromkeys(_name(field, names) for field, _ in error.problems)
        if wrong:
            error.remedy = f"correct {' and '.join(wrong)}"
        raise


def _name(field: str, names: dict[str, Name]) -> str:
    found = names.get(field.partition(".")[0], field)
    return found.name if isinstance(found, Duration) else found


def _place(field: str, names: dict[str, Name]) -> str:
    """Where something is wrong: the option, and where its value has parts with names, the part."""
    top, _, rest = field.partition(".")
    return f"{_name(top, names).partition(' (')[0]}{f' at {rest}' if rest and not rest.isdigit() else ''}"


def _words(message: str, field: str, names: dict[str, Name]) -> str:
    """A message that speaks of options where the API's speaks of fields."""

    def assigned(found: re.Match[str]) -> str:
        return f"{_name(found[1], names)} {found[2]}" if found[1] in names else found[0]

    told = _FIELD.sub(lambda found: _name(found[1], names) if found[1] in names else found[0],
                      _ASSIGNMENT.sub(assigned, message))  # fmt: skip
    if isinstance(names.get(field), Duration):
        told = _NUMBER.sub(lambda found: format_duration(int(found[0]) * 1000), told)
    return told
