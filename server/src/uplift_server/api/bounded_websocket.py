"""Websocket limits that uvicorn lacks. No other module uses the private API of uvicorn's websocket protocol."""

from typing import Any, Final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

IDLE_FRAMES_MAX: Final = 200
IDLE_FRAMES_SECONDS: Final = 10.0
"""The period, in seconds, in which a client can send at most IDLE_FRAMES_MAX pings, pongs and continuation frames.

Such frames are cheap for the client, but use the server's CPU time.
"""
FAREWELL_SECONDS: Final = 5.0
"""How long, in seconds, the client may take to read the remaining data after the application has ended.

After this time, the server aborts the connection.
"""


class BoundedWebsocket(WebSocketsSansIOProtocol):
    """Websocket protocol that limits control frames and aborts connections whose clients do not read."""

    idle_frames = 0
    idle_frames_since = 0.0

    def handle_ping(self) -> None:
        """Respond to a ping, or abort the connection if the client has sent too many frames."""
        if self._idle_frame():
            super().handle_ping()

    def handle_pong(self, event: Any) -> None:
        """Record a pong, or abort the connection if the client has sent too many frames."""
        if self._idle_frame():
            super().handle_pong(event)

    def handle_cont(self, event: Any) -> None:
        """Accept a continuation frame, or abort the connection if the client has sent too many frames."""
        if self._idle_frame():
            super().handle_cont(event)

    def _idle_frame(self) -> bool:
        """Count a ping, pong or continuation frame, and return whether the count is within the limit.

        Abort the connection if the count exceeds the limit.
        """
        now = self.loop.time()
        if now >= self.idle_frames_since + IDLE_FRAMES_SECONDS:
            self.idle_frames, self.idle_frames_since = 0, now
        self.idle_frames += 1
        if self.idle_frames > IDLE_FRAMES_MAX:
            self.transport.abort()
            return False
        return True

    def keepalive_timeout(self) -> None:
        """Abort the connection, because the client did not respond to a ping in time."""
        super().keepalive_timeout()
        # Abort the connection, because a normal close waits until the client has read all data.
        self.transport.abort()

    def shutdown(self) -> None:
        """Close the connection. If the handshake is incomplete, let the application respond to the handshake first."""
        if self.handshake_complete or self.initial_response is not None:
            super().shutdown()

    async def run_asgi(self) -> None:
        """Run the application for this websocket. Abort the connection FAREWELL_SECONDS after the application ends."""
        await super().run_asgi()
        if not self.disconnected:
            self.loop.call_later(FAREWELL_SECONDS, self.transport.abort)

    async def send(self, message: Any) -> None:
        """Send a message from the application to the client."""
        if message["type"] == "websocket.close" and not self.writable.is_set():
            # The client does not read, so it would not read a close frame either.
            self.transport.abort()
            return
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            # Without this flag, uvicorn logs an error after an HTTP response to the handshake.
            self.handshake_complete = True
