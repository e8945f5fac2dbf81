"""Builds the parts of the delivery engine that exist only if processes share a database."""

from collections.abc import Callable

from uplift_server.app.engine_parts import CommonParts
from uplift_server.core.operations.cluster import ProcessRole
from uplift_server.delivery.clock import DatabaseTime
from uplift_server.delivery.cluster.announcer import ClusteredAnnouncer
from uplift_server.delivery.cluster.cache_sync import CacheSync
from uplift_server.delivery.cluster.change_log import ChangeLogCleanup
from uplift_server.delivery.cluster.cluster import Cluster
from uplift_server.delivery.cluster.commands import ClusteredCommands
from uplift_server.delivery.cluster.encryption_upgrade import EncryptionUpgrade
from uplift_server.delivery.cluster.handover import ShardHandover
from uplift_server.delivery.cluster.membership import Membership
from uplift_server.delivery.cluster.notifications import NotificationReceiver
from uplift_server.delivery.cluster.notifier import Notifier
from uplift_server.delivery.cluster.shards import ClusteredShards
from uplift_server.delivery.cluster.state import ClusterState
from uplift_server.delivery.cluster.success_reports import SuccessReports
from uplift_server.delivery.engine import Cluster as ClusterPort
from uplift_server.delivery.health.monitor import CLUSTER_CHECK_EVERY_MS_MAX
from uplift_server.delivery.listening.audience import Announcer, Audience
from uplift_server.delivery.ports import Clock
from uplift_server.delivery.sending.commands import Commands
from uplift_server.store import processes
from uplift_server.store.contract import Database, MessageBus, Transaction


class ClusteredFoundation:
    """Implements `Foundation` for a process that shares its database with other processes."""

    health_check_every_ms_max = CLUSTER_CHECK_EVERY_MS_MAX

    def __init__(
        self,
        database: Database,
        bus: MessageBus,
        clock: Clock,
        time: DatabaseTime,
        role: ProcessRole,
        *,
        read_time: Callable[[Transaction], float] = processes.database_now,
    ) -> None:
        """`time` estimates the database's time. `clock` must use `time` as its wall clock."""
        self._database = database
        self._bus = bus
        self._clock = clock
        self._time = time
        self._role = role
        self._read_time = read_time
        self._state = ClusterState(clock)
        self._notifier = Notifier(bus, self._state, clock)
        self._successes = SuccessReports(database, clock)
        self.delivers = role.delivers
        self.jobs = self.peers = self._state
        self.shards = ClusteredShards(self._state, self._notifier, self._successes, clock)
        self._announcer: ClusteredAnnouncer
        self.cluster: Cluster

    def announcer(self, audience: Audience) -> Announcer:
        """Create the announcer, which notifies other processes about listen streams and their events."""
        self._announcer = ClusteredAnnouncer(self._notifier, audience, self._clock)
        return self._announcer

    def complete(self, parts: CommonParts) -> tuple[Commands, ClusterPort]:
        """Create the command executor and the cluster membership, which use the engine's `parts`."""
        database, clock, state, shards, notifier = self._database, self._clock, self._state, self.shards, self._notifier
        handover = ShardHandover(
            database,
            parts.cache,
            state,
            shards,
            notifier,
            parts.lanes,
            parts.due,
            parts.dispatcher,
            parts.replays,
            parts.held,
            parts.monitor,
            clock,
        )
        membership = Membership(
            database,
            self._bus,
            state,
            notifier,
            handover,
            parts.lanes,
            clock,
            self._time,
            self._role,
            read_time=self._read_time,
        )
        cache_sync = CacheSync(
            database,
            parts.cache,
            shards,
            parts.changes,
            parts.lanes,
            parts.monitor,
            parts.replays,
            parts.relay,
            clock,
        )
        commands = ClusteredCommands(
            database, parts.cache, shards, clock, notifier, parts.commands, parts.lanes, state, cache_sync
        )
        receiver = NotificationReceiver(
            state, shards, parts.due, cache_sync, commands, parts.relay, self._announcer, parts.erased_events
        )
        accepts_unbound = parts.cache.cipher.accepts_unbound
        self.cluster = Cluster(
            self._role,
            state,
            self._bus,
            notifier,
            receiver,
            membership,
            handover,
            cache_sync,
            ChangeLogCleanup(database, state, clock),
            commands,
            self._announcer,
            self._successes,
            parts.outage_guard,
            EncryptionUpgrade(database, parts.cache, clock) if accepts_unbound else None,
        )
        return commands, self.cluster
