"""Bounds on websockets, which uvicorn does not have. All uses of its websocket protocol's private parts are here."""

from typing import Any, Final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

IDLE_FRAMES_MAX: Final = 200
IDLE_FRAMES_SECONDS: Final = 10.0
"""How many pings, pongs and continued frames one connection may send in that time: none of them costs its sender much,
and each takes time from everybody.
"""
FAREWELL_SECONDS: Final = 5.0
"""How long an ended connection may take to read what was written to it."""


class BoundedWebsocket(WebSocketsSansIOProtocol):
    """Limits frames that cost the sender nothing, and aborts connections that are not read."""

    idle_frames = 0
    idle_frames_since = 0.0

    def handle_ping(self) -> None:
        """Answer a ping, if it is not one too many."""
        if self._idle_frame():
            super().handle_ping()

    def handle_pong(self, event: Any) -> None:
        """Note the answer to our ping, if it is not one too many."""
        if self._idle_frame():
            super().handle_pong(event)

    def handle_cont(self, event: Any) -> None:
        """Take a part of a message, if it is not one too many."""
        if self._idle_frame():
            super().handle_cont(event)

    def _idle_frame(self) -> bool:
        """Whether one more is taken; otherwise the connection is over."""
        now = self.loop.time()
        if now >= self.idle_frames_since + IDLE_FRAMES_SECONDS:
            self.idle_frames, self.idle_frames_since = 0, now
        self.idle_frames += 1
        if self.idle_frames > IDLE_FRAMES_MAX:
            self.transport.abort()
            return False
        return True

    def keepalive_timeout(self) -> None:
        """The other end did not answer a ping."""
        super().keepalive_timeout()
        # Closing waits until all that was written is read.
        self.transport.abort()

    def shutdown(self) -> None:
        """Close, unless the handshake is still to be answered: whoever has it in hand does that, or is soon made to."""
        if self.handshake_complete or self.initial_response is not None:
            super().shutdown()

    async def run_asgi(self) -> None:
        """Serve the stream, then let go of the connection, read to its end or not."""
        await super().run_asgi()
        if not self.disconnected:
            self.loop.call_later(FAREWELL_SECONDS, self.transport.abort)

    async def send(self, message: Any) -> None:
        """Send what the application says."""
        if message["type"] == "websocket.close" and not self.writable.is_set():
            # Whoever reads nothing would not read a farewell either.
            self.transport.abort()
            return
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            # An answer in HTTP is an answer: otherwise an error would be logged.
            self.handshake_complete = True
