from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.operations.cluster import (
    HEARTBEAT_EXPIRES_MS,
    ProcessRole,
    assigned_worker,
    is_heartbeat_expired,
    membership_hash,
)

_WORKERS = st.lists(st.integers(1, 2**40), min_size=1, max_size=8, unique=True)
_ENDPOINTS = st.integers(1, 2**40)


@given(_ENDPOINTS, _WORKERS, st.randoms(use_true_random=False))
def test_equal_sets_of_workers_have_equal_assignments(endpoint: int, workers: list[int], shuffle: object) -> None:
    mixed = list(workers)
    shuffle.shuffle(mixed)  # type: ignore[attr-defined]
    assert assigned_worker(endpoint, mixed) == assigned_worker(endpoint, workers)
    assert assigned_worker(endpoint, workers) in workers
    assert membership_hash(mixed) == membership_hash(workers)
    assert 0 <= membership_hash(workers) < 2**63


@given(_ENDPOINTS, _WORKERS, st.integers(2**41, 2**42))
def test_an_endpoint_moves_only_to_a_joining_or_from_a_leaving_worker(
    endpoint: int, workers: list[int], joining: int
) -> None:
    before = assigned_worker(endpoint, workers)
    assert assigned_worker(endpoint, [*workers, joining]) in (before, joining)
    others = [worker for worker in workers if worker != before]
    assert all(
        assigned_worker(endpoint, [worker for worker in workers if worker != leaving]) == before for leaving in others
    )


def test_workers_have_equal_shares() -> None:
    shares = Counter(assigned_worker(endpoint, [3, 4, 5, 6]) for endpoint in range(1, 4001))
    assert sorted(shares) == [3, 4, 5, 6]
    assert all(900 < share < 1100 for share in shares.values())


def test_without_workers_endpoints_are_unassigned() -> None:
    assert assigned_worker(7, []) is None
    assert membership_hash([]) == 0


@given(_WORKERS, _WORKERS)
def test_different_workers_have_different_hashes(some: list[int], others: list[int]) -> None:
    assert (membership_hash(some) == membership_hash(others)) is (set(some) == set(others))


def test_a_heartbeat_expires_after_five_seconds() -> None:
    assert not is_heartbeat_expired(1000, 1000 + HEARTBEAT_EXPIRES_MS)
    assert is_heartbeat_expired(1000, 1001 + HEARTBEAT_EXPIRES_MS)
    assert not is_heartbeat_expired(1000, 900)


@pytest.mark.parametrize(
    ("role", "serves", "delivers"), [("all", True, True), ("api", True, False), ("worker", False, True)]
)
def test_roles(role: str, serves: bool, delivers: bool) -> None:
    assert ProcessRole(role).serves is serves
    assert ProcessRole(role).delivers is delivers
