"""Value types of endpoint settings.

A value has three forms: the Python value, the JSON value in the API and the audit log, and the text in dashboard forms
and commands. Lists and enumerations also have a form for the database.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from uplift_server.core.durations import format_duration, parse_duration
from uplift_server.core.named_codes import NamedCode
from uplift_server.core.problems import Problem
from uplift_server.core.texts import printable

NO_DELAYS: Final = "none"
"""The text for an empty list of durations. An empty string means the default."""
_NUMBER_DIGITS_MAX: Final = 18
_SHOWN_CHARACTERS_MAX: Final = 32
"""Maximum number of characters to quote from an invalid duration in an error message."""


class ValueType(ABC):
    """The type of a setting's value, with methods that check, convert and display the value.

    None means that the setting has its default. The methods do not accept None.
    """

    @property
    @abstractmethod
    def bounds(self) -> str:
        """A description of the allowed values."""

    @property
    def input_help(self) -> str:
        """Instructions for entering a value as text. Pages show them after the setting's help text."""
        return ""

    @abstractmethod
    def problems(self, field: str, sent: Any) -> Iterator[Problem]:
        """Return the problems with a JSON value that already has the right JSON type."""

    @abstractmethod
    def parse(self, text: str) -> Any:
        """Parse entered text, and return the JSON value. Raises ValueError with a message for users."""

    def read(self, sent: Any) -> Any:
        """Convert a valid JSON value to the Python value."""
        return sent

    def json(self, value: Any) -> Any:
        """Convert a Python value to its JSON form."""
        return value

    def text(self, value: Any) -> str:
        """Convert a value to the text that `parse` accepts."""
        return str(self.json(value))

    def words(self, value: Any) -> str:
        """Convert a value to readable text."""
        return self.text(value)

    def stored(self, value: Any) -> Any:
        """Convert a Python value to its form in the database."""
        return value

    def loaded(self, content: Any) -> Any:
        """Convert the form in the database to the Python value."""
        return content


@dataclass(frozen=True, slots=True)
class WholeNumber(ValueType):
    """A whole number that is at least 1."""

    maximum: int
    unit: str
    """The unit as a plural noun."""

    @property
    def bounds(self) -> str:
        """A description of the allowed numbers."""
        return f"1 to {self.maximum:,}"

    def problems(self, field: str, sent: int) -> Iterator[Problem]:
        """Return a problem if the number is out of bounds."""
        if not 1 <= sent <= self.maximum:
            yield Problem(field, "out_of_range", f"The number is not in the allowed range. Use {self.bounds}.")

    def parse(self, text: str) -> int:
        """Parse a whole number."""
        if not (text.isascii() and text.isdigit() and len(text) <= _NUMBER_DIGITS_MAX):
            raise ValueError("Enter a whole number, or leave the field empty.")
        return int(text)

    def words(self, value: int) -> str:
        """Return the number with its unit."""
        return f"{value:,} {self.unit}"


@dataclass(frozen=True, slots=True)
class Choice(ValueType):
    """A name from a fixed list. The database stores the number that belongs to the name.

    Each setting of this type defines `EndpointSetting.initial`.
    """

    kind: type[NamedCode]

    @property
    def names(self) -> tuple[str, ...]:
        """The names that the setting allows."""
        return tuple(each.text for each in self.kind)

    @property
    def bounds(self) -> str:
        """A description of the allowed names."""
        return ", ".join(f"`{name}`" for name in self.names)

    def problems(self, field: str, sent: str) -> Iterator[Problem]:
        """Return a problem if the name is not an allowed name."""
        if sent not in self.names:
            yield Problem(field, "value_unknown", f"The value is not allowed. Use one of {self.bounds}.")

    def parse(self, text: str) -> str:
        """Return the text unchanged, because it already has the JSON form."""
        return text

    def read(self, sent: str) -> NamedCode:
        """Return the enumeration member with this name."""
        return self.kind[sent.upper()]

    def json(self, value: NamedCode) -> str:
        """Return the name of an enumeration member."""
        return value.text

    def stored(self, value: NamedCode) -> int:
        """Return the number of an enumeration member."""
        return int(value)

    def loaded(self, content: int) -> NamedCode:
        """Return the enumeration member with this number."""
        return self.kind(content)


@dataclass(frozen=True, slots=True)
class Duration(ValueType):
    """A duration. The Python value is in ms. The JSON and text forms have a unit, such as `10s`."""

    minimum_ms: int
    maximum_ms: int

    @property
    def bounds(self) -> str:
        """A description of the allowed durations."""
        return f"{format_duration(self.minimum_ms)} to {format_duration(self.maximum_ms)}"

    def problems(self, field: str, sent: str) -> Iterator[Problem]:
        """Return a problem if the string is not a duration within the bounds."""
        try:
            duration_ms = parse_duration(sent)
        except ValueError:
            shown = printable(sent[:_SHOWN_CHARACTERS_MAX])
            text = f"{shown} is not a duration. Use {self.bounds}, with a unit."
            yield Problem(field, "duration_invalid", text)
            return
        if not self.minimum_ms <= duration_ms <= self.maximum_ms:
            yield Problem(field, "out_of_range", f"{sent} is not in the allowed range. Use {self.bounds}.")

    def parse(self, text: str) -> str:
        """Return the text unchanged, because it already has the JSON form."""
        return text

    def read(self, sent: str) -> int:
        """Return the number of ms in a duration with units."""
        return parse_duration(sent)

    def json(self, value: int) -> str:
        """Return a number of ms as a duration with units."""
        return format_duration(value)


@dataclass(frozen=True, slots=True)
class Durations(ValueType):
    """A list of durations, which may be empty.

    The Python value is a tuple of milliseconds, and the database stores a JSON list of milliseconds.
    """

    each: Duration
    count_max: int
    total_ms_max: int

    @property
    def input_help(self) -> str:
        """Instructions for entering durations or an empty list as text."""
        return f"Separate the durations with commas. Enter {NO_DELAYS} for an empty list."

    @property
    def bounds(self) -> str:
        """A description of the allowed lists."""
        total = format_duration(self.total_ms_max)
        return f"up to {self.count_max} durations of {self.each.bounds}, at most {total} in total"

    def problems(self, field: str, sent: list[str]) -> Iterator[Problem]:
        """Return the problems with the durations, with their number, and with their sum."""
        if len(sent) > self.count_max:
            yield Problem(field, "too_many", f"The list has too many durations. Use {self.bounds}.")
            return
        wrong = [problem for each in sent for problem in self.each.problems(field, each)]
        yield from wrong
        if not wrong and sum(self.read(sent)) > self.total_ms_max:
            yield Problem(field, "out_of_range", f"The sum of the durations is too large. Use {self.bounds}.")

    def parse(self, text: str) -> list[str]:
        """Parse durations that are separated by commas."""
        return [] if text == NO_DELAYS else [part.strip() for part in text.split(",")]

    def read(self, sent: list[str]) -> tuple[int, ...]:
        """Return the durations as numbers of ms."""
        return tuple(map(parse_duration, sent))

    def json(self, value: tuple[int, ...]) -> list[str]:
        """Return the durations with units."""
        return [format_duration(each) for each in value]

    def text(self, value: tuple[int, ...]) -> str:
        """Return the durations as text, separated by commas."""
        return ", ".join(self.json(value)) or NO_DELAYS

    def stored(self, value: tuple[int, ...]) -> str:
        """Return the durations as a JSON list of ms."""
        return json.dumps(value)

    def loaded(self, content: str) -> tuple[int, ...]:
        """Return the durations from a JSON list of ms."""
        return tuple(json.loads(content))
