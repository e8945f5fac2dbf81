"""The websocket protocol for uvicorn.

The server imports the protocol when the first websocket connection arrives, because most servers receive no websocket
connections.
"""

import asyncio
from typing import Any, Final

MESSAGE_BYTES_MAX: Final = 64 * 1024
"""Maximum size of a message from a developer's machine, in bytes."""
PING_SECONDS: Final = 20
"""Interval between pings, and time limit for each pong, in seconds.

Pings detect clients that disappear, such as a sleeping laptop.
"""


def websocket_protocol(**wiring: Any) -> asyncio.Protocol:
    """Return the protocol for a connection that becomes a websocket."""
    from uplift_server.api.bounded_websocket import BoundedWebsocket  # noqa: PLC0415

    return BoundedWebsocket(**wiring)
