"""A DNS resolver that runs on the event loop. `getaddrinfo` would block one thread for each lookup."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

import aiodns
import pycares

from uplift_server.delivery.sending.http.failures import files_exhausted, seconds
from uplift_server.delivery.sending.http.settings import SenderSettings

ADDRESSES_MAX: Final = 128
"""Maximum number of addresses of a name that the server uses.

The server checks each address before each new connection, so more addresses would block the event loop.
"""
_LOOPBACK: Final = ("127.0.0.1", "::1")
# c-ares starts with a timeout of 250 ms or more, and doubles the timeout with each try.
# With fewer tries, a lookup would end long before `dns_timeout_ms`.
_TRIES: Final = 5
_FIRST_TRY_SHARE: Final = 1 / 8
_FAULTS: Final[dict[object, str]] = {
    pycares.errno.ARES_ENOTFOUND: "{name} does not exist",
    pycares.errno.ARES_ENODATA: "{name} has no address",
    pycares.errno.ARES_ESERVFAIL: "the name servers failed to resolve {name}",
    pycares.errno.ARES_EREFUSED: "the name servers rejected the lookup of {name}",
    pycares.errno.ARES_ETIMEOUT: "no name server responded to the lookup of {name}",
    pycares.errno.ARES_ECONNREFUSED: "no name server could be reached to resolve {name}",
    pycares.errno.ARES_EBADNAME: "{name} is not a valid name",
}


class ResolutionFailed(Exception):
    """The name has no address, or the lookup failed.

    `text` is the cause, for users. `out_of_files` is true if the process has no file descriptor left for the lookup.
    """

    def __init__(self, text: str, *, out_of_files: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.out_of_files = out_of_files


class _Entry:
    """The result of a lookup. It is valid until `expires_at` (monotonic seconds)."""

    __slots__ = ("addresses", "expires_at", "failure")

    def __init__(self, addresses: tuple[str, ...], failure: str | None, expires_at: float) -> None:
        self.addresses = addresses
        self.failure = failure
        self.expires_at = expires_at


class Resolver:
    """Resolves names with `/etc/hosts` and the name servers, and caches the results.

    The TTL of a result and the settings limit how long a result stays in the cache. Concurrent lookups of a name share
    one query. Use a resolver on one event loop only, and close it after use.
    """

    def __init__(
        self,
        settings: SenderSettings,
        *,
        nameservers: Sequence[str] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a resolver.

        Each item of `nameservers` is `address` or `address:port`. If `nameservers` is None, the resolver uses the
        machine's name servers.
        """
        self._settings = settings
        self._nameservers = nameservers
        self._monotonic = monotonic
        self._entries: dict[str, _Entry] = {}
        self._pending: dict[str, asyncio.Task[_Entry]] = {}
        self._channel: aiodns.DNSResolver | None = None
        self._channel_created_at = 0.0
        self._closed = False

    async def resolve(self, host: str) -> tuple[str, ...]:
        """Return the addresses of a name, in the order in which to try them. Raises ResolutionFailed.

        There is at least one address. The resolver does not check the addresses against the address policy.
        """
        name = host.lower().removesuffix(".")
        if name == "localhost" or name.endswith(".localhost"):
            return _LOOPBACK
        entry = self._entries.get(name)
        if entry is None or entry.expires_at <= self._monotonic():
            entry = await self._shared_lookup(name)
        if entry.failure is not None:
            raise ResolutionFailed(entry.failure)
        return entry.addresses

    async def close(self) -> None:
        """Cancel all lookups. Callers that wait for a lookup receive ResolutionFailed."""
        self._closed = True
        for task in self._pending.values():
            task.cancel()
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    async def _shared_lookup(self, name: str) -> _Entry:
        if self._closed:
            raise ResolutionFailed("the resolver is closed")
        task = self._pending.get(name)
        if task is None:
            task = self._pending[name] = asyncio.get_running_loop().create_task(self._lookup(name))
        try:
            # The timeout of one caller must not cancel the lookup for the other callers.
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise ResolutionFailed("the resolver was closed") from None
            raise

    async def _lookup(self, name: str) -> _Entry:
        try:
            entry = await self._query(name)
        finally:
            del self._pending[name]
        while len(self._entries) >= max(1, self._settings.dns_entries_max):
            del self._entries[next(iter(self._entries))]
        self._entries.pop(name, None)
        self._entries[name] = entry
        return entry

    async def _query(self, name: str) -> _Entry:
        settings = self._settings
        channel = self._current_channel()
        ttl_ms = settings.dns_negative_ttl_ms
        addresses: tuple[str, ...] = ()
        failure: str | None = None
        try:
            async with asyncio.timeout(settings.dns_timeout_ms / 1000):
                found = await channel.getaddrinfo(name)
        except TimeoutError:
            failure = f"no name server responded to the lookup of {name} within {seconds(settings.dns_timeout_ms)}"
        except (aiodns.error.DNSError, UnicodeError) as error:
            failure = _explain(error, name)
        else:
            addresses = tuple(dict.fromkeys(_text(node.addr[0]) for node in found.nodes[:ADDRESSES_MAX]))
            if addresses:
                ttl_ms = min(node.ttl for node in found.nodes) * 1000
                ttl_ms = max(settings.dns_ttl_ms_min, min(ttl_ms, settings.dns_ttl_ms_max))
            else:
                failure = f"{name} has no address"
        if failure is not None and files_exhausted():
            # Discard the results and the channel: if the process has no file descriptors left, c-ares returns wrong
            # results, and a channel that it creates has no name servers.
            self._channel = None
            raise ResolutionFailed(f"could not look up {name}: too many open files", out_of_files=True)
        return _Entry(addresses, failure, self._monotonic() + ttl_ms / 1000)

    def _current_channel(self) -> aiodns.DNSResolver:
        # c-ares caches results for their full TTL, and aiodns cannot disable that. A new channel has no old results.
        # The previous channel closes after its last lookup.
        now = self._monotonic()
        if self._channel is None or now - self._channel_created_at >= self._settings.dns_ttl_ms_max / 1000:
            self._channel = aiodns.DNSResolver(
                nameservers=self._nameservers,
                timeout=self._settings.dns_timeout_ms / 1000 * _FIRST_TRY_SHARE,
                tries=_TRIES,
            )
            self._channel_created_at = now
        return self._channel


def _text(address: bytes | str) -> str:
    return address.decode("ascii") if isinstance(address, bytes) else address


def _explain(error: Exception, name: str) -> str:
    code = error.args[0] if error.args else None
    fault = "{name} is not a valid name" if isinstance(error, UnicodeError) else _FAULTS.get(code)
    return fault.format(name=name) if fault else f"the lookup of {name} failed: {error.args[-1]}"
