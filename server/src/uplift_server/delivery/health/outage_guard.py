"""The outage guard: during a mass failure, the server neither warns about failing endpoints nor disables them.

In a mass failure, so many endpoints begin to fail together that this server or its network is probably the cause. The
guard also notifies the operator. The store contains the current mass failure, so a restart does not end it. The
duration of a mass failure does not count toward the failure duration of the endpoints that are still failing.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from uplift_server.core import ids
from uplift_server.core.deliveries.causes import cause_of
from uplift_server.core.deliveries.health import Health
from uplift_server.core.deliveries.outage_guard import ATTEMPTED_WITHIN_MS, WITHIN_MS, largest_group
from uplift_server.core.operations.fleet import find_onset
from uplift_server.core.operations.singleton_jobs import SingletonJob
from uplift_server.core.people.audit import SYSTEM, AuditEntry
from uplift_server.core.people.notifications import NotificationKind
from uplift_server.core.timestamps import format_timestamp
from uplift_server.delivery.endpoint_cache import EndpointCache, LiveEndpoint
from uplift_server.delivery.ports import Clock, Shards, SingletonJobs
from uplift_server.store import audit, health, outbox, processes, server_values
from uplift_server.store.contract import Database, Transaction
from uplift_server.store.errors import Unavailable

FOLLOW_EVERY_MS: Final = 3_000
_MARKS: Final = "mass_failure."
_ENDED_AT: Final = "mass_failure.ended_at"
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Outage:
    """A mass failure that has not ended: many endpoints began to fail together. Times are Unix ms."""

    since: int
    counts_from: int
    """The start of the mass failure's excused time, which does not count toward the failure duration of endpoints.

    The excused time does not overlap with that of an earlier mass failure.
    """
    endpoints: int
    """The number of failing endpoints when the guard detected the mass failure."""
    onset: int
    """The time when most of the failing endpoints began to fail."""
    is_notified: bool
    """Whether the server notifies the operator.

    False if the mass failure began soon after the end of an earlier mass failure.
    """

    def marks(self) -> dict[str, int]:
        """Return the attributes as a dict of numbers. The keys are the attributes' names in the database."""
        return {
            _MARKS + "since": self.since,
            _MARKS + "counts_from": self.counts_from,
            _MARKS + "endpoints": self.endpoints,
            _MARKS + "onset": self.onset,
            _MARKS + "told": self.is_notified,
        }


