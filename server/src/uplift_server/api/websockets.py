"""Websockets under uvicorn. The first websocket loads the library, because most servers never use one."""

import asyncio
from typing import Any, Final

MESSAGE_BYTES_MAX: Final = 64 * 1024
"""Limit of a message from a developer's machine."""
PING_SECONDS: Final = 20
"""Interval of pings, and the time limit of a pong. It detects clients that disappear, such as a sleeping laptop."""


def websocket_protocol(**wiring: Any) -> asyncio.Protocol:
    """Return the protocol for a connection that becomes a websocket."""
    from uplift_server.api.bounded_websocket import BoundedWebsocket  # noqa: PLC0415

    return BoundedWebsocket(**wiring)
