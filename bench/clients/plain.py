"""A minimal receiver, so that a benchmark measures only the client.

The receiver does not parse requests. It responds when the received bytes end with the last bytes of the request in
`bench.clients.request`.

    python -m bench.clients.plain        prints its port, exits when standard input closes
"""

import asyncio
import sys
from typing import Final, cast

import uvloop

from bench.clients.request import END

# The response of a typical web server.
_ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Tue, 25 Nov 2025 12:00:00 GMT\r\nContent-Type: application/json\r\n"
    b'Content-Length: 11\r\nConnection: keep-alive\r\n\r\n{"ok":true}'
)


class Connection(asyncio.Protocol):
    """A connection that responds to each request."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Prepare the response."""
        self._write = cast("asyncio.Transport", transport).write

    def data_received(self, data: bytes) -> None:
        """Respond after a complete request."""
        if data.endswith(END):
            self._write(_ANSWER)


async def _main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    loop.add_reader(sys.stdin, ended.set)
    await ended.wait()


if __name__ == "__main__":
    uvloop.run(_main())
