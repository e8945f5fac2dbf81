"""Sends each response with one system call. Without this module, uvicorn writes the headers and the body separately.

At full load, one write took 7 µs of the 130 µs between an event's acceptance and its arrival at the receiver.
"""

import asyncio
from collections.abc import Callable
from typing import Any


class CorkedTransport:
    """Transport for uvicorn that buffers all written data, so that a response needs only one system call.

    The transport sends the buffered data at the end of each event loop iteration, or when `flush` is called.

    When uvicorn closes the connection, the transport calls the callback `linger`. If the callback returns True, the
    transport leaves the connection open, and the owner of the callback closes the connection later.
    """

    __slots__ = ("_call_soon", "_linger", "_parts", "_transport", "is_closing")

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, linger: Callable[[], bool]
    ) -> None:
        self._transport = transport
        self._call_soon = loop.call_soon
        self._linger = linger
        self._parts: list[bytes] = []
        # A direct reference is faster than `__getattr__`, and uvicorn calls this method for each request.
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Buffer the data until the end of the current event loop iteration, or until the next `flush`."""
        if not self._parts:
            self._call_soon(self.flush)
        self._parts.append(data)

    def close(self) -> None:
        """Send the buffered data. Then close the connection, unless `linger` returns True."""
        self.flush()
        if not self._linger():
            self._transport.close()

    def end_writing(self) -> None:
        """Close the sending side of the connection, but continue to read from the client.

        Discard data from later writes.
        """
        self.is_closing = _is_closing
        self._transport.write_eof()

    def flush(self) -> None:
        """Send the buffered data to the client."""
        if self._parts:
            data = b"".join(self._parts)
            self._parts.clear()
            # If the client has disconnected in the meantime, the closed transport would raise an error.
            if not self.is_closing():
                self._transport.write(data)


def _is_closing() -> bool:
    return True
