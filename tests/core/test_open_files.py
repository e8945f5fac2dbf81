"""Division of the file descriptors of a process among callers, receivers and other uses."""

from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.operations.open_files import CALLERS_MAX, FILES_MIN, OWN_FILES, divide_files, files_needed

COUNT_FIELDS = st.integers(1, 100_000)


@given(limit=st.integers(FILES_MIN, 200_000), in_flight=COUNT_FIELDS, idle=st.integers(0, 2000))
def test_the_shares_are_within_the_limit_and_positive(limit: int, in_flight: int, idle: int) -> None:
    shares = divide_files(limit, in_flight, idle)
    assert OWN_FILES + shares.callers + shares.receivers <= limit
    assert shares.callers >= min(CALLERS_MAX, (limit - OWN_FILES) // 4)
    assert 1 <= shares.in_flight <= min(in_flight, shares.receivers)


@given(in_flight=COUNT_FIELDS, idle=st.integers(0, 2000))
def test_a_sufficient_limit_does_not_reduce_the_settings(in_flight: int, idle: int) -> None:
    limit = max(FILES_MIN, 2 * files_needed(in_flight, idle))
    shares = divide_files(limit, in_flight, idle)
    assert (shares.in_flight, shares.receivers) == (in_flight, in_flight + idle)
