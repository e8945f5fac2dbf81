"""A fake HTTP API with scripted responses that records its requests."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class FakeApi:
    url: str = ""
    responses: dict[str, Any] = field(default_factory=dict)
    """Responses by method and path: an object, (status, object, headers) or `hang up`."""
    requests: list[Request] = field(default_factory=list)

    def respond(self, request: Request) -> Any:
        self.requests.append(request)
        problem = (404, {"code": "not_found", "detail": "There is nothing here."}, {})
        return self.responses.get(f"{request.method} {request.path}", problem)


@contextmanager
def fake_api() -> Iterator[FakeApi]:
    api = FakeApi()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length", 0)))
            parts = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(
                self.command, parts.path, dict(parse_qsl(parts.query)), headers, json.loads(raw) if raw else None
            )
            response = api.respond(request)
            if callable(response):
                response = response(request)
            if response == "hang up":
                self.close_connection = True
                return
            status, content, extra = response if isinstance(response, tuple) else (200, response, {})
            body = content if isinstance(content, bytes) else b"" if content is None else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"content-length": str(len(body)), **extra}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = do_DELETE = _handle

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    api.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
