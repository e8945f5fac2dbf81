from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.clock_offset import Reading, best

NOW = 1_764_000_000_000


@given(st.floats(-120_000, 120_000), st.floats(0, 5000), st.floats(0, 5000))
def test_a_reading_is_wrong_by_no_more_than_it_says(ahead: float, there_ms: float, back_ms: float) -> None:
    reading = Reading(NOW, NOW + there_ms + ahead, NOW + there_ms + back_ms)
    assert abs(reading.offset_ms - ahead) <= reading.uncertainty_ms + 0.01


def test_the_quickest_answer_tells_most_and_of_several_the_latest() -> None:
    slow, early, late = Reading(0, 900, 100), Reading(200, 1000, 202), Reading(300, 1110, 302)
    assert best([slow, early, late]) is late
    assert best([early, slow]) is early
