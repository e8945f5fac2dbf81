"""Timestamps have one written form; all offsets can be read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.timestamps import (
    TIMESTAMP_MAX,
    format_optional_timestamp,
    format_timestamp,
    parse_timestamp,
)

NOON = 1_769_860_800_000


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (NOON, "2026-01-31T12:00:00.000Z"),
        (NOON + 7, "2026-01-31T12:00:00.007Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
    ],
)
def test_the_text_of_a_timestamp(ms: int, text: str) -> None:
    assert format_timestamp(ms) == format_optional_timestamp(ms) == text


def test_times_after_the_year_9999_have_no_text() -> None:
    assert format_timestamp(TIMESTAMP_MAX) == "9999-12-31T23:59:59.999Z"
    with pytest.raises(OverflowError):
        format_timestamp(TIMESTAMP_MAX + 1)


def test_none_has_no_text() -> None:
    assert format_optional_timestamp(None) is None


@pytest.mark.parametrize(
    "text", ["2026-01-31T12:00:00Z", "2026-01-31T14:00:00+02:00", "2026-01-31T12:00:00.0009Z", "2026-01-31 12:00Z"]
)
def test_any_offset_is_parsed_and_fractions_are_truncated(text: str) -> None:
    assert parse_timestamp(text) == NOON


@pytest.mark.parametrize(("text", "reason"), [("noon", "such as"), ("", "such as"), ("2026-01-31T12:00:00", "offset")])
def test_ambiguous_timestamps_are_rejected(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_timestamp(text)


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59.999999-23:59"])
def test_timestamps_outside_the_calendar_are_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="out of range"):
        parse_timestamp(text)


def test_the_last_timestamp_of_the_calendar_is_unchanged() -> None:
    assert format_timestamp(parse_timestamp("9999-12-31T23:59:59.999Z")) == "9999-12-31T23:59:59.999Z"


@given(st.integers(0, 253_402_300_799_999))
def test_formatted_timestamps_can_be_parsed(ms: int) -> None:
    assert parse_timestamp(format_timestamp(ms)) == ms
