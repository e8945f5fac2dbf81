"""Order groups and ordering keys."""

import pytest

from uplift_server.core.deliveries.ordering import WHOLE_ENDPOINT, Ordering, check_ordering_key, order_group
from uplift_server.core.limits import ORDERING_KEY_CHARACTERS_MAX


@pytest.mark.parametrize("key", [None, "a"])
def test_the_ordering_decides_the_order_group(key: str | None) -> None:
    assert order_group(Ordering.NONE, key) is None
    assert order_group(Ordering.ENDPOINT, key) == WHOLE_ENDPOINT
    assert (order_group(Ordering.KEY, key) is None) == (key is None)


def test_the_group_of_a_key_is_the_same_in_all_releases() -> None:
    assert order_group(Ordering.KEY, "a") == 7299139317422481125
    assert order_group(Ordering.KEY, "ü") == 3475154268534426514
    groups = {order_group(Ordering.KEY, str(number)) for number in range(1000)}
    assert len(groups) == 1000
    assert all(group is not None and 0 < group < 1 << 63 for group in groups)


def test_an_ordering_key_has_bounds() -> None:
    for text in ("a", " ", "ü" * ORDERING_KEY_CHARACTERS_MAX):
        assert check_ordering_key(text, "ordering_key") is None
    for text in ("", "a\n", "a" * (ORDERING_KEY_CHARACTERS_MAX + 1), "\ud800"):
        problem = check_ordering_key(text, "ordering_key")
        assert problem is not None
        assert (problem.field, problem.code) == ("ordering_key", "ordering_key_invalid")
