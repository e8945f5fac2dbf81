import pytest

from uplift_server.core.operations.singleton_jobs import can_take_lease

NOW = 1_764_000_000_000


@pytest.mark.parametrize(
    ("held_by", "until", "expected"),
    [
        (0, 0, True),
        (7, NOW + 1, True),  # renewal of its own lease
        (8, NOW + 1, False),
        (8, NOW, True),
    ],
)
def test_a_lease_can_be_taken_if_it_is_free_own_or_expired(held_by: int, until: int, expected: bool) -> None:
    assert can_take_lease(held_by, until, by=7, now_ms=NOW) is expected
