"""The change feed: what another process has changed is read again, and takes effect here as if it had been done here.

Every change is looked at a second time, a while later: an answer to an older change that was given here may have been
put into memory after it. What was changed here while it was read is left as it is, and read again with the next look:
what was read may be older. (ReplayJobs go by what is stored of them.)

Who could not look for so long that changes are not noted any more reads everything again.
"""

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Final, NamedTuple

import structlog

from uplift_server.delivery.endpoint_cache import EndpointCache, RecordKey
from uplift_server.delivery.health.endpoint_changes import EndpointChanges
from uplift_server.delivery.health.monitor import HealthMonitor
from uplift_server.delivery.listening.relay import Relay
from uplift_server.delivery.ports import Clock, Shards
from uplift_server.delivery.replays.jobs import ReplayJobs
from uplift_server.delivery.scheduling.lanes import DeliveryLanes
from uplift_server.store import accounts, change_log, endpoints, event_types, health, keys, replays
from uplift_server.store.contract import Database, Transaction
from uplift_server.store.encryption import WrongSecretKey
from uplift_server.store.errors import Unavailable
from uplift_server.store.records import Account, ApiKey, Endpoint, EventType
from uplift_server.store.replays import Replay

LOOK_EVERY_MS: Final = 500
"""How often it is looked for changes by itself: being told of them is only faster."""
LOOK_AGAIN_AFTER_MS: Final = 5_000
SUBJECTS_MAX: Final = 500
"""How many are read at a time."""
LISTED_MAX: Final = 10_000
"""Of how many the numbers are."""
HEALTH_EVERY_MS: Final = 1_000
HEALTH_OVERLAP_MS: Final = 10_000
"""How long after an attempt its outcome may be stored."""
UNAVAILABLE_WAIT_MS: Final = 500
_log = structlog.get_logger()

Subject = tuple[str, int]
"""A table, and the number of a row."""


class _Read(NamedTuple):
    """What some subjects are now; who is not there is gone."""

    accounts: list[Account]
    keys: list[ApiKey]
    event_types: list[EventType]
    deleted_event_types: list[EventType]
    endpoints: list[Endpoint]
    replays: list[Replay]

    def names(self) -> dict[Subject, RecordKey]:
        """By subject what the cache tells of it as."""
        return {
            **{("accounts", each.seq): ("accounts", each.seq) for each in self.accounts},
            **{("api_keys", each.seq): ("api_keys", each.digest) for each in self.keys},
            **{("event_types", each.seq): ("event_types", each.name) for each in self.event_types},
            **{("event_types", each.seq): ("event_types", each.name) for each in self.deleted_event_types},
            **{("endpoints", each.seq): ("endpoints", each.seq) for each in self.endpoints},
            **{("replays", each.seq): ("replays", each.seq) for each in self.replays},
        }

    def of(self, subjects: Collection[Subject]) -> "_Read":
        """Those alone that are among these."""
        return _Read(
            [each for each in self.accounts if ("accounts", each.seq) in subjects],
            [each for each in self.keys if ("api_keys", each.seq) in subjects],
            [each for each in self.event_types if ("event_types", each.seq) in subjects],
            [each for each in self.deleted_event_types if ("event_types", each.seq) in subjects],
            [each for each in self.endpoints if ("endpoints", each.seq) in subjects],
            [each for each in self.replays if ("replays", each.seq) in subjects],
        )


