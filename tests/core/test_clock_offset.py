from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.operations.clock_offset import Reading, best

NOW = 1_764_000_000_000


@given(st.floats(-120_000, 120_000), st.floats(0, 5000), st.floats(0, 5000))
def test_a_reading_is_wrong_by_no_more_than_it_says(ahead: float, there_ms: float, back_ms: float) -> None:
    reading = Reading(NOW, NOW + there_ms + ahead, NOW + there_ms + back_ms)
    assert abs(reading.offset_ms - ahead) <= reading.uncertainty_ms + 0.01


def test_the_quickest_answer_tells_most_and_of_several_the_latest() -> None:
    slow, early, late = Reading(0, 900, 100), Reading(200, 1000, 202), Reading(300, 1110, 302)
    assert best([slow, early, late]) is late
    assert best([early, slow]) is early


def test_a_clock_that_was_set_is_followed_at_once() -> None:
    """However quick the answers were before."""
    before = [Reading(at, at + 50, at + 1) for at in range(7)]
    set_forward, set_back = Reading(100, 120_100, 120), Reading(100, 90, 120)
    assert best([*before, set_forward]) is set_forward
    assert best([*before, set_back]) is set_back
    # One that only took long says nothing else.
    assert best([*before, Reading(100, 150, 220)]) is before[-1]
