"""Opens connections: resolves a name, checks its addresses, and connects to an allowed address.

The socket connects to the address that was checked. There is no second DNS lookup, which could return another address.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from typing import Final
from weakref import WeakValueDictionary

from uplift_server.core.http.addresses import HTTPS_REQUIRED, AddressPolicy, describe, describe_resolved, parse_literal
from uplift_server.core.http.exchange import Failure
from uplift_server.core.limits import CLIENT_TLS_CONTEXTS_MAX
from uplift_server.delivery.sending.http.attempt import Opening
from uplift_server.delivery.sending.http.connection import Connection
from uplift_server.delivery.sending.http.failures import (
    OUT_OF_FILES,
    OWN_ERRNOS,
    AttemptFailed,
    FilesExhausted,
    reason,
    seconds,
    socket_name,
)
from uplift_server.delivery.sending.http.proxy import Proxy
from uplift_server.delivery.sending.http.resolver import ResolutionFailed, Resolver
from uplift_server.delivery.sending.http.settings import SenderSettings
from uplift_server.delivery.sending.http.tls import TlsContext, error_text, explain
from uplift_server.delivery.targets import ClientIdentity, Target

# With more addresses, too little of the connect timeout would remain for each.
_ADDRESSES_TRIED_MAX: Final = 6
_TLS_CLOSE_SECONDS: Final = 1.0
# From linux/in.h. Without this option, all connections from a bound source address share its 28,000 local ports.
_IP_BIND_ADDRESS_NO_PORT: Final = 24

ConnectionFactory = Callable[[Target, Opening], Connection]


class Connector:
    """Opens connections to the targets of requests, directly or through the egress proxy."""

    def __init__(
        self,
        settings: SenderSettings,
        policy: AddressPolicy,
        resolver: Resolver,
        create_connection: ConnectionFactory,
        monotonic: Callable[[], float],
    ) -> None:
        """Create a connector.

        Raises ValueError if the egress proxy or an egress address is not valid, and OSError if `ca_file` cannot be
        read.
        """
        self._settings = settings
        self._policy = policy
        self._resolver = resolver
        self._create_connection = create_connection
        self._monotonic = monotonic
        self._proxy = Proxy.parse(settings.egress_proxy) if settings.egress_proxy else None
        self._proxy_responded_at = 0.0
        self._sources = {_family(address): address for address in settings.egress_addresses}
        self._tls = TlsContext.create(settings.ca_file, monotonic)
        # TLS contexts by client identity, the least recently used first.
        self._identified: dict[ClientIdentity, TlsContext] = {}
        # Use one lock per account, so that an account with many certificates does not delay other accounts.
        self._identifying: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()

    async def open(self, target: Target, opening: Opening) -> Connection:
        """Open a connection to `target`, and record the progress in `opening`. Raises AttemptFailed."""
        addresses = await self._resolve_allowed(target, opening)
        before = self._monotonic()
        until = before + self._settings.connect_timeout_ms / 1000
        if self._proxy is None:
            sock = await self._connect_to_first(addresses, target.port, opening, until)
        else:
            sock = await self._connect_through(self._proxy, addresses, target.port, opening, until)
        connected = self._monotonic()
        opening.connect_ms = _ms(connected - before)
        if not target.encrypted:
            return await self._start_plain(sock, target, opening)
        connection = await self._start_encrypted(sock, target, opening, until)
        opening.tls_ms = _ms(self._monotonic() - connected)
        return connection

    def remember_session(self, connection: Connection) -> None:
        """Store the TLS session of a connection for later connections.

        The connection must have received its first response.
        """
        target, encrypted = connection.target, connection.encryption()
        tls = self._tls if target.identity is None else self._identified.get(target.identity)
        if encrypted is not None and tls is not None:
            tls.remember(_certificate_name(target.host), encrypted)

    async def _tls_of(self, target: Target) -> TlsContext:
        """Return the TLS context of a target. Raises AttemptFailed.

        A new context is created on a thread, because its creation takes about 20 ms.
        """
        identity = target.identity
        if identity is None:
            return self._tls
        found = self._identified.pop(identity, None)
        if found is None:
            async with self._identifying.setdefault(target.account, asyncio.Lock()):
                found = self._identified.pop(identity, None) or await self._identify(identity)
        self._identified[identity] = found
        if len(self._identified) > CLIENT_TLS_CONTEXTS_MAX:
            del self._identified[next(iter(self._identified))]
        return found

    async def _identify(self, identity: ClientIdentity) -> TlsContext:
        try:
            return await asyncio.to_thread(TlsContext.create, self._settings.ca_file, self._monotonic, identity)
        except ssl.SSLError as error:
            raise AttemptFailed(Failure.TLS, f"the client certificate is not usable: {error_text(error)}") from None

    async def _resolve_allowed(self, target: Target, opening: Opening) -> list[str]:
        host = target.host
        try:
            literal = parse_literal(host)
        except ValueError as error:
            raise AttemptFailed(Failure.DNS, f"{host} is not a valid address: {error}") from None
        if literal is not None:
            found: tuple[str, ...] = (literal,)
        else:
            opening.stage = f"resolving {host}"
            before = self._monotonic()
            try:
                found = await self._resolver.resolve(host)
            except ResolutionFailed as error:
                if error.out_of_files:
                    raise FilesExhausted(f"could not look up {host}") from None
                raise AttemptFailed(Failure.DNS, error.text) from None
            finally:
                opening.dns_ms = _ms(self._monotonic() - before)
        allowed = [address for address in found if self._policy.check(address, encrypted=target.encrypted) is None]
        if not allowed:
            raise AttemptFailed(Failure.BLOCKED, self._blocked_text(target, found, literal=literal is not None))
        return allowed

    def _blocked_text(self, target: Target, addresses: tuple[str, ...], *, literal: bool) -> str:
        words = describe if literal else describe_resolved
        kinds = " and ".join(dict.fromkeys(words(address) for address in addresses[:_ADDRESSES_TRIED_MAX]))
        text = f"connections to {target.host} are not allowed: {kinds}"
        codes = [self._policy.check(address, encrypted=target.encrypted) for address in addresses]
        if HTTPS_REQUIRED in codes:
            return f"{text}. http is allowed for private addresses only; use https"
        return text

    async def _connect_to_first(self, addresses: list[str], port: int, opening: Opening, until: float) -> socket.socket:
        """Connect to the first address that accepts the connection.

        The timeout for each address is an equal share of the remaining time.
        """
        # Skip addresses of a family without an egress IP, because their failure is not the receiver's fault.
        usable = [address for address in addresses if not self._sources or _family(address) in self._sources]
        if not usable:
            kind = "IPv6" if ":" in addresses[0] else "IPv4"
            raise AttemptFailed(Failure.BLOCKED, f"there is no egress IP for {kind}")
        usable = usable[:_ADDRESSES_TRIED_MAX]
        last: AttemptFailed | None = None
        for position, address in enumerate(usable):
            opening.remote_address = name = socket_name(address, port)
            opening.stage = f"connecting to {name}"
            share = (until - self._monotonic()) / (len(usable) - position)
            try:
                async with asyncio.timeout(share):
                    return await self._connect(address, port)
            except TimeoutError:
                limit = seconds(self._settings.connect_timeout_ms)
                last = AttemptFailed(Failure.TIMEOUT, f"{name} did not accept a connection within {limit}")
            except OSError as error:
                if error.errno in OUT_OF_FILES:
                    raise FilesExhausted(f"could not connect to {name}") from None
                own_fault = error.errno in OWN_ERRNOS
                text = f"could not connect to {name}: {reason(error)}"
                last = AttemptFailed(Failure.EGRESS if own_fault else Failure.CONNECT, text)
            except AttemptFailed as failed:
                last = failed
        assert last is not None
        raise last

    async def _connect(self, address: str, port: int) -> socket.socket:
        family = _family(address)
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            if self._sources:
                self._bind(sock, family)
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
        except BaseException:
            sock.close()
            raise
        return sock

    def _bind(self, sock: socket.socket, family: socket.AddressFamily) -> None:
        source = self._sources[family]
        try:
            sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        except OSError as error:
            if error.errno not in (errno.ENOPROTOOPT, errno.EINVAL):
                raise
        try:
            sock.bind((source, 0))
        except OSError as error:
            text = f"could not send from the egress IP {source}: {reason(error)}"
            raise AttemptFailed(Failure.EGRESS, text) from None

    async def _connect_through(
        self, proxy: Proxy, addresses: list[str], port: int, opening: Opening, until: float
    ) -> socket.socket:
        addresses = addresses[:_ADDRESSES_TRIED_MAX]
        last: AttemptFailed | None = None
        for position, address in enumerate(addresses):
            name = socket_name(address, port)
            before = self._monotonic()
            share = (until - before) / (len(addresses) - position)
            try:
                async with asyncio.timeout(share):
                    sock = await self._reach_proxy(proxy, opening, before + share)
                    opening.remote_address = name
                    opening.stage = f"waiting for the egress proxy to reach {name}"
                    try:
                        await proxy.tunnel(sock, address, port)
                    except BaseException:
                        sock.close()
                        raise
                self._proxy_responded_at = self._monotonic()
                return sock
            except TimeoutError:
                # If the proxy responded to another attempt in the meantime, the receiver caused the timeout.
                failure = Failure.TIMEOUT if self._proxy_responded_at > before else Failure.EGRESS
                limit = seconds(self._settings.connect_timeout_ms)
                last = AttemptFailed(failure, f"the egress proxy did not open a tunnel to {name} within {limit}")
            except AttemptFailed as failed:
                if failed.failure is not Failure.CONNECT:
                    raise
                self._proxy_responded_at = self._monotonic()
                last = failed
        assert last is not None
        raise last

    async def _reach_proxy(self, proxy: Proxy, opening: Opening, until: float) -> socket.socket:
        opening.stage = "connecting to the egress proxy"
        try:
            literal = parse_literal(proxy.host)
            found = list(await self._resolver.resolve(proxy.host)) if literal is None else [literal]
            return await self._connect_to_first(found, proxy.port, Opening(), until)
        except FilesExhausted:
            raise
        except (ResolutionFailed, ValueError, AttemptFailed) as error:
            raise AttemptFailed(Failure.EGRESS, f"the egress proxy failed: {error}") from None

    async def _start_plain(self, sock: socket.socket, target: Target, opening: Opening) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(lambda: self._create_connection(target, opening), sock=sock)
        except OSError as error:
            sock.close()
            text = f"{opening.remote_address} closed the connection immediately: {reason(error)}"
            raise AttemptFailed(Failure.CONNECT, text) from None
        return connection

    async def _start_encrypted(self, sock: socket.socket, target: Target, opening: Opening, until: float) -> Connection:
        opening.stage = f"in the TLS handshake with {opening.remote_address}"
        loop = asyncio.get_running_loop()
        try:
            tls = await self._tls_of(target)
        except BaseException:
            sock.close()
            raise
        try:
            async with asyncio.timeout(until - self._monotonic()):
                _, connection = await loop.create_connection(
                    lambda: self._create_connection(target, opening),
                    sock=sock,
                    ssl=tls,
                    server_hostname=_certificate_name(target.host),
                    ssl_shutdown_timeout=_TLS_CLOSE_SECONDS,
                )
        except TimeoutError:
            limit = seconds(self._settings.connect_timeout_ms)
            text = f"the TLS handshake with {opening.remote_address} took longer than the {limit} allowed to connect"
            raise AttemptFailed(Failure.TIMEOUT, text) from None
        except OSError as error:
            tls.remove(_certificate_name(target.host))
            raise AttemptFailed(Failure.TLS, explain(error, target.host)) from None
        return connection


def _certificate_name(host: str) -> str:
    return parse_literal(host) or host.removesuffix(".")


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _ms(duration: float) -> int:
    return int(duration * 1000)
