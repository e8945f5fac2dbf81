"""Which endpoints are this process's, and how they pass from one worker to another.

Every worker knows by itself which endpoints are whose (`core.processes.worker_of`), by the workers it has heard of.
When those change, it first lets go of what is no longer its own, and then tells by which workers it acts. What has
become its own it takes up once all others act by the same: from then on nobody else begins an attempt, and what others
have in flight counts against the endpoint's cap until it is over.

That nothing is attempted by two at a time does not rest on this, but on leases and fences.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog

from uplift_server.core.operations.cluster import HEARTBEAT_EVERY_MS, view_of, worker_of
from uplift_server.delivery.clock import Clock
from uplift_server.delivery.cluster.membership import Membership
from uplift_server.delivery.cluster.notifier import Notifier
from uplift_server.delivery.endpoint_cache import EndpointCache, LiveEndpoint
from uplift_server.delivery.scheduling.lanes import DeliveryLanes
from uplift_server.store import health, processes
from uplift_server.store.contract import Database
from uplift_server.store.errors import Unavailable
from uplift_server.store.processes import Process

ELSEWHERE_EVERY_MS: Final = 100
"""How often it is looked how much others still have in flight of what this process has taken over."""
UNAVAILABLE_WAIT_MS: Final = 500
HEALTH_READ_MAX: Final = 1_000
_log = structlog.get_logger()


class Keeping(Protocol):
    """What an engine does about endpoints that become its own, or another's."""

    lanes: DeliveryLanes

    async def let_go(self, endpoint_seqs: Sequence[int]) -> None:
        """Give back what waits for endpoints that belong to another process now. Raises Unavailable."""

    async def prepare(self, endpoint_seqs: Sequence[int]) -> None:
        """Learn what is to be known of endpoints that are about to be this process's. Raises Unavailable."""

    def take_up(self, endpoint: LiveEndpoint, elsewhere: int) -> None:
        """An endpoint is this process's from now on; others have leased so many of its deliveries still."""


class Ownership:
    """Runs until stopped. A process that does not deliver owns nothing, and need not know who does."""

    def __init__(
        self,
        database: Database,
        cache: EndpointCache,
        clock: Clock,
        membership: Membership,
        post: Notifier,
        keeping: Keeping,
    ) -> None:
        self._database = database
        self._cache = cache
        self._clock = clock
        self._membership = membership
        self._post = post
        self._keeping = keeping
        self._living: Sequence[Process] = ()
        self._workers: tuple[int, ...] = ()
        """Those acted by."""
        self._agreed = False
        """Whether all others act by the same."""
        self._coming: dict[int, None] = {}
        """Endpoints that are this process's, and were not taken up yet."""
        self._lost: dict[int, None] = {}
        """Endpoints of which something may still wait here."""
        self._wake = asyncio.Event()
        self._has_elsewhere = False
        cache.owns = self.owns
        self.on_moved: Callable[[], None] = lambda: None
        """Told when endpoints were taken up."""

    def owns(self, endpoint_seq: int) -> bool:
        """Whether an endpoint is this process's to deliver to now."""
        live = self._cache.endpoints.get(endpoint_seq)
        if live is not None:
            return live.owned
        if not self._is_own(endpoint_seq):
            return False
        if not self._agreed:
            self._coming[endpoint_seq] = None
        return self._agreed

    def drop_all(self) -> None:
        """Own nothing: this process was taken for dead, or is about to stop."""
        self._move(())

    async def settle_down(self) -> None:
        """Do what is to be done about what has moved. Raises Unavailable; it is to be called again then."""
        if self._lost:
            lost = list(self._lost)
            await self._keeping.let_go(lost)
            for endpoint_seq in lost:
                self._lost.pop(endpoint_seq, None)
        view = view_of(self._workers)
        if self._membership.view != view:
            # Only now: whoever gets what was lost relies on it.
            self._membership.view = view
            self._membership.hurry()
            self._post.tell_moved()
        if self._agreed and self._coming:
            await self._take_up(list(self._coming))
        if self._has_elsewhere:
            leased = await self._foreign_leases()
            self._has_elsewhere = self._keeping.lanes.note_elsewhere(leased)

    async def run(self, stopping: asyncio.Event) -> None:
        """Follow what changes until stopped; whoever stops it cancels the wait."""
        while not stopping.is_set():
            self._wake.clear()
            try:
                await self.settle_down()
            except Unavailable:
                await self._clock.wait(stopping, UNAVAILABLE_WAIT_MS)
                continue
            await self._clock.wait(self._wake, ELSEWHERE_EVERY_MS if self._has_elsewhere else HEARTBEAT_EVERY_MS)

    def see(self, living: Sequence[Process]) -> None:
        """A heartbeat has told who lives."""
        self._living = living
        self._keeping.lanes.trusted_until = self._membership.trusted_until
        workers = tuple(each.seq for each in living if each.delivers)
        if workers != self._workers:
            _log.info("the workers have changed", workers=len(workers), own=self._membership.number in workers)
            self._move(workers)
        own, view = self._membership.number, view_of(workers)
        self._agreed = own in workers and all(each.view == view for each in living if each.delivers and each.seq != own)
        if self._lost or self._coming or self._membership.view != view:
            self._wake.set()
        self._keeping.lanes.pump()

    def _is_own(self, endpoint_seq: int) -> bool:
        return worker_of(endpoint_seq, self._workers) == self._membership.number

    def _move(self, workers: tuple[int, ...]) -> None:
        self._workers = workers
        self._agreed = False
        for endpoint_seq, live in self._cache.endpoints.items():
            if not self._is_own(endpoint_seq):
                self._coming.pop(endpoint_seq, None)
                if live.owned:
                    live.owned = False
                    self._lost[endpoint_seq] = None
            elif not live.owned:
                self._coming[endpoint_seq] = None
        self._wake.set()

    async def _take_up(self, endpoint_seqs: Sequence[int]) -> None:
        workers = self._workers
        await self._keeping.prepare(endpoint_seqs)
        fresh = {}
        for at in range(0, len(endpoint_seqs), HEALTH_READ_MAX):
            some = endpoint_seqs[at : at + HEALTH_READ_MAX]
            fresh.update(await self._database.read_first(lambda c: health.get(c, some)))  # noqa: B023 - run before the next turn
        leased = await self._foreign_leases()
        if workers != self._workers:
            return
        for endpoint_seq in endpoint_seqs:
            self._coming.pop(endpoint_seq, None)
            live = self._cache.endpoints.get(endpoint_seq)
            if live is not None and self._is_own(endpoint_seq):
                live.health = fresh.get(endpoint_seq, live.health)
                live.owned = True
                self._keeping.take_up(live, leased.get(endpoint_seq, 0))
        self._has_elsewhere = self._has_elsewhere or bool(leased)
        self.on_moved()

    async def _foreign_leases(self) -> dict[int, int]:
        own = self._membership.number
        return dict(await self._database.read_first(lambda c: processes.foreign_leases(c, own)))
