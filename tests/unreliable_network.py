"""Networks between processes that can delay or lose bytes."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

CHUNK_BYTES = 65_536


class Link:
    """A connection through the network: the sockets to the client and to the server."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near = near
        self.far = far
        self.lost = False
        """Whether bytes are lost."""

    def reset(self) -> None:
        """Reset the connection at both ends."""
        for end in (self.near, self.far):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                # This wakes the readers, which close the sockets.
                end.shutdown(socket.SHUT_RDWR)


class UnreliableProxy:
    """Accepts TCP connections on `port` of 127.0.0.1, and forwards each to a connection that `connect` opens."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._flows = threading.Event()
        self._flows.set()
        self._losing = False
        self._links: set[Link] = set()
        threading.Thread(target=self._listen, daemon=True).start()

    def hold(self) -> None:
        """Delay all bytes from now on."""
        self._flows.clear()

    def lose(self) -> None:
        """Lose all bytes from now on."""
        self._losing = True
        for link in list(self._links):
            link.lost = True

    def restore(self, *, reset_lost: bool = True) -> None:
        """Restore the network. `reset_lost` resets connections that lost bytes, which would wait forever."""
        self._losing = False
        self._flows.set()
        for link in list(self._links):
            if link.lost and reset_lost:
                link.reset()

    def close(self) -> None:
        """Close all connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._flows.set()
        for link in list(self._links):
            link.reset()

    def _listen(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                far = self._connect()
            except OSError:
                near.close()
                continue
            link = Link(near, far)
            link.lost = self._losing
            self._links.add(link)
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._forward, args=(link, source, target), daemon=True).start()

    def _forward(self, link: Link, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                self._flows.wait()
                if not link.lost:
                    target.sendall(data)
        # The end of one direction ends both, because the servers do not support half-closed connections.
        self._flows.wait()
        if not link.lost:
            link.reset()
        with contextlib.suppress(OSError):
            source.close()
        self._links.discard(link)


class UnreliableNetwork(UnreliableProxy):
    """Forwards connections to the socket of a PostgreSQL server. `url` is a URL that leads through this network."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        [directory] = parse_qs(parts.query)["host"]
        path = str(Path(directory) / ".s.PGSQL.5432")

        def connect() -> socket.socket:
            far = socket.socket(socket.AF_UNIX)
            try:
                far.connect(path)
            except OSError:
                far.close()
                raise
            return far

        super().__init__(connect)
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}{parts.path}"
