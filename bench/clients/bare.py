"""A client that does not parse responses: the upper limit for Python, and the reference if `wrk` is not installed.

python -m bench.clients.bare PORT PATH CONNECTIONS SECS       prints one JSON line
"""

import asyncio
import json
import resource
import sys
import time
from typing import cast

import uvloop

from bench.clients.request import raw


class Connection(asyncio.Protocol):
    """A connection that sends the next request after each response."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.answers = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:  # noqa: ARG002
        """Send the next request. Small responses over loopback arrive in one piece."""
        self.answers += 1
        self.transport.write(self._request)


async def _main(port: int, path: str, connections: int, secs: float) -> None:
    loop = asyncio.get_running_loop()
    request = raw(port, path)
    made = [
        (await loop.create_connection(lambda: Connection(request), "127.0.0.1", port))[1] for _ in range(connections)
    ]
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    count = sum(connection.answers for connection in made)
    await asyncio.sleep(secs)
    count = sum(connection.answers for connection in made) - count
    after, elapsed = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - began
    for connection in made:
        connection.transport.abort()
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"requests": count, "secs": elapsed, "cpu_s": used}))


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
