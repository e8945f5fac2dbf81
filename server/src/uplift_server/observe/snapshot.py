"""The state of a process at one moment, as the source of metrics."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from uplift_server.observe.counters import EngineCounters, StoreCounters


@dataclass(frozen=True, slots=True)
class DatabaseReading:
    """Values from the database, for all processes together. Times are Unix ms."""

    read_at: int
    waiting: Mapping[str, int]
    """Deliveries by kind, each counted up to a limit."""
    pending: int | None
    """Deliveries that are neither ended nor held. None until they are counted after an upgrade."""
    oldest_due_at: Mapping[str, int | None]
    """Due time of the oldest waiting delivery, by cause of the delay."""
    emails_waiting: int
    oldest_email_at: int | None
    replays: Mapping[str, int]
    """Unfinished replays by state."""
    oldest_event_at: int | None


@dataclass(frozen=True, slots=True)
class Disk:
    """The size of the database, and the space on its disk, in bytes."""

    database: int
    free: int
    size: int


class StreamReading(NamedTuple):
    """The state of the event stream. Times are Unix ms."""

    read_at: int
    messages: int
    oldest_at: int | None
    """When the oldest message was published; None if the stream is empty."""
    replicas: int
    """The number of servers that store each event."""
    current_replicas: int
    """The number of these servers that are up to date."""
    first_seq: int
    """The number of the oldest message, or of the next one if the stream is empty."""
    last_seq: int
    bytes: int
    bytes_max: int
    """-1 means that only the disk limits the stream."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a process. `at` is Unix ms."""

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
    """Deliveries queued in memory."""
    sending_stopped: bool
    accounts: int
    endpoints: Mapping[str, int]
    """Endpoints by state. Enabled endpoints are counted by health."""
    processes: Mapping[str, int]
    """Active processes on the database, by role."""
    failing: Mapping[str, int]
    """Failing endpoints by the outcome of their last attempt."""
    pending_failing: int | None
    """Pending deliveries of failing endpoints. None if they are unknown."""
    certificates_expiring: int
    """Client certificates that expire soon or have expired."""
    at_limit: int
    """Endpoints of this process whose limit has delayed a due delivery for more than a minute."""
    probed: int
    mass_failure: bool
    log_lines_dropped: int
    disk: Disk | None
    """None if the database is on another machine."""
    stored: DatabaseReading | None
    """None if the database does not respond."""
    store_up: bool
    """Whether the latest database reads and writes succeeded in time."""
    stream_up: bool | None
    """Whether the event stream can be used. None without one."""
    stream: StreamReading | None
    """The latest reading of the event stream."""
