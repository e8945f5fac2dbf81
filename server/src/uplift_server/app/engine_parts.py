"""Builds the parts of the delivery engine, for a single process or for several processes that share a database."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from uplift_server.delivery.endpoint_cache import EndpointCache
from uplift_server.delivery.engine import Cluster, Engine, EngineSettings, Loop, Sender, SingleProcess
from uplift_server.delivery.health.endpoint_changes import LiveEndpointChanges
from uplift_server.delivery.health.monitor import CHECK_EVERY_MS_MAX, HealthMonitor
from uplift_server.delivery.health.outage_guard import OutageGuard
from uplift_server.delivery.health.transitions import Transitions
from uplift_server.delivery.ingest import EventIngest
from uplift_server.delivery.listening.audience import Announcer, Audience, NoAnnouncer
from uplift_server.delivery.listening.relay import Relay
from uplift_server.delivery.maintenance.certificate_expiry import CertificateExpiry
from uplift_server.delivery.maintenance.erasures import ErasedEvents, ErasureJobs
from uplift_server.delivery.maintenance.operational_events import OperationalEvents
from uplift_server.delivery.maintenance.retention import Retention
from uplift_server.delivery.maintenance.secret_expiry import SecretExpiry
from uplift_server.delivery.maintenance.statistics import StatisticsUpdater
from uplift_server.delivery.ports import Clock, Peers, Shards, SingletonJobs
from uplift_server.delivery.replays.jobs import ReplayJobs
from uplift_server.delivery.scheduling.dispatcher import Dispatcher
from uplift_server.delivery.scheduling.due import DueEndpoints
from uplift_server.delivery.scheduling.held import HeldDeliveries
from uplift_server.delivery.scheduling.lanes import DeliveryLanes
from uplift_server.delivery.sending.access_tokens import AccessTokens
from uplift_server.delivery.sending.attempts import Attempts
from uplift_server.delivery.sending.commands import Commands, LocalCommands
from uplift_server.delivery.sending.settler import Settler
from uplift_server.delivery.sending.test_deliveries import RunningTests
from uplift_server.delivery.shards import LocalShards
from uplift_server.observe.attempt_log import AttemptLine
from uplift_server.observe.counters import EngineCounters
from uplift_server.service.engine_link import EngineLink
from uplift_server.service.engine_status import EngineStatus
from uplift_server.store.contract import Database
from uplift_server.store.encryption import Cipher

HELD_SCAN_EVERY_SCANS: Final = 5
"""The interval between scans for held deliveries, as a multiple of the interval between scans for due deliveries."""


@dataclass(frozen=True, slots=True)
class EngineParts:
    """All parts of one delivery engine, connected to each other."""

    engine: Engine
    cache: EndpointCache
    shards: Shards
    jobs: SingletonJobs
    counters: EngineCounters
    audience: Audience
    due: DueEndpoints
    lanes: DeliveryLanes
    relay: Relay
    event_ingest: EventIngest
    settler: Settler
    held: HeldDeliveries
    dispatcher: Dispatcher
    replays: ReplayJobs
    changes: LiveEndpointChanges
    outage_guard: OutageGuard
    monitor: HealthMonitor
    attempts: Attempts
    statistics: StatisticsUpdater
    commands: Commands
    erasures: ErasureJobs
    status: EngineStatus

    def link(self) -> EngineLink:
        """Return the parts that the services use."""
        return EngineLink(
            relay=self.relay,
            counters=self.counters,
            endpoints=self.changes,
            commands=self.commands,
            replays=self.replays,
            erasures=self.erasures,
            status=self.status,
        )


@dataclass(frozen=True, slots=True)
class CommonParts:
    """The parts that every engine has, whether or not other processes share the database."""

    cache: EndpointCache
    lanes: DeliveryLanes
    due: DueEndpoints
    dispatcher: Dispatcher
    held: HeldDeliveries
    replays: ReplayJobs
    changes: LiveEndpointChanges
    outage_guard: OutageGuard
    monitor: HealthMonitor
    relay: Relay
    commands: LocalCommands
    erased_events: ErasedEvents


class Foundation(Protocol):
    """The interfaces through which the engine communicates with other processes."""

    @property
    def shards(self) -> Shards:
        """The endpoints that this process owns."""

    @property
    def jobs(self) -> SingletonJobs:
        """The singleton jobs that this process runs."""

    @property
    def peers(self) -> Peers:
        """The other processes that use the database."""

    @property
    def delivers(self) -> bool:
        """Whether the role of this process includes sending deliveries."""

    @property
    def health_check_every_ms_max(self) -> int:
        """The longest time between two health monitor checks, in ms."""

    def announcer(self, audience: Audience) -> Announcer:
        """Create the announcer, which notifies other processes about listen streams and their events."""

    def complete(self, parts: CommonParts) -> tuple[Commands, Cluster]:
        """Create the command executor and the cluster membership, which use the engine's `parts`."""


class LocalFoundation:
    """Implements `Foundation` for a process that does not share its database with other processes."""

    delivers = True
    health_check_every_ms_max = CHECK_EVERY_MS_MAX

    def __init__(self, process_id: int) -> None:
        self.shards = self.jobs = self.peers = LocalShards(process_id)

    def announcer(self, _audience: Audience) -> Announcer:
        """Create an announcer that does nothing, because there are no other processes."""
        return NoAnnouncer()

    def complete(self, parts: CommonParts) -> tuple[Commands, Cluster]:
        """Return the command executor of this process, and a cluster that contains only this process."""
        return parts.commands, SingleProcess()


