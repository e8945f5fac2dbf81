"""TLS: certificates are verified for the host name at every address, and every failure has an error text."""

import asyncio
import datetime
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from uplift_server.core.http.addresses import AddressPolicy
from uplift_server.core.http.exchange import Failure
from uplift_server.delivery.sending.http import Resolver, Sender, SenderSettings, Target

from .scripted import Client, Clock, Connect, Listen, NameServer, Peer, serve_ok

HOST = "hooks.example.com"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@pytest.fixture
async def tls_client(connect: Connect, names: NameServer, ca_file: str) -> Client:
    names.zone[HOST] = ["127.0.0.1"]
    return await connect(ca_file=ca_file, nameservers=[names.address])


async def test_a_valid_certificate_is_accepted(listen: Listen, tls_client: Client, authority: trustme.CA) -> None:
    server_names = []
    context = server_context(authority.issue_cert(HOST))
    context.sni_callback = lambda _socket, name, _context: server_names.append(name)
    receiver = await listen(serve_ok, tls=context)
    first = await tls_client.post(receiver.target(HOST, encrypted=True))
    second = await tls_client.post(receiver.target(HOST, encrypted=True), b"x" * 300_000)
    assert (first.failure, first.response_body) == (None, b"ok")
    assert isinstance(first.tls_ms, int)
    assert isinstance(first.dns_ms, int)
    assert (second.failure, second.reused, second.tls_ms) == (None, True, None)
    assert first.remote_address == f"127.0.0.1:{receiver.port}"
    assert server_names == [HOST]


async def test_an_address_in_the_certificate_is_accepted(
    listen: Listen, tls_client: Client, authority: trustme.CA
) -> None:
    receiver = await listen(serve_ok, tls=server_context(authority.issue_cert("127.0.0.1")))
    assert (await tls_client.post(receiver.target("127.0.0.1", encrypted=True))).failure is None


