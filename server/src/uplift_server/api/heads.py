"""A bound on the heads of requests: uvicorn and its parser hold as many headers as a client cares to send."""

from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from uplift_server.core.limits import REQUEST_HEAD_BYTES_MAX

_REFUSAL: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class BoundedHeads(HttpToolsProtocol):
    """uvicorn's protocol, which ends a connection whose request head has no end in sight."""

    _in_head = False
    _head_bytes = 0

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > REQUEST_HEAD_BYTES_MAX:
                # An answer that is still being made to an earlier request of this connection is lost with it.
                self.transport.write(_REFUSAL)
                self.transport.close()
                return
        if not self.transport.is_closing():
            super().data_received(data)

    def on_message_begin(self) -> None:
        """See httptools: a request line is about to come."""
        self._in_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """See httptools: the head is complete."""
        self._in_head = False
        super().on_headers_complete()
