"""The watch over endpoints' health: warns, disables and tells of recoveries when their time has come.

What it knows follows from the endpoints as they stand in memory, which follow the store; a step that could not be
taken is taken at the next look.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from uplift_server.core.deliveries.health import FAILURES_MIN, HealthAction, HealthRule
from uplift_server.core.deliveries.outage_guard import ENDPOINTS_MIN
from uplift_server.delivery.endpoint_cache import NEVER, EndpointCache, LiveEndpoint
from uplift_server.delivery.health.outage_guard import Outage, OutageGuard
from uplift_server.delivery.health.transitions import Transitions
from uplift_server.delivery.ports import Clock, Shards
from uplift_server.store.errors import Unavailable
from uplift_server.store.records import DisabledReason

BEGIN_AFTER_MS: Final = 2_000
"""After a start what is due is attempted first: an endpoint may have come back while nobody looked."""
LOOK_EVERY_MS_MIN: Final = 1_000
"""However much happens, endpoints that fail are gone through no more often."""
OUTAGE_LOOK_EVERY_MS: Final = 300_000
"""An outage also begins or ends by time alone: only endpoints with a recent attempt count."""
LOOK_EVERY_MS_MAX: Final = 86_400_000
CLUSTER_LOOK_EVERY_MS_MAX: Final = 3_000
"""The endpoints of other processes change their health without a wake-up here."""
MAIL_WAIT_MS: Final = 60_000
"""How long a disable waits at a time for the mail that warned of it."""
UNAVAILABLE_WAIT_MS: Final = 1_000
SLICE: Final = 1_000
"""So many endpoints are looked at in one turn of the loop."""


@dataclass(frozen=True, slots=True)
class HealthSettings:
    """What an operator may choose."""

    rule: HealthRule
    gone_disables: bool = False
    """Whether an endpoint that answers 410 is disabled at once."""
    mails: bool = False
    """Whether people are told by mail."""
    operator_email: str | None = None


class HealthMonitor:
    """Runs until stopped; sleeps while every endpoint is well, and until the next instant at which one is not."""

    def __init__(
        self,
        cache: EndpointCache,
        shards: Shards,
        transitions: Transitions,
        outage_guard: OutageGuard,
        clock: Clock,
        settings: HealthSettings,
        *,
        look_every_ms_max: int,
    ) -> None:
        self._cache = cache
        self._shards = shards
        self._clock = clock
        self._rule = settings.rule
        self._gone_disables = settings.gone_disables
        self._transitions = transitions
        self._outage_guard = outage_guard
        self._look_every_ms_max = look_every_ms_max
        self._unwell: dict[int, int | None] = {}
        """Endpoints that fail, or whose owners were warned; since when, where that is known of the latest failing."""
        self._gone: dict[int, None] = {}
        self._wait_until: dict[int, int] = {}
        """Endpoints whose disabling waits for a mail."""
        self._wake = asyncio.Event()

    async def load(self) -> None:
        """Take over how things stood. Raises Unavailable."""
        await self._outage_guard.load()
        for endpoint in self._cache.endpoints.values():
            if self._shards.owns(endpoint.seq):
                self.take_up(endpoint)

    def note(self, endpoint: LiveEndpoint) -> None:
        """An attempt has failed, or one has succeeded after failures."""
        health = endpoint.health
        known = self._unwell.get(endpoint.seq)
        told = health.warned_at is not None and not health.warned
        self._unwell[endpoint.seq] = known if told or health.failing_since is None else health.failing_since
        if health.failing_since is None or health.consecutive_failures in (1, FAILURES_MIN):
            self._wake.set()

    def take_up(self, endpoint: LiveEndpoint) -> None:
        """An endpoint has become this process's: it is looked after as it stands."""
        health = endpoint.health
        if endpoint.takes_deliveries and (health.failing_since is not None or health.warned_at is not None):
            self.note(endpoint)
            self._wake.set()

    def note_gone(self, endpoint: LiveEndpoint) -> None:
        """An endpoint has answered that it is gone for good."""
        if self._gone_disables:
            self._gone[endpoint.seq] = None
            self._wake.set()

    def disable_at(self, endpoint_seq: int) -> int | None:
        """When an endpoint that fails will be disabled (Unix ms); None while that cannot be said."""
        endpoint = self._cache.endpoints.get(endpoint_seq)
        if endpoint is None or not endpoint.takes_deliveries or self._outage_guard.present is not None:
            return None
        return endpoint.health.disable_at(self._rule)

    @property
    def outage(self) -> Outage | None:
        """The current outage: most endpoints fail at once."""
        return self._outage_guard.present

    def warn_at(self, endpoint_seq: int) -> int | None:
        """When the contacts of an endpoint that fails are told (Unix ms); None while that cannot be said."""
        endpoint = self._cache.endpoints.get(endpoint_seq)
        if endpoint is None or not endpoint.takes_deliveries or self._outage_guard.present is not None:
            return None
        return endpoint.health.warn_at(self._rule)

    async def run(self, stopping: asyncio.Event) -> None:
        """HealthMonitor until stopped; whoever stops it cancels the wait."""
        await self._clock.wait(stopping, BEGIN_AFTER_MS)
        while not stopping.is_set():
            self._wake.clear()
            try:
                next_at = await self._look()
            except Unavailable:
                await self._clock.wait(stopping, UNAVAILABLE_WAIT_MS)
                continue
            await self._clock.wait(stopping, LOOK_EVERY_MS_MIN)
            left_ms = next_at - self._clock.now_ms()
            if left_ms > 0:
                await self._clock.wait(self._wake, min(left_ms, self._look_every_ms_max))

    async def _look(self) -> int:
        """Do what is to be done now; gives the next instant at which something may be (Unix ms)."""
        unwell = self._weeded()
        failing = [endpoint for endpoint in unwell if endpoint.health.failing_since is not None]
        await self._outage_guard.judge([*failing, *self._failing_elsewhere()])
        await self._disable_gone()
        for number, endpoint in enumerate(unwell, 1):
            await self._step(endpoint)
            if number % SLICE == 0:
                await asyncio.sleep(0)
        next_at = self._clock.now_ms() + OUTAGE_LOOK_EVERY_MS if len(failing) >= ENDPOINTS_MIN else NEVER
        if self._outage_guard.present is None:
            next_at = min([next_at, *(self._next_at(endpoint) for endpoint in failing)])
        return next_at

    def _failing_elsewhere(self) -> list[LiveEndpoint]:
        """The failing endpoints of other processes."""
        foreign = (self._cache.endpoints[seq] for seq in self._shards.foreign(self._cache.endpoints))
        return [each for each in foreign if each.health.failing_since is not None and each.takes_deliveries]

    def _weeded(self) -> list[LiveEndpoint]:
        """The endpoints to look after; those that are well again, off or deleted are forgotten."""
        unwell = []
        for seq in list(self._unwell):
            endpoint = self._cache.endpoints.get(seq)
            if (
                endpoint is not None
                and self._shards.owns(seq)
                and endpoint.takes_deliveries
                and (endpoint.health.failing_since is not None or endpoint.health.warned_at is not None)
            ):
                unwell.append(endpoint)
            else:
                del self._unwell[seq]
                self._wait_until.pop(seq, None)
        return unwell

    async def _step(self, endpoint: LiveEndpoint) -> None:
        now = self._clock.now_ms()
        step = endpoint.health.next_action(now, self._rule)
        # It may have become another process's since it was found.
        if step is None or not endpoint.takes_deliveries or not self._shards.owns(endpoint.seq):
            return
        if step is HealthAction.RECOVER:
            await self._transitions.recover(endpoint, self._unwell.get(endpoint.seq))
        elif self._outage_guard.present is not None:
            return
        elif step is HealthAction.WARN:
            await self._transitions.warn(endpoint)
        elif self._wait_until.get(endpoint.seq, 0) <= now and not await self._transitions.disable(
            endpoint, DisabledReason.FAILING
        ):
            self._wait_until[endpoint.seq] = now + MAIL_WAIT_MS

    async def _disable_gone(self) -> None:
        """Disable those that said they are gone; not while so many fail that something else may speak for them."""
        while self._gone and self._outage_guard.present is None:
            seq = next(iter(self._gone))
            endpoint = self._cache.endpoints.get(seq)
            if (
                endpoint is not None
                and self._shards.owns(seq)
                and endpoint.takes_deliveries
                and endpoint.health.failing_since is not None
            ):
                await self._transitions.disable(endpoint, DisabledReason.GONE)
            del self._gone[seq]

    def _next_at(self, endpoint: LiveEndpoint) -> int:
        """When something is to be done about an endpoint that fails, unless an attempt changes that (Unix ms)."""
        health = endpoint.health
        if health.warned:
            at = health.disable_at(self._rule)
        else:
            at = health.warn_at(self._rule) if health.consecutive_failures >= FAILURES_MIN else None
        return NEVER if at is None else max(at, self._wait_until.get(endpoint.seq, 0))
