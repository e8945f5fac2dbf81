"""Whether a request comes from one of the addresses Uplift publishes: a second fence, beside the signature.

>>> sources = SourceAddresses(Client())                # doctest: +SKIP
>>> sources.allows(request.remote_addr)                # doctest: +SKIP
"""

import inspect
import ipaddress
import threading
import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any, Final, Protocol

from uplift_webhooks.api.failures import ApiFailure, ApiUnreachable

REFRESH_SECONDS: Final = 3600.0
"""New addresses are announced days before they are used."""
_RETRY_SECONDS: Final = 60.0

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Published = tuple[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, float], ...]
"""Networks (mostly of one address) and the Unix seconds from which they are used."""


class Source(Protocol):
    """What asks the API: `uplift_webhooks.api.Client`."""

    def source_ips(self) -> dict[str, Any]:
        """The answer of `GET /v1/source-ips`. Raises ApiFailure."""
        ...  # pragma: no cover


class SourceAddresses:
    """The published addresses, from the API or as given. May be shared between threads."""

    def __init__(
        self, source: Source | Mapping[str, Any] | Iterable[str], *, refresh_seconds: float = REFRESH_SECONDS
    ) -> None:
        """Take a client, which is asked at the first use and every `refresh_seconds` after; or addresses (or networks).

        They may also be given as the API answers: `{"current": […], "upcoming": [{"address": …, "from": …}]}`.

        Raises:
            ValueError: an address given is none, `refresh_seconds` is not more than 0, or the client is an AsyncClient
                (or nothing that can be asked).
        """
        if not refresh_seconds > 0:
            raise ValueError("refresh_seconds must be more than 0.")
        if isinstance(source, str):
            raise ValueError("Pass a list of addresses, or a client.")
        self._refresh_seconds: Final = refresh_seconds
        self._source: Source | None = None
        self._published: _Published | None = None
        self._failure: ApiFailure | None = None
        """Why nothing is published yet."""
        if isinstance(source, Mapping):
            self._published = _published(source)
        elif isinstance(source, Iterable):
            self._published = _published({"current": [*source]})
        elif not callable(ask := getattr(source, "source_ips", None)) or inspect.iscoroutinefunction(ask):
            raise ValueError(
                "Pass a Client, a list of addresses, or what `await AsyncClient.source_ips()` gives: `allows` awaits "
                "nothing, so it cannot ask an AsyncClient."
            )
        else:
            self._source = source
        self._refresh_at = 0.0
        self._refreshing: Final = threading.Lock()

    def allows(self, address: str) -> bool:
        """Whether requests of Uplift come from this address now; False for a text that is none.

        Pass the address of the connection, or what your own proxy says: a header that anybody can send proves nothing.
        IPv6's form of an IPv4 address (`::ffff:…`) counts as that.

        Raises:
            ApiFailure: the addresses were never received; they are asked for again after a minute at the earliest.
                Once they were, they hold until there are newer ones.
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
        if self._source is None or time.monotonic() < self._refresh_at:
            return self._known()
        # One thread asks; the others go on with what there is, or wait where there is nothing yet.
        if not self._refreshing.acquire(blocking=self._published is None):
            return self._known()
        try:
            if time.monotonic() >= self._refresh_at:
                self._refresh(self._source)
        finally:
            self._refreshing.release()
        return self._known()

    def _known(self) -> _Published:
        if self._published is None and self._failure is not None:
            # Raised many times, it would otherwise keep where it was raised each time.
            raise self._failure.with_traceback(None)
        return self._published or ()

    def _refresh(self, source: Source) -> None:
        try:
            answer = source.source_ips()
            try:
                self._published = _published(answer)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise ApiUnreachable("What answered for the source addresses is no Uplift Webhooks server.") from error
            self._refresh_at = time.monotonic() + self._refresh_seconds
        except ApiFailure as failure:
            # Requests must not queue up behind a server that is away, each to find that out anew.
            self._failure = failure
            self._refresh_at = time.monotonic() + min(_RETRY_SECONDS, self._refresh_seconds)


def _published(answer: Mapping[str, Any]) -> _Published:
    """What the API answered, read. Raises whatever that may raise."""
    found = [(ipaddress.ip_network(each, strict=False), 0.0) for each in answer["current"]]
    found += [
        (ipaddress.ip_network(each["address"], strict=False), _unix_seconds(each["from"]))
        for each in answer.get("upcoming", ())
    ]
    return tuple(found)


def _unix_seconds(text: str) -> float:
    # Python 3.10 reads every form of an offset but this one.
    instant = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return (instant if instant.tzinfo else instant.replace(tzinfo=timezone.utc)).timestamp()


def _plain(address: _Address) -> _Address:
    """The IPv4 address that an IPv6 one stands for, as sockets of both versions show it."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped
