"""Facts about the server for operators: version, configuration and machine checks."""

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
from uplift_server.service.diagnostics import environment_findings
from uplift_server.service.errors import Busy
from uplift_server.service.principals import Caller
from uplift_server.store import schema_version

CHECKS_WAIT_SECONDS: Final = 8.0
"""How long a request waits for the checks, in seconds. After this time, the response has the findings so far."""
DATABASE_SUFFIXES: Final = ("", "-wal")
"""The suffixes of the files that belong to a SQLite database."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts about the server. Sizes are in bytes, and `started_at` is in Unix ms."""

    version: str
    python: str
    revision: str
    """The revision of the database schema."""
    started_at: int
    database: str
    database_bytes: int | None
    """The size of the database, including the write-ahead log. None on PostgreSQL."""
    settings: Sequence[DescribedSetting]
    """The settings of this process, with masked secrets."""


def database_bytes(path: Path) -> int:
    """Return the size of a SQLite database, including its write-ahead log."""
    files = [path.with_name(path.name + suffix) for suffix in DATABASE_SUFFIXES]
    return sum(each.stat().st_size for each in files if each.exists())


class System:
    """Describes and checks the server. `started_at` is Unix ms."""

    def __init__(self, config: Config, started_at: int) -> None:
        self._config = config
        self._started_at = started_at
        self._checks_done: asyncio.Event | None = None

    def facts(self, caller: Caller) -> Facts:
        """Return facts about the server and its configuration."""
        caller.require_operator(reads=True)
        return Facts(
            __version__,
            ".".join(map(str, sys.version_info[:3])),
            schema_version.HEAD,
            self._started_at,
            self._config.shown_database,
            None if self._config.on_postgresql else database_bytes(self._config.database_path),
            describe(self._config),
        )

    async def run_checks(self, caller: Caller) -> list[Finding]:
        """Run the checks of `doctor` that are possible in a running server.

        After CHECKS_WAIT_SECONDS, return the findings so far. Raises Busy if earlier checks are still running.
        """
        caller.require_operator(reads=True)
        if self._checks_done is not None and not self._checks_done.is_set():
            raise Busy("Checks are already running. Try again in a moment.")
        found: list[Finding] = []
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        self._checks_done = done

        def check() -> None:
            try:
                for finding in environment_findings(self._config):
                    found.append(finding)  # noqa: PERF402 - a timeout returns the findings so far
            finally:
                # The event loop may be closed.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(done.set)

        # Use a daemon thread, because waiting for a DNS server must not delay the end of the process.
        threading.Thread(target=check, name="checks", daemon=True).start()
        try:
            async with asyncio.timeout(CHECKS_WAIT_SECONDS):
                await done.wait()
        except TimeoutError:
            text = f"some checks did not finish within {CHECKS_WAIT_SECONDS:.0f} s"
            return [*found, Finding("checks", "warn", text, "run `uplift-server doctor`, which waits for all checks")]
        return found
