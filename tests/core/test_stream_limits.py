"""Limits on the listen streams and the live pages that a process serves."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.deliveries.stream_limits import Exceeded, exceeded
from uplift_server.core.limits import STREAMS_CROWDED_FROM, STREAMS_MAX, STREAMS_PER_ACCOUNT_MAX


def test_an_account_has_a_share_and_all_have_a_limit() -> None:
    assert exceeded(0, 0) is None
    assert exceeded(100, STREAMS_PER_ACCOUNT_MAX - 1) is None
    assert exceeded(100, STREAMS_PER_ACCOUNT_MAX) is Exceeded.ACCOUNT
    assert exceeded(STREAMS_CROWDED_FROM, 10) is Exceeded.ACCOUNT
    assert exceeded(STREAMS_CROWDED_FROM, 1) is None
    assert exceeded(STREAMS_MAX, 0) is Exceeded.ALL


@given(st.lists(st.integers(1, 20), max_size=2_000))
def test_twenty_greedy_accounts_leave_streams_for_others(accounts: list[int]) -> None:
    streams: Counter[int] = Counter()
    for account in [*range(1, 21), *accounts]:
        if exceeded(streams.total(), streams[account]) is None:
            streams[account] += 1
    assert exceeded(streams.total(), 0) is None
    assert max(streams.values()) <= STREAMS_PER_ACCOUNT_MAX
