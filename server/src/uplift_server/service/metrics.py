"""Metrics of the server for monitoring, and the permission to read them."""

import asyncio
import hashlib
import hmac
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from uplift_server import __version__
from uplift_server.core.operations.cluster import ProcessRole
from uplift_server.observe.snapshot import Disk, Snapshot
from uplift_server.service.authentication import Authenticator
from uplift_server.service.backlogs import Backlogs
from uplift_server.service.context import ServiceContext
from uplift_server.service.readiness import Readiness
from uplift_server.service.system import database_bytes
from uplift_server.store import schema_version
from uplift_server.store.processes import Process

COUNT_SLICE: Final = 1_000
"""How many endpoints are counted before other tasks run."""
_STATES: Final = ("unknown", "healthy", "failing", "warned", "paused", "disabled")
_SCHEME: Final = b"bearer "


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """The configuration of metrics."""

    token: str | None = None
    """A token that only allows reading metrics."""
    database: Path | None = None
    """The SQLite file. None on PostgreSQL."""
    log_lines_dropped: Callable[[], int] = lambda: 0


class Metrics:
    """Collects the metrics of the server."""

    def __init__(
        self,
        context: ServiceContext,
        authenticator: Authenticator,
        readiness: Readiness,
        backlogs: Backlogs,
        settings: MetricsSettings,
    ) -> None:
        self._context = context
        self._authenticator = authenticator
        self._settings = settings
        self._readiness = readiness
        self._backlogs = backlogs

    def require_reader(self, authorization: bytes | None) -> None:
        """Raise Unauthorized or Forbidden unless this `Authorization` header allows reading metrics.

        The configured token and every operator key allow it.
        """
        if self._settings.token is None or not _is_token(authorization, self._settings.token):
            self._authenticator.caller(authorization, None).require_operator()

    async def snapshot(self) -> Snapshot:
        """Return the current metrics. Database values are absent if the database does not respond in time."""
        context = self._context
        reading = await self._backlogs.latest()
        load, endpoints = context.engine.status.own_load(), await self._endpoints()
        return Snapshot(
            at=context.now(),
            version=__version__,
            python=".".join(map(str, sys.version_info[:3])),
            revision=schema_version.HEAD,
            engine=context.engine.counters,
            store=context.database.measures,
            writes_waiting=context.database.writes_waiting,
            in_flight=load.in_flight,
            in_flight_max=load.in_flight_max,
            in_memory=load.waiting,
            sending_stopped=load.stopped,
            accounts=len(context.cache.accounts),
            endpoints=endpoints,
            processes=_by_role(context.engine.status.processes()),
            probed=len(load.probes),
            mass_failure=context.engine.status.outage is not None,
            log_lines_dropped=self._settings.log_lines_dropped(),
            disk=None if self._settings.database is None else await asyncio.to_thread(_disk, self._settings.database),
            stored=None if reading is None else reading.stored,
            store_up=self._backlogs.is_responding and self._readiness.failure_cause() is None,
        )

    async def _endpoints(self) -> dict[str, int]:
        """Count the endpoints by state."""
        states = dict.fromkeys(_STATES, 0)
        for number, live in enumerate(list(self._context.cache.endpoints.values()), 1):
            states[live.health.status if live.takes_deliveries else live.record.state.text] += 1
            if number % COUNT_SLICE == 0:
                await asyncio.sleep(0)
        return states


def _by_role(live_processes: Sequence[Process] | None) -> dict[str, int]:
    """Count the processes by role. None means a single process; an empty sequence means an unknown count."""
    if live_processes is None:
        return dict.fromkeys(map(str, ProcessRole), 0) | {ProcessRole.ALL: 1}
    if not live_processes:
        # This process has no valid heartbeat. Zeros would wrongly report that no process is alive.
        return {}
    counts = dict.fromkeys(map(str, ProcessRole), 0)
    for process in live_processes:
        counts[process.role] += process.delivers or not process.role.delivers
    return counts


def _is_token(authorization: bytes | None, token: str) -> bool:
    """Whether a header contains the token, compared in constant time."""
    if authorization is None or authorization[: len(_SCHEME)].lower() != _SCHEME:
        return False
    sent = authorization[len(_SCHEME) :].strip(b" ")
    return hmac.compare_digest(hashlib.sha256(sent).digest(), hashlib.sha256(token.encode()).digest())


def _disk(database: Path) -> Disk | None:
    """Return the disk usage of the database; None if the system does not report it."""
    try:
        usage = shutil.disk_usage(database.parent)
        return Disk(database_bytes(database), usage.free, usage.total)
    except OSError:
        return None
