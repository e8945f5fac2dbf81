"""Sends each response with one system call. Without this module, uvicorn writes the headers and the body separately.

At full load, one write took 7 µs of the 130 µs between an event's acceptance and its arrival at the receiver.
"""

import asyncio
from collections.abc import Callable
from typing import Any


class CorkedTransport:
    """Transport for uvicorn that joins all data written in one iteration of the event loop, or before a `flush`.

    When uvicorn closes the connection after the last response, the transport calls `linger`. If `linger` returns True,
    `linger` later closes the connection.
    """

    __slots__ = ("_call_soon", "_linger", "_parts", "_transport", "is_closing")

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, linger: Callable[[], bool]
    ) -> None:
        self._transport = transport
        self._call_soon = loop.call_soon
        self._linger = linger
        self._parts: list[bytes] = []
        # A direct reference is faster, and uvicorn calls this method for each request.
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Keep the data until the current iteration of the event loop ends."""
        if not self._parts:
            self._call_soon(self.flush)
        self._parts.append(data)

    def close(self) -> None:
        """Write the joined data, then close the connection or let it linger."""
        self.flush()
        if not self._linger():
            self._transport.close()

    def end_writing(self) -> None:
        """Send the end of the stream, but continue to read. Drop later writes."""
        self.is_closing = _is_closing
        self._transport.write_eof()

    def flush(self) -> None:
        """Write the joined data to the connection."""
        if self._parts:
            data = b"".join(self._parts)
            self._parts.clear()
            # If the client has disconnected in the meantime, the closed transport would raise an error.
            if not self.is_closing():
                self._transport.write(data)


def _is_closing() -> bool:
    return True
