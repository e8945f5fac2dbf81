"""Applies changes from other processes to this process's cache and deliveries.

Cache sync reads every changed row again after REREAD_AFTER_MS, because this process can overwrite the newer row in the
cache with an older change of its own. If this process changes a row during a read, the read can return an outdated row.
In this case, cache sync ignores the result and reads the row again.
"""

import asyncio
from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

import structlog
from msgspec import structs

from uplift_server.core.ids import ENDPOINT, prefixed
from uplift_server.delivery.endpoint_cache import EndpointCache
from uplift_server.delivery.health.endpoint_changes import EndpointChanges
from uplift_server.delivery.health.monitor import HealthMonitor
from uplift_server.delivery.key_cache import RecordKey
from uplift_server.delivery.listening.relay import Relay
from uplift_server.delivery.ports import Clock, Shards
from uplift_server.delivery.replays.jobs import ReplayJobs
from uplift_server.delivery.scheduling.lanes import DeliveryLanes
from uplift_server.store import accounts, change_log, endpoints, event_types, health, keys, replays, service_keys
from uplift_server.store.contract import Database, Transaction
from uplift_server.store.encryption import WrongSecretKey
from uplift_server.store.errors import Unavailable
from uplift_server.store.records import Account, ApiKey, Endpoint, EventType, ServiceKey
from uplift_server.store.replays import Replay

SYNC_EVERY_MS: Final = 500
"""The interval between reads of the change log, in ms. A notification triggers an additional, immediate read."""
REREAD_AFTER_MS: Final = 5_000
SUBJECTS_MAX: Final = 500
"""The maximum number of changed rows to read again in one transaction."""
NUMBERS_MAX: Final = 10_000
"""The maximum number of row numbers to read in one transaction while cache sync reloads the whole cache."""
HEALTH_SYNC_EVERY_MS: Final = 1_000
HEALTH_OVERLAP_MS: Final = 10_000
"""The overlap of successive health reads, in ms.

The reads overlap because outcomes are committed some time after their attempts end.
"""
UNAVAILABLE_WAIT_MS: Final = 500
_log = structlog.get_logger()

Subject = tuple[str, int]
"""A changed row: the name of its table, and its row number."""


class _Read(NamedTuple):
    """The current content of changed rows, and the event types that were deleted."""

    accounts: list[Account]
    keys: list[ApiKey]
    service_keys: list[ServiceKey]
    event_types: list[EventType]
    deleted_event_types: list[EventType]
    endpoints: list[Endpoint]
    replays: list[Replay]

    def names(self) -> dict[Subject, RecordKey]:
        """For each changed row, return the table and the key of its record in the cache."""
        return {
            **{("accounts", each.seq): ("accounts", each.seq) for each in self.accounts},
            **{("api_keys", each.seq): ("api_keys", each.digest) for each in self.keys},
            **{("service_keys", each.seq): ("service_keys", each.digest) for each in self.service_keys},
            **{("event_types", each.seq): ("event_types", each.name) for each in self.event_types},
            **{("event_types", each.seq): ("event_types", each.name) for each in self.deleted_event_types},
            **{("endpoints", each.seq): ("endpoints", each.seq) for each in self.endpoints},
            **{("replays", each.seq): ("replays", each.seq) for each in self.replays},
        }

    def of(self, subjects: Collection[Subject]) -> "_Read":
        """Return a copy that contains only the given rows."""
        return _Read(
            [each for each in self.accounts if ("accounts", each.seq) in subjects],
            [each for each in self.keys if ("api_keys", each.seq) in subjects],
            [each for each in self.service_keys if ("service_keys", each.seq) in subjects],
            [each for each in self.event_types if ("event_types", each.seq) in subjects],
            [each for each in self.deleted_event_types if ("event_types", each.seq) in subjects],
            [each for each in self.endpoints if ("endpoints", each.seq) in subjects],
            [each for each in self.replays if ("replays", each.seq) in subjects],
        )