class CacheSync:
    """Follows what is changed, and how endpoints fare that other processes attempt."""

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
        """By subject, the transaction whose change was read last."""
        self._again: dict[Subject, int] = {}
        """By subject, when it is to be read once more (Unix ms)."""
        self._unsure: set[Subject] = set()
        """What was changed here while it was read."""
        self._health_at = 0
        self._missed = 0
        """What had been forgotten when everything was read last; see `change_log.pruned_before`."""
        self._wake = asyncio.Event()

    async def begin(self) -> None:
        """Follow what is changed from now on: to be called before the memory is filled. Raises Unavailable."""
        self._next_xid, self._missed = await self._database.read_with_priority(
            lambda c: (change_log.oldest_active_xid(c), change_log.pruned_before(c))
        )

    def look_soon(self) -> None:
        """There is something to be seen."""
        self._wake.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Follow until stopped; whoever stops it cancels the wait."""
        while not stopping.is_set():
            self._wake.clear()
            try:
                await self.look()
            except Unavailable:
                await self._clock.wait(stopping, UNAVAILABLE_WAIT_MS)
                continue
            await self._clock.wait(self._wake, LOOK_EVERY_MS)

    async def look(self) -> None:
        """Read what has changed, and let it take effect. Raises Unavailable; the rest is seen the next time then."""
        changes = await self._database.read_with_priority(lambda c: change_log.since(c, self._next_xid))
        now = self._clock.now_ms()
        missed = changes.pruned_before > self._next_xid and changes.pruned_before != self._missed
        # Numbers go back where a failover has lost the latest transactions: what they changed is undone.
        if missed or changes.next_xid < self._next_xid:
            _log.warning("changes are not noted any more that this process has missed; it reads everything again")
            await self._read_all()
            self._missed = changes.pruned_before
        fresh = {}
        for kind, subject_seq, xid in changes.found:
            subject = (kind, subject_seq)
            if self._seen.get(subject) != xid:
                fresh[subject] = xid
        again = [subject for subject, at in self._again.items() if at <= now]
        subjects = list(dict.fromkeys([*fresh, *self._unsure, *again]))
        for at in range(0, len(subjects), SUBJECTS_MAX):
            some = subjects[at : at + SUBJECTS_MAX]
            await self._read(some)
            for subject in some:
                if subject in fresh:
                    self._seen[subject] = fresh[subject]
                    self._again[subject] = now + LOOK_AGAIN_AFTER_MS
                elif self._again.get(subject, now) <= now:
                    self._again.pop(subject, None)
        self._next_xid = changes.next_xid
        self._seen = {subject: xid for subject, xid in self._seen.items() if xid >= changes.next_xid}
        if now - self._health_at >= HEALTH_EVERY_MS:
            await self._follow_health(now)

    async def _read_all(self) -> None:
        cache = self._cache
        held: dict[str, Collection[int]] = {
            "accounts": cache.accounts,
            "event_types": cache.event_types_by_seq,
            "api_keys": [key.seq for key in cache.keys.values() if key.seq],
            "endpoints": cache.endpoints,
            "replays": self._replays.known,
        }
        for kind in change_log.SUBJECTS:
            wanted = set(held[kind])
            after = 0
            while found := await self._database.read_with_priority(
                lambda c: change_log.subjects(c, kind, after=after, limit=LISTED_MAX)  # noqa: B023 - run before the next turn
            ):
                wanted.update(found)
                after = found[-1]
            subjects = [(kind, seq) for seq in sorted(wanted)]
            for at in range(0, len(subjects), SUBJECTS_MAX):
                await self._read(subjects[at : at + SUBJECTS_MAX])

    async def _read(self, subjects: Collection[Subject]) -> None:
        wanted: dict[str, list[int]] = {}
        for kind, subject_seq in subjects:
            wanted.setdefault(kind, []).append(subject_seq)
        with self._cache.changes() as changed:
            read = await self._database.read_with_priority(lambda c: _read(c, wanted))
        names = read.names()
        sure = {subject for subject in subjects if names.get(subject, subject) not in changed}
        self._unsure.difference_update(subjects)
        self._unsure.update(set(subjects) - sure)
        self._put(read.of(sure), gone=sure - names.keys())

    def _put(self, read: _Read, gone: Collection[Subject]) -> None:
        # Accounts before what belongs to them, types before what subscribes to them.
        for account in read.accounts:
            self._cache.put_account(account)
        for kind, seq in gone:
            if kind == "accounts":
                self._drop_account(seq)
        for key in read.keys:
            self._cache.put_key(key)
        self._drop_keys({seq for kind, seq in gone if kind == "api_keys"})
        self._put_event_types(read.event_types, read.deleted_event_types)
        for endpoint in read.endpoints:
            self._put_endpoint(endpoint)
        for kind, seq in gone:
            if kind == "endpoints":
                self._drop_endpoint(seq)
        for replay in read.replays:
            self._replays.put(replay)

    def _drop_account(self, seq: int) -> None:
        if seq not in self._cache.accounts:
            return
        self._relay.end_of_account(seq)
        # They are told of, too, but maybe later; and nobody may find one without its account.
        for endpoint in list(self._cache.endpoints_of(seq)):
            self._drop_endpoint(endpoint.seq)
        self._cache.drop_account(seq)

    def _drop_keys(self, gone: Collection[int]) -> None:
        # The one that stands in the settings has no number.
        for key in [key for key in self._cache.keys.values() if key.seq in gone and key.seq]:
            self._cache.drop_key(key.digest)
            self._relay.end_of_key(key.id)

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
        was = None if live is None else live.record
        if was is None or _configuration(was) != _configuration(record):
            try:
                self._cache.put_endpoint(record)
            except WrongSecretKey:
                _log.error("an endpoint was sealed with another key than this process has", endpoint=record.seq)
                return
        live = self._cache.endpoints[record.seq]
        # The owner knows the health first, except for excused time.
        is_own = self._shards.owns(record.seq)
        live.health = live.health.with_excused_time_of(record.health) if is_own else record.health
        if was is None:
            self._changes.held_action_changed(record.seq)
        elif live.takes_deliveries and was.state is not record.state:
            self._changes.enabled(record.seq)
        elif was.state is not record.state:
            self._changes.disabled(record.seq)
        elif (was.held_action, was.held_through) != (record.held_action, record.held_through):
            self._changes.held_action_changed(record.seq)

    async def _follow_health(self, now: int) -> None:
        """Take over how endpoints fare that other processes attempt."""
        since = self._health_at - HEALTH_OVERLAP_MS if self._health_at else now - HEALTH_OVERLAP_MS
        found = await self._database.read_with_priority(lambda c: health.attempted_since(c, since))
        self._health_at = now
        for seq, told in found.items():
            live = self._cache.endpoints.get(seq)
            if live is None:
                continue
            if not self._shards.owns(seq):
                live.health = told
            elif live.health != (well := live.health.with_success_of(told)):
                live.health = well
                self._lanes.reset(live)
                self._monitor.note(live)


def _read(connection: Transaction, wanted: dict[str, list[int]]) -> _Read:
    return _Read(
        accounts.find(connection, wanted.get("accounts", ())),
        keys.find(connection, wanted.get("api_keys", ())),
        *event_types.find(connection, wanted.get("event_types", ())),
        endpoints.find(connection, wanted.get("endpoints", ())),
        replays.find(connection, wanted.get("replays", ())),
    )


def _configuration(record: Endpoint) -> Endpoint:
    """A record without how its endpoint fares."""
    return replace(
        record,
        consecutive_failures=0,
        failing_since=None,
        last_success_at=None,
        last_failure_at=None,
        last_outcome=None,
        excused_ms=0,
        warned_at=None,
    )
