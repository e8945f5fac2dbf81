"""Limits on the memory of unfinished request bodies."""

import pytest

from uplift_server.core.limits import UNFINISHED_BODIES_BYTES_MAX, UNFINISHED_BODIES_PER_ACCOUNT_BYTES_MAX
from uplift_server.service.errors import Busy, RateLimited
from uplift_server.service.unfinished_bodies import ANONYMOUS, UnfinishedBodies

ACCOUNTS = UNFINISHED_BODIES_BYTES_MAX // UNFINISHED_BODIES_PER_ACCOUNT_BYTES_MAX
OPERATORS = None


def test_an_account_can_reuse_its_share_after_release() -> None:
    bodies = UnfinishedBodies()
    with bodies.reservation(1) as first, bodies.reservation(1) as second:
        first.grow_to(UNFINISHED_BODIES_PER_ACCOUNT_BYTES_MAX - 1)
        first.grow_to(10)
        second.grow_to(1)
        with pytest.raises(RateLimited) as rejected:
            second.grow_to(2)
        assert rejected.value.retry_after_s == 1
        with bodies.reservation(2) as other:
            other.grow_to(UNFINISHED_BODIES_PER_ACCOUNT_BYTES_MAX)
    with bodies.reservation(1) as again:
        again.grow_to(UNFINISHED_BODIES_PER_ACCOUNT_BYTES_MAX)


def test_accounts_do_not_use_the_capacity_of_other_senders() -> None:
    bodies = UnfinishedBodies()
    for account in range(1, ACCOUNTS + 1):
        bodies.reservation(account).grow_to(UNFINISHED_BODIES_PER_ACCOUNT_BYTES_MAX)
    with pytest.raises(Busy):
        bodies.reservation(ACCOUNTS + 1).grow_to(1)
    for sender in (OPERATORS, ANONYMOUS):
        bodies.reservation(sender).grow_to(UNFINISHED_BODIES_BYTES_MAX)
        with pytest.raises(Busy):
            bodies.reservation(sender).grow_to(1)
