"""Bounds on requests that never end: uvicorn waits for ever, and holds as many headers as a client cares to send."""

import asyncio
from http import HTTPStatus
from typing import Any, ClassVar, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from uplift_server.api.guard import Receive, Scope, Send, answer
from uplift_server.api.problems import problem
from uplift_server.core.limits import REQUEST_HEAD_BYTES_MAX


def _answer(code: str, detail: str) -> bytes:
    """A refusal as it stands on the wire: there is no request yet that an application could answer."""
    refusal = problem(code, detail)
    lines = [
        f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}".encode(),
        *(b"%b: %b" % header for header in refusal.headers),
        b"content-length: %d" % len(refusal.body),
        b"connection: close",
    ]
    return b"\r\n".join([*lines, b"", refusal.body])


_TOO_LARGE: Final = _answer(
    "head_too_large", f"The request line and headers have more than {REQUEST_HEAD_BYTES_MAX} bytes. Send fewer headers."
)
_NO_HTTP: Final = _answer(
    "malformed_request",
    "What came is no valid HTTP/1.1 request. TLS, if you meant to speak it, ends before this server.",
)
_TOO_SLOW: Final = _answer(
    "request_timeout", "The request did not come in time, so nothing was done. Send it faster, or less at once."
)


async def _crowded(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Stands in for the application while there are more connections than it takes."""
    detail = "The server has as many connections as it takes. Use fewer, and keep them open between requests."
    await answer(send, problem("unavailable", detail, retry_after_s=1, headers=[(b"connection", b"close")]))


class BoundedHeads(HttpToolsProtocol):
    """uvicorn's protocol, which ends a connection whose request head, or whose request, has no end in sight."""

    request_seconds_max: ClassVar[float] = 30
    """A request, or a connection's first, that is not complete after once to twice this time is given up."""
    connections_max: ClassVar[int] = 10_000
    """Beyond, requests are refused."""

    _in_head = False
    _head_bytes = 0
    _begun = 0
    _complete = 0
    _watch: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol."""
        super().connection_made(transport)
        # One timer a connection, not one a request: that would cost every event.
        self._watch = self.loop.call_later(self.request_seconds_max, self._give_up, 0)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._watch.cancel()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        """See uvicorn: from now on the connection is a websocket's, which has its own bounds."""
        self._watch.cancel()
        super().handle_websocket_upgrade()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > REQUEST_HEAD_BYTES_MAX:
                # An answer that is still being made to an earlier request of this connection is lost with it.
                self.transport.write(_TOO_LARGE)
                self.transport.close()
                return
        if not self.transport.is_closing():
            super().data_received(data)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - the text of uvicorn
        """See uvicorn, which answers plain text: what cannot be read is refused like everything else."""
        self.transport.write(_NO_HTTP)
        self.transport.close()

    def on_message_begin(self) -> None:
        """See httptools: a request line is about to come."""
        self._in_head = True
        self._head_bytes = 0
        self._begun += 1
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """See httptools: the head is complete."""
        self._in_head = False
        # uvicorn's own bound answers plain text, without a Retry-After.
        crowded = len(self.connections) > self.connections_max
        self.app = cast(Any, _crowded) if crowded else self.config.loaded_app
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """See httptools: the body is complete."""
        self._complete = self._begun
        super().on_message_complete()

    def _give_up(self, begun_before: int) -> None:
        """Close the connection if the request that was coming then still is, or none ever came."""
        if self._begun == begun_before and self._complete < max(self._begun, 1):
            if self._may_be_told():
                self.transport.write(_TOO_SLOW)
            self.transport.close()
        else:
            self._watch = self.loop.call_later(self.request_seconds_max, self._give_up, self._begun)

    def _may_be_told(self) -> bool:
        """Whether a request has begun, and no answer to it or to one before it is on its way."""
        if self._in_head:
            return self._begun == 1 or self.cycle.response_complete
        return self._begun > 0 and not self.pipeline and not self.cycle.response_started