class OutageGuard:
    """Detects the start and the end of a mass failure."""

    def __init__(
        self,
        database: Database,
        cache: EndpointCache,
        shards: Shards,
        jobs: SingletonJobs,
        clock: Clock,
        *,
        recipient: str | None,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._database = database
        self._cache = cache
        self._shards = shards
        self._jobs = jobs
        self._clock = clock
        self._recipient = recipient
        self._random_bytes = random_bytes
        self._ended_at: int | None = None
        """The time when the latest mass failure ended (Unix ms)."""
        self._ending_at: int | None = None
        """When the mass failure in `outage` ended (Unix ms). None if it has not ended, or if its end is stored."""
        self.outage: Outage | None = None
        self._must_reload = False
        """Whether `evaluate` must first reload the stored mass failure.

        A reload is necessary if another process held the job, or if the result of a write is unknown.
        """

    async def load(self) -> None:
        """Load the stored mass failure. Raises Unavailable."""
        stored = await self._database.read_with_priority(lambda c: server_values.get_all(c, _MARKS))
        self._ended_at = stored.get(_ENDED_AT)
        self.outage = None
        if _MARKS + "since" in stored:
            found = {name.removeprefix(_MARKS): value for name, value in stored.items()}
            # Earlier releases did not store the onset of a mass failure.
            onset = found.get("onset", found["since"])
            self.outage = Outage(
                found["since"], found["counts_from"], found["endpoints"], onset, is_notified=bool(found["told"])
            )
        else:
            self._ending_at = None

    async def follow(self, stopping: asyncio.Event) -> None:
        """Reload the stored mass failure every FOLLOW_EVERY_MS until the process stops.

        This method is only for processes that do not deliver.
        """
        while not stopping.is_set():
            await self._clock.wait(stopping, FOLLOW_EVERY_MS)
            with suppress(Unavailable):
                await self.load()

    async def evaluate(self, failing: Sequence[LiveEndpoint]) -> None:
        """Detect the start or the end of a mass failure from the failing endpoints. Raises Unavailable.

        Only recently attempted endpoints count. Therefore, a mass failure ends if its endpoints get no more attempts.

        Only the process with the singleton job stores a mass failure. The other processes use the stored mass failure.
        If one of these other processes detects a mass failure that is not stored yet, it immediately stops warning
        about endpoints and disabling them.
        """
        holds_job = self._jobs.holds(SingletonJob.OUTAGE_GUARD)
        if not holds_job or self._must_reload:
            await self._follow(failing)
            self._must_reload = not holds_job
        recent = self._recently_failed(failing)
        group = largest_group(endpoint.health.failing_since or 0 for endpoint in recent)
        is_mass = group is not None and group.is_mass_failure(self._attempted(enough=2 * group.endpoints))
        if not holds_job:
            self._ending_at = None
            if self.outage is None and group is not None and is_mass:
                self.outage = Outage(group.since, group.since, group.endpoints, _onset(recent), is_notified=False)
            return
        # Reload the state unless the writes below succeed, because the result of a failed write is unknown.
        self._must_reload = True
        if self.outage is not None and (self._ending_at is not None or not is_mass):
            await self._end(self.outage, failing)
        elif self.outage is None and group is not None and is_mass:
            ended_at = self._ended_at or 0
            is_notified = self._clock.now_ms() - ended_at > WITHIN_MS
            begun = Outage(
                group.since, max(group.since, ended_at), group.endpoints, _onset(recent), is_notified=is_notified
            )
            await self._begin(begun, recent)
        self._must_reload = False

    async def _follow(self, failing: Sequence[LiveEndpoint]) -> None:
        """Reload the stored mass failure.

        If the mass failure has ended, also reload the health of this process's failing endpoints. Raises Unavailable.
        """
        before = self.outage
        await self.load()
        if before is None or self.outage is not None:
            return
        # The process that ended the mass failure changed the health of these endpoints, so load the new health.
        own = [endpoint for endpoint in failing if self._shards.owns(endpoint.seq)]
        try:
            stored = await self._database.read_with_priority(
                lambda c: health.get(c, [endpoint.seq for endpoint in own])
            )
        except Unavailable:
            self.outage = before
            raise
        _excuse(own, stored)

    def _recently_failed(self, failing: Iterable[LiveEndpoint]) -> list[LiveEndpoint]:
        """Return the endpoints with a recent failure. An older failure does not show that the endpoint still fails."""
        after = self._clock.now_ms() - ATTEMPTED_WITHIN_MS
        return [endpoint for endpoint in failing if (endpoint.health.last_failure_at or 0) > after]

    def _attempted(self, *, enough: int | None = None) -> int:
        """Return the number of endpoints with a recent attempt. Stop counting when the number exceeds `enough`."""
        after = self._clock.now_ms() - ATTEMPTED_WITHIN_MS
        count = 0
        for endpoint in self._cache.endpoints.values():
            latest = max(endpoint.health.last_success_at or 0, endpoint.health.last_failure_at or 0)
            count += latest > after and endpoint.takes_deliveries
            if enough is not None and count > enough:
                break
        return count

    async def _begin(self, begun: Outage, failing: Iterable[LiveEndpoint]) -> None:
        now = self._clock.now_ms()
        attempted = self._attempted()
        causes = [cause.title for endpoint in failing if (cause := cause_of(endpoint.health)) is not None]
        counts = dict(Counter(causes))
        facts = {"since": begun.onset, "endpoints": begun.endpoints, "attempted": attempted, "causes": counts}

        def begin(connection: Transaction) -> None:
            server_values.replace(connection, _MARKS, begun.marks())
            self._record(
                connection,
                "mass_failure.began",
                NotificationKind.MASS_FAILURE_BEGAN,
                facts,
                now=now,
                by_email=begun.is_notified,
            )

        await self._database.write(processes.unless_evicted(self._shards.membership_id, begin))
        self.outage, self._ended_at = begun, None
        _log.error(
            "mass failure began",
            since=format_timestamp(begun.onset), endpoints=begun.endpoints, attempted=attempted, causes=counts,
        )  # fmt: skip

    async def _end(self, ended: Outage, failing: Sequence[LiveEndpoint]) -> None:
        now = self._clock.now_ms()
        at = self._ending_at = self._ending_at or now
        seqs = [endpoint.seq for endpoint in failing]
        facts = {"since": ended.onset, "ended_at": at, "endpoints": ended.endpoints, "still_failing": len(failing)}

        def end(connection: Transaction) -> dict[int, Health]:
            # Change the health in the database: concurrent settlements keep the excused time that is stored there.
            health.excuse(connection, seqs, ended.counts_from, at)
            server_values.replace(connection, _MARKS, {_ENDED_AT: at})
            self._record(
                connection,
                "mass_failure.ended",
                NotificationKind.MASS_FAILURE_ENDED,
                facts,
                now=now,
                by_email=ended.is_notified,
            )
            return health.get(connection, seqs)

        _excuse(failing, await self._database.write(processes.unless_evicted(self._shards.membership_id, end)))
        self.outage, self._ended_at, self._ending_at = None, at, None
        _log.warning(
            "mass failure ended",
            since=format_timestamp(ended.onset), endpoints=ended.endpoints, still_failing=len(failing),
        )  # fmt: skip

    def _record(
        self,
        connection: Transaction,
        action: str,
        kind: NotificationKind,
        facts: Mapping[str, object],
        *,
        now: int,
        by_email: bool,
    ) -> None:
        details = {
            name: format_timestamp(fact) if name in ("since", "ended_at") and isinstance(fact, int) else fact
            for name, fact in facts.items()
        }
        audit.add(connection, AuditEntry(None, now, SYSTEM, action, "", details))
        if by_email and self._recipient is not None:
            notification_id = ids.uuid7(now, self._random_bytes(ids.RANDOM_BYTES))
            outbox.add(
                connection,
                kind,
                account_seq=None,
                endpoint_seq=None,
                recipients=[(notification_id, self._recipient)],
                facts=facts,
                now=now,
            )


def _onset(failing: Iterable[LiveEndpoint]) -> int:
    onset = find_onset([endpoint.health.failing_since or 0 for endpoint in failing])
    return 0 if onset is None else onset.at


def _excuse(endpoints: Iterable[LiveEndpoint], stored: Mapping[int, Health]) -> None:
    for endpoint in endpoints:
        if endpoint.seq in stored:
            endpoint.health = endpoint.health.with_excused_time_of(stored[endpoint.seq])
