"""The health monitor: warns about failing endpoints, disables them, and reports recoveries.

The monitor reads the health of endpoints from the cache. If the monitor cannot store a transition, it tries again
at the next check.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from uplift_server.core.deliveries.health import FAILURES_MIN, HealthAction, HealthRule
from uplift_server.core.deliveries.outage_guard import ENDPOINTS_MIN
from uplift_server.delivery.endpoint_cache import EndpointCache, LiveEndpoint
from uplift_server.delivery.health.outage_guard import Outage, OutageGuard
from uplift_server.delivery.health.transitions import Transitions
from uplift_server.delivery.ports import NEVER, Clock, Shards
from uplift_server.delivery.sending.attempts import GONE
from uplift_server.store.errors import Unavailable
from uplift_server.store.records import DisabledReason

BEGIN_AFTER_MS: Final = 2_000
"""The wait between the start of the process and the first check, in ms.

During the wait, the server attempts due deliveries, which shows whether endpoints have recovered.
"""
CHECK_EVERY_MS_MIN: Final = 1_000
"""The minimum time between two checks of failing endpoints, in ms."""
OUTAGE_CHECK_EVERY_MS: Final = 300_000
"""The interval between checks for a mass failure, in ms.

Only recently attempted endpoints are counted. Therefore, a mass failure can begin or end without a new attempt.
"""
CHECK_EVERY_MS_MAX: Final = 86_400_000
CLUSTER_CHECK_EVERY_MS_MAX: Final = 3_000
"""The maximum time between checks in a cluster, in ms.

Other processes change the health of their endpoints without waking this process's monitor.
"""
EMAIL_WAIT_MS: Final = 60_000
"""The wait in ms before the monitor tries again to disable an endpoint whose warning email is still unsent."""
UNAVAILABLE_WAIT_MS: Final = 1_000
CHECKS_PER_TURN: Final = 1_000
"""The number of endpoints to check before the event loop can run other tasks."""


@dataclass(frozen=True, slots=True)
class HealthSettings:
    """The operator's settings for the health of endpoints."""

    rule: HealthRule
    gone_disables: bool = False
    """Whether a 410 response disables the endpoint immediately."""
    sends_email: bool = False
    """Whether the server sends notifications by email."""
    operator_email: str | None = None


