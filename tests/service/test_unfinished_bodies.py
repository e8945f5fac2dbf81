"""Shares of the memory for unfinished request bodies."""

import pytest

from uplift_server.core.limits import UNFINISHED_BODIES_BYTES_MAX, UNFINISHED_BODIES_PER_ACCOUNT_BYTES_MAX
from uplift_server.service.errors import Busy, RateLimited
from uplift_server.service.unfinished_bodies import STRANGER, UnfinishedBodies

ACCOUNTS = UNFINISHED_BODIES_BYTES_MAX // UNFINISHED_BODIES_PER_ACCOUNT_BYTES_MAX
OPERATORS = None


def test_an_account_has_a_share_that_comes_back() -> None:
    bodies = UnfinishedBodies()
    with bodies.reservation(1) as first, bodies.reservation(1) as second:
        first.grow_to(UNFINISHED_BODIES_PER_ACCOUNT_BYTES_MAX - 1)
        first.grow_to(10)
        second.grow_to(1)
        with pytest.raises(RateLimited) as caught:
            second.grow_to(2)
        assert caught.value.retry_after_s == 1
        with bodies.reservation(2) as other:
            other.grow_to(UNFINISHED_BODIES_PER_ACCOUNT_BYTES_MAX)
    with bodies.reservation(1) as again:
        again.grow_to(UNFINISHED_BODIES_PER_ACCOUNT_BYTES_MAX)


def test_all_accounts_together_leave_operators_and_strangers_their_room() -> None:
    bodies = UnfinishedBodies()
    for account in range(1, ACCOUNTS + 1):
        bodies.reservation(account).grow_to(UNFINISHED_BODIES_PER_ACCOUNT_BYTES_MAX)
    with pytest.raises(Busy):
        bodies.reservation(ACCOUNTS + 1).grow_to(1)
    for sender in (OPERATORS, STRANGER):
        bodies.reservation(sender).grow_to(UNFINISHED_BODIES_BYTES_MAX)
        with pytest.raises(Busy):
            bodies.reservation(sender).grow_to(1)
