"""A network between a process and its PostgreSQL server that can delay or lose bytes."""

import contextlib
import socket
import struct
import threading
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

CHUNK_BYTES = 65_536


class Link:
    """A connection through the network: the sockets to the process and to the database."""

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


class UnreliableNetwork:
    """Forwards TCP connections on 127.0.0.1 to the socket of a PostgreSQL server. `url` is the URL through it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        [directory] = parse_qs(parts.query)["host"]
        self._upstream = str(Path(directory) / ".s.PGSQL.5432")
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        port = self._listener.getsockname()[1]
        self.url = f"postgresql://postgres@127.0.0.1:{port}{parts.path}"
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
            far = socket.socket(socket.AF_UNIX)
            try:
                far.connect(self._upstream)
            except OSError:
                near.close()
                far.close()
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
        # The end of one direction ends both, because PostgreSQL does not support half-closed connections.
        self._flows.wait()
        if not link.lost:
            link.reset()
        with contextlib.suppress(OSError):
            source.close()
        self._links.discard(link)