class HealthMonitor:
    """Checks failing and warned endpoints when their health changes or when the next check is due."""

    def __init__(
        self,
        cache: EndpointCache,
        shards: Shards,
        transitions: Transitions,
        outage_guard: OutageGuard,
        clock: Clock,
        settings: HealthSettings,
        *,
        check_every_ms_max: int,
    ) -> None:
        self._cache = cache
        self._shards = shards
        self._clock = clock
        self._rule = settings.rule
        self._gone_disables = settings.gone_disables
        self._transitions = transitions
        self._outage_guard = outage_guard
        self._check_every_ms_max = check_every_ms_max
        self._watched: dict[int, int | None] = {}
        """The failing and warned endpoints, each with the start of its current failure (Unix ms) if known."""
        self._gone: dict[int, None] = {}
        self._wait_until: dict[int, int] = {}
        """For each endpoint whose warning email is unsent: when the monitor tries again to disable it (Unix ms)."""
        self._wake = asyncio.Event()

    async def load(self) -> None:
        """Load the stored mass failure and the endpoints to watch. Raises Unavailable."""
        await self._outage_guard.load()
        for endpoint in self._cache.endpoints.values():
            if self._shards.owns(endpoint.seq):
                self.watch(endpoint)

    def note(self, endpoint: LiveEndpoint) -> None:
        """Watch an endpoint after a failed attempt, or after the first success that follows a failure."""
        health = endpoint.health
        known = self._watched.get(endpoint.seq)
        was_warned = health.warned_at is not None and not health.warned
        self._watched[endpoint.seq] = known if was_warned or health.failing_since is None else health.failing_since
        if health.failing_since is None or health.consecutive_failures in (1, FAILURES_MIN):
            self._wake.set()

    def watch(self, endpoint: LiveEndpoint) -> None:
        """Watch an endpoint that this process now owns, if the endpoint is failing or warned."""
        health = endpoint.health
        if endpoint.takes_deliveries and (health.failing_since is not None or health.warned_at is not None):
            self.note(endpoint)
            self._wake.set()

    def note_gone_response(self, endpoint: LiveEndpoint) -> None:
        """At the next check, disable an endpoint that responded with 410, if `gone_disables` is set."""
        if self._gone_disables:
            self._gone[endpoint.seq] = None
            self._wake.set()

    def disable_at(self, endpoint_seq: int) -> int | None:
        """Return the time when the server will disable a failing endpoint unless an attempt succeeds (Unix ms).

        Return None during a mass failure, or if the endpoint is not enabled or not failing.
        """
        endpoint = self._cache.endpoints.get(endpoint_seq)
        if endpoint is None or not endpoint.takes_deliveries or self._outage_guard.outage is not None:
            return None
        return endpoint.health.disable_at(self._rule)

    @property
    def outage(self) -> Outage | None:
        """The current mass failure, or None."""
        return self._outage_guard.outage

    def warn_at(self, endpoint_seq: int) -> int | None:
        """Return the time when the server will warn about a failing endpoint unless an attempt succeeds (Unix ms).

        Return None during a mass failure, if the endpoint is not enabled or not failing, or after the warning.
        """
        endpoint = self._cache.endpoints.get(endpoint_seq)
        if endpoint is None or not endpoint.takes_deliveries or self._outage_guard.outage is not None:
            return None
        return endpoint.health.warn_at(self._rule)

    async def run(self, stopping: asyncio.Event) -> None:
        """Watch endpoints until the process stops or the task is cancelled."""
        await self._clock.wait(stopping, BEGIN_AFTER_MS)
        while not stopping.is_set():
            self._wake.clear()
            try:
                next_at = await self._check()
            except Unavailable:
                await self._clock.wait(stopping, UNAVAILABLE_WAIT_MS)
                continue
            await self._clock.wait(stopping, CHECK_EVERY_MS_MIN)
            left_ms = next_at - self._clock.now_ms()
            if left_ms > 0:
                await self._clock.wait(self._wake, min(left_ms, self._check_every_ms_max))

    async def _check(self) -> int:
        """Check all watched endpoints. Return the time of the next check (Unix ms)."""
        watched = self._watched_endpoints()
        failing = [endpoint for endpoint in watched if endpoint.health.failing_since is not None]
        await self._outage_guard.evaluate([*failing, *self._failing_elsewhere()])
        await self._disable_gone()
        for number, endpoint in enumerate(watched, 1):
            await self._step(endpoint)
            if number % CHECKS_PER_TURN == 0:
                await asyncio.sleep(0)
        next_at = self._clock.now_ms() + OUTAGE_CHECK_EVERY_MS if len(failing) >= ENDPOINTS_MIN else NEVER
        if self._outage_guard.outage is None:
            next_at = min([next_at, *(self._next_at(endpoint) for endpoint in failing)])
        return next_at

    def _failing_elsewhere(self) -> list[LiveEndpoint]:
        foreign = (self._cache.endpoints[seq] for seq in self._shards.foreign(self._cache.endpoints))
        return [each for each in foreign if each.health.failing_since is not None and each.takes_deliveries]

    def _watched_endpoints(self) -> list[LiveEndpoint]:
        """Return the watched endpoints that are still enabled, owned by this process, and failing or warned.

        Stop watching all other endpoints.
        """
        watched = []
        for seq in list(self._watched):
            endpoint = self._cache.endpoints.get(seq)
            if (
                endpoint is not None
                and self._shards.owns(seq)
                and endpoint.takes_deliveries
                and (endpoint.health.failing_since is not None or endpoint.health.warned_at is not None)
            ):
                watched.append(endpoint)
            else:
                del self._watched[seq]
                self._wait_until.pop(seq, None)
        return watched

    async def _step(self, endpoint: LiveEndpoint) -> None:
        now = self._clock.now_ms()
        action = endpoint.health.next_action(now, self._rule)
        # Another process may have become the owner of the endpoint.
        if action is None or not endpoint.takes_deliveries or not self._shards.owns(endpoint.seq):
            return
        if action is HealthAction.RECOVER:
            await self._transitions.recover(endpoint, self._watched.get(endpoint.seq))
        elif self._outage_guard.outage is not None:
            return
        elif action is HealthAction.WARN:
            await self._transitions.warn(endpoint)
        elif self._wait_until.get(endpoint.seq, 0) <= now and not await self._transitions.disable(
            endpoint, DisabledReason.FAILING
        ):
            self._wait_until[endpoint.seq] = now + EMAIL_WAIT_MS

    async def _disable_gone(self) -> None:
        """Disable the endpoints whose latest response is 410.

        During a mass failure, disable none of them, because a proxy may have sent the responses.
        """
        while self._gone and self._outage_guard.outage is None:
            seq = next(iter(self._gone))
            endpoint = self._cache.endpoints.get(seq)
            if (
                endpoint is not None
                and self._shards.owns(seq)
                and endpoint.takes_deliveries
                and endpoint.health.last_status_code == GONE
            ):
                await self._transitions.disable(endpoint, DisabledReason.GONE)
            del self._gone[seq]

    def _next_at(self, endpoint: LiveEndpoint) -> int:
        """Return the time when the monitor must warn about a failing endpoint or disable it (Unix ms)."""
        health = endpoint.health
        if health.warned:
            at = health.disable_at(self._rule)
        else:
            at = health.warn_at(self._rule) if health.consecutive_failures >= FAILURES_MIN else None
        return NEVER if at is None else max(at, self._wait_until.get(endpoint.seq, 0))