async def test_without_a_file_the_authorities_of_the_system_are_trusted(
    listen: Listen, connect: Connect, authority: trustme.CA, ca_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", ca_file)
    client = await connect(ca_file=None)
    receiver = await listen(serve_ok, tls=server_context(authority.issue_cert("127.0.0.1")))
    assert (await client.post(receiver.target("127.0.0.1", encrypted=True))).failure is None


@pytest.mark.parametrize("host", ["::1", "[::1]", "localhost."])
async def test_brackets_and_trailing_dots_are_not_part_of_the_name(
    listen: Listen, tls_client: Client, authority: trustme.CA, host: str
) -> None:
    certificate = authority.issue_cert("::1", "localhost")
    receiver = await listen(serve_ok, "127.0.0.1" if "l" in host else "::1", tls=server_context(certificate))
    assert (await tls_client.post(receiver.target(host, encrypted=True))).failure is None


async def test_a_response_over_many_records_is_read(listen: Listen, tls_client: Client, authority: trustme.CA) -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n", *[b"x" * 100] * 600)

    receiver = await listen(script, tls=server_context(authority.issue_cert(HOST)))
    for _ in range(2):
        exchange = await tls_client.post(receiver.target(HOST, encrypted=True))
        assert (exchange.failure, len(exchange.response_body), exchange.body_truncated) == (None, 4096, True)
    assert receiver.accepted == 1


async def test_an_endless_encrypted_body_is_truncated(
    listen: Listen, tls_client: Client, authority: trustme.CA
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while not peer.writer.is_closing():
            await peer.send(b"x" * 65536)

    receiver = await listen(script, tls=server_context(authority.issue_cert(HOST)))
    exchange = await tls_client.post(receiver.target(HOST, encrypted=True))
    assert (exchange.failure, exchange.body_truncated) == (None, True)


async def test_a_stale_encrypted_connection_is_retried(
    listen: Listen, tls_client: Client, authority: trustme.CA
) -> None:
    async def script(peer: Peer) -> None:
        await peer.respond()
        if receiver.accepted == 1:
            await peer.request()
            peer.reset()
        await peer.wait_closed()

    receiver = await listen(script, tls=server_context(authority.issue_cert(HOST)))
    await tls_client.post(receiver.target(HOST, encrypted=True))
    exchange = await tls_client.post(receiver.target(HOST, encrypted=True))
    assert (exchange.failure, exchange.reused) == (None, False)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tls_1_2_and_1_3_are_supported(
    listen: Listen, tls_client: Client, authority: trustme.CA, version: ssl.TLSVersion
) -> None:
    context = server_context(authority.issue_cert(HOST))
    context.minimum_version = context.maximum_version = version
    receiver = await listen(serve_ok, tls=context)
    for _ in range(2):
        assert (await tls_client.post(receiver.target(HOST, encrypted=True))).failure is None


def _wrong_name(authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert("other.example.com")


def _expired(authority: trustme.CA) -> trustme.LeafCert:
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    return authority.issue_cert(HOST, not_before=past - datetime.timedelta(days=1), not_after=past)


def _unknown(_: trustme.CA) -> trustme.LeafCert:
    return trustme.CA().issue_cert(HOST)


@pytest.mark.parametrize(
    ("issue", "text"),
    [
        (_wrong_name, f"the certificate is for another name, not for {HOST}"),
        (_expired, f"the certificate of {HOST}, or one in its chain, has expired"),
        (_unknown, f"the issuer of the certificate of {HOST} is unknown"),
    ],
)
async def test_invalid_certificates_are_rejected(
    listen: Listen,
    tls_client: Client,
    authority: trustme.CA,
    issue: Callable[[trustme.CA], trustme.LeafCert],
    text: str,
) -> None:
    requests = []

    async def script(peer: Peer) -> None:
        requests.append(await peer.request())

    receiver = await listen(script, tls=server_context(issue(authority)))
    exchange = await tls_client.post(receiver.target(HOST, encrypted=True))
    assert exchange.failure is Failure.TLS
    assert exchange.error is not None
    assert exchange.error.startswith(text)
    assert not exchange.bytes_sent
    assert exchange.connect_ms is not None
    assert requests == []


async def test_a_private_authority_is_not_trusted_by_default(
    listen: Listen, connect: Connect, authority: trustme.CA
) -> None:
    receiver = await listen(serve_ok, tls=server_context(authority.issue_cert("localhost")))
    client = await connect()
    assert (await client.post(receiver.target("localhost", encrypted=True))).failure is Failure.TLS


async def test_a_certificate_for_the_address_is_not_valid_for_the_name(
    listen: Listen, tls_client: Client, authority: trustme.CA
) -> None:
    receiver = await listen(serve_ok, tls=server_context(authority.issue_cert("127.0.0.1")))
    assert (await tls_client.post(receiver.target(HOST, encrypted=True))).failure is Failure.TLS


async def test_plain_http_on_the_port_is_a_tls_error(listen: Listen, tls_client: Client) -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.read(10)
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    exchange = await tls_client.post((await listen(script)).target(HOST, encrypted=True))
    assert (exchange.failure, exchange.error) == (Failure.TLS, f"{HOST} does not support TLS on this port")


@pytest.mark.parametrize("end", ["reset", "close"])
async def test_a_connection_that_ends_during_the_handshake_is_a_tls_error(
    listen: Listen, tls_client: Client, end: str
) -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.read(10)
        if end == "reset":
            peer.reset()

    exchange = await tls_client.post((await listen(script)).target(HOST, encrypted=True))
    assert exchange.failure is Failure.TLS
    assert exchange.error == f"{HOST} ended the connection during the TLS handshake"


async def test_a_hanging_handshake_times_out(listen: Listen, connect: Connect, names: NameServer) -> None:
    names.zone[HOST] = ["127.0.0.1"]

    async def script(peer: Peer) -> None:
        await peer.wait_closed()

    receiver = await listen(script)
    client = await connect(connect_timeout_ms=400, nameservers=[names.address])
    exchange = await client.post(receiver.target(HOST, encrypted=True))
    assert exchange.failure is Failure.TIMEOUT
    assert exchange.error is not None
    assert exchange.error.startswith(f"the TLS handshake with 127.0.0.1:{receiver.port} took longer than")
    late = await connect(attempt_timeout_ms=400, nameservers=[names.address])
    exchange = await late.post(receiver.target(HOST, encrypted=True))
    assert exchange.failure is Failure.TIMEOUT
    assert exchange.error is not None
    assert exchange.error.endswith(f"still in the TLS handshake with 127.0.0.1:{receiver.port}")
    async with asyncio.timeout(2):
        for peer in receiver.peers:
            while not peer.is_closed:
                await asyncio.sleep(0.001)


async def test_old_tls_versions_are_rejected(listen: Listen, tls_client: Client, authority: trustme.CA) -> None:
    context = server_context(authority.issue_cert(HOST))
    with pytest.warns(DeprecationWarning, match="TLSVersion"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    exchange = await tls_client.post((await listen(serve_ok, tls=context)).target(HOST, encrypted=True))
    assert exchange.failure is Failure.TLS


async def test_a_receiver_that_requires_a_client_certificate_fails(tls_client: Client, authority: trustme.CA) -> None:
    """In TLS 1.3, the rejection arrives after the handshake, instead of the response."""
    context = server_context(authority.issue_cert(HOST))
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED

    # TLS in the event loop closes the connection without an alert. TLS on a blocking socket sends the alert.
    def reject_client(server: socket.socket) -> None:
        sock, _ = server.accept()
        with context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False) as encrypted:
            with pytest.raises(ssl.SSLError):
                encrypted.do_handshake()
            # A close with an unread request would send RST, which may overtake the alert.
            while socket.socket.recv(encrypted, 65536):
                pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        rejecting = asyncio.get_running_loop().run_in_executor(None, reject_client, server)
        exchange = await tls_client.post(Target(HOST, server.getsockname()[1], True))
        await rejecting
    assert exchange.error == "the TLS connection failed: certificate required"
    assert exchange.failure is Failure.TLS


async def test_sessions_are_resumed_for_a_limited_time(
    listen: Listen, connect: Connect, names: NameServer, authority: trustme.CA, ca_file: str, clock: Clock
) -> None:
    names.zone[HOST] = ["127.0.0.1"]
    client = await connect(ca_file=ca_file, nameservers=[names.address], idle_connections_max=0, monotonic=clock)
    resumed = []

    async def script(peer: Peer) -> None:
        resumed.append(peer.writer.get_extra_info("ssl_object").session_reused)
        await serve_ok(peer)

    receiver = await listen(script, tls=server_context(authority.issue_cert(HOST)))
    for seconds in (0, 1, 598, 1, 1):
        clock.now += seconds
        assert (await client.post(receiver.target(HOST, encrypted=True))).failure is None
    # The certificate is checked again after ten minutes.
    assert resumed == [False, True, True, False, True]


async def test_the_number_of_sessions_is_bounded(
    listen: Listen, connect: Connect, names: NameServer, authority: trustme.CA, ca_file: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr("uplift_server.delivery.sending.http.tls._SESSIONS_MAX", 2)
    hosts = [f"h{number}.example.com" for number in range(3)]
    names.zone.update({host: ["127.0.0.1"] for host in hosts})
    client = await connect(ca_file=ca_file, nameservers=[names.address], idle_connections_max=0)
    receiver = await listen(serve_ok, tls=server_context(authority.issue_cert("*.example.com")))
    for host in hosts:
        assert (await client.post(receiver.target(host, encrypted=True))).failure is None
    assert set(client.sender._connector._tls._sessions) == set(hosts[1:])


async def test_a_session_is_used_for_its_host_only(
    listen: Listen, connect: Connect, names: NameServer, authority: trustme.CA, ca_file: str
) -> None:
    names.zone.update({HOST: ["127.0.0.1"], "other.example.com": ["127.0.0.1"]})
    client = await connect(ca_file=ca_file, nameservers=[names.address], idle_connections_max=0)
    receiver = await listen(serve_ok, tls=server_context(authority.issue_cert(HOST)))
    for _ in range(2):
        assert (await client.post(receiver.target(HOST, encrypted=True))).failure is None
        assert (await client.post(receiver.target("other.example.com", encrypted=True))).failure is Failure.TLS


async def test_a_receiver_without_its_sessions_gets_a_full_handshake(
    listen: Listen, connect: Connect, names: NameServer, authority: trustme.CA, ca_file: str
) -> None:
    names.zone[HOST] = ["127.0.0.1"]
    client = await connect(ca_file=ca_file, nameservers=[names.address], idle_connections_max=0)
    certificate = authority.issue_cert(HOST)
    first = await listen(serve_ok, tls=server_context(certificate))
    assert (await client.post(first.target(HOST, encrypted=True))).failure is None
    await first.close()
    resumed = []

    async def script(peer: Peer) -> None:
        resumed.append(peer.writer.get_extra_info("ssl_object").session_reused)
        await serve_ok(peer)

    again = await listen(script, tls=server_context(certificate), port=first.port)
    for _ in range(2):
        assert (await client.post(again.target(HOST, encrypted=True))).failure is None
    assert resumed == [False, True]


async def test_close_does_not_wait_for_the_tls_shutdown(
    listen: Listen,
    connect: Connect,
    names: NameServer,
    authority: trustme.CA,
    ca_file: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("uplift_server.delivery.sending.http.connector._TLS_CLOSE_SECONDS", 60)
    names.zone[HOST] = ["127.0.0.1"]

    async def script(peer: Peer) -> None:
        await peer.respond()
        # Stop reading, so that the close_notify of the client stays unread.
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(60)

    receiver = await listen(script, tls=server_context(authority.issue_cert(HOST)))
    client = await connect(ca_file=ca_file, nameservers=[names.address], idle_connections_max=0)
    assert (await client.post(receiver.target(HOST, encrypted=True))).failure is None
    async with asyncio.timeout(5):
        await client.sender.close()


async def test_an_unreadable_ca_file_is_rejected(tmp_path: Path) -> None:
    settings = SenderSettings(ca_file=str(tmp_path / "none.pem"))
    with pytest.raises(FileNotFoundError):
        Sender(settings, AddressPolicy(False), Resolver(settings))
