"""Prepares the server process: its database directory, file descriptors, threads, garbage collection and memory."""

import contextlib
import ctypes
import gc
import resource
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from uplift_server.config import Config, ConfigError, ConfigProblem
from uplift_server.core.operations.open_files import FILES_MIN, divide_files, files_needed
from uplift_server.delivery.sending.http.settings import SenderSettings

FILES_WANTED: Final = 16_384
COLLECT_AFTER_OBJECTS: Final = 20_000
"""Number of new objects after which Python starts a garbage collection.

Processing an event creates no reference cycles. With Python's default of 700, collections found nothing and took 2.5%
of the time.
"""
SWITCH_SECONDS: Final = 0.002
"""How long a thread keeps the interpreter while another thread waits, in seconds. Python's default is 5 ms.

The thread that writes to the database needs the interpreter several times per commit. A shorter interval reduces the
latency but takes CPU time: in the benchmark `attack`, 0.5 ms reduced the p99 latency of accepting an event by a fifth,
but each event took 4% more CPU time at full load.
"""

_log = structlog.get_logger()


def make_directory(path: Path) -> None:
    """Create the directory for the SQLite database. Raises ConfigError if the server's user cannot create it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            ConfigProblem(
                "UPLIFT_DATABASE_URL",
                f"names a directory that the server's user cannot create ({error.strerror})",
                "create the directory, or set UPLIFT_DATABASE_URL to a file in another directory",
            )
        ) from error


def switch_threads_often() -> None:
    """Set the interpreter's thread switch interval to SWITCH_SECONDS."""
    sys.setswitchinterval(SWITCH_SECONDS)


def raise_file_limit(needed: int) -> int:
    """Raise the soft limit on file descriptors to the larger of FILES_WANTED and `needed`. Return the new limit.

    The soft limit never exceeds the hard limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return sys.maxsize
    wanted = max(FILES_WANTED, needed)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)


@contextlib.contextmanager
def permanent_objects() -> Iterator[None]:
    """Pause garbage collection within the block, then exclude all existing objects from garbage collection.

    Server startup creates few reference cycles, and each collection takes longer than the previous one. In a
    measurement with 100,000 endpoints, collections took 2.4 s of a 7.7 s startup. Even a single collection at the end
    took 0.4 s of a 3.4 s startup. The exclusion makes each later full collection faster: by 19 ms on a server without
    endpoints.
    """
    gc.collect()
    gc.disable()
    try:
        yield
        gc.freeze()
        gc.set_threshold(COLLECT_AFTER_OBJECTS, *gc.get_threshold()[1:])
    finally:
        gc.enable()


def return_memory() -> None:
    """Return unused memory to the operating system. In one measurement, this reduced memory use from 71 to 67 MiB."""
    # Only glibc has `malloc_trim`.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def share_files(config: Config, settings: SenderSettings) -> tuple[Config, SenderSettings, int]:
    """Divide the file descriptors between connections from callers and connections to receivers.

    Return the adjusted settings and the maximum number of connections from callers.

    Raises ConfigError if there are too few descriptors.
    """
    wanted, idle = config.max_in_flight, settings.idle_connections_max
    needed = files_needed(wanted, idle)
    limit = raise_file_limit(needed)
    remedy = f"raise the limit to {needed} (LimitNOFILE of systemd, ulimit -n), or lower UPLIFT_MAX_IN_FLIGHT"
    if limit < FILES_MIN:
        reason = f"is {limit}, but the server needs at least {FILES_MIN}"
        raise ConfigError(ConfigProblem("the file descriptor limit", reason, remedy))
    shares = divide_files(limit, wanted, idle)
    if limit < needed:
        _log.warning(
            "file descriptor limit too low for the settings",
            limit=limit,
            needed=needed,
            in_flight_max=shares.in_flight,
            connections_max=shares.callers,
            how_to_fix=remedy,
        )
    return (
        replace(config, max_in_flight=shares.in_flight),
        replace(settings, connections_max=shares.receivers),
        shares.callers,
    )
