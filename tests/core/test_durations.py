"""Durations as operators write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.durations import format_duration, format_span, parse_duration


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("0", 0),
        ("0s", 0),
        ("250ms", 250),
        ("15s", 15_000),
        ("5m", 300_000),
        ("10h", 36_000_000),
        ("3d", 259_200_000),
        ("1h30m", 5_400_000),
        ("1d2h3m4s5ms", 93_784_005),
        ("90s", 90_000),
        (" 15s ", 15_000),
        ("36500d", 3_153_600_000_000),
    ],
)
def test_durations(text: str, milliseconds: int) -> None:
    assert parse_duration(text) == milliseconds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "such as 250ms, 15s"),
        ("15", "such as 250ms, 15s"),
        ("s", "such as 250ms, 15s"),
        ("-5s", "such as 250ms, 15s"),
        ("1.5h", "such as 250ms, 15s"),
        ("15 s", "such as 250ms, 15s"),
        ("15S", "such as 250ms, 15s"),
        ("1w", "such as 250ms, 15s"),
        ("\u0661s", "such as 250ms, 15s"),
        ("9999999999999999s", "such as 250ms, 15s"),
        ("30m1h", "larger units first"),
        ("1h1h", "larger units first"),
        ("36501d", "100 years"),
    ],
)
def test_invalid_durations_are_rejected_with_a_fix(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_duration(text)


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "0s"), (250, "250ms"), (90_000, "1m30s"), (86_400_000, "1d"), (259_200_001, "3d1ms")],
)
def test_formatting(milliseconds: int, text: str) -> None:
    assert format_duration(milliseconds) == text


@given(st.integers(0, 3_153_600_000_000))
def test_formatted_durations_can_be_parsed(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds)) == milliseconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (3661, "1 h 1 min"),
        (90_000, "1 d 1 h"),
        (86_460, "1 d"),
        (-5, "0 s"),
    ],
)
def test_durations_have_one_or_two_units(seconds: float, text: str) -> None:
    assert format_span(seconds) == text
