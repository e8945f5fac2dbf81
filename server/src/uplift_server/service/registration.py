"""Whether a URL may be registered: how it is written, and where it leads now."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from uplift_server.core.http.addresses import AddressPolicy
from uplift_server.core.http.urls import check_resolved, parse_endpoint_url
from uplift_server.core.problems import Problem
from uplift_server.delivery.sending.http.hostnames import to_ascii

RESOLVE_SECONDS_MAX: Final = 2.0

Resolve = Callable[[str], Awaitable[Iterable[str]]]
"""From a name to its addresses; any exception context that it does not resolve now."""


class Registrar:
    """Judges URLs. What it accepts is judged again at every connect."""

    def __init__(self, policy: AddressPolicy, resolve: Resolve) -> None:
        self._policy = policy
        self._resolve = resolve

    async def check(self, text: str) -> Problem | None:
        """What is wrong with a URL, if anything. A name that does not resolve within RESOLVE_SECONDS_MAX passes."""
        url = parse_endpoint_url(text, self._policy, to_ascii=to_ascii)
        if isinstance(url, Problem):
            return url
        addresses = () if url.known_addresses else await self._addresses(url.host)
        return check_resolved(url, addresses, self._policy)

    async def _addresses(self, host: str) -> tuple[str, ...]:
        try:
            async with asyncio.timeout(RESOLVE_SECONDS_MAX):
                return tuple(await self._resolve(host))
        except Exception:
            # Whatever keeps a name from resolving now may be over by the time of the first delivery.
            return ()
