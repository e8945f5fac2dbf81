"""The state of a process at a point in time. The server calculates metrics from this state."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from uplift_server.observe.counters import EngineCounters, StoreCounters


@dataclass(frozen=True, slots=True)
class DatabaseReading:
    """Values that were read from the database and that are the same for all processes. Times are Unix ms."""

    read_at: int
    waiting: Mapping[str, int]
    """The numbers of `due`, `later`, `leased`, `held` and `blocked` deliveries. Each count stops at a limit."""
    pending: int | None
    """The number of deliveries that are neither ended nor held.

    After an upgrade, the number is None until the server has counted these deliveries.
    """
    oldest_due_at: Mapping[str, int | None]
    """For each cause of delay, the time when the oldest waiting delivery was due. None if no delivery is waiting."""
    emails_waiting: int
    oldest_email_at: int | None
    replays: Mapping[str, int]
    """The number of unfinished replays in each state."""
    oldest_event_at: int | None


@dataclass(frozen=True, slots=True)
class Disk:
    """The sizes of the database and its disk, and the free space on the disk, in bytes."""

    database: int
    free: int
    size: int


class StreamReading(NamedTuple):
    """The state of the event stream when it was read. Times are Unix ms."""

    read_at: int
    messages: int
    oldest_at: int | None
    """When the oldest message in the stream was published. None if the stream is empty."""
    replicas: int
    """The number of NATS servers that store each event."""
    current_replicas: int
    """The number of replicas that are up to date."""
    first_seq: int
    """The sequence number of the oldest message, or of the next message if the stream is empty."""
    last_seq: int
    bytes: int
    bytes_max: int
    """The maximum size of the stream, in bytes. -1 means that only the disk limits the size."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a process at `at` (Unix ms)."""

    at: int
    version: str
    python: str
    revision: str
    """The revision of the database schema."""
    engine: EngineCounters
    store: StoreCounters
    writes_waiting: int
    in_flight: int
    in_flight_max: int
    in_memory: int
    """The number of deliveries that are queued in this process's memory."""
    sending_stopped: bool
    accounts: int
    endpoints: Mapping[str, int]
    """The number of endpoints in each state. For enabled endpoints, each health status has its own count."""
    processes: Mapping[str, int]
    """The number of active processes that use the database, for each role."""
    failing: Mapping[str, int]
    """The number of failing endpoints for each outcome of their last attempts."""
    pending_failing: int | None
    """The number of pending deliveries to failing endpoints. None if the number is unknown."""
    certificates_expiring: int
    """The number of client certificates that expire soon or have expired."""
    at_limit: int
    """The number of this process's endpoints whose own limits have delayed a delivery for more than a minute."""
    probed: int
    mass_failure: bool
    log_lines_dropped: int
    disk: Disk | None
    """The sizes of the database and its disk. None if the database is on another machine."""
    stored: DatabaseReading | None
    """The latest database reading. None if the database did not respond."""
    store_up: bool
    """Whether the latest reads from and writes to the database succeeded in time."""
    stream_up: bool | None
    """Whether the server can use the event stream. None if the configuration has no event stream."""
    stream: StreamReading | None
    """The latest reading of the event stream. None if there is no reading."""
