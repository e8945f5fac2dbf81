"""The HTTP server and its listening socket."""

import contextlib
import socket
from collections.abc import Iterator
from typing import Any, Final, cast

import uvicorn

from uplift_server.api import websockets
from uplift_server.api.heads import BoundedHeads
from uplift_server.api.last_answer import LastAnswer
from uplift_server.config import Config, ConfigError, ConfigProblem

BACKLOG: Final = 65535
"""The length of the accept queue.

The operating system limits the length to `net.core.somaxconn` (4096 by default). If the queue is full, the client's
operating system retries the connection after 1 s and 3 s.
"""
ACCEPTS_PER_TURN: Final = 10
"""The maximum number of connections that the server accepts in one iteration of the event loop.

In each iteration, uvloop accepts one connection per listening socket, so the server uses this number of sockets. With a
single socket, clients of a busy server would wait seconds for their connections.
"""
KEEP_ALIVE_SECONDS: Final = 65
REQUESTS_FINISH_SECONDS: Final = 2


class HttpServer(uvicorn.Server):
    """uvicorn without its signal handlers, because the `serve` command handles signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do not install signal handlers."""
        yield


def http_server(app: Any, connections_max: int) -> HttpServer:
    """Create a server for an ASGI application.

    While more than 7/8 of `connections_max` connections are open, the server responds to every request with 503,
    except requests that check the server. It immediately closes connections beyond `connections_max`.
    """
    limits = {"connections_max": connections_max - connections_max // 8, "files_max": connections_max}
    return HttpServer(
        uvicorn.Config(
            LastAnswer(app),
            http=type("LimitedProtocol", (BoundedHeads,), limits),
            ws=cast(Any, websockets.websocket_protocol),
            ws_max_size=websockets.MESSAGE_BYTES_MAX,
            ws_ping_interval=websockets.PING_SECONDS,
            ws_ping_timeout=websockets.PING_SECONDS,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=REQUESTS_FINISH_SECONDS,
        )
    )


def listen(config: Config) -> socket.socket:
    """Listen on the configured address. Raises ConfigError if the address or the port is not available."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise ConfigError(
            ConfigProblem(
                "UPLIFT_HOST and UPLIFT_PORT",
                f"are {config.host}:{config.port}, but the server cannot listen on this address"
                f" ({error.strerror or error})",
                f"set UPLIFT_PORT to a free port, or stop the program that uses port {config.port}",
            )
        ) from error
    return listener


def duplicate_listener(listener: socket.socket) -> list[socket.socket]:
    """Return the listening socket and its duplicates: ACCEPTS_PER_TURN sockets in total.

    With duplicates, the server accepts several connections in each iteration of the event loop.
    """
    return [listener, *(listener.dup() for _ in range(ACCEPTS_PER_TURN - 1))]
