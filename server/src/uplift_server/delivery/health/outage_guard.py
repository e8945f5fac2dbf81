"""Mass failures: while most endpoints fail at once nobody is warned or disabled, and the operator is told.

That one is under way stands in the store, so a restart does not end it. When it ends, its time is taken out of the
clocks of all that still fail.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from uplift_server.core import ids
from uplift_server.core.deliveries.health import Health
from uplift_server.core.deliveries.outage_guard import ATTEMPTED_WITHIN_MS, WITHIN_MS, largest_group
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
    """One that is under way. Instants are Unix ms."""

    since: int
    counts_from: int
    """From when on its time counts for nobody: what an earlier one took out of the clocks is not taken out twice."""
    endpoints: int
    """How many had failed when it was noticed."""
    told: bool
    """Whether the operator is told of it; not of one that only flares up again."""

    def marks(self) -> dict[str, int]:
        """As the store remembers it."""
        return {
            _MARKS + "since": self.since,
            _MARKS + "counts_from": self.counts_from,
            _MARKS + "endpoints": self.endpoints,
            _MARKS + "told": self.told,
        }


class OutageGuard:
    """Notices when one begins and when it ends."""

    def __init__(
        self,
        database: Database,
        cache: EndpointCache,
        shards: Shards,
        jobs: SingletonJobs,
        clock: Clock,
        *,
        recipient: str | None,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._database = database
        self._cache = cache
        self._shards = shards
        self._jobs = jobs
        self._clock = clock
        self._recipient = recipient
        self._random_bytes = random_bytes
        self._ended_at: int | None = None
        """When the latest one ended."""
        self._ending_at: int | None = None
        """When the one that is under way was judged to be over; not written yet."""
        self.present: Outage | None = None
        self._followed = False
        """Whether it is to be learned first what is stored: another process may have judged, or an answer was lost."""

    async def load(self) -> None:
        """Go on with the one that was under way. Raises Unavailable."""
        stored = await self._database.read_with_priority(lambda c: server_values.get_all(c, _MARKS))
        self._ended_at = stored.get(_ENDED_AT)
        self.present = None
        if _MARKS + "since" in stored:
            found = {name.removeprefix(_MARKS): value for name, value in stored.items()}
            self.present = Outage(found["since"], found["counts_from"], found["endpoints"], told=bool(found["told"]))
        else:
            self._ending_at = None

    async def follow(self, stopping: asyncio.Event) -> None:
        """Follow the judgment of another process until stopped, in a process that does not deliver."""
        while not stopping.is_set():
            await self._clock.wait(stopping, FOLLOW_EVERY_MS)
            with suppress(Unavailable):
                await self.load()

    async def judge(self, failing: Sequence[LiveEndpoint]) -> None:
        """See whether one begins or ends, by all endpoints that fail now. Raises Unavailable.

        Off duty, what another process has judged is followed, and what it is yet to judge taken for granted.
        """
        on_duty = self._jobs.holds(SingletonJob.OUTAGE_GUARD)
        if not on_duty or self._followed:
            await self._follow(failing)
            self._followed = not on_duty
        group = largest_group(endpoint.health.failing_since or 0 for endpoint in failing)
        is_mass = group is not None and group.is_mass_failure(self._attempted(enough=2 * group.endpoints))
        if not on_duty:
            self._ending_at = None
            if self.present is None and group is not None and is_mass:
                self.present = Outage(group.since, group.since, group.endpoints, told=False)
            return
        # Whatever was written if no answer comes.
        self._followed = True
        if self.present is not None and (self._ending_at is not None or not is_mass):
            await self._end(self.present, failing)
        elif self.present is None and group is not None and is_mass:
            ended_at = self._ended_at or 0
            told = self._clock.now_ms() - ended_at > WITHIN_MS
            begun = Outage(group.since, max(group.since, ended_at), group.endpoints, told)
            await self._begin(begun, failing)
        self._followed = False

    async def _follow(self, failing: Sequence[LiveEndpoint]) -> None:
        """Learn what another process has judged. Raises Unavailable."""
        before = self.present
        await self.load()
        if before is None or self.present is not None:
            return
        # With its end the clocks were changed: whoever goes by that has to know of this, too.
        own = [endpoint for endpoint in failing if self._shards.owns(endpoint.seq)]
        try:
            stored = await self._database.read_with_priority(
                lambda c: health.get(c, [endpoint.seq for endpoint in own])
            )
        except Unavailable:
            self.present = before
            raise
        _excuse(own, stored)

    def _attempted(self, *, enough: int | None = None) -> int:
        """How many endpoints were attempted of late; counted until there are more than enough."""
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
        outcomes = Counter(endpoint.health.last_outcome for endpoint in failing)
        causes = {outcome.text: count for outcome, count in outcomes.items() if outcome is not None}
        facts = {"since": begun.since, "endpoints": begun.endpoints, "attempted": attempted, "causes": causes}

        def begin(connection: Transaction) -> None:
            server_values.replace(connection, _MARKS, begun.marks())
            self._tell(
                connection, "mass_failure.began", NotificationKind.MASS_FAILURE_BEGAN, facts, now=now, mailed=begun.told
            )

        await self._database.write(processes.unless_evicted(self._shards.membership_id, begin))
        self.present, self._ended_at = begun, None
        _log.error(
            "many endpoints began to fail at once: nobody is warned or disabled until that ends",
            since=format_timestamp(begun.since), endpoints=begun.endpoints, attempted=attempted, causes=causes,
        )  # fmt: skip

    async def _end(self, ended: Outage, failing: Sequence[LiveEndpoint]) -> None:
        now = self._clock.now_ms()
        at = self._ending_at = self._ending_at or now
        seqs = [endpoint.seq for endpoint in failing]
        facts = {"since": ended.since, "ended_at": at, "endpoints": ended.endpoints, "still_failing": len(failing)}

        def end(connection: Transaction) -> dict[int, Health]:
            # As they are stored, which settlements on their way leave as it is: see `settle`.
            health.excuse(connection, seqs, ended.counts_from, at)
            server_values.replace(connection, _MARKS, {_ENDED_AT: at})
            self._tell(
                connection, "mass_failure.ended", NotificationKind.MASS_FAILURE_ENDED, facts, now=now, mailed=ended.told
            )
            return health.get(connection, seqs)

        _excuse(failing, await self._database.write(processes.unless_evicted(self._shards.membership_id, end)))
        self.present, self._ended_at, self._ending_at = None, at, None
        _log.warning(
            "the endpoints that failed at once do so no more",
            since=format_timestamp(ended.since), endpoints=ended.endpoints, still_failing=len(failing),
        )  # fmt: skip

    def _tell(
        self,
        connection: Transaction,
        action: str,
        kind: NotificationKind,
        facts: Mapping[str, object],
        *,
        now: int,
        mailed: bool,
    ) -> None:
        details = {
            name: format_timestamp(fact) if name in ("since", "ended_at") and isinstance(fact, int) else fact
            for name, fact in facts.items()
        }
        audit.add(connection, AuditEntry(None, now, SYSTEM, action, "", details))
        if mailed and self._recipient is not None:
            notice_id = ids.uuid7(now, self._random_bytes(ids.RANDOM_BYTES))
            outbox.add(
                connection,
                kind,
                account_seq=None,
                endpoint_seq=None,
                recipients=[(notice_id, self._recipient)],
                facts=facts,
                now=now,
            )


def _excuse(endpoints: Iterable[LiveEndpoint], stored: Mapping[int, Health]) -> None:
    for endpoint in endpoints:
        if endpoint.seq in stored:
            endpoint.health = endpoint.health.with_excused_time_of(stored[endpoint.seq])
