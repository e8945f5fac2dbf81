"""Websockets under uvicorn: loaded with the first one, since most servers have none and the library takes memory."""

import asyncio
from typing import Any, Final

MESSAGE_BYTES_MAX: Final = 64 * 1024
"""What a developer's machine sends is short."""
PING_SECONDS: Final = 20
"""After so long without an answer to a ping the other end is taken for gone, as a laptop that sleeps is."""


def websocket_protocol(**wiring: Any) -> asyncio.Protocol:
    """What uvicorn hands a connection over to that is to become a websocket."""
    from uplift_server.api.bounded_websocket import BoundedWebsocket  # noqa: PLC0415

    return BoundedWebsocket(**wiring)
