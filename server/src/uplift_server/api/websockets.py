"""Websockets under uvicorn: loaded with the first one, since most servers have none and the library takes memory."""

import asyncio
from functools import cache
from typing import Any, Final

MESSAGE_BYTES_MAX: Final = 64 * 1024
"""What a developer's machine sends is short."""
PING_SECONDS: Final = 20
"""After so long without an answer to a ping the other end is taken for gone, as a laptop that sleeps is."""


def websocket_protocol(**wiring: Any) -> asyncio.Protocol:
    """What uvicorn hands a connection over to that is to become a websocket."""
    made: asyncio.Protocol = _protocol()(**wiring)
    return made


@cache
def _protocol() -> Any:
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol  # noqa: PLC0415

    class Protocol(WebSocketsSansIOProtocol):
        """Takes an answer in HTTP for an answer, where uvicorn 0.54 logs an error."""

        async def send(self, message: Any) -> None:
            await super().send(message)
            if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
                self.handshake_complete = True

    return Protocol
