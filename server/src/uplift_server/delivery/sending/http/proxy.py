"""The operator's egress proxy: a CONNECT tunnel to an address that was vetted here, never to a name."""

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
# By these a proxy says that it works and the target does not; 503 is what Squid and Envoy say then.
_TARGET_UNREACHABLE: Final = (502, 503, 504)


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where the proxy listens, and what it wants to hear."""

    host: str
    port: int
    authorization: str | None

    @classmethod
    def parse(cls, url: str) -> "Proxy":
        """From `http://[user:password@]host[:port]`. Raises ValueError for anything else."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError("the egress proxy must be given as http://[user:password@]host[:port]")
        authorization = None
        if parts.username is not None:
            credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = "Basic " + base64.b64encode(credentials.encode()).decode("ascii")
        return cls(parts.hostname, parts.port or 80, authorization)

    async def tunnel(self, sock: socket.socket, address: str, port: int) -> None:
        """Make `sock`, connected to the proxy, a way to `address:port`.

        Raises AttemptFailed: CONNECT if the proxy says that it cannot reach the target, BLOCKED if its rules forbid it,
        EGRESS for all else.
        """
        target = socket_name(address, port)
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if self.authorization is not None:
            lines.append(f"Proxy-Authorization: {self.authorization}")
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(sock, "\r\n".join([*lines, "", ""]).encode("ascii"))
            answer = await _read_head(loop, sock)
        except OSError as error:
            raise AttemptFailed(Failure.EGRESS, f"the egress proxy broke the connection ({reason(error)})") from None
        match = _STATUS_LINE.match(answer)
        if match is None or b"\r\n\r\n" not in answer:
            raise AttemptFailed(Failure.EGRESS, "the egress proxy does not speak HTTP/1.1")
        status = int(match[1])
        if status in _TARGET_UNREACHABLE:
            raise AttemptFailed(Failure.CONNECT, f"the egress proxy could not reach {target} (status {status})")
        if status == 407:
            raise AttemptFailed(Failure.EGRESS, "the egress proxy refuses our credentials (status 407)")
        if 400 <= status < 500:
            # It will say so for as long as its rules stand, so the schedule has to end at some time.
            raise AttemptFailed(
                Failure.BLOCKED, f"the egress proxy does not allow a tunnel to {target} (status {status})"
            )
        if not 200 <= status < 300:
            raise AttemptFailed(Failure.EGRESS, f"the egress proxy refused a tunnel to {target} (status {status})")
        if answer.index(b"\r\n\r\n") + 4 < len(answer):
            # Neither TLS nor HTTP begins with the receiver.
            raise AttemptFailed(Failure.EGRESS, "the egress proxy sent bytes before the tunnel was used")


async def _read_head(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> bytes:
    answer = b""
    while b"\r\n\r\n" not in answer and len(answer) <= _RESPONSE_BYTES_MAX:
        data = await loop.sock_recv(sock, 4096)
        if not data:
            raise ConnectionResetError("end of file")
        answer += data
    return answer
