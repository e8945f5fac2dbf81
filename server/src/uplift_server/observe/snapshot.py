"""What a process tells of itself at one moment, as metrics are made of it."""

from collections.abc import Mapping
from dataclasses import dataclass

from uplift_server.observe.counters import EngineCounters, StoreCounters


@dataclass(frozen=True, slots=True)
class DatabaseReading:
    """What was read from the database, for all processes together. Instants are Unix ms."""

    read_at: int
    waiting: Mapping[str, int]
    """Deliveries by kind, each counted up to a limit."""
    pending: int
    """All that have not ended and are not held, as they are counted."""
    oldest_due_at: Mapping[str, int | None]
    """Since when the oldest waits, by what holds it up."""
    emails_waiting: int
    oldest_email_at: int | None
    replays: Mapping[str, int]
    """Those that are not finished, by state."""
    oldest_event_at: int | None


@dataclass(frozen=True, slots=True)
class Disk:
    """Where the database lies, in bytes."""

    database: int
    free: int
    size: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything. `at` is Unix ms."""

    at: int
    version: str
    python: str
    revision: str
    """Of the database's schema."""
    engine: EngineCounters
    store: StoreCounters
    writes_waiting: int
    in_flight: int
    in_flight_max: int
    in_memory: int
    """Deliveries that wait in memory."""
    sending_stopped: bool
    accounts: int
    endpoints: Mapping[str, int]
    """By state, enabled ones by their health."""
    processes: Mapping[str, int]
    """Those that share the database and work, by role."""
    probed: int
    mass_failure: bool
    log_lines_dropped: int
    disk: Disk | None
    """None: the database is elsewhere."""
    stored: DatabaseReading | None
    """None: the database does not answer."""
    store_up: bool
    """Whether it did when it was asked last."""
