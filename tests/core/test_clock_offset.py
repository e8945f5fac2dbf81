from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.operations.clock_offset import ClockReading, best_reading

NOW = 1_764_000_000_000


@given(st.floats(-120_000, 120_000), st.floats(0, 5000), st.floats(0, 5000))
def test_the_error_of_a_reading_is_within_its_bound(ahead: float, there_ms: float, back_ms: float) -> None:
    reading = ClockReading(NOW, NOW + there_ms + ahead, NOW + there_ms + back_ms)
    assert abs(reading.offset_ms - ahead) <= reading.uncertainty_ms + 0.01


def test_the_best_reading_is_the_latest_of_the_quickest() -> None:
    slow, early, late = ClockReading(0, 900, 100), ClockReading(200, 1000, 202), ClockReading(300, 1110, 302)
    assert best_reading([slow, early, late]) is late
    assert best_reading([early, slow]) is early


def test_a_clock_change_applies_immediately() -> None:
    """A reading after the change is the best one, even if earlier readings have a lower uncertainty."""
    before = [ClockReading(at, at + 50, at + 1) for at in range(7)]
    set_forward, set_back = ClockReading(100, 120_100, 120), ClockReading(100, 90, 120)
    assert best_reading([*before, set_forward]) is set_forward
    assert best_reading([*before, set_back]) is set_back
    # A reading that is slow enough to be consistent with the earlier ones does not replace them.
    assert best_reading([*before, ClockReading(100, 150, 220)]) is before[-1]
