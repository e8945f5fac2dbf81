"""Retry schedule and `Retry-After`."""

from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.limits import RETRY_AFTER_MS_MAX
from uplift_server.core.scheduling.retry_schedule import JITTER, RetrySchedule, retry_after_ms

NOW_MS = 1_764_000_000_000
DRAWS = st.floats(0, 1, exclude_max=True)
SCHEDULES = st.lists(st.integers(0, 30 * 86_400_000), max_size=12).map(tuple).map(RetrySchedule)


@given(SCHEDULES, st.integers(1, 20), DRAWS)
def test_a_delay_is_within_its_jitter_and_the_schedule_ends(
    schedule: RetrySchedule, attempts_made: int, draw: float
) -> None:
    delay = schedule.delay_ms(attempts_made, draw)

    if attempts_made >= schedule.attempts_max:
        assert delay is None
    else:
        assert delay is not None
        assert abs(delay - schedule.delays_ms[attempts_made - 1]) <= JITTER * schedule.delays_ms[attempts_made - 1] + 1


@given(SCHEDULES, DRAWS, DRAWS)
def test_a_larger_draw_never_shortens_the_delay(schedule: RetrySchedule, one: float, other: float) -> None:
    smaller, larger = (schedule.delay_ms(1, draw) or 0 for draw in sorted((one, other)))

    assert smaller <= larger


def test_n_delays_allow_n_plus_one_attempts() -> None:
    assert RetrySchedule(()).attempts_max == 1
    assert RetrySchedule(()).delay_ms(1, 0.5) is None
    assert RetrySchedule((5000, 300_000)).attempts_max == 3
    assert RetrySchedule((5000, 300_000)).delay_ms(2, 0.5) == 300_000


def test_there_is_no_wait_before_the_first_attempt() -> None:
    with pytest.raises(AssertionError):
        RetrySchedule((5000,)).delay_ms(0, 0.5)


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1.5", 1500),
        ("0.25", 250),
        ("1.5.1", None),
        (".", None),
        ("1e3", None),
        ("99999999999.5", RETRY_AFTER_MS_MAX),
        ("٣", None),
        ("0", 0),
        ("120", 120_000),
        (" 120 ", 120_000),
        ("86401", RETRY_AFTER_MS_MAX),
        ("9" * 400, RETRY_AFTER_MS_MAX),
        ("Mon, 24 Nov 2025 16:00:30 GMT", 30_000),
        ("Mon, 24 Nov 2025 16:00:30 -0000", 30_000),
        ("Monday, 24-Nov-25 16:00:30 GMT", 30_000),
        ("Mon Nov 24 16:00:30 2025", 30_000),
        ("Mon, 24 Nov 2025 15:00:00 GMT", 0),
        ("Mon, 24 Nov 2099 15:00:00 GMT", RETRY_AFTER_MS_MAX),
        ("Mon, 99 Nov 2025 15:00:00 GMT", None),
        ("Mon, 24 Nov 99999999999999 15:00:00 GMT", None),
    ],
)
def test_retry_after(value: str | None, wait: int | None) -> None:
    assert retry_after_ms(value, NOW_MS) == wait


@given(st.integers(-100_000, 200_000), st.integers(-23, 23))
def test_a_date_can_have_any_zone(seconds: int, hours: int) -> None:
    date = datetime.fromtimestamp(NOW_MS // 1000 + seconds, UTC).astimezone(timezone(timedelta(hours=hours)))

    wait = retry_after_ms(format_datetime(date), NOW_MS)

    assert wait == max(0, min(seconds * 1000, RETRY_AFTER_MS_MAX))


@given(st.text() | st.from_regex(r"\w{3}, [0-9]{1,2} \w{3} [0-9]{1,5} [0-9:]{1,9} [+-][0-9]{1,9}", fullmatch=True))
def test_any_retry_after_is_a_bounded_wait_or_none(value: str) -> None:
    wait = retry_after_ms(value, NOW_MS)

    assert wait is None or 0 <= wait <= RETRY_AFTER_MS_MAX
