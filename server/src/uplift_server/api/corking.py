"""One system call an answer: uvicorn writes an answer's head and body apart, and each write is a call of its own.

Counted at full load: three writes an event before, two since; one takes 7 µs of the 130 an event takes from acceptance
to its receiver, and a caller is woken once instead of twice.
"""

import asyncio
from typing import Any, cast

from uplift_server.api.heads import BoundedHeads


class CorkedProtocol(BoundedHeads):
    """uvicorn's protocol over a transport that gathers what is written within one turn of the event loop."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol."""
        super().connection_made(cast(asyncio.Transport, _Corked(transport, self.loop)))


class _Corked:
    """The part of a transport that uvicorn uses; what is not defined here is the transport's own."""

    __slots__ = ("_call_soon", "_parts", "_transport", "is_closing")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._call_soon = loop.call_soon
        self._parts: list[bytes] = []
        # Asked for every request.
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts:
            data = b"".join(self._parts)
            self._parts.clear()
            self._transport.write(data)
