"""The listener behind a proxy, including one that rejects connections."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme

from uplift_webhooks.api.connections import Proxy, proxy_to
from uplift_webhooks.cli.listening import stream

from .listen_harness import ListenServer, listening, wait_until


@asynccontextmanager
async def tunnel_proxy(port: int, rejection: bytes = b"") -> AsyncIterator[tuple[int, list[str]]]:
    """Run a proxy that connects every host to a local port. Yield its port and requests."""
    requests: list[str] = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
        writer.close()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
        if rejection:
            writer.write(rejection)
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as proxy:
        yield proxy.sockets[0].getsockname()[1], requests


@pytest.mark.parametrize(
    ("scheme", "variable"), [("https", "HTTPS_PROXY"), ("http", "HTTP_PROXY"), ("http", "ALL_PROXY")]
)
async def test_the_listener_uses_the_proxy_of_the_environment(
    scheme: str, variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("api.example").configure_cert(tls)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    async with (
        ListenServer([0, 1, 2]).serving(tls if scheme == "https" else None) as server,
        tunnel_proxy(server.port) as (port, requests),
    ):
        monkeypatch.setenv(variable, f"http://user:p%40ss@127.0.0.1:{port}")
        server.url = f"{scheme}://api.example"
        async with listening(server) as (local, progress, _):
            await wait_until(lambda: len(server.responses) == 3)
            assert (local.numbers, progress.lines[0]) == ([0, 1, 2], "ready")
    [head] = requests
    assert head.startswith(f"CONNECT api.example:{443 if scheme == 'https' else 80} HTTP/1.1\r\n")
    assert f"proxy-authorization: basic {base64.b64encode(b'user:p@ss').decode()}".lower() in head.lower()
    assert "sk_1" not in head


@pytest.mark.parametrize(
    ("before", "after", "credentials"),
    [
        ("user@", "", b"user:"),
        ("us%3Aer:p%2Fss@", "/path?query#fragment", b"us:er:p/ss"),
        ("us%FFer:@", "/", "us\ufffder:".encode()),
    ],
)
async def test_the_listener_accepts_the_same_proxies_as_other_commands(
    before: str, after: str, credentials: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ListenServer([0]).serving() as server, tunnel_proxy(server.port) as (port, requests):
        monkeypatch.setenv("HTTP_PROXY", f"http://{before}127.0.0.1:{port}{after}")
        server.url = "http://api.example"
        async with listening(server) as (local, _, _task):
            await wait_until(lambda: local.numbers == [0])
    assert base64.b64encode(credentials).decode() in requests[0]


async def test_the_proxys_url_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = Proxy("proxy.example", 80, "http://user:hidden@proxy.example/path", {})
    monkeypatch.setattr(stream, "proxy_to", lambda server: proxy)
    with pytest.raises(stream.Ended, match=r"^the proxy setting is not valid: path") as caught:
        await stream.open_stream(stream.Address("http://api.example", "lsn_1", {}), None, ping_seconds=1)
    assert "hidden" not in str(caught.value)


def test_the_proxys_url_can_contain_an_ipv6_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://[2001:db8::1]")
    proxy = proxy_to(urlsplit("http://api.example"))
    assert proxy is not None
    assert proxy.url == "http://[2001:db8::1]:80"


async def test_connections_to_this_machine_use_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with ListenServer([0]).serving() as server, listening(server) as (local, _, _task):
        await wait_until(lambda: local.numbers == [0])


async def test_a_proxy_rejection_is_reported_and_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    async with tunnel_proxy(9, b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n") as (port, requests):
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        async with listening(ListenServer([0], url="http://api.example")) as (_, progress, _task):
            await wait_until(lambda: len(requests) > 1)
            assert progress.reasons[0] == "proxy rejected connection: HTTP 403"
