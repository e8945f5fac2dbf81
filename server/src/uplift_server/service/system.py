"""The server itself, for its operators: what it is, how it is configured, what it can find out of its machine."""

import asyncio
import contextlib
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from uplift_server import __version__
from uplift_server.config import Config, DescribedSetting, describe
from uplift_server.core.operations.findings import Finding
from uplift_server.service.diagnostics import examine_beside
from uplift_server.service.errors import Busy
from uplift_server.service.principals import Caller
from uplift_server.store import schema_version

EXAMINE_SECONDS: Final = 8.0
"""How long a caller waits for checks, of which some wait for others; what is found by then is told."""
FILES: Final = ("", "-wal")
"""What a database's files are called, after its path."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server is. Sizes are bytes; `started_at` is Unix ms."""

    version: str
    python: str
    revision: str
    """Of the database's schema."""
    started_at: int
    database: str
    database_bytes: int | None
    """With what is not merged into the file yet; of PostgreSQL's it knows nothing."""
    settings: Sequence[DescribedSetting]
    """As this process was started with; secrets are masked."""


def database_bytes(path: Path) -> int:
    """The size of a SQLite database, with what is not merged into the file yet."""
    files = [path.with_name(path.name + end) for end in FILES]
    return sum(each.stat().st_size for each in files if each.exists())


class System:
    """One server, as its operators ask for it. `started_at` is Unix ms."""

    def __init__(self, config: Config, started_at: int) -> None:
        self._config = config
        self._started_at = started_at
        self._examined: asyncio.Event | None = None
        """Of the latest examination: set once it is over."""

    def facts(self, caller: Caller) -> Facts:
        """What it is, and how it is configured."""
        caller.require_operator()
        return Facts(
            __version__,
            ".".join(map(str, sys.version_info[:3])),
            schema_version.HEAD,
            self._started_at,
            self._config.shown_database,
            None if self._config.on_postgresql else database_bytes(self._config.database_path),
            describe(self._config),
        )

    async def examine(self, caller: Caller) -> list[Finding]:
        """What `doctor` can tell beside a server that runs, as far as it is known in time.

        Raises Busy while an earlier examination still waits for something.
        """
        caller.require_operator()
        if self._examined is not None and not self._examined.is_set():
            raise Busy("An examination goes on already, and waits for an answer. Try again in a moment.")
        found: list[Finding] = []
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        self._examined = done

        def examine() -> None:
            try:
                for finding in examine_beside(self._config):
                    found.append(finding)  # noqa: PERF402 - what is found so far counts if the rest comes too late
            finally:
                # By then the process may be about to stop.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(done.set)

        # A thread that waits for a dead name server must not hold up the stop of the process.
        threading.Thread(target=examine, name="examination", daemon=True).start()
        try:
            async with asyncio.timeout(EXAMINE_SECONDS):
                await done.wait()
        except TimeoutError:
            text = f"not all is known after {EXAMINE_SECONDS:.0f} s: something does not answer"
            return [*found, Finding("examination", "warn", text, "run `uplift-server doctor`, which waits for it")]
        return found
