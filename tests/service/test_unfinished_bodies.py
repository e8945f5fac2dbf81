"""Limits on the memory of unfinished request bodies."""

import pytest

from uplift_server.core.limits import UNFINISHED_BODIES_BYTES_MAX, UNFINISHED_BODIES_PER_ACCOUNT_BYTES_MAX
from uplift_server.service.errors import Busy, RateLimited
from uplift_server.service.principals import Principal
from uplift_server.service.unfinished_bodies import ANONYMOUS, SERVICE_KEYS, UnfinishedBodies

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
    for sender in (OPERATORS, ANONYMOUS, SERVICE_KEYS):
        bodies.reservation(sender).grow_to(UNFINISHED_BODIES_BYTES_MAX)
        with pytest.raises(Busy):
            bodies.reservation(sender).grow_to(1)


def test_service_keys_share_their_own_capacity() -> None:
    """A batch that is sent with a service key may use the whole shared capacity, which is more than an account's."""
    bodies = UnfinishedBodies()
    first, second = (Principal.of_service_key(bytes([n]) * 16, frozenset({"events:write"}), "s") for n in (1, 2))
    with bodies.reservation_of(first) as batch:
        batch.grow_to(UNFINISHED_BODIES_BYTES_MAX)
        with pytest.raises(Busy):
            bodies.reservation_of(second).grow_to(1)
        for other in (
            Principal.of_key(b"o" * 16, None, frozenset(), "o"),
            Principal.of_key(b"a" * 16, 1, frozenset(), "a"),
        ):
            with bodies.reservation_of(other) as reservation:
                reservation.grow_to(UNFINISHED_BODIES_PER_ACCOUNT_BYTES_MAX)
    with bodies.reservation_of(second) as again:
        again.grow_to(UNFINISHED_BODIES_BYTES_MAX)
