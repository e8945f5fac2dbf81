"""Server metrics for monitoring, and the permission to read them."""

import asyncio
import hashlib
import hmac
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from uplift_server import __version__
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.operations.cluster import ProcessRole
from uplift_server.core.operations.fleet import LATE_MS
from uplift_server.core.scheduling.waiting import HeldUpBy
from uplift_server.core.security.endpoint_auth import CERTIFICATE_WARNINGS_MS
from uplift_server.observe.snapshot import Disk, Snapshot
from uplift_server.service.authentication import Authenticator
from uplift_server.service.backlogs import Backlogs, Reading
from uplift_server.service.context import ServiceContext
from uplift_server.service.readiness import Readiness
from uplift_server.service.system import database_bytes
from uplift_server.store import schema_version
from uplift_server.store.processes import Process

COUNT_SLICE: Final = 1_000
"""The number of endpoints that are counted before other tasks can run."""
_STATES: Final = ("unknown", "healthy", "failing", "warned", "paused", "disabled")
_OUTCOMES: Final = tuple(each.text for each in Outcome if each is not Outcome.DELIVERED)
_SCHEME: Final = b"bearer "


class _EndpointCounts(NamedTuple):
    states: Mapping[str, int]
    failing: Mapping[str, int]
    pending_failing: int | None
    certificates_expiring: int


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """The token for the metrics, the SQLite file to measure, and a function that counts dropped log lines."""

    token: str | None = None
    """The token that gives access only to the metrics. None if no token is configured."""
    database: Path | None = None
    """The path of the SQLite file. None on PostgreSQL."""
    log_lines_dropped: Callable[[], int] = lambda: 0


class Metrics:
    """Collects the server's metrics."""

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
        """Raise Unauthorized or Forbidden unless this `Authorization` header gives access to the metrics.

        The configured token and every operator key give access.
        """
        if self._settings.token is None or not _is_token(authorization, self._settings.token):
            self._authenticator.caller(authorization, None).require_operator()

    async def snapshot(self) -> Snapshot:
        """Return the current metrics. If the database does not respond in time, omit the values that come from it."""
        context = self._context
        reading = await self._backlogs.latest()
        load, status = context.engine.status.own_load(), context.engine.status
        counts = await self._endpoints(reading)
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
            endpoints=counts.states,
            failing=counts.failing,
            pending_failing=counts.pending_failing,
            certificates_expiring=counts.certificates_expiring,
            at_limit=self._at_limit(reading),
            processes=_by_role(context.engine.status.processes()),
            probed=len(status.load().probes),
            mass_failure=context.engine.status.outage is not None,
            log_lines_dropped=self._settings.log_lines_dropped(),
            disk=None if self._settings.database is None else await asyncio.to_thread(_disk, self._settings.database),
            stored=None if reading is None else reading.stored,
            store_up=self._backlogs.is_responding and self._readiness.failure_cause() is None,
            stream_up=None if context.stream is None else context.stream.trouble() is None,
            stream=None if context.stream is None else context.stream.reading,
        )

    async def _endpoints(self, reading: Reading | None) -> _EndpointCounts:
        """Count the endpoints by state, and the failing endpoints by the outcome of their last attempt.

        Also count the pending deliveries of the failing endpoints, and the endpoints whose certificate expires soon.
        """
        states, failing, pending = dict.fromkeys(_STATES, 0), dict.fromkeys(_OUTCOMES, 0), 0
        expiring, expires_before = 0, self._context.now() + CERTIFICATE_WARNINGS_MS[-1]
        for number, live in enumerate(list(self._context.cache.endpoints.values()), 1):
            states[live.health.status if live.takes_deliveries else live.record.state.text] += 1
            expires_at = live.record.certificate_expires_at
            expiring += expires_at is not None and expires_at <= expires_before
            if live.is_broken:
                outcome = live.health.last_outcome
                if outcome is not None and outcome.text in failing:
                    failing[outcome.text] += 1
                pending += 0 if reading is None else reading.of(live.seq).pending or 0
            if number % COUNT_SLICE == 0:
                await asyncio.sleep(0)
        is_known = reading is not None and reading.open is not None
        return _EndpointCounts(states, failing, pending if is_known else None, expiring)

    def _at_limit(self, reading: Reading | None) -> int:
        """Count this process's endpoints whose rate or concurrency limit delays a delivery by more than LATE_MS."""
        if reading is None:
            return 0
        status, known = self._context.engine.status, self._context.cache.endpoints
        late = [seq for seq, due_at in reading.due.items() if reading.stored.read_at - due_at > LATE_MS]
        return sum(
            status.owns(seq) and seq in known and known[seq].takes_deliveries
            and status.held_up_by(seq) is HeldUpBy.ENDPOINT
            for seq in late
        )  # fmt: skip


def _by_role(live_processes: Sequence[Process] | None) -> dict[str, int]:
    """Count the live processes of each role.

    `live_processes` is None if there can be only one process, and empty if the processes are unknown.
    """
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
    """Return whether a header contains the token. The comparison takes constant time."""
    if authorization is None or authorization[: len(_SCHEME)].lower() != _SCHEME:
        return False
    sent = authorization[len(_SCHEME) :].strip(b" ")
    return hmac.compare_digest(hashlib.sha256(sent).digest(), hashlib.sha256(token.encode()).digest())


def _disk(database: Path) -> Disk | None:
    """Return the database's disk usage, or None if the system does not report it."""
    try:
        usage = shutil.disk_usage(database.parent)
        return Disk(database_bytes(database), usage.free, usage.total)
    except OSError:
        return None
