"""The listener behind a proxy, including one that rejects connections."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trustme

from .relaying import Relay, listening, until


@asynccontextmanager
async def tunnelling(port: int, refusal: bytes = b"") -> AsyncIterator[tuple[int, list[str]]]:
    """Run a proxy that connects every host to a local port. Yield its port and requests."""
    asked: list[str] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        if refusal:
            writer.write(refusal)
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        await asyncio.gather(carry(reader, far_writer), carry(far_reader, writer))

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as proxy:
        yield proxy.sockets[0].getsockname()[1], asked


@pytest.mark.parametrize(
    ("scheme", "variable"), [("https", "HTTPS_PROXY"), ("http", "HTTP_PROXY"), ("http", "ALL_PROXY")]
)
async def test_it_listens_through_the_proxy_of_the_environment(
    scheme: str, variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("api.example").configure_cert(tls)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    async with (
        Relay([0, 1, 2]).serving(tls if scheme == "https" else None) as relay,
        tunnelling(relay.port) as (port, asked),
    ):
        monkeypatch.setenv(variable, f"http://user:p%40ss@127.0.0.1:{port}")
        relay.url = f"{scheme}://api.example"
        async with listening(relay) as (taken, told, _):
            await until(lambda: len(relay.answers) == 3)
            assert (taken.numbers, told.lines[0]) == ([0, 1, 2], "ready")
    [head] = asked
    assert head.startswith(f"CONNECT api.example:{443 if scheme == 'https' else 80} HTTP/1.1\r\n")
    assert f"proxy-authorization: basic {base64.b64encode(b'user:p@ss').decode()}".lower() in head.lower()
    assert "sk_1" not in head


async def test_this_machine_itself_is_not_behind_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with Relay([0]).serving() as relay, listening(relay) as (taken, _, _task):
        await until(lambda: taken.numbers == [0])


async def test_a_proxy_that_refuses_is_told_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with tunnelling(9, b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n") as (port, asked):
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        async with listening(Relay([0], url="http://api.example")) as (_, told, _task):
            await until(lambda: len(asked) > 1)
            assert told.reasons[0] == "proxy rejected connection: HTTP 403"
