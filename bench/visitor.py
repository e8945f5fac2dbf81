"""A dashboard user without a browser: signs in as an operator, and loads pages."""

import http.client
import re
import time
from typing import Final
from urllib.parse import urlencode

from bench.server import KEY, Server, ServerFailed

_TOKEN: Final = re.compile(r'name="csrf" value="([^"]*)"')


class Visitor:
    """A keep-alive connection with cookies."""

    def __init__(self, server: Server) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        self._cookies: dict[str, str] = {}
        token = _TOKEN.search(self.load("/sign-in/operator")[1])
        assert token is not None, "the page has no form"
        self._ask("POST", "/sign-in/operator", urlencode({"csrf": token[1], "key": KEY}))
        if "uplift_session" not in self._cookies:
            raise ServerFailed("the dashboard rejected the operator's sign-in")

    @property
    def cookie(self) -> str:
        """The `cookie` header."""
        return "; ".join(f"{name}={value}" for name, value in self._cookies.items())

    def load(self, path: str) -> tuple[float, str]:
        """Return the time to a page's first byte in ms, and the page."""
        return self._ask("GET", path, None)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _ask(self, method: str, path: str, body: str | None) -> tuple[float, str]:
        headers = {"accept": "text/html", "cookie": self.cookie}
        if body is not None:
            headers["content-type"] = "application/x-www-form-urlencoded"
        began = time.perf_counter()
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        first_byte_ms = (time.perf_counter() - began) * 1000
        text = answer.read().decode()
        for cookie in answer.headers.get_all("set-cookie") or []:
            name, _, value = cookie.partition(";")[0].partition("=")
            self._cookies[name] = value
        if answer.status not in {200, 303}:
            raise ServerFailed(f"{method} {path} returned {answer.status}: {text[:300]}")
        return first_byte_ms, text
