"""Certificate expiry: warns an account's contacts before an endpoint's client certificate expires."""

import asyncio
from contextlib import suppress
from typing import Final, Protocol

from uplift_server.core.operations.singleton_jobs import SingletonJob
from uplift_server.core.security.endpoint_auth import certificate_warning_at
from uplift_server.delivery.endpoint_cache import EndpointCache, LiveEndpoint
from uplift_server.delivery.ports import Clock, SingletonJobs
from uplift_server.store.errors import Unavailable

CHECK_EVERY_MS: Final = 3_600_000
SLICE_ENDPOINTS: Final = 1_000
"""The number of endpoints to check before the event loop can run other tasks."""


class CertificateWarnings(Protocol):
    """The interface that sends warnings about client certificates."""

    async def warn_about_certificate(self, endpoint: LiveEndpoint) -> None:
        """Warn about the certificate of an endpoint if a warning is due and no process has sent it.

        Raises Unavailable.
        """


class CertificateExpiry:
    """Checks the client certificates in the cache every hour, and warns about certificates that expire soon."""

    def __init__(self, cache: EndpointCache, jobs: SingletonJobs, warnings: CertificateWarnings, clock: Clock) -> None:
        self._cache = cache
        self._jobs = jobs
        self._warnings = warnings
        self._clock = clock

    async def run(self, stopping: asyncio.Event) -> None:
        """Warn about certificates until the process stops or the task is cancelled."""
        while not stopping.is_set():
            if self._jobs.holds(SingletonJob.SECRET_EXPIRY):
                # If the database is not available, the next check tries again.
                with suppress(Unavailable):
                    await self._check(stopping)
            await self._clock.wait(stopping, CHECK_EVERY_MS)

    async def _check(self, stopping: asyncio.Event) -> None:
        for number, endpoint in enumerate(list(self._cache.endpoints.values()), 1):
            if self._is_due(endpoint) and not stopping.is_set():
                await self._warnings.warn_about_certificate(endpoint)
            if number % SLICE_ENDPOINTS == 0:
                await asyncio.sleep(0)

    def _is_due(self, endpoint: LiveEndpoint) -> bool:
        record = endpoint.record
        if endpoint.deleted or record.certificate_expires_at is None:
            return False
        due_at = certificate_warning_at(record.certificate_expires_at, record.certificate_warned_at)
        return due_at is not None and due_at <= self._clock.now_ms()
