"""Mutual TLS: the sender presents the client certificate for the target, and never that for another target."""

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
import trustme

from uplift_server.core.http.exchange import Failure
from uplift_server.core.limits import CLIENT_TLS_CONTEXTS_MAX
from uplift_server.delivery.sending.http import Target
from uplift_server.delivery.targets import ClientIdentity

from .scripted import Client, Connect, Listen, Peer, Receiver

AUTHORITY = trustme.CA()
CLIENTS = trustme.CA()


def identity(name: str, authority: trustme.CA = CLIENTS) -> ClientIdentity:
    issued = authority.issue_cert(common_name=name)
    chain = b"".join(each.bytes() for each in issued.cert_chain_pems)
    return ClientIdentity(chain.decode(), issued.private_key_pem.bytes().decode())


async def serve_subject(peer: Peer) -> None:
    """Respond with the common name of the client's certificate, and whether the session was resumed."""
    encrypted = peer.writer.get_extra_info("ssl_object")
    subject = dict(pair for group in encrypted.getpeercert()["subject"] for pair in group)
    name = subject["commonName"] + (" resumed" if encrypted.session_reused else "")
    while True:
        await peer.request()
        await peer.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(name)}\r\n\r\n{name}".encode())


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("127.0.0.1").configure_cert(context)
    context.verify_mode = ssl.CERT_REQUIRED
    CLIENTS.configure_trust(context)
    return context


@pytest.fixture
def ca_file(tmp_path: Path) -> str:
    AUTHORITY.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return str(tmp_path / "ca.pem")


@pytest.fixture
async def client(connect: Connect, ca_file: str) -> Client:
    return await connect(ca_file=ca_file)


@pytest.fixture
async def receiver(listen: Listen) -> Receiver:
    return await listen(serve_subject, tls=server_context())


def target(receiver: Receiver, identity: ClientIdentity | None) -> Target:
    return receiver.target(encrypted=True)._replace(identity=identity)


async def test_each_target_presents_its_own_certificate(client: Client, receiver: Receiver) -> None:
    one, two = identity("one"), identity("two")
    for name, own in (("one", one), ("two", two), ("one", one), ("two", two)):
        exchange = await client.post(target(receiver, own))
        assert (exchange.failure, exchange.response_body) == (None, name.encode())
    assert exchange.reused
    assert receiver.accepted == 2


async def test_a_resumed_session_belongs_to_the_same_certificate(
    connect: Connect, receiver: Receiver, ca_file: str
) -> None:
    client = await connect(ca_file=ca_file, idle_connections_max=0)
    one, two = identity("one"), identity("two")
    responses = [(await client.post(target(receiver, own))).response_body for own in (one, two, one, two)]
    assert responses == [b"one", b"two", b"one resumed", b"two resumed"]


@pytest.mark.parametrize(
    ("presented", "error"),
    [
        (None, "the TLS connection failed: certificate required"),
        (identity("stranger", trustme.CA()), "the TLS connection failed: unknown ca"),
    ],
)
async def test_a_rejected_certificate_is_an_error(client: Client, presented: ClientIdentity | None, error: str) -> None:
    context = server_context()

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
        exchange = await client.post(Target("127.0.0.1", server.getsockname()[1], True, identity=presented))
        await rejecting
    assert (exchange.failure, exchange.error) == (Failure.TLS, error)


async def test_an_unusable_certificate_is_an_error(client: Client, receiver: Receiver) -> None:
    one, two = identity("one"), identity("two")
    for broken in (ClientIdentity(one.certificate, two.private_key), ClientIdentity("-----BEGIN", one.private_key)):
        exchange = await client.post(target(receiver, broken))
        assert exchange.failure is Failure.TLS
        assert (exchange.error or "").startswith("the client certificate is not usable: ")


async def test_many_certificates_use_bounded_memory(client: Client, receiver: Receiver) -> None:
    one = identity("one")
    # The same certificate with more line breaks counts as another identity, and is quicker to create.
    for number in range(CLIENT_TLS_CONTEXTS_MAX + 5):
        own = ClientIdentity(one.certificate + "\n" * number, one.private_key)
        assert (await client.post(target(receiver, own))).response_body == b"one"
    connector = client.sender._connector
    assert len(connector._identified) == CLIENT_TLS_CONTEXTS_MAX


async def test_new_certificates_of_an_account_do_not_delay_another_account(
    connect: Connect, receiver: Receiver, ca_file: str
) -> None:
    client = await connect(ca_file=ca_file, idle_connections_max=0)
    one, others, finished = identity("one"), range(60), []

    async def post(name: str, own: ClientIdentity, account: int) -> None:
        assert (await client.post(target(receiver, own)._replace(account=account))).failure is None
        finished.append(name)

    await post("known", one, 2)
    many = [
        asyncio.create_task(post("other", ClientIdentity(one.certificate + "\n" * number, one.private_key), 1))
        for number in others[1:]
    ]
    await asyncio.sleep(0)
    known = asyncio.create_task(post("known", one, 2))
    new = asyncio.create_task(post("new", identity("two"), 2))
    await asyncio.gather(known, new, *many)
    assert max(finished.index("known", 1), finished.index("new")) < len(others) // 2
