"""A connection to a receiver: writes a request, and reads the response.

httptools parses the response. In addition, this module skips interim responses, and limits the size of the response
headers. If a response does not state the length of its body, the end of the connection marks the end of the body. After
unexpected bytes, the module closes the connection. The module defines no parser callback for headers, because a
callback would cost two allocations and a call for each header.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from uplift_server.core.http.exchange import Exchange, Failure
from uplift_server.core.limits import (
    RESPONSE_BODY_BYTES_READ_MAX,
    RESPONSE_HEADERS_BYTES_MAX,
    RESPONSE_HEADERS_BYTES_STORED_MAX,
)
from uplift_server.delivery.sending.http.attempt import Attempt, Opening
from uplift_server.delivery.sending.http.failures import one_line, reason
from uplift_server.delivery.sending.http.response import (
    RESPONSE_WIRE_BYTES_MAX,
    ends_with_connection,
    final_head,
    location,
    retry_after,
    status_of,
)
from uplift_server.delivery.sending.http.tls import error_text
from uplift_server.delivery.targets import Target

# Join small byte strings, because this costs less than passing two buffers to the kernel.
_JOINED_BYTES_MAX = 64 * 1024
_READ_BYTES_MAX = 64 * 1024
_HEAD_TOO_LONG = f"its headers are longer than {RESPONSE_HEADERS_BYTES_MAX} bytes"


class ConnectionOwner(Protocol):
    """The interface through which a connection reports to its client."""

    def opened(self, connection: "Connection") -> None:
        """Track an open connection."""

    def finished(self, connection: "Connection", attempt: Attempt, exchange: Exchange, now: float) -> None:
        """Finish an attempt, and reuse its connection if the connection is open."""

    def stale(self, attempt: Attempt) -> None:
        """Retry an attempt, because its reused connection ended before the first byte of the response."""

    def ended(self, connection: "Connection") -> None:
        """Stop using a connection that is closing or already closed."""

    def lost(self, connection: "Connection") -> None:
        """Stop tracking a connection whose socket is closed."""


class Connection(asyncio.Protocol):
    """A connection to a receiver, with the current attempt and its response.

    `retire_at` and `idle_since` are in monotonic seconds.
    """

    __slots__ = (
        "_attempt",
        "_body",
        "_body_bytes",
        "_body_bytes_max",
        "_complete",
        "_first_byte_at",
        "_interim",
        "_keep",
        "_monotonic",
        "_owner",
        "_parser",
        "_raw",
        "_reused",
        "_status",
        "_transport",
        "_wire_bytes",
        "idle_since",
        "is_open",
        "opening",
        "retire_at",
        "target",
    )

    _transport: asyncio.Transport

    def __init__(
        self, owner: ConnectionOwner, target: Target, opening: Opening, retire_at: float, monotonic: Callable[[], float]
    ) -> None:
        self.target = target
        self.opening = opening
        self.retire_at = retire_at
        self.idle_since = 0.0
        self.is_open = False
        self._owner = owner
        self._monotonic = monotonic
        # Use one parser for all responses: llhttp resets after each message. Incomplete responses end the connection.
        self._parser: httptools.HttpResponseParser | None = None
        self._attempt: Attempt | None = None
        self._reused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpResponseParser(self)
        self.is_open = True
        self._owner.opened(self)

    # Requests and responses

    def start(self, attempt: Attempt, *, reused: bool) -> None:
        """Write the request of an attempt, and read its response."""
        self._attempt = attempt
        self._reused = reused
        self._raw = b""
        self._interim = 0
        self._status = 0
        self._keep = False
        self._body = b""
        self._body_bytes = 0
        self._body_bytes_max = attempt.request.response_bytes_max
        self._wire_bytes = 0
        self._complete = False
        attempt.repeated = attempt.bytes_sent
        attempt.bytes_sent = True
        request = attempt.request
        if len(request.body) <= _JOINED_BYTES_MAX:
            self._transport.write(request.head + request.body)
        else:
            self._transport.writelines((request.head, request.body))

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        if self._attempt is None or parser is None:
            # Abort the connection, because unexpected bytes would become the response to the next request.
            self.abort()
            return
        if not self._raw:
            self._raw = data
            self._first_byte_at = self._monotonic()
        elif self._status == 0:
            self._raw += data
        self._wire_bytes += len(data)
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._complete:
                # If a callback below raised an exception, it is the context of the parser's exception.
                self._fail(Failure.PROTOCOL, f"the response is not valid HTTP/1.1: {error.__context__ or error}")
                return
            self._keep = False
        if self._complete:
            self._finish()
        elif self._status == 0:
            if len(self._raw) > RESPONSE_HEADERS_BYTES_MAX:
                self._fail(Failure.PROTOCOL, f"the response is not valid HTTP/1.1: {_HEAD_TOO_LONG}")
        elif self._body_bytes > RESPONSE_BODY_BYTES_READ_MAX or self._wire_bytes > RESPONSE_WIRE_BYTES_MAX:
            self._keep = False
            self._finish()

    def on_message_begin(self) -> None:
        """Parser callback: if another message follows the response, do not reuse the connection."""
        if self._complete:
            self._keep = False

    def on_headers_complete(self) -> None:
        """Parser callback: read the status. The parser also calls this for interim responses."""
        parser = self._parser
        if self._complete or parser is None:
            return
        status = parser.get_status_code()
        if status < 200:
            if status < 100 or status == 101:
                raise ValueError(f"unexpected status code {status}")
            self._interim += 1
            return
        if len(self._raw) > RESPONSE_HEADERS_BYTES_MAX < len(final_head(self._raw, self._interim)):
            raise ValueError(_HEAD_TOO_LONG)
        self._status = status
        # Read this value now, because the parser resets it when the message is complete.
        self._keep = parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        """Parser callback: store a part of the decoded body."""
        if self._complete:
            return
        if self._body_bytes < self._body_bytes_max:
            self._body += data
        self._body_bytes += len(data)

    def on_message_complete(self) -> None:
        """Parser callback: complete the response. The parser also calls this for interim responses."""
        if self._status:
            self._complete = True

    def eof_received(self) -> None:
        # End the attempt now. By default, the transport would first write the rest of the request.
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)
        self._parser = None  # breaks the reference cycle
        self._owner.lost(self)

    # Endings

    def fail(self, failure: Failure, text: str) -> None:
        """Fail the attempt in flight, and close the connection."""
        if self._attempt is not None:
            self._fail(failure, text)

    def retire(self) -> None:
        """Close an idle connection cleanly."""
        if self.is_open:
            self.is_open = False
            self._transport.close()
            self._owner.ended(self)

    def abort(self) -> None:
        """Close the connection immediately in any state, even during a TLS shutdown."""
        was_open, self.is_open = self.is_open, False
        self._transport.abort()
        if was_open:
            self._owner.ended(self)

    def encryption(self) -> ssl.SSLObject | None:
        """Return the TLS object of an encrypted connection, or None."""
        return cast("ssl.SSLObject | None", self._transport.get_extra_info("ssl_object"))

    def stage(self) -> str:
        """Return the stage of the attempt in flight, as text for the attempt's error."""
        if self._status:
            return "receiving the response body"
        return "receiving the response headers" if self._raw else "waiting for the response"

    def _end(self, error: Exception | None) -> None:
        attempt = self._attempt
        if attempt is None:
            self.abort()
            return
        if not self._raw and self._reused and not attempt.retried:
            self._attempt = None
            self.abort()
            self._owner.stale(attempt)
        elif error is None and self._status and ends_with_connection(final_head(self._raw, self._interim)):
            self._complete = True
            self._keep = False
            self._finish()
        elif isinstance(error, ssl.SSLError):
            self._fail(Failure.TLS, f"the TLS connection failed: {error_text(error)}")
        else:
            how = "closed the connection" if error is None else "dropped the connection"
            when = "in the middle of the response" if self._raw else "without responding"
            why = f" ({reason(error)})" if isinstance(error, OSError) else ""
            self._fail(Failure.PROTOCOL, f"the receiver {how} {when}{why}")

    def _finish(self) -> None:
        head = final_head(self._raw, self._interim)
        if not head.startswith(b"HTTP/1."):
            self._fail(Failure.PROTOCOL, "the response is not valid HTTP/1.1: it does not begin with HTTP/1")
        else:
            self._report(head, None, None)

    def _fail(self, failure: Failure, text: str) -> None:
        self._keep = False
        self._report(final_head(self._raw, self._interim), failure, one_line(text))

    def _report(self, head: bytes, failure: Failure | None, error: str | None) -> None:
        attempt = self._attempt
        assert attempt is not None
        self._attempt = None
        now = self._monotonic()
        # Do not reuse a connection that has not written its whole request.
        if not self._keep or self._transport.get_write_buffer_size():
            self.abort()
        status = self._status or status_of(head)
        body = self._body
        opening = self.opening
        reused = self._reused
        started = attempt.started
        unusual = status is None or status >= 300
        self._owner.finished(
            self,
            attempt,
            Exchange(
                attempt.started_at,
                int((now - started) * 1e6),
                status,
                failure,
                error,
                opening.remote_address,
                None if reused else opening.dns_ms,
                None if reused else opening.connect_ms,
                None if reused else opening.tls_ms,
                int((self._first_byte_at - started) * 1e3) if self._raw else None,
                head[:RESPONSE_HEADERS_BYTES_STORED_MAX],
                body[: self._body_bytes_max],
                self._body_bytes > self._body_bytes_max or (failure is None and not self._complete),
                retry_after(head) if unusual else None,
                location(head) if unusual else None,
                attempt.bytes_sent,
                reused,
            ),
            now,
        )


class BufferedConnection(Connection, asyncio.BufferedProtocol):
    """A connection for the standard library's event loop. It reads into a buffer that all connections share.

    The loop's `recv` of 256 KiB may map and unmap memory on every read, which doubles the cost of a request
    (python/cpython#85451). uvloop does not need this class.
    """

    __slots__ = ()

    # The loop runs no other code between get_buffer and buffer_updated, so all connections can share the buffer.
    _shared = memoryview(bytearray(_READ_BYTES_MAX))

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return self._shared

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._shared[:nbytes]))
