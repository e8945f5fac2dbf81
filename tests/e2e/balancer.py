"""A TCP load balancer that forwards connections only to ready servers, like a Kubernetes Service."""

import contextlib
import itertools
import socket
import threading
from collections import Counter
from contextlib import AbstractContextManager

import urllib3

from .harness import Server, wait_for

PROBE_S = 0.1
BLOCK_BYTES = 65_536


class Balancer(AbstractContextManager["Balancer"]):
    """Forwards each connection to the next ready server. The balancer closes at the end of its `with` block."""

    def __init__(self) -> None:
        self.forwarded: Counter[Server] = Counter()
        """The number of connections by server."""
        self._servers: list[Server] = []
        self._ready: list[Server] = []
        self._turn = itertools.count()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._probe, self._accept)]
        for thread in self._threads:
            thread.start()

    def add(self, server: Server) -> None:
        """Add a server, and wait until it gets connections."""
        with self._lock:
            self._servers.append(server)
        wait_for(lambda: self.forwarded[server] or server in self._ready, "the balancer uses the server")

    def remove(self, server: Server) -> None:
        """Forward no further connection to a server."""
        with self._lock:
            self._servers.remove(server)
            self._ready = [each for each in self._ready if each is not server]

    def __exit__(self, *failure: object) -> None:
        self._closing.set()
        # This connection wakes up the thread that waits in `accept`.
        with contextlib.suppress(OSError):
            socket.create_connection(self._listener.getsockname(), 1).close()
        for thread in self._threads:
            thread.join(5)
        self._listener.close()

    def _probe(self) -> None:
        while not self._closing.wait(PROBE_S):
            with self._lock:
                servers = list(self._servers)
            ready = [each for each in servers if _is_ready(each)]
            with self._lock:
                self._ready = [each for each in ready if each in self._servers]

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if self._closing.is_set():
                client.close()
                return
            threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        with self._lock:
            server = self._ready[next(self._turn) % len(self._ready)] if self._ready else None
            if server is not None:
                self.forwarded[server] += 1
        with client, contextlib.suppress(OSError):
            if server is None:
                return
            with socket.create_connection(("127.0.0.1", server.port), 5) as upstream:
                upstream.settimeout(30)
                client.settimeout(30)
                other = threading.Thread(target=_copy, args=(client, upstream), daemon=True)
                other.start()
                _copy(upstream, client)
                other.join(30)


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Copy bytes until the source ends, then end the stream to the target."""
    with contextlib.suppress(OSError):
        while block := source.recv(BLOCK_BYTES):
            target.sendall(block)
        target.shutdown(socket.SHUT_WR)


def _is_ready(server: Server) -> bool:
    try:
        return urllib3.request("GET", server.url + "/readyz", retries=False, timeout=5).status == 200
    except urllib3.exceptions.HTTPError:
        return False
