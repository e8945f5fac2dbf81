"""HTTP connections to one server, with keep-alive, TLS and the proxy from the environment."""

import base64
import http.client
import io
import os
import selectors
import socket
import ssl
import threading
import time
import urllib.request
import weakref
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from functools import partial
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import SplitResult, quote, unquote, urlsplit

from uplift_webhooks.api.failures import ApiMisaddressed, ApiUnreachable

IDLE_MAX: Final = 8
"""Maximum number of idle connections that a Connections object keeps open."""
RESPONSE_BYTES_MAX: Final = 16 * 1024 * 1024
"""Maximum size of a response body, in bytes. The largest response, a page of 500 complete events, is smaller."""
_PIECE_BYTES: Final = 65_536
_LOST: Final = (http.client.RemoteDisconnected, ConnectionResetError, ConnectionAbortedError, BrokenPipeError)
"""Errors that occur if the server has closed an idle connection."""
_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"})
"""OpenSSL errors that occur when the server responds in plain HTTP."""


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """A complete response from the API."""

    status: int
    headers: Message
    content: bytes = field(repr=False)


class Connections:
    """Connections to one server. Thread-safe: each connection serves one exchange at a time.

    A forked process opens its own connections.
    """

    def __init__(
        self, url: str, timeout_seconds: float, *, called: str = "The API URL", use_proxy: bool = True
    ) -> None:
        """Parse the server's URL and find the proxy (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`).

        `called` is the name of the URL in error messages. Without `use_proxy`, connections are direct.

        Raises:
            ValueError: `url` is not an HTTP or HTTPS URL, `url` contains a user name, a password, a query or a
                fragment, or the proxy's URL is not an HTTP URL. The message does not contain the URLs, because they may
                contain a password.
        """
        url = without_version(url)
        parts = _split(url, called)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"{called} must start with https:// or http:// and include a host.")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError(f"{called} must not contain a user name, a password, a query or a fragment.")
        self.url: Final = url
        self._host: Final = parts.hostname
        self._port: Final = parts.port or (443 if parts.scheme == "https" else 80)
        self._timeout_seconds: Final = timeout_seconds
        self._tls: Final = ssl.create_default_context() if parts.scheme == "https" else None
        self._proxy: Final = proxy_to(parts) if use_proxy else None
        # A proxy needs absolute URLs, except in a tunnel.
        self._prefix: Final = self.url if self._proxy and self._tls is None else parts.path.rstrip("/")
        self._idle: Final[list[http.client.HTTPConnection]] = []
        self._lock = threading.Lock()
        _all.add(self)

    def exchange(self, method: str, target: str, content: bytes | None, headers: dict[str, str]) -> ApiResponse:
        """Send one request and return the complete response, within one time limit.

        If the server has closed an idle connection, a new connection replaces it.

        Raises:
            ApiUnreachable: there was no complete response.
            ApiMisaddressed: the URL starts with https://, but the server does not use TLS.
        """
        ends_at = time.monotonic() + self._timeout_seconds
        while True:
            connection = self._take()
            reused = connection.sock is not None
            try:
                answer = self._exchange(connection, method, target, content, headers, ends_at)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if reused and isinstance(error, _LOST):
                    continue
                if isinstance(error, ssl.SSLError) and error.reason in _NO_TLS:
                    raise ApiMisaddressed(f"{self.url} does not use TLS. Use http:// for this port.") from error
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                raise ApiUnreachable(f"The request to {self.url} failed: {reason}.") from error
            except BaseException:
                connection.close()
                raise
            self._keep(connection)
            return answer

    def close(self) -> None:
        """Close the idle connections, but not the connections in use."""
        with self._lock:
            idle, self._idle[:] = self._idle[:], []
        for connection in idle:
            connection.close()

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        target: str,
        content: bytes | None,
        headers: dict[str, str],
        ends_at: float,
    ) -> ApiResponse:
        sent = headers if self._tls is not None or self._proxy is None else {**headers, **self._proxy.headers}
        # `http.client` also uses this class for a proxy's response to CONNECT.
        connection.response_class = partial(_Response, ends_at)  # type: ignore[assignment]
        if connection.sock is None:
            connection.timeout = _left(ends_at)
            connection.connect()
        connection.sock.settimeout(_left(ends_at))
        connection.request(method, self._prefix + target, content, sent)
        pieces: list[bytes] = []
        left = RESPONSE_BYTES_MAX
        with connection.getresponse() as response:
            while piece := response.read1(_PIECE_BYTES):
                pieces.append(piece)
                left -= len(piece)
                if left < 0:
                    raise OSError(f"the response is larger than {RESPONSE_BYTES_MAX} bytes")
            # `read1` raises no error if the server closes the connection early.
            if response.length:
                raise http.client.IncompleteRead(b"", response.length)
        return ApiResponse(response.status, response.headers, b"".join(pieces))

    def _take(self) -> http.client.HTTPConnection:
        """Return an idle connection that is still open, or a new one that connects on first use."""
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return self._new()
            if not _has_ended(connection.sock):
                return connection
            connection.close()

    def _keep(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if connection.sock is not None and len(self._idle) < IDLE_MAX:
                self._idle.append(connection)
                return
        connection.close()

    def _new(self) -> http.client.HTTPConnection:
        host, port = (self._host, self._port) if self._proxy is None else (self._proxy.host, self._proxy.port)
        if self._tls is None:
            return http.client.HTTPConnection(host, port, timeout=self._timeout_seconds)
        connection = http.client.HTTPSConnection(host, port, timeout=self._timeout_seconds, context=self._tls)
        if self._proxy is not None:
            connection.set_tunnel(self._host, self._port, self._proxy.headers)
        return connection


class _Response(http.client.HTTPResponse):
    """A response with one time limit for status, headers, body and trailers."""

    def __init__(self, ends_at: float, sock: socket.socket, *, method: str | None = None) -> None:
        super().__init__(sock, method=method)
        self.fp: io.BufferedReader = io.BufferedReader(_Hurried(self.fp.detach(), sock, ends_at))


class _Hurried(io.RawIOBase):
    """Reads from a socket, with one time limit for all reads.

    The timeout of the socket itself would restart whenever data arrives.
    """

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, ends_at: float) -> None:
        self._raw = raw
        self._socket = sock
        self._ends_at = ends_at
        self._came = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        try:
            self._socket.settimeout(_left(self._ends_at))
            count = self._raw.readinto(buffer)
        except TimeoutError as error:
            raise TimeoutError("the response took too long" if self._came else "timed out") from error
        self._came = True
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


