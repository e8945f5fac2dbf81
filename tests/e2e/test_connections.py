"""Time until a busy server accepts a connection."""

import asyncio
import socket
import time
from typing import Any

import uvloop

from uplift_server.app.http_server import ACCEPTS_PER_TURN, BACKLOG, duplicate_listener, http_server

CONNECTIONS = 10 * ACCEPTS_PER_TURN


async def _respond(_scope: Any, _receive: Any, _send: Any) -> None:
    raise AssertionError("no request was sent")


def test_a_busy_server_accepts_several_connections_per_loop_turn() -> None:
    """If each turn of 20 ms accepted one connection, a client would wait 20 ms for each earlier connection."""
    turns = uvloop.run(_turns_until_accepted())
    assert turns <= CONNECTIONS // ACCEPTS_PER_TURN + 10


async def _turns_until_accepted() -> int:
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    server = http_server(_respond, 2 * CONNECTIONS)
    serving = asyncio.create_task(server.serve(sockets=duplicate_listener(listener)))
    while not server.started:
        await asyncio.sleep(0.01)
    # The kernel completes these connections while the event loop is blocked.
    clients = [socket.create_connection(listener.getsockname()[:2]) for _ in range(CONNECTIONS)]
    time.sleep(0.05)
    turns = 0
    while len(server.server_state.connections) < CONNECTIONS:
        turns += 1
        await asyncio.sleep(0)
    for client in clients:
        client.close()
    server.should_exit = True
    await serving
    return turns
