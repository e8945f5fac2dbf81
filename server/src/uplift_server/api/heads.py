"""Request limits that uvicorn lacks. No other module uses the private API of uvicorn's HTTP protocol."""

import asyncio
from http import HTTPStatus
from typing import Any, ClassVar, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from uplift_server.api.corking import CorkedTransport
from uplift_server.api.guard import ANSWER_SECONDS_MAX, Receive, Scope, Send, send_error
from uplift_server.api.problems import problem
from uplift_server.api.vital_signs import PATHS
from uplift_server.core.limits import (
    DISCARDED_BODY_BYTES_MAX,
    LINGER_SECONDS_MAX,
    LINGERING_CONNECTIONS_MAX,
    REQUEST_HEADERS_BYTES_MAX,
)


def _answer(code: str, detail: str) -> bytes:
    """Return an error response as bytes, for errors that occur before uvicorn has parsed a request."""
    error_response = problem(code, detail)
    lines = [
        f"HTTP/1.1 {error_response.status} {HTTPStatus(error_response.status).phrase}".encode(),
        *(b"%b: %b" % header for header in error_response.headers),
        b"content-length: %d" % len(error_response.body),
        b"connection: close",
    ]
    return b"\r\n".join([*lines, b"", error_response.body])


_TOO_LARGE: Final = _answer(
    "head_too_large",
    f"The request line and headers have more than {REQUEST_HEADERS_BYTES_MAX} bytes. Send fewer or shorter headers.",
)
_NO_HTTP_DETAIL: Final = "This is not a valid HTTP/1.1 request. Use `http://` unless a reverse proxy provides TLS."
_NO_HTTP: Final = _answer("malformed_request", _NO_HTTP_DETAIL)
_TOO_SLOW: Final = _answer(
    "request_timeout", "The request did not arrive in time. Send a smaller request, or use a faster connection."
)
_VITAL_SIGNS: Final = frozenset(path.encode() for path in PATHS)
_CLOSE: Final = ((b"connection", b"close"),)


async def _reject_crowded(_scope: Scope, _receive: Receive, send: Send) -> None:
    """ASGI application that rejects requests while more than `connections_max` connections are open."""
    detail = "The server has reached its limit of connections. Use fewer connections, and reuse them for requests."
    await send_error(send, problem("unavailable", detail, retry_after_s=1, headers=_CLOSE))


async def _reject_malformed(_scope: Scope, _receive: Receive, send: Send) -> None:
    """ASGI application that rejects a request that uvicorn cannot parse."""
    await send_error(send, problem("malformed_request", _NO_HTTP_DETAIL, headers=_CLOSE))


