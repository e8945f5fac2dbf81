"""The shards of a process without others on its database."""

from collections.abc import Iterable, Sequence

from uplift_server.core.operations.singleton_jobs import SingletonJob
from uplift_server.store.processes import Process


class LocalShards:
    """The only process on its database: owns every endpoint and does every job."""

    def __init__(self, process_id: int = 1) -> None:
        self.process_id = process_id
        self.membership_id = 0

    def owns(self, _endpoint_seq: int) -> bool:
        """See Shards."""
        return True

    def may_send(self) -> bool:
        """See Shards."""
        return True

    def add(self, endpoint_seq: int) -> None:
        """See Shards."""

    def discard(self, endpoint_seq: int) -> None:
        """See Shards."""

    def foreign(self, _endpoint_seqs: Iterable[int]) -> Iterable[int]:
        """See Shards."""
        return ()

    def notify_owners(self, endpoint_seqs: Iterable[int]) -> None:
        """See Shards."""

    def report_success(self, endpoint_seq: int, at: int) -> None:
        """See Shards."""

    def holds(self, _job: SingletonJob) -> bool:
        """See SingletonJobs."""
        return True

    def living(self) -> None:
        """See Peers."""

    def others(self) -> Sequence[Process]:
        """See Peers."""
        return ()

    def unheard_ms(self) -> None:
        """See Peers."""
