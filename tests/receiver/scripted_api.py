"""A server on a real socket that sends scripted responses and records requests."""

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Request:
    """A received request."""

    connection: int
    """Index of the connection, from 0."""
    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)


ScriptStep = bytes | Callable[[socket.socket], None]
"""Bytes to send on a kept connection, or a function that handles the connection before it is closed."""


def json_response(value: Any = None, status: int = 200, **headers: str) -> bytes:
    """Return a valid response with JSON."""
    content = b"" if value is None else json.dumps(value).encode()
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {each}" for name, each in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


def problem_response(status: int, code: str, detail: str = "No.", **more: Any) -> bytes:
    """Return a response with an RFC 9457 problem."""
    retry_after = more.pop("retry_after", None)
    headers = {"content_type": "application/problem+json"} | (
        {} if retry_after is None else {"retry_after": retry_after}
    )
    return json_response({"status": status, "code": code, "detail": detail, **more}, status, **headers)


def hang_up(_: socket.socket) -> None:
    """Close the connection without a response."""


class ScriptedApi:
    """Responds to requests with `script`, in order."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        """With `tls`, the server also accepts CONNECT requests, and responds in the tunnel itself, over TLS."""
        self.requests: list[Request] = []
        self.script: list[ScriptStep] = []
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._listen, daemon=True)]
        self._threads[0].start()
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def drop(self) -> None:
        """Close every connection, as a server does after its idle timeout."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop the server, and drop the open connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()
        for thread in self._threads:
            thread.join(5)

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                thread = threading.Thread(
                    target=self._serve, args=(connection, len(self._connections) - 1), daemon=True
                )
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.enter_context(connection)
            while (request := _read(connection, number)) is not None:
                self.requests.append(request)
                if request.method == "CONNECT" and self._tls is not None:
                    connection.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                    connection = self._tls.wrap_socket(connection, server_side=True)
                    stack.enter_context(connection)
                    continue
                step = self.script.pop(0)
                if not isinstance(step, bytes):
                    step(connection)
                    return
                connection.sendall(step)


def _read(connection: socket.socket, number: int) -> Request | None:
    """Return one request, or None if the client closed the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65_536)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(65_536)
    method, target, _ = first.split(" ")
    return Request(number, method, target, headers, body)


@contextlib.contextmanager
def scripted(*script: ScriptStep, tls: ssl.SSLContext | None = None) -> Iterator[ScriptedApi]:
    """Run a server until the end of the block."""
    server = ScriptedApi(tls)
    server.script = list(script)
    try:
        yield server
    finally:
        server.close()
