"""How quickly a busy server accepts connections."""

import asyncio
import socket
import time
from typing import Any

import uvloop

from uplift_server.app.http_server import ACCEPTS_PER_TURN, BACKLOG, duplicates, http_server

CONNECTIONS = 10 * ACCEPTS_PER_TURN


async def _answer(_scope: Any, _receive: Any, _send: Any) -> None:
    raise AssertionError("no request was sent")


def test_a_busy_server_accepts_several_connections_in_a_turn_of_the_event_loop() -> None:
    """With one, clients of a server whose turns take 20 ms would wait 20 ms for each connection before theirs."""
    turns = uvloop.run(_turns_until_accepted())
    assert turns <= CONNECTIONS // ACCEPTS_PER_TURN + 10


async def _turns_until_accepted() -> int:
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    server = http_server(_answer, 2 * CONNECTIONS)
    serving = asyncio.create_task(server.serve(sockets=duplicates(listener)))
    while not server.started:
        await asyncio.sleep(0.01)
    # The system completes these while the event loop is busy.
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
