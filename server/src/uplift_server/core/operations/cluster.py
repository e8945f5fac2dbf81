"""Processes that share a database: roles, heartbeats, and the assignment of endpoints to workers.

An endpoint has one worker at a time, so that its limits, circuit breaker and health are in the memory of one process.
Rendezvous hashing assigns endpoints to workers. If a worker joins or leaves, only the endpoints that it gains or loses
are reassigned.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final

HEARTBEAT_INTERVAL_MS: Final = 1_000
HEARTBEAT_EXPIRES_MS: Final = 5_000
"""Maximum age, in ms, of a process's last heartbeat. After this age, the other processes evict the process and take its
leases."""
HEARTBEAT_TRUSTED_MS: Final = 4_000
"""Age, in ms, of a process's last heartbeat at which the process stops its own work.

The age is lower than HEARTBEAT_EXPIRES_MS, so the process stops before the other processes evict it.
"""
_MASK: Final = 2**64 - 1
_HASH_BITS: Final = 63


class ProcessRole(StrEnum):
    """The role of a process in a cluster."""

    ALL = "all"
    API = "api"
    """Handles requests to the API and the dashboard."""
    WORKER = "worker"
    """Sends deliveries and does all other background work."""

    @property
    def serves(self) -> bool:
        """Whether the process handles requests to the API and the dashboard."""
        return self is not ProcessRole.WORKER

    @property
    def delivers(self) -> bool:
        """Whether the process sends deliveries. If so, the cluster assigns endpoints to the process."""
        return self is not ProcessRole.API


def is_heartbeat_expired(seen_at: int, now_ms: int) -> bool:
    """Return whether a process whose last heartbeat was at `seen_at` (Unix ms) must be evicted."""
    return now_ms - seen_at > HEARTBEAT_EXPIRES_MS


def assigned_worker(endpoint: int, workers: Sequence[int]) -> int | None:
    """Return the ID of the worker to which an endpoint is assigned, or None if there are no workers."""
    hashed = _mix(endpoint)
    return max(workers, key=lambda worker: (_mix(hashed ^ worker), worker), default=None)


def membership_hash(workers: Iterable[int]) -> int:
    """Return a hash of the IDs of all workers. Two processes with the same hash have the same list of workers."""
    result = 0
    for worker in sorted(workers):
        result = _mix(result ^ worker)
    return result >> (64 - _HASH_BITS)


def _mix(number: int) -> int:
    """Mix all bits of a number into 64 bits (the finalizer of SplitMix64)."""
    number = (number + 0x9E3779B97F4A7C15) & _MASK
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & _MASK
    return number ^ (number >> 31)
