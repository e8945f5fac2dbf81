"""Connections to real NATS servers: TLS, logins and permissions, and how to fix their problems."""

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme
from tests.nats import NatsCluster

from uplift_server.delivery.streams.link import Link, NatsServer, StreamError, StreamUnavailable

USERS = """
authorization { users: [
  { user: uplift, password: secret }
  { user: guest, password: secret, permissions: { publish: "uplift.events.>", subscribe: "_INBOX.>" } }
] }
"""
START = "start the NATS server"
LOGIN = "correct the user and the password"
Launch = Callable[..., NatsCluster]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Start a NATS server with additional lines in its configuration."""
    with ExitStack() as stack:

        def start(more: str = USERS) -> NatsCluster:
            cluster = NatsCluster(tmp_path / "nats", nodes=1)
            stack.callback(cluster.close)
            with (cluster.node_folder(0) / "nats.conf").open("a") as configuration:
                configuration.write(more)
            return cluster.start()

        yield start


def tls(folder: Path, authority: trustme.CA, name: str, more: str = "") -> str:
    """Return the lines of a NATS configuration for TLS with a certificate of the authority."""
    certificate = authority.issue_cert(name)
    certificate.cert_chain_pems[0].write_to_path(folder / "node.pem")
    certificate.private_key_pem.write_to_path(folder / "node.key")
    return f"""{USERS}tls {{ cert_file: "{folder}/node.pem", key_file: "{folder}/node.key" }}\n{more}\n"""


def address(cluster: NatsCluster, user: str = "uplift", password: str = "secret", scheme: str = "nats") -> NatsServer:
    return NatsServer.parse(f"{scheme}://{user}:{password}@127.0.0.1:{cluster.ports(0).client}")


async def connection_failure(server: NatsServer) -> StreamUnavailable:
    with pytest.raises(StreamUnavailable) as failed:
        await Link.connect(server, None)
    return failed.value


async def test_tls_is_required_before_the_password_is_sent() -> None:
    """An attacker between the client and the server can remove the server's request for TLS."""
    received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"a","version":"2.15.0","max_payload":1048576,"headers":true}\r\n')
        received.set_result(await reader.read(4096))
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        failure = await connection_failure(NatsServer.parse(f"tls://uplift:secret@127.0.0.1:{port}"))
        assert "does not use TLS" in str(failure)
        assert "use nats://" in failure.how_to_fix
        assert await received == b""


async def test_optional_tls_is_used(tmp_path: Path, launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    cluster = launch(tls(tmp_path, authority, "127.0.0.1").replace("tls {", "allow_non_tls: true\ntls {"))
    link = await Link.connect(address(cluster, scheme="tls"), None)
    [connection] = cluster.monitoring(0, "/connz")["connections"]
    assert connection["tls_version"]
    await link.close()


async def test_a_certificate_of_an_unknown_authority_is_named(tmp_path: Path, launch: Launch) -> None:
    cluster = launch(tls(tmp_path, trustme.CA(), "127.0.0.1"))
    failure = await connection_failure(address(cluster, scheme="tls"))
    assert "certificate verify failed" in str(failure)
    assert "update-ca-certificates" in failure.how_to_fix


@pytest.mark.parametrize("name", ["nats1.example.com", "127.0.0.2"])
async def test_a_certificate_with_another_name_is_named(
    tmp_path: Path, launch: Launch, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    failure = await connection_failure(address(launch(tls(tmp_path, authority, name)), scheme="tls"))
    assert "use a host name of the NATS server's certificate" in failure.how_to_fix


async def test_a_wrong_password_is_named(launch: Launch) -> None:
    failure = await connection_failure(address(launch(), password="wrong"))
    assert LOGIN in failure.how_to_fix
    assert "wrong" not in str(failure)


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), BrokenPipeError(32, "broken")])
async def test_a_login_that_ends_with_a_reset_is_named(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    """If the server closes the connection early, the client cannot read that the login was rejected."""

    async def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Link, "_open", fail)
    failure = await connection_failure(NatsServer.parse("nats://127.0.0.1:1"))
    assert LOGIN in failure.how_to_fix


@pytest.mark.parametrize("host", ["127.0.0.1:1", "nats.invalid:4222"])
async def test_a_server_that_is_not_reachable_is_named(host: str) -> None:
    failure = await connection_failure(NatsServer.parse(f"nats://{host}"))
    assert START in failure.how_to_fix


async def test_a_missing_permission_is_named(launch: Launch) -> None:
    cluster = launch()
    link = await Link.connect(address(cluster, "guest"), None)
    with pytest.raises(StreamUnavailable, match=re.compile("permissions violation.*stream.info", re.IGNORECASE)) as no:
        await link.call("STREAM.INFO.a")
    assert "deploy/nats/nats.conf" in no.value.how_to_fix
    # The denied request does not explain the timeouts of later requests.
    silent = await Link.connect(address(cluster), None)
    await silent.subscribe("uplift.events.a", lambda _: None)
    await silent.call("INFO")  # The server has now processed the subscription.
    with pytest.raises(StreamUnavailable, match="timeout"):
        await link.store("uplift.events.a", b"", "1")
    await silent.close()
    await link.close()


async def test_a_user_with_permissions_gets_responses(launch: Launch) -> None:
    link = await Link.connect(address(launch()), None)
    with pytest.raises(StreamError, match="not found"):
        await link.call("STREAM.INFO.a")
    await link.close()
