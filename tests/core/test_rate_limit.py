"""The interval between attempts of a rate-limited endpoint."""

from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.scheduling.rate_limit import LATENESS_CREDIT_MS, start_interval_ms


@given(st.integers(1, 10_000))
def test_the_intervals_of_a_second_add_up_to_more_than_a_second(per_second: int) -> None:
    gap = start_interval_ms(per_second)

    assert gap * per_second - LATENESS_CREDIT_MS >= 1000 - 1e-6
    assert gap * per_second <= 1020 + 1e-6
