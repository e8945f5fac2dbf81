"""Time until a busy server accepts a connection."""

import asyncio
import socket
import time
from typing import Any

import uvloop

from uplift_server.app.http_server import ACCEPTS_PER_TURN, BACKLOG, duplicate_listener, http_server

CONNECTIONS = 10 * ACCEPTS_PER_TURN


def test_a_server_with_too_many_connections_still_responds_to_checks() -> None:
    """Otherwise, the orchestrator would kill a healthy server, and its clients would move to the next one."""
    statuses = uvloop.run(_statuses_while_crowded(["/healthz", "/readyz?verbose", "/metrics", "/v1/events"]))
    assert statuses == [204, 204, 204, 503]


async def _statuses_while_crowded(paths: list[str]) -> list[int]:
    async def respond(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    server = http_server(respond, 16)
    serving = asyncio.create_task(server.serve(sockets=duplicate_listener(listener)))
    while not server.started:
        await asyncio.sleep(0.01)
    address = listener.getsockname()[:2]
    idle = [await asyncio.open_connection(*address) for _ in range(14)]
    statuses = []
    for path in paths:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(f"GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode())
        statuses.append(int((await reader.read()).split()[1]))
        writer.close()
    for _, writer in idle:
        writer.close()
    server.should_exit = True
    await serving
    return statuses


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
