"""Joins a cluster, provides the loops of a member, hands over endpoints before shutdown, and leaves the cluster."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from typing import Any, Final

import structlog

from uplift_server.core.operations.cluster import ProcessRole
from uplift_server.delivery.cluster.announcer import ClusteredAnnouncer
from uplift_server.delivery.cluster.cache_sync import CacheSync
from uplift_server.delivery.cluster.change_log import ChangeLogCleanup
from uplift_server.delivery.cluster.commands import ClusteredCommands
from uplift_server.delivery.cluster.encryption_upgrade import EncryptionUpgrade
from uplift_server.delivery.cluster.handover import ShardHandover
from uplift_server.delivery.cluster.membership import Membership
from uplift_server.delivery.cluster.notifications import NotificationReceiver
from uplift_server.delivery.cluster.notifier import Notifier
from uplift_server.delivery.cluster.state import ClusterState
from uplift_server.delivery.cluster.success_reports import SuccessReports
from uplift_server.delivery.engine import Loop
from uplift_server.delivery.health.outage_guard import OutageGuard
from uplift_server.store.contract import MessageBus
from uplift_server.store.errors import Rejected, StoreError, Unavailable
from uplift_server.store.schema_version import UnknownSchema

STEP_WITHIN_S: Final = 2.0
"""The time limit for each step of a shutdown, in seconds."""
_log = structlog.get_logger()


class Cluster:
    """Implements `engine.Cluster` for several processes on one database."""

    def __init__(
        self,
        role: ProcessRole,
        state: ClusterState,
        bus: MessageBus,
        notifier: Notifier,
        receiver: NotificationReceiver,
        membership: Membership,
        handover: ShardHandover,
        cache_sync: CacheSync,
        change_log: ChangeLogCleanup,
        commands: ClusteredCommands,
        announcer: ClusteredAnnouncer,
        successes: SuccessReports,
        outage_guard: OutageGuard,
        encryption_upgrade: EncryptionUpgrade | None,
    ) -> None:
        """Combine the components of the cluster.

        Pass `encryption_upgrade` if the database may contain encrypted values that are not bound to their columns
        (`store.encryption_upgrade`).
        """
        self.delivers = role.delivers
        self._state = state
        self._bus = bus
        self._notifier = notifier
        self._receiver = receiver
        self.membership = membership
        self._handover = handover
        self.cache_sync = cache_sync
        self._change_log = change_log
        self._commands = commands
        self._announcer = announcer
        self._successes = successes
        self._outage_guard = outage_guard
        self._encryption_upgrade = encryption_upgrade

    async def join(self) -> None:
        """Join the cluster. Call this before anything else reads from the database.

        Raises Unavailable or UnknownSchema.
        """
        self._bus.listen(self._receiver.receive)
        await self.membership.join()
        await self.cache_sync.begin()

    async def arrive(self, *, delivers: bool) -> None:
        """Announce that this process is ready. `delivers` states whether this process delivers events."""
        self._state.deliver(delivers=delivers)
        with suppress(Unavailable):
            # If this heartbeat fails, the next heartbeat announces the change.
            await self.membership.send_heartbeat()

    def loops(self, *, delivers: bool) -> Iterator[Loop]:
        """Return the loops that a member of the cluster runs."""
        yield Loop("heartbeat", self.membership.run)
        yield Loop("lease cleanup", self.membership.end_leases)
        yield Loop("shard handover", self._handover.run)
        yield Loop("cache sync", self.cache_sync.run)
        yield Loop("listen announcements", self._announcer.run)
        yield Loop("success reports", self._successes.run)
        if self._encryption_upgrade is not None:
            yield Loop("encryption upgrade", self._encryption_upgrade.run)
        if delivers:
            yield Loop("commands", self._commands.run)
            yield Loop("change log cleanup", self._change_log.run)
        else:
            yield Loop("outage", self._outage_guard.follow)

    async def hand_over(self) -> None:
        """Hand over the endpoints of this process to the other workers.

        Until the attempts in flight in this process end, the other processes count them toward the endpoints'
        concurrency limits.
        """
        if self._state.process_id:
            self._state.deliver(delivers=False)
            self._handover.drop_all()
            await self._within(self._handover.settle())
            await self._within(self.membership.send_heartbeat())

    async def leave(self) -> None:
        """Write the remaining success reports, leave the cluster, and close the message bus."""
        await self._within(self._successes.write())
        if self._state.process_id:
            await self._within(self.membership.leave())
        await self._within(self._notifier.close())
        await self._bus.close()

    async def _within(self, step: Coroutine[Any, Any, None]) -> None:
        """Run a shutdown step with a time limit.

        If the step fails, the other processes detect the shutdown when the heartbeats of this process stop.
        """
        try:
            async with asyncio.timeout(STEP_WITHIN_S):
                await step
        except (StoreError, Rejected, UnknownSchema, TimeoutError) as error:
            _log.warning("cluster shutdown step failed", cause=str(error) or "timeout")