class BoundedHeads(HttpToolsProtocol):
    """uvicorn's protocol with limits on the size and duration of requests.

    If a response is complete before the whole request body has arrived, the protocol reads and discards the rest of the
    body, up to a limit. Therefore, a client that sends the whole request before it reads the response still receives
    the response.
    """

    request_seconds_max: ClassVar[float] = 30
    """Time limit for the arrival of a request, and for the wait for the first request, in seconds.

    If a request takes longer, the protocol closes the connection 1 to 2 times this duration after the request began.
    """
    body_seconds_max: ClassVar[float] = ANSWER_SECONDS_MAX
    """Time limit for the arrival of a request body, in seconds, counted from the end of the request headers."""
    connections_max: ClassVar[int] = 10_000
    """Maximum number of open connections at which the server handles requests.

    While more connections are open, the server rejects every request, except requests that check the server.
    """
    files_max: ClassVar[int] = 10_000
    """Maximum number of open connections. The protocol immediately closes additional connections."""
    lingering: ClassVar[set["BoundedHeads"]] = set()
    """The connections on which this process only reads and discards input, so that clients receive their responses."""

    _in_head = False
    _head_bytes = 0
    _begun = 0
    _complete = 0
    _watch: asyncio.TimerHandle
    _body_watch: asyncio.TimerHandle | None = None
    _body_of = 0
    """The number of the newest request whose body was still incomplete after its headers had arrived.

    The first request on this connection is number 1.
    """
    _body_since = 0.0
    _discards = False
    """Whether the protocol discards input, because the input is malformed or because the connection is lingering."""
    _discarded_bytes = 0
    _may_linger = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time limit for the first request.

        Close the connection if the server has more than `files_max` connections.
        """
        super().connection_made(cast(asyncio.Transport, CorkedTransport(transport, self.loop, self._linger)))
        # Use one timer per connection, because one timer per request would slow down every event.
        self._watch = self.loop.call_later(self.request_seconds_max, self._give_up, 0)
        if len(self.connections) > self.files_max:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the connection's time limits."""
        self._cancel_timers()
        self.lingering.discard(self)
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        """Switch the connection to the websocket protocol, which has its own time limits."""
        self._cancel_timers()
        self._may_linger = False
        super().handle_websocket_upgrade()

    def shutdown(self) -> None:
        """Shut down the connection. Abort a lingering connection, so that it does not delay the shutdown."""
        self._may_linger = False
        if self in self.lingering:
            self.transport.abort()
        else:
            super().shutdown()

    def data_received(self, data: bytes) -> None:
        """Parse received data. Reject or discard data beyond the limits for headers and bodies."""
        if self._discards:
            self._discard(len(data))
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > REQUEST_HEADERS_BYTES_MAX:
                # The rejection also drops the pending responses to earlier requests on this connection.
                self.transport.write(_TOO_LARGE)
                self.transport.close()
                return
        if not self.transport.is_closing():
            super().data_received(data)
            if self._complete < self._begun and not self._in_head:
                self._note_unfinished_body(len(data))

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - the text of uvicorn
        """Reject input that uvicorn cannot parse. First, respond to the complete requests that precede this input."""
        self._discards = True
        cycle = self._newest()
        if cycle is None or cycle.response_complete:
            self.transport.write(_NO_HTTP)
        elif self._in_head or self._complete == self._begun:
            # The newest request is complete. Close the connection after its response.
            cycle.keep_alive = False
            return
        elif self.pipeline:
            self.pipeline[0] = cycle, cast(Any, _reject_malformed)
            return
        elif not cycle.response_started:
            self.transport.write(_NO_HTTP)
        self.transport.close()

    def on_message_begin(self) -> None:
        """Record the start of a request. httptools calls this method at the first byte of a request line."""
        self._in_head = True
        self._head_bytes = 0
        self._begun += 1
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Record the end of the request headers.

        Reject the request if the server has more than `connections_max` connections, except for requests that check the
        server.
        """
        # Do not use uvicorn's own limit, because its responses are plain text without a Retry-After.
        crowded = len(self.connections) > self.connections_max and self.url.partition(b"?")[0] not in _VITAL_SIGNS
        self.app = cast(Any, _reject_crowded) if crowded else self.config.loaded_app
        super().on_headers_complete()
        # This line does not run if the headers are malformed, because uvicorn then raises an error above.
        self._in_head = False

    def on_message_complete(self) -> None:
        """Record the end of a request body. httptools calls this method."""
        self._complete = self._begun
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Send the buffered response, and discard the unread body of its request.

        Otherwise, an idle connection would keep the body in memory.
        """
        # Write now, because on a busy server the event loop's next iteration starts tens of milliseconds later.
        cast(CorkedTransport, self.transport).flush()
        cycle = self.cycle
        if cycle.response_complete and cycle.body:
            cycle.body = bytearray()
        super().on_response_complete()

    def _note_unfinished_body(self, count: int) -> None:
        """Start the time limit for a request body if the request headers are complete but the body is not.

        If the response is already complete when a later part arrives, count the bytes of this part as discarded.
        """
        if self._body_of != self._begun:
            self._body_of, self._body_since, self._discarded_bytes = self._begun, self.loop.time(), 0
            if self._body_watch is None:
                self._body_watch = self.loop.call_later(self.body_seconds_max, self._end_body)
        elif self.cycle.response_complete:
            self._discard(count)

    def _discard(self, count: int) -> None:
        self._discarded_bytes += count
        if self._discarded_bytes > DISCARDED_BODY_BYTES_MAX:
            self.transport.abort()

    def _end_body(self) -> None:
        """Close the connection if the current request's body has not arrived within the time limit."""
        self._body_watch = None
        if self._complete == self._begun or self._in_head:
            return
        if self.pipeline:
            # Restart the limit, because the server does not read the body until it has sent the earlier responses.
            self._body_since = self.loop.time()
        seconds_left = self._body_since + self.body_seconds_max - self.loop.time()
        if seconds_left > 0:
            self._body_watch = self.loop.call_later(seconds_left, self._end_body)
        else:
            self._end_late()

    def _give_up(self, begun_before: int) -> None:
        """Close the connection if its first request has not started, or if its newest request is late.

        A request is late if it has been incomplete since the last check.
        Otherwise, schedule the next check. `begun_before` is the number of requests that had started at the last check.
        """
        if self._begun == begun_before and self._complete < max(self._begun, 1):
            self._end_late()
        else:
            self._watch = self.loop.call_later(self.request_seconds_max, self._give_up, self._begun)

    def _end_late(self) -> None:
        """Close a connection whose request did not arrive in time.

        First send an error response, unless the client could mistake it for the response to another request.
        """
        if self._in_head:
            may_write = self._begun == 1 or self.cycle.response_complete
        else:
            may_write = self._begun > 0 and not self.pipeline and not self.cycle.response_started
        if may_write:
            self.transport.write(_TOO_SLOW)
        self.transport.close()

    def _linger(self) -> bool:
        """Close the sending side of the connection, then discard the client's remaining input up to a limit.

        If a server closes a connection with unread input, the system resets the connection, and the client can lose the
        response. Return True if the connection lingers. If lingering is not needed or not possible, do nothing and
        return False.
        """
        transport = self.transport
        if (
            not self._may_linger
            or (self._complete == self._begun and not self._discards)
            or transport.is_closing()
            or len(self.lingering) >= LINGERING_CONNECTIONS_MAX
        ):
            return False
        self._discards, self._may_linger, self._discarded_bytes = True, False, 0
        self.lingering.add(self)
        self._cancel_timers()
        self._watch = self.loop.call_later(LINGER_SECONDS_MAX, transport.abort)
        cast(CorkedTransport, transport).end_writing()
        # Report a disconnect, so that the application does not wait for the rest of the body.
        cycle = self._newest()
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        self.flow.resume_reading()
        return True

    def _newest(self) -> RequestResponseCycle | None:
        """Return the newest request whose headers are complete, if any."""
        return cast(RequestResponseCycle | None, self.cycle)

    def _cancel_timers(self) -> None:
        self._watch.cancel()
        if self._body_watch is not None:
            self._body_watch.cancel()
