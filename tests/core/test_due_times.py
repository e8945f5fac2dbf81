"""The next due time of each endpoint."""

from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.limits import DUE_STEP_MS
from uplift_server.core.scheduling.due_times import DueTimes


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 500), st.booleans()), max_size=50))
def test_an_endpoint_is_due_within_a_step_of_its_earliest_due_time(steps: list[tuple[int, int, bool]]) -> None:
    due_times = DueTimes()
    expected: dict[int, int] = {}
    for endpoint_seq, at, is_noted in steps:
        if is_noted:
            earliest = min(expected.values(), default=None)
            is_next = due_times.note(endpoint_seq, at)
            expected[endpoint_seq] = min(expected.get(endpoint_seq, at), at)
            assert not is_next or earliest is None or at < earliest
        else:
            taken = list(due_times.take(at))
            assert len(taken) == len(set(taken))
            assert all(expected.pop(seq) <= at for seq in taken)
            assert all(due_at > at - DUE_STEP_MS for due_at in expected.values())
        next_at = due_times.next_at
        assert (next_at is None) == (not expected)
        if next_at is not None:
            assert 0 <= next_at - min(expected.values()) < DUE_STEP_MS


def test_earlier_due_times_do_not_accumulate() -> None:
    due_times = DueTimes()
    for at in range(100_000, 0, -DUE_STEP_MS):
        assert due_times.note(1, at)
        assert not due_times.note(2, 200_000)
    assert len(due_times) <= 1_010
    assert list(due_times.take(DUE_STEP_MS)) == [1]
    assert list(due_times.take(300_000)) == [2]
