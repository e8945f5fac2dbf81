"""A server for test pages with the Content-Security-Policy of the dashboard."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

VENDORED = Path(__file__).parents[2] / "server/src/uplift_server/dashboard/static/vendor"
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'"


@dataclass
class PageServer:
    """Serves HTML by path."""

    pages: dict[str, str] = field(default_factory=dict)
    url: str = ""

    def set_page(self, body: str, head: str = "", path: str = "/") -> None:
        """Set a page."""
        self.pages[path] = (
            f"<!doctype html><html lang=en><head><title>A page</title><link rel=icon href=/vendor/icon>{head}</head>"
            f"<body><main><h1>A page</h1>{body}</main></body></html>"
        )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, page_server: PageServer, *connection: object) -> None:
        self._page_server = page_server
        super().__init__(*connection)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        if self.path in self._page_server.pages:
            self._respond(200, "text/html; charset=utf-8", self._page_server.pages[self.path].encode())
        elif self.path == "/vendor/icon":
            self._respond(200, "image/svg+xml", b'<svg xmlns="http://www.w3.org/2000/svg"/>')
        elif self.path.startswith("/vendor/"):
            self._respond(200, "text/javascript", (VENDORED / self.path.removeprefix("/vendor/")).read_bytes())
        else:
            self._respond(404, "text/plain", b"not here")

    def _respond(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.send_header("content-security-policy", POLICY)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def serving_pages() -> Iterator[PageServer]:
    """Serve pages until the block ends."""
    page_server = PageServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, page_server))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    page_server.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield page_server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