class CacheSync:
    """Applies the change log to the cache, and updates the health of endpoints that other processes own."""

    def __init__(
        self,
        database: Database,
        cache: EndpointCache,
        shards: Shards,
        changes: EndpointChanges,
        lanes: DeliveryLanes,
        monitor: HealthMonitor,
        replays: ReplayJobs,
        relay: Relay,
        clock: Clock,
    ) -> None:
        self._database = database
        self._cache = cache
        self._clock = clock
        self._shards = shards
        self._changes = changes
        self._lanes = lanes
        self._monitor = monitor
        self._replays = replays
        self._relay = relay
        self._next_xid = 0
        self._seen: dict[Subject, int] = {}
        """For each changed row, the number of the transaction that made the last known change."""
        self._reread_at: dict[Subject, int] = {}
        """For each changed row, the time (Unix ms) when cache sync reads the row again."""
        self._changed_here: set[Subject] = set()
        """Rows that this process changed during a read."""
        self._health_at = 0
        self._missed = 0
        """The value of `change_log.pruned_before` when this process last loaded the whole cache."""
        self._wake = asyncio.Event()
        self.synced_at = 0
        """The time up to which the cache contains all changes (Unix ms)."""

    async def begin(self) -> None:
        """Start at the current end of the change log. Call this before the cache is loaded. Raises Unavailable."""
        self._next_xid, self._missed = await self._database.read_with_priority(
            lambda c: (change_log.oldest_active_xid(c), change_log.pruned_before(c))
        )

    def wake(self) -> None:
        """Read the change log now."""
        self._wake.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Apply changes until the process stops or the task is cancelled."""
        while not stopping.is_set():
            self._wake.clear()
            try:
                await self.sync()
            except Unavailable:
                await self._clock.wait(stopping, UNAVAILABLE_WAIT_MS)
                continue
            await self._clock.wait(self._wake, SYNC_EVERY_MS)

    async def sync(self) -> None:
        """Read and apply all new changes. Every HEALTH_SYNC_EVERY_MS, also update the health of endpoints.

        If the method raises Unavailable, the next call applies the remaining changes.
        """
        began = self._clock.now_ms()
        changes = await self._database.read_with_priority(lambda c: change_log.since(c, self._next_xid))
        now = self._clock.now_ms()
        missed = changes.pruned_before > self._next_xid and changes.pruned_before != self._missed
        # Also reload if the transaction numbers decrease: a failover has lost the latest transactions.
        if missed or changes.next_xid < self._next_xid:
            _log.warning("change log entries missed, reloading cache")
            await self._read_all()
            self._missed = changes.pruned_before
        fresh = {}
        for kind, subject_seq, xid in changes.found:
            subject = (kind, subject_seq)
            if self._seen.get(subject) != xid:
                fresh[subject] = xid
        again = [subject for subject, at in self._reread_at.items() if at <= now]
        subjects = list(dict.fromkeys([*fresh, *self._changed_here, *again]))
        for at in range(0, len(subjects), SUBJECTS_MAX):
            some = subjects[at : at + SUBJECTS_MAX]
            await self._read(some)
            for subject in some:
                if subject in fresh:
                    self._seen[subject] = fresh[subject]
                    self._reread_at[subject] = now + REREAD_AFTER_MS
                elif self._reread_at.get(subject, now) <= now:
                    self._reread_at.pop(subject, None)
        self._next_xid = changes.next_xid
        self._seen = {subject: xid for subject, xid in self._seen.items() if xid >= changes.next_xid}
        self.synced_at = began
        if now - self._health_at >= HEALTH_SYNC_EVERY_MS:
            await self._sync_health(now)

    async def _read_all(self) -> None:
        cache = self._cache
        cached: dict[str, Collection[int]] = {
            "accounts": cache.accounts,
            "event_types": cache.event_types_by_seq,
            "api_keys": [key.seq for key in cache.keys.values() if key.seq],
            "service_keys": [key.seq for key in cache.service_keys.values()],
            "endpoints": cache.endpoints,
            "replays": self._replays.known,
        }
        for kind in change_log.SUBJECTS:
            seqs = set(cached[kind])
            after = 0
            while found := await self._database.read_with_priority(
                lambda c: change_log.subjects(c, kind, after=after, limit=NUMBERS_MAX)  # noqa: B023 - run before the next turn
            ):
                seqs.update(found)
                after = found[-1]
            subjects = [(kind, seq) for seq in sorted(seqs)]
            for at in range(0, len(subjects), SUBJECTS_MAX):
                await self._read(subjects[at : at + SUBJECTS_MAX])

    async def _read(self, subjects: Collection[Subject]) -> None:
        seqs_by_kind: dict[str, list[int]] = {}
        for kind, subject_seq in subjects:
            seqs_by_kind.setdefault(kind, []).append(subject_seq)
        with self._cache.changes() as changed:
            read = await self._database.read_with_priority(lambda c: _read(c, seqs_by_kind))
        names = read.names()
        unchanged = {subject for subject in subjects if names.get(subject, subject) not in changed}
        self._changed_here.difference_update(subjects)
        self._changed_here.update(set(subjects) - unchanged)
        self._put(read.of(unchanged), deleted_subjects=unchanged - names.keys())

    def _put(self, read: _Read, deleted_subjects: Collection[Subject]) -> None:
        # Put accounts before their endpoints and keys, and event types before the endpoints that subscribe to them.
        for account in read.accounts:
            self._cache.put_account(account)
        for kind, seq in deleted_subjects:
            if kind == "accounts":
                self._drop_account(seq)
        for key in read.keys:
            self._cache.put_key(key)
        self._drop_keys({seq for kind, seq in deleted_subjects if kind == "api_keys"})
        for service_key in read.service_keys:
            self._cache.put_service_key(service_key)
        self._drop_service_keys({seq for kind, seq in deleted_subjects if kind == "service_keys"})
        self._put_event_types(read.event_types, read.deleted_event_types)
        for endpoint in read.endpoints:
            self._put_endpoint(endpoint)
        for kind, seq in deleted_subjects:
            if kind == "endpoints":
                self._drop_endpoint(seq)
        for replay in read.replays:
            self._replays.put(replay)

    def _drop_account(self, seq: int) -> None:
        if seq not in self._cache.accounts:
            return
        self._relay.end_streams_of_account(seq)
        # Drop the endpoints now. Their changes may arrive later, but the cache must not keep them without an account.
        for endpoint in list(self._cache.endpoints_of(seq)):
            self._drop_endpoint(endpoint.seq)
        self._cache.drop_account(seq)

    def _drop_keys(self, seqs: Collection[int]) -> None:
        # Keep the operator key from the settings. The key's `seq` is 0.
        for key in [key for key in self._cache.keys.values() if key.seq in seqs and key.seq]:
            self._cache.drop_key(key.digest)
            self._relay.end_streams_of_key(key.id)

    def _drop_service_keys(self, seqs: Collection[int]) -> None:
        for key in [key for key in self._cache.service_keys.values() if key.seq in seqs]:
            self._cache.drop_service_key(key.digest)
            self._relay.end_streams_of_key(key.id)

    def _put_event_types(self, live: Iterable[EventType], deleted: Iterable[EventType]) -> None:
        for event_type in deleted:
            present = self._cache.event_types.get(event_type.name)
            if event_type.seq not in self._cache.event_types_by_seq:
                self._cache.put_event_type(event_type)
                self._cache.drop_event_type(event_type.name)
                if present is not None and present.seq != event_type.seq:
                    self._cache.put_event_type(present.record)
            elif present is not None and present.seq == event_type.seq:
                self._cache.drop_event_type(event_type.name)
        for event_type in live:
            self._cache.put_event_type(event_type)

    def _drop_endpoint(self, seq: int) -> None:
        if seq not in self._cache.endpoints:
            return
        self._cache.drop_endpoint(seq)
        self._changes.deleted(seq)

    def _put_endpoint(self, record: Endpoint) -> None:
        if record.account_seq not in self._cache.accounts:
            return
        live = self._cache.endpoints.get(record.seq)
        before = None if live is None else live.record
        if before is None or _configuration(before) != _configuration(record):
            try:
                self._changes.apply(record)
            except WrongSecretKey:
                endpoint_id = prefixed(ENDPOINT, record.id)
                _log.error(
                    "endpoint secrets cannot be decrypted", endpoint=endpoint_id, cause="encrypted with another key"
                )
                return
        live = self._cache.endpoints[record.seq]
        if not self._shards.owns(record.seq):
            live.health = record.health
            return
        # The owner of an endpoint has the latest health, except for excused times and erasures by other processes.
        stored = record.health
        live.health = live.health.with_excused_time_of(stored).with_erased_error_of(stored)

    async def _sync_health(self, now: int) -> None:
        """Update the health of endpoints to which other processes have made attempts."""
        since = self._health_at - HEALTH_OVERLAP_MS if self._health_at else now - HEALTH_OVERLAP_MS
        found = await self._database.read_with_priority(lambda c: health.attempted_since(c, since))
        self._health_at = now
        for seq, stored in found.items():
            live = self._cache.endpoints.get(seq)
            if live is None:
                continue
            if not self._shards.owns(seq):
                live.health = stored
            elif live.health != (recovered := live.health.with_success_of(stored)):
                live.health = recovered
                self._lanes.reset(live)
                self._monitor.note(live)


def _read(connection: Transaction, seqs_by_kind: dict[str, list[int]]) -> _Read:
    return _Read(
        accounts.find(connection, seqs_by_kind.get("accounts", ())),
        keys.find(connection, seqs_by_kind.get("api_keys", ())),
        service_keys.find(connection, seqs_by_kind.get("service_keys", ())),
        *event_types.find(connection, seqs_by_kind.get("event_types", ())),
        endpoints.find(connection, seqs_by_kind.get("endpoints", ())),
        replays.find(connection, seqs_by_kind.get("replays", ())),
    )


def _configuration(record: Endpoint) -> Endpoint:
    """Return an endpoint's record without its health, so that callers can compare the other fields."""
    return structs.replace(
        record,
        consecutive_failures=0,
        failing_since=None,
        last_success_at=None,
        last_failure_at=None,
        last_outcome=None,
        excused_ms=0,
        warned_at=None,
        last_status_code=None,
        last_error=None,
        last_location=None,
        probe_at=None,
    )
