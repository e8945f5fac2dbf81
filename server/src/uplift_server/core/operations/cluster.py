"""Several server processes on one database: what each does, who is alive, and which one an endpoint belongs to.

An endpoint has one worker at a time, so that its caps, its rate, its breaker and its health are kept in one memory, as
they are where there is one process. Whose it is follows from its number and from who is alive (rendezvous hashing):
when a worker comes or goes, only the endpoints move that it gets or leaves behind.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final

HEARTBEAT_INTERVAL_MS: Final = 1_000
HEARTBEAT_EXPIRES_MS: Final = 5_000
"""Whoever was not heard of for so long is dead to the others: what it had leased is anybody's."""
HEARTBEAT_TRUSTED_MS: Final = 4_000
"""How long after a heartbeat began a process may rely on it. It stops before the others take it for dead."""
_MASK: Final = 2**64 - 1
_VIEW_BITS: Final = 63


class ProcessRole(StrEnum):
    """What a process does."""

    ALL = "all"
    API = "api"
    """Takes requests: API and dashboard."""
    WORKER = "worker"
    """Delivers, and whatever else is to be done behind the API."""

    @property
    def serves(self) -> bool:
        """Whether it takes requests."""
        return self is not ProcessRole.WORKER

    @property
    def delivers(self) -> bool:
        """Whether endpoints may belong to it."""
        return self is not ProcessRole.API


def is_heartbeat_expired(seen_at: int, now_ms: int) -> bool:
    """Whether a process that was last heard of at an instant (Unix ms) is to be taken for dead."""
    return now_ms - seen_at > HEARTBEAT_EXPIRES_MS


def assigned_worker(endpoint: int, workers: Sequence[int]) -> int | None:
    """The one of these workers that an endpoint belongs to, by their numbers; None where there are none."""
    mixed = _mixed(endpoint)
    return max(workers, key=lambda worker: (_mixed(mixed ^ worker), worker), default=None)


def membership_hash(workers: Iterable[int]) -> int:
    """A number that stands for a set of workers: those who act by the same set name the same one."""
    view = 0
    for worker in sorted(workers):
        view = _mixed(view ^ worker)
    return view >> (64 - _VIEW_BITS)


def _mixed(number: int) -> int:
    """All bits of a number, spread over 64 (the finaliser of SplitMix64)."""
    number = (number + 0x9E3779B97F4A7C15) & _MASK
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & _MASK
    return number ^ (number >> 31)