def _left(ends_at: float) -> float:
    """Return the seconds that are left until `ends_at` (monotonic). Raises TimeoutError if none are left."""
    seconds = ends_at - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("timed out")
    return seconds


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy for requests to the API."""

    host: str
    port: int
    url: str = field(repr=False)
    """The URL of the proxy: only the scheme, the user name, the password, the host and the port."""
    headers: dict[str, str] = field(repr=False)
    """Headers for requests to the proxy. They may contain the proxy's password."""


def proxy_to(server: SplitResult) -> Proxy | None:
    """Return the proxy that the environment variables set for a server, or None for a direct connection.

    Raises ValueError if the URL of the proxy is not valid."""
    host = server.hostname or ""
    proxies = urllib.request.getproxies()
    address = proxies.get(server.scheme) or proxies.get("all")
    if (
        not address
        or _is_loopback(host)
        or urllib.request.proxy_bypass(f"{host}:{server.port}" if server.port else host)
    ):
        return None
    parts = _split(address if "://" in address else f"http://{address}", "The proxy URL")
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError("The proxy URL in the environment must start with http:// and include a host.")
    port = parts.port or 80
    netloc = f"[{parts.hostname}]:{port}" if ":" in parts.hostname else f"{parts.hostname}:{port}"
    headers = {}
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        netloc = f"{quote(credentials, safe=':')}@{netloc}"
        headers["proxy-authorization"] = f"Basic {base64.b64encode(credentials.encode()).decode()}"
    return Proxy(parts.hostname, port, f"http://{netloc}", headers)


def without_version(url: str) -> str:
    """Return a URL without a `/v1` at its end. The paths of all calls already start with `/v1`."""
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def _split(url: str, what: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
        # Connections encode the host, which fails if a label is empty or has more than 63 characters.
        (parts.hostname or "").encode("idna")
    except ValueError:
        raise ValueError(f"{what} is not a valid URL.") from None
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise ValueError(f"{what} must be printable ASCII without spaces.")
    return parts


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


def _has_ended(kept: socket.socket) -> bool:
    """Return whether the server has closed an idle connection or sent unexpected data."""
    with selectors.DefaultSelector() as selector:
        selector.register(kept, selectors.EVENT_READ)
        return bool(selector.select(0))


def _begin_in_child() -> None:
    # The parent process keeps its connections, and another of its threads can hold the lock. Closing the copies of the
    # sockets sends nothing to the server, not even over TLS.
    for each in list(_all):
        each._lock = threading.Lock()  # noqa: SLF001 - same module
        each.close()


_all: Final["weakref.WeakSet[Connections]"] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):  # pragma: no branch - not on Windows
    os.register_at_fork(after_in_child=_begin_in_child)