def build_engine(
    database: Database,
    cipher: Cipher,
    sender: Sender,
    clock: Clock,
    settings: EngineSettings,
    foundation: Foundation,
    *,
    user_agent: str,
    public_url: str,
    on_lines: Callable[[Sequence[AttemptLine]], None],
    on_loop_failure: Callable[[BaseException | None], None],
    random_bytes: Callable[[int], bytes] = os.urandom,
) -> EngineParts:
    """Build all parts of an engine.

    `public_url` is the URL of the dashboard. `on_lines` receives the log lines about attempts. For `on_loop_failure`,
    see `Engine`. `random_bytes` supplies random bytes for IDs and retry jitter.
    """
    shards, jobs, lease_ms = foundation.shards, foundation.jobs, settings.lease_ms
    counters, audience, due = EngineCounters(), Audience(), DueEndpoints()
    lanes = DeliveryLanes(
        clock,
        due,
        shards,
        in_flight_max=settings.in_flight_max,
        endpoint_in_flight_max=settings.endpoint_in_flight_max,
        breaker=settings.breaker,
    )
    cache = EndpointCache(cipher, user_agent, shards, lanes)
    relay = Relay(database, cache, audience, foundation.announcer(audience), clock)
    event_ingest = EventIngest(
        database,
        cache,
        shards,
        lanes,
        due,
        audience,
        relay,
        clock,
        counters,
        lease_ms=lease_ms,
        random_bytes=random_bytes,
    )
    settler = Settler(database, lanes, due, shards, clock, counters, on_lines)
    held = HeldDeliveries(
        database,
        cache,
        shards,
        lanes,
        due,
        clock,
        counters,
        rate_per_second=settings.release_rate_per_second,
        scan_every_ms=settings.scan_every_ms * HELD_SCAN_EVERY_SCANS,
    )
    dispatcher = Dispatcher(
        database,
        cache,
        shards,
        lanes,
        due,
        held,
        clock,
        lease_ms=lease_ms,
        scan_every_ms=settings.scan_every_ms,
    )
    replays = ReplayJobs(
        database,
        cache,
        shards,
        lanes,
        due,
        settler,
        dispatcher,
        clock,
        counters,
        lease_ms=lease_ms,
        retention_ms=settings.retention_ms,
    )
    changes = LiveEndpointChanges(cache, shards, lanes, due, dispatcher, held, replays, settler, clock)
    health = settings.health
    outage_guard = OutageGuard(
        database,
        cache,
        shards,
        jobs,
        clock,
        recipient=health.operator_email if health.sends_email else None,
        random_bytes=random_bytes,
    )
    transitions = Transitions(
        database,
        cache,
        shards,
        changes,
        clock,
        rule=health.rule,
        sends_email=health.sends_email,
        random_bytes=random_bytes,
    )
    monitor = HealthMonitor(
        cache,
        shards,
        transitions,
        outage_guard,
        clock,
        health,
        check_every_ms_max=foundation.health_check_every_ms_max,
    )
    attempts = Attempts(
        cache,
        shards,
        lanes,
        sender,
        AccessTokens(sender, clock, counters, user_agent),
        settler,
        dispatcher,
        replays,
        monitor,
        clock,
        counters,
        schedule=settings.schedule,
        breaker=settings.breaker,
        timeouts=settings.timeouts,
        random_bytes=random_bytes,
    )
    tests = RunningTests(cache, lanes, settler, dispatcher, clock, lease_ms=lease_ms)
    local_commands = LocalCommands(
        database, cache, shards, lanes, dispatcher, tests, clock, counters, lease_ms=lease_ms
    )
    erased_events = ErasedEvents(cache, lanes)
    erasures = ErasureJobs(database, erased_events, shards, jobs, clock)
    status = EngineStatus(
        cache, shards, foundation.peers, lanes, monitor, breaker=settings.breaker, delivers=foundation.delivers
    )
    commands, cluster = foundation.complete(
        CommonParts(
            cache,
            lanes,
            due,
            dispatcher,
            held,
            replays,
            changes,
            outage_guard,
            monitor,
            relay,
            local_commands,
            erased_events,
        )
    )
    statistics = StatisticsUpdater(database, jobs, clock, every_ms=settings.statistics_every_ms)
    retention = Retention(
        database, jobs, clock, counters, retention_ms=settings.retention_ms, every_ms=settings.retention_every_ms
    )
    operational_events = OperationalEvents(
        database,
        cache,
        event_ingest,
        jobs,
        clock,
        counters,
        new_id=event_ingest.ids.next,
        every_ms=settings.scan_every_ms,
        operations_account=settings.operations_account,
        public_url=public_url,
    )
    loops = [
        Loop("secret expiry", SecretExpiry(database, cache, changes, jobs, clock).run),
        Loop("certificate expiry", CertificateExpiry(cache, jobs, transitions, clock).run),
        Loop("held deliveries", held.run),
        Loop("statistics", statistics.run),
        Loop("erasures", erasures.run),
        Loop("operational events", operational_events.run),
    ]
    if retention.has_work:
        loops.append(Loop("retention", retention.run))
    engine = Engine(
        database,
        shards,
        cluster,
        sender,
        lanes,
        attempts,
        event_ingest,
        settler,
        dispatcher,
        replays,
        monitor,
        relay,
        loops,
        clock,
        tick_ms=settings.tick_ms,
        on_loop_failure=on_loop_failure,
    )
    return EngineParts(
        engine,
        cache,
        shards,
        jobs,
        counters,
        audience,
        due,
        lanes,
        relay,
        event_ingest,
        settler,
        held,
        dispatcher,
        replays,
        changes,
        outage_guard,
        monitor,
        attempts,
        statistics,
        commands,
        erasures,
        status,
    )
