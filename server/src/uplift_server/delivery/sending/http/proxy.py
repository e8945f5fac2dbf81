"""Egress proxy: opens CONNECT tunnels to allowed addresses. The proxy never receives host names."""

import asyncio
import base64
import re
import socket
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from uplift_server.core.http.exchange import Failure
from uplift_server.delivery.sending.http.failures import AttemptFailed, reason, socket_name

_RESPONSE_BYTES_MAX: Final = 16 * 1024
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: [^\r\n]*)?\r\n")
# With these status codes, a proxy reports an unreachable target. Squid and Envoy use 503.
_TARGET_UNREACHABLE: Final = (502, 503, 504)


@dataclass(frozen=True, slots=True)
class Proxy:
    """The address and the credentials of the egress proxy."""

    host: str
    port: int
    authorization: str | None

    @classmethod
    def parse(cls, url: str) -> "Proxy":
        """Parse `http://[user:password@]host[:port]`. Raises ValueError if the URL is not valid."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError("the egress proxy must have the form http://[user:password@]host[:port]")
        authorization = None
        if parts.username is not None:
            credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = "Basic " + base64.b64encode(credentials.encode()).decode("ascii")
        return cls(parts.hostname, parts.port or 80, authorization)

    async def tunnel(self, sock: socket.socket, address: str, port: int) -> None:
        """Open a tunnel to `address:port` over `sock`, which is connected to the proxy.

        Raises AttemptFailed. The failure is CONNECT if the proxy cannot reach the address, BLOCKED if the rules of the
        proxy do not allow the address, and EGRESS otherwise.
        """
        target = socket_name(address, port)
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if self.authorization is not None:
            lines.append(f"Proxy-Authorization: {self.authorization}")
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(sock, "\r\n".join([*lines, "", ""]).encode("ascii"))
            response = await _read_headers(loop, sock)
        except OSError as error:
            raise AttemptFailed(Failure.EGRESS, f"the egress proxy dropped the connection ({reason(error)})") from None
        match = _STATUS_LINE.match(response)
        if match is None or b"\r\n\r\n" not in response:
            raise AttemptFailed(Failure.EGRESS, "the egress proxy does not support HTTP/1.1")
        status = int(match[1])
        if status in _TARGET_UNREACHABLE:
            raise AttemptFailed(Failure.CONNECT, f"the egress proxy could not reach {target} (status {status})")
        if status == 407:
            raise AttemptFailed(Failure.EGRESS, "the egress proxy rejected the credentials (status 407)")
        if 400 <= status < 500:
            # The proxy's rules might never change, so this failure must count as a scheduled attempt.
            raise AttemptFailed(
                Failure.BLOCKED, f"the egress proxy does not allow a tunnel to {target} (status {status})"
            )
        if not 200 <= status < 300:
            raise AttemptFailed(Failure.EGRESS, f"the egress proxy rejected a tunnel to {target} (status {status})")
        if response.index(b"\r\n\r\n") + 4 < len(response):
            # The receiver cannot have sent these bytes: in TLS and HTTP, the client sends first.
            raise AttemptFailed(Failure.EGRESS, "the egress proxy sent bytes before the tunnel was used")


async def _read_headers(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> bytes:
    response = b""
    while b"\r\n\r\n" not in response and len(response) <= _RESPONSE_BYTES_MAX:
        data = await loop.sock_recv(sock, 4096)
        if not data:
            raise ConnectionResetError("unexpected end of the response")
        response += data
    return response
