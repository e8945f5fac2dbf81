import pytest

from uplift_server.core.operations.singleton_jobs import can_take_lease

NOW = 1_764_000_000_000


@pytest.mark.parametrize(
    ("held_by", "until", "may"),
    [
        (0, 0, True),
        (7, NOW + 1, True),  # its own lease, to renew
        (8, NOW + 1, False),
        (8, NOW, True),
    ],
)
def test_who_can_take_a_lease(held_by: int, until: int, may: bool) -> None:
    assert can_take_lease(held_by, until, by=7, now_ms=NOW) is may
