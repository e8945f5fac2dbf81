"""Replays on the raw driver: what a running one leases next, in few statements."""

from uplift_server.store.hot_records import Ahead, ReplayLease, ReplayRelease
from uplift_server.store.postgres.connection import Pair, Raw
from uplift_server.store.replays import Choice, Replay


async def look_ahead(raw: Raw, replay: Replay, *, first: int, rows: int, limit: int, body_bytes_max: int) -> Ahead:
    """See the contract."""
    raise NotImplementedError


async def release(pair: Pair, replay_seq: int, choice: Choice, ahead: Ahead, lease: ReplayLease) -> ReplayRelease:
    """See the contract. The statements it shares with SQLite run on the same connection, in the same transaction."""
    raise NotImplementedError
