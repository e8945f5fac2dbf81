"""What the server tells monitoring of itself: numbers of everybody together, and who may read them."""

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
from uplift_server.service.context import ServiceContext
from uplift_server.service.metrics_cache import MetricsCache
from uplift_server.service.readiness import Readiness
from uplift_server.service.system import database_bytes
from uplift_server.store import schema_version
from uplift_server.store.processes import Process

SLICE: Final = 1_000
"""So many endpoints are counted in one turn of the loop."""
_STATES: Final = ("unknown", "healthy", "failing", "warned", "paused", "disabled")
_SCHEME: Final = b"bearer "


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """What metrics need to know of the configuration."""

    token: str | None = None
    """What lets monitoring read them, and do nothing else."""
    database: Path | None = None
    """The SQLite file; None: the database is elsewhere."""
    log_lines_dropped: Callable[[], int] = lambda: 0


class Metrics:
    """The numbers at one moment."""

    def __init__(
        self, context: ServiceContext, authenticator: Authenticator, readiness: Readiness, settings: MetricsSettings
    ) -> None:
        self._context = context
        self._authenticator = authenticator
        self._settings = settings
        self._readiness = readiness
        self._readings = MetricsCache(context, readiness)

    def require_reader(self, authorization: bytes | None) -> None:
        """Raise Unauthorized or Forbidden unless this `Authorization` header lets its sender read them.

        The token that was configured does, and every operator's key.
        """
        if self._settings.token is None or not _is_token(authorization, self._settings.token):
            self._authenticator.caller(authorization, None).require_operator()

    async def snapshot(self) -> Snapshot:
        """Everything as it is now; without what the database does not answer in time."""
        context = self._context
        stored = await self._readings.latest()
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
            stored=stored,
            store_up=self._readings.answers and self._readiness.trouble() is None,
        )

    async def _endpoints(self) -> dict[str, int]:
        """How many endpoints are in each state."""
        states = dict.fromkeys(_STATES, 0)
        for number, live in enumerate(list(self._context.cache.endpoints.values()), 1):
            states[live.health.status if live.takes_deliveries else live.record.state.text] += 1
            if number % SLICE == 0:
                await asyncio.sleep(0)
        return states


def _by_role(living: Sequence[Process] | None) -> dict[str, int]:
    """How many processes do what; nothing while that is not known. Alone, one does everything."""
    if living is None:
        return dict.fromkeys(map(str, ProcessRole), 0) | {ProcessRole.ALL: 1}
    if not living:
        # This one itself is not heard of. Zeros would tell that nobody lives, which is another trouble.
        return {}
    counts = dict.fromkeys(map(str, ProcessRole), 0)
    for process in living:
        counts[process.role] += process.delivers or not process.role.delivers
    return counts


def _is_token(authorization: bytes | None, token: str) -> bool:
    """Whether a header carries the token; how long that takes tells nothing about it."""
    if authorization is None or authorization[: len(_SCHEME)].lower() != _SCHEME:
        return False
    sent = authorization[len(_SCHEME) :].strip(b" ")
    return hmac.compare_digest(hashlib.sha256(sent).digest(), hashlib.sha256(token.encode()).digest())


def _disk(database: Path) -> Disk | None:
    """How full it is; None where that cannot be seen."""
    try:
        usage = shutil.disk_usage(database.parent)
        return Disk(database_bytes(database), usage.free, usage.total)
    except OSError:
        return None
