"""HTTP client for the local server. It uses one connection and sends one request at a time."""

import asyncio
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Final

from uplift_webhooks.cli.listening.frames import RESPONSE_BODY_BYTES_MAX, LocalResponse
from uplift_webhooks.cli.listening.target import Target
from uplift_webhooks.cli.listening.waits import within

HEAD_BYTES_MAX: Final = 64 * 1024
BODY_BYTES_MAX: Final = 4 * 1024 * 1024
"""Maximum number of response body bytes to read. If a body is larger, the client closes the connection."""
CONNECT_SECONDS: Final = 5.0


class NothingListens(Exception):
    """The connection failed before the client sent anything. The message states the cause."""


class ConnectionLost(Exception):
    """The connection ended without a response, but the event may have arrived. The message states the cause."""


class _NoHttp(Exception):
    """The client cannot read the response as HTTP. The message states the cause."""


class LocalServer:
    """The local server and the connection to it. Only one task may use this object."""

    def __init__(self, target: Target, *, timeout_seconds: float) -> None:
        self.target = target
        self._timeout_seconds = timeout_seconds
        self._stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._used = False

    async def listens(self) -> bool:
        """Return whether the server is currently reachable."""
        try:
            await self.connect()
        except NothingListens:
            return False
        return True

    async def post(self, headers: Mapping[str, str], body: bytes) -> LocalResponse:
        """Send a request. After a timeout or an invalid response, return a response that contains an error.

        Raises NothingListens if the local server is not reachable. Raises ConnectionLost if the connection ended
        without a response, or was reused and got an invalid response. The caller can then repeat the request.
        """
        began = time.monotonic()
        await self.connect()
        try:
            answer, kept = await within(self._timeout_seconds, self._exchange(headers, body))
        except (asyncio.TimeoutError, _NoHttp) as error:
            cut = self._used and isinstance(error, _NoHttp)
            self.close()
            if cut:
                # The input may be the rest of an earlier response that was longer than its Content-Length.
                raise ConnectionLost(str(error)) from error
            late = f"no response within {self._timeout_seconds:g} seconds"
            return LocalResponse(None, _since(began), str(error) if isinstance(error, _NoHttp) else late)
        except (OSError, EOFError) as error:
            self.close()
            raise ConnectionLost(_reason(error)) from error
        except BaseException:
            self.close()
            raise
        self._used = True
        if not kept:
            self.close()
        return LocalResponse(answer.status_code, _since(began), body=answer.body)

    async def connect(self) -> None:
        """Open a connection if there is none. Raises NothingListens if the local server is not reachable."""
        if self._stream is not None and not self._stream[0].at_eof() and not self._stream[1].is_closing():
            return
        self.close()
        try:
            await within(CONNECT_SECONDS, self._open())
        except asyncio.TimeoutError as error:
            raise NothingListens(f"no connection within {CONNECT_SECONDS:g} seconds") from error
        except OSError as error:
            raise NothingListens(_reason(error)) from error

    def close(self) -> None:
        """Close the connection."""
        if self._stream is not None:
            self._stream[1].transport.abort()
            self._stream = None
        self._used = False

    async def _open(self) -> None:
        target = self.target
        self._stream = await asyncio.open_connection(
            target.host, target.port, ssl=_context(target), limit=HEAD_BYTES_MAX
        )

    async def _exchange(self, headers: Mapping[str, str], body: bytes) -> tuple[LocalResponse, bool]:
        """Send the request. Return the response, and whether the connection can be reused."""
        assert self._stream is not None, "the caller has called connect"
        reader, writer = self._stream
        lines = [f"POST {self.target.path} HTTP/1.1", f"host: {self.target.authority}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"content-length: {len(body)}", "", ""]
        writer.write("\r\n".join(lines).encode("latin-1") + body)
        await writer.drain()
        status = 100
        while status < 200:
            version, status, fields = await _head(reader)
            if status == 101:
                raise _NoHttp("the local server responded with 101, which changes the protocol")
        content, ended = await _body(reader, status, fields)
        tokens = fields.get("connection", "" if version == "HTTP/1.1" else "close").lower()
        text = content[:RESPONSE_BODY_BYTES_MAX].decode("utf-8", "replace")
        return LocalResponse(status, 0, body=text), ended and "close" not in tokens


async def _head(reader: asyncio.StreamReader) -> tuple[str, int, dict[str, str]]:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise _NoHttp(f"the response headers are longer than {HEAD_BYTES_MAX} bytes") from None
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            raise
        raise _NoHttp("the response ended before the end of its headers, or is not HTTP") from error
    first, *rest = head.decode("latin-1").split("\r\n")
    version, _, remainder = first.partition(" ")
    code = remainder.partition(" ")[0]
    if version not in {"HTTP/1.1", "HTTP/1.0"} or len(code) != 3 or not code.isdecimal() or code < "100":
        raise _NoHttp("the response is not HTTP/1.0 or HTTP/1.1")
    fields: dict[str, str] = {}
    for line in filter(None, rest):
        name, _, value = line.partition(":")
        fields[name.strip().lower()] = value.strip()
    return version, int(code), fields


async def _body(reader: asyncio.StreamReader, status: int, fields: Mapping[str, str]) -> tuple[bytes, bool]:
    """Return the received part of a body, and whether the connection can be reused."""
    length = fields.get("content-length")
    if status in {204, 304}:
        return b"", length in {None, "0"}
    try:
        if "chunked" in fields.get("transfer-encoding", "").lower():
            return await _chunks(reader)
        if length is None:
            return await _to_the_end(reader)
        if not length.isdecimal():
            raise _NoHttp("the content-length of the response is not a number")
        size = min(int(length), BODY_BYTES_MAX)
        return await reader.readexactly(size), size == int(length)
    except asyncio.IncompleteReadError as error:
        raise _NoHttp("the response ended before the end of its body") from error
    except asyncio.LimitOverrunError as error:
        raise _NoHttp("a line of the response body is too long") from error


async def _to_the_end(reader: asyncio.StreamReader) -> tuple[bytes, bool]:
    found = b""
    while len(found) < BODY_BYTES_MAX and (more := await reader.read(65_536)):
        found += more
    return found, False


async def _chunks(reader: asyncio.StreamReader) -> tuple[bytes, bool]:
    found = b""
    while len(found) < BODY_BYTES_MAX:
        try:
            size = int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16)
        except ValueError:
            raise _NoHttp("a chunk of the response has no size") from None
        if size == 0:
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass
            return found, True
        if size < 0:
            raise _NoHttp("a chunk of the response has no size")
        found += await reader.readexactly(min(size, BODY_BYTES_MAX))
        if size > BODY_BYTES_MAX or await reader.readexactly(2) != b"\r\n":
            break
    return found, False


def _context(target: Target) -> ssl.SSLContext | None:
    if target.scheme == "http":
        return None
    context = ssl.create_default_context()
    if target.local:
        # Development certificates are self-signed, and the connection stays on this machine.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _reason(error: BaseException) -> str:
    """Return the operating system's message for an error."""
    if isinstance(error, EOFError):
        return "the connection was closed"
    if isinstance(error, socket.gaierror):
        return "no such host"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    # If a host has several addresses, asyncio combines their errors into one.
    return "connection refused" if "Multiple exceptions" in text or isinstance(error, ConnectionRefusedError) else text


def _since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)
