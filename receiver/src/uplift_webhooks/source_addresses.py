"""Check a request's source address against Uplift's published egress IPs, in addition to the signature.

>>> sources = SourceAddresses(Client())                # doctest: +SKIP
>>> sources.allows(request.remote_addr)                # doctest: +SKIP
"""

import inspect
import ipaddress
import os
import threading
import time
import weakref
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any, Final, Protocol

from uplift_webhooks.api.failures import ApiFailure, ApiUnreachable

REFRESH_SECONDS: Final = 3600.0
"""Default interval between requests for the egress IPs, in seconds.

The server announces new addresses days before it uses them.
"""
STALE_SECONDS: Final = 86_400.0
"""How long after the time for a refresh callers use the known addresses without waiting for newer ones, in seconds."""
_RETRY_SECONDS: Final = 60.0

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Published = tuple[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, float], ...]
"""Networks, each with the time when the server starts to use it, in Unix seconds. Most networks contain one address."""


class Source(Protocol):
    """Interface of an API client that can get the egress IPs, such as `uplift_webhooks.api.Client`."""

    def source_ips(self) -> dict[str, Any]:
        """Return the response to `GET /v1/source-ips`. Raises ApiFailure."""
        ...  # pragma: no cover


class SourceAddresses:
    """The published egress IPs, from the API or from the caller. Thread-safe."""

    def __init__(
        self, source: Source | Mapping[str, Any] | Iterable[str], *, refresh_seconds: float = REFRESH_SECONDS
    ) -> None:
        """`source` is a client, a list of addresses or networks, or the response from `source_ips`.

        If `source` is a client, `allows` requests the addresses on first use. Every `refresh_seconds`, a call requests
        them again in the background. A call waits for the response only if no call requested them for another day.

        Raises:
            ValueError: an address or the response is not valid, `refresh_seconds` is not positive, or `source` has
                another type, such as AsyncClient.
        """
        if not refresh_seconds > 0:
            raise ValueError("refresh_seconds must be greater than 0.")
        if isinstance(source, str):
            raise ValueError("The source must be a list of addresses or a Client, not a string.")
        self._refresh_seconds: Final = refresh_seconds
        self._source: Source | None = None
        self._published: _Published | None = None
        self._failure: ApiFailure | None = None
        """The error of the last failed request for the egress IPs. Raised only while no egress IPs are known."""
        if isinstance(source, Mapping):
            try:
                self._published = _published(source)
            except (KeyError, TypeError, AttributeError) as error:
                raise ValueError("The source is not a valid response from `source_ips`.") from error
        elif isinstance(source, Iterable):
            self._published = _published({"current": [*source]})
        elif not callable(ask := getattr(source, "source_ips", None)) or inspect.iscoroutinefunction(ask):
            raise ValueError(
                "The source must be a Client, a list of addresses, or the result of `await AsyncClient.source_ips()`. "
                "It cannot be an AsyncClient, because `allows` is not a coroutine."
            )
        else:
            self._source = source
        self._refresh_at = 0.0
        self._stale_at = 0.0
        """When a call waits for newer addresses. Failed requests in the background do not change this time.

        Some servers, such as uWSGI, run other threads only during requests, so that these requests time out.
        """
        self._refreshing = threading.Lock()
        _all.add(self)

    def allows(self, address: str) -> bool:
        """Return whether Uplift currently sends requests from this address. Return False for an invalid address.

        Pass the address of the connection, or the address in a header that your own proxy sets. Do not use any other
        header: clients can forge it. An IPv4-mapped IPv6 address (`::ffff:…`) counts as the IPv4 address.

        Raises:
            ApiFailure: the request for the egress IPs failed, and no earlier request succeeded. For 1 minute after the
                failed request, or for `refresh_seconds` if this is shorter, every call raises the same error. The next
                call after that repeats the request. Received egress IPs stay valid until newer ones arrive.
        """
        try:
            asked = _plain(ipaddress.ip_address(address))
        except ValueError:
            return False
        now = time.time()
        return any(
            since <= now and asked.version == network.version and asked in network for network, since in self._current()
        )

    def _current(self) -> _Published:
        if self._source is not None and time.monotonic() >= self._refresh_at:
            # Callers wait for the first addresses, or if the known ones are old, but otherwise not for newer ones.
            if self._published is None or time.monotonic() >= self._stale_at:
                # If the API does not respond, at most one call per refresh waits.
                self._stale_at = time.monotonic() + self._refresh_seconds
                with self._refreshing:
                    self._refresh(self._source)
            elif self._refreshing.acquire(blocking=False):
                self._start_refresh(self._source)
        if self._published is None and self._failure is not None:
            # Remove the traceback, because it would grow each time the error is raised.
            raise self._failure.with_traceback(None)
        return self._published or ()

    def _start_refresh(self, source: Source) -> None:
        """Refresh the addresses in a thread that releases the lock. If it cannot start, a later call tries again."""

        def run() -> None:
            try:
                self._refresh(source)
            finally:
                self._refreshing.release()

        try:
            threading.Thread(target=run, name="uplift-source-addresses", daemon=True).start()
        except RuntimeError:
            self._refreshing.release()

    def _refresh(self, source: Source) -> None:
        if time.monotonic() < self._refresh_at:
            return  # Another thread has just refreshed the addresses.
        try:
            answer = source.source_ips()
            try:
                self._published = _published(answer)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise ApiUnreachable("The response is not from an Uplift Webhooks server.") from error
            self._refresh_at = time.monotonic() + self._refresh_seconds
            self._stale_at = self._refresh_at + STALE_SECONDS
        except ApiFailure as failure:
            # Store the failure, so that later requests do not wait for a server that does not respond.
            self._failure = failure
            self._refresh_at = time.monotonic() + min(_RETRY_SECONDS, self._refresh_seconds)


def _published(answer: Mapping[str, Any]) -> _Published:
    """Parse an API response. Any exception means that the response is not valid."""
    found = [(ipaddress.ip_network(str(each), strict=False), 0.0) for each in answer["current"]]
    found += [
        (ipaddress.ip_network(str(each["address"]), strict=False), _unix_seconds(each["from"]))
        for each in answer.get("upcoming", ())
    ]
    return tuple(found)


def _unix_seconds(text: str) -> float:
    # Python 3.10 does not parse the offset `Z`.
    instant = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return (instant if instant.tzinfo else instant.replace(tzinfo=timezone.utc)).timestamp()


def _plain(address: _Address) -> _Address:
    """Return the IPv4 address of an IPv4-mapped IPv6 address. Dual-stack sockets report such addresses."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped


def _begin_in_child() -> None:
    # A thread of the parent process can hold the lock.
    for each in list(_all):
        each._refreshing = threading.Lock()  # noqa: SLF001 - same module


_all: Final["weakref.WeakSet[SourceAddresses]"] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):  # pragma: no branch - not on Windows
    os.register_at_fork(after_in_child=_begin_in_child)
