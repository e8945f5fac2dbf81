from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.operations.cluster import DEAD_AFTER_MS, ProcessRole, is_dead, view_of, worker_of

_WORKERS = st.lists(st.integers(1, 2**40), min_size=1, max_size=8, unique=True)
_ENDPOINTS = st.integers(1, 2**40)


@given(_ENDPOINTS, _WORKERS, st.randoms(use_true_random=False))
def test_all_who_know_the_same_workers_name_the_same_one(endpoint: int, workers: list[int], shuffle: object) -> None:
    mixed = list(workers)
    shuffle.shuffle(mixed)  # type: ignore[attr-defined]
    assert worker_of(endpoint, mixed) == worker_of(endpoint, workers)
    assert worker_of(endpoint, workers) in workers
    assert view_of(mixed) == view_of(workers)
    assert 0 <= view_of(workers) < 2**63


@given(_ENDPOINTS, _WORKERS, st.integers(2**41, 2**42))
def test_an_endpoint_moves_only_to_a_worker_that_comes_or_from_one_that_goes(
    endpoint: int, workers: list[int], comes: int
) -> None:
    before = worker_of(endpoint, workers)
    assert worker_of(endpoint, [*workers, comes]) in (before, comes)
    others = [worker for worker in workers if worker != before]
    assert all(worker_of(endpoint, [worker for worker in workers if worker != gone]) == before for gone in others)


def test_workers_get_equal_shares() -> None:
    shares = Counter(worker_of(endpoint, [3, 4, 5, 6]) for endpoint in range(1, 4001))
    assert sorted(shares) == [3, 4, 5, 6]
    assert all(900 < share < 1100 for share in shares.values())


def test_without_workers_an_endpoint_belongs_to_nobody() -> None:
    assert worker_of(7, []) is None
    assert view_of([]) == 0


@given(_WORKERS, _WORKERS)
def test_other_workers_are_another_view(some: list[int], others: list[int]) -> None:
    assert (view_of(some) == view_of(others)) is (set(some) == set(others))


def test_whoever_was_not_heard_of_for_longer_than_five_seconds_is_dead() -> None:
    assert not is_dead(1000, 1000 + DEAD_AFTER_MS)
    assert is_dead(1000, 1001 + DEAD_AFTER_MS)
    assert not is_dead(1000, 900)


@pytest.mark.parametrize(
    ("role", "serves", "delivers"), [("all", True, True), ("api", True, False), ("worker", False, True)]
)
def test_roles(role: str, serves: bool, delivers: bool) -> None:
    assert ProcessRole(role).serves is serves
    assert ProcessRole(role).delivers is delivers
