"""Implements the cluster interfaces for a server with one process, which owns all endpoints and runs all jobs."""

from collections.abc import Iterable, Sequence

from uplift_server.core.operations.singleton_jobs import SingletonJob
from uplift_server.store.processes import Process


class LocalShards:
    """Implements Shards, SingletonJobs and Peers for a process that owns every endpoint and holds every job."""

    def __init__(self, process_id: int = 1) -> None:
        self.process_id = process_id
        self.membership_id = 0

    def owns(self, _endpoint_seq: int) -> bool:
        """Return True: the process owns every endpoint."""
        return True

    def may_send(self) -> bool:
        """Return True: no other process can take over endpoints."""
        return True

    def add(self, endpoint_seq: int) -> None:
        """Do nothing: the process owns every endpoint."""

    def discard(self, endpoint_seq: int) -> None:
        """Do nothing: the process owns every endpoint."""

    def foreign(self, _endpoint_seqs: Iterable[int]) -> Iterable[int]:
        """Return no endpoints: no other process owns endpoints."""
        return ()

    def notify_owners(self, endpoint_seqs: Iterable[int]) -> None:
        """Do nothing: no other process owns endpoints."""

    def report_success(self, endpoint_seq: int, at: int) -> None:
        """Do nothing: no other process owns endpoints."""

    def announce_erased(self, _event_seqs: Sequence[int], _endpoint_seqs: Sequence[int]) -> None:
        """Do nothing: there are no other processes."""

    def holds(self, _job: SingletonJob) -> bool:
        """Return True: the process holds every job."""
        return True

    def living(self) -> None:
        """Return None: there are no other processes."""

    def others(self) -> Sequence[Process]:
        """Return no processes: there are no other processes."""
        return ()

    def heartbeat_age_ms(self) -> None:
        """Return None: no heartbeat can expire."""
