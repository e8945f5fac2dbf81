"""The value types of endpoint settings."""

from typing import Any

import pytest

from uplift_server.core.named_codes import NamedCode
from uplift_server.core.setting_values import Choice, Duration, Durations, ValueType, WholeNumber

SECOND = 1000


class Color(NamedCode):
    """The values of an example setting."""

    RED = 0
    DARK_BLUE = 1


NUMBER = WholeNumber(256, "attempts in flight")
COLOR = Choice(Color)
DURATION = Duration(SECOND, 30 * SECOND)
DURATIONS = Durations(DURATION, 3, 60 * SECOND)


def problems(value_type: ValueType, sent: Any) -> list[tuple[str, str]]:
    return [(each.field, each.code) for each in value_type.problems("field", sent)]


@pytest.mark.parametrize(
    ("value_type", "sent", "value", "stored", "text", "words"),
    [
        (NUMBER, 256, 256, 256, "256", "256 attempts in flight"),
        (WholeNumber(10_000, "events"), 10_000, 10_000, 10_000, "10000", "10,000 events"),
        (COLOR, "dark_blue", Color.DARK_BLUE, 1, "dark_blue", "dark_blue"),
        (DURATION, "1s500ms", 1500, 1500, "1s500ms", "1s500ms"),
        (DURATIONS, ["1s", "30s"], (1000, 30_000), "[1000, 30000]", "1s, 30s", "1s, 30s"),
        (DURATIONS, [], (), "[]", "none", "none"),
    ],
)
def test_a_value_survives_each_form(
    value_type: ValueType, sent: Any, value: Any, stored: Any, text: str, words: str
) -> None:
    assert problems(value_type, sent) == []
    assert value_type.read(sent) == value
    assert value_type.json(value) == sent
    assert value_type.stored(value) == stored
    assert value_type.loaded(stored) == value
    assert value_type.text(value) == text
    assert value_type.parse(text) == sent
    assert value_type.words(value) == words


@pytest.mark.parametrize(
    ("value_type", "sent", "expected"),
    [
        (NUMBER, 0, [("field", "out_of_range")]),
        (NUMBER, 1, []),
        (NUMBER, 257, [("field", "out_of_range")]),
        (COLOR, "green", [("field", "value_unknown")]),
        (DURATION, "999ms", [("field", "out_of_range")]),
        (DURATION, "30s1ms", [("field", "out_of_range")]),
        (DURATION, "10", [("field", "duration_invalid")]),
        (DURATIONS, ["1s", "x", "0", "2s"], [("field", "too_many")]),
        (DURATIONS, ["1s", "x", "31s"], [("field", "duration_invalid"), ("field", "out_of_range")]),
        (DURATIONS, ["30s", "30s"], []),
        (DURATIONS, ["30s", "30s", "1s"], [("field", "out_of_range")]),
    ],
)
def test_values_outside_the_bounds_are_rejected(
    value_type: ValueType, sent: Any, expected: list[tuple[str, str]]
) -> None:
    assert problems(value_type, sent) == expected


@pytest.mark.parametrize("text", ["many", "-1", "1.5", "²", "1" * 19])
def test_a_number_is_made_of_digits(text: str) -> None:
    with pytest.raises(ValueError, match="whole number"):
        NUMBER.parse(text)


def test_a_problem_shows_the_beginning_of_the_value() -> None:
    [problem] = DURATION.problems("field", "\x1b" + "x" * 1000)
    assert problem.message.startswith(f"?{'x' * 31} is not a duration.")


def test_lists_are_entered_with_commas() -> None:
    assert DURATIONS.parse("5s,5m , 2h") == ["5s", "5m", "2h"]
    assert "commas" in DURATIONS.input_help
    assert not DURATION.input_help


def test_bounds_name_the_limits() -> None:
    assert WholeNumber(10_000, "events").bounds == "1 to 10,000"
    assert COLOR.bounds == "`red`, `dark_blue`"
    assert DURATION.bounds == "1s to 30s"
    assert DURATIONS.bounds == "up to 3 durations of 1s to 30s, at most 1m in total"
