"""The setup of docs/nats.md works as printed: three servers with TLS, their users, the service, and an emitter."""

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
from tests.nats import NatsCluster
from tests.postgres import PostgresServer
from tests.unreliable_network import UnreliableProxy

from .fleet import Fleet
from .harness import Server, wait_for
from .receiving import Receiver
from .test_readme import ROOT, blocks

PAGE = (ROOT / "docs/nats.md").read_text(encoding="utf-8")
CONFIGURATION = (ROOT / "deploy/nats/nats.conf").read_text(encoding="utf-8")


def shell(containing: str, folder: Path, **replaced: str) -> str:
    """Run the page's only shell block that contains a text, after replacements. Return its output."""
    [block] = [each for each in blocks(PAGE, "sh") if containing in each]
    for old, new in replaced.items():
        assert old in block
        block = block.replace(old, new)
    done = subprocess.run(["bash", "-euc", block], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


class SetUp:
    """The servers of the guide on this machine, with other ports and the name `localhost` for all nodes."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        shell("openssl req -x509", folder, **{"$node.example.com": "localhost"})
        shell("NATS_UPLIFT_PASSWORD=", folder)
        self.ca = folder / "ca.pem"
        lines = (folder / "nats.env").read_text().splitlines()
        self.passwords = dict(line.split("=", 1) for line in lines)
        self.cluster = NatsCluster(folder / "nodes", scheme="tls", environ=self.passwords)
        for node in self.cluster.nodes:
            home = self.cluster.node_folder(node)
            ports = self.cluster.ports(node)
            text = CONFIGURATION
            for old, new in {
                "$NATS_NODE": f"node{node}",
                "$NATS_ADVERTISE": f"localhost:{ports.routes}",
                "0.0.0.0:4222": f"127.0.0.1:{ports.client}",
                "127.0.0.1:8222": f"127.0.0.1:{ports.monitoring}",
                "0.0.0.0:6222": f"127.0.0.1:{ports.routes}",
                "/etc/nats/node": str(folder / f"nats{node + 1}"),
                "/etc/nats/ca": str(folder / "ca"),
                "/var/lib/nats": str(home / "jetstream"),
                **{
                    f"nats{other + 1}.example.com:6222": f"localhost:{self.cluster.ports(other).routes}"
                    for other in self.cluster.nodes
                },
            }.items():
                assert old in text, old
                text = text.replace(old, new)
            assert "example.com" not in text
            (home / "nats.conf").write_text(text)
        self.cluster.start()

    def url(self, user: str = "") -> str:
        """Return the comma-separated URLs of all nodes, with the name and password of the user, if any."""
        login = f"{user}:{self.passwords[f'NATS_{user.upper()}_PASSWORD']}@" if user else ""
        return ",".join(f"tls://{login}localhost:{self.cluster.ports(node).client}" for node in self.cluster.nodes)


@pytest.fixture(scope="module")
def set_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SetUp]:
    """The NATS servers of the guide."""
    made = SetUp(tmp_path_factory.mktemp("nats") / "set-up")
    yield made
    made.cluster.close()


@pytest.fixture(scope="module")
def server(
    set_up: SetUp, postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server that uses the NATS servers of the guide."""
    settings = {"UPLIFT_NATS_URL": set_up.url("uplift"), "SSL_CERT_FILE": str(set_up.ca)}
    with Fleet(tmp_path_factory.mktemp("service"), postgres_server.new_database(), **settings) as fleet:
        yield fleet.add("all")


def python_example() -> str:
    """Return the program of the page."""
    [program] = blocks(PAGE, "python")
    return program


def test_each_node_is_healthy(set_up: SetUp, tmp_path: Path) -> None:
    for node in set_up.cluster.nodes:
        printed = shell("/healthz", tmp_path, **{"8222": str(set_up.cluster.ports(node).monitoring)})
        assert printed == '{"status":"ok"}'


def emit(set_up: SetUp, account: str, program: str, url: str) -> str:
    """Run an emitter that connects to `url`, and return its output."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={
            **os.environ,
            "NATS_URL": url,
            "NATS_CAPTURE_PASSWORD": set_up.passwords["NATS_CAPTURE_PASSWORD"],
            "ACCOUNT": account,
            "SSL_CERT_FILE": str(set_up.ca),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_emits_an_event(set_up: SetUp, server: Server, receiver: Receiver) -> None:
    account, api = server.account()
    api.endpoint(receiver.url("/nats"), event_types=["athlete.created"])
    assert "of UPLIFT_EVENTS" in emit(set_up, account, python_example(), set_up.url())
    [received] = receiver.wait("/nats", 1)
    assert received.json["data"]["object"]["id"] == "a9"


def test_the_example_connects_again_after_a_late_start_of_tls(
    set_up: SetUp, server: Server, receiver: Receiver
) -> None:
    account, api = server.account()
    api.endpoint(receiver.url("/late"), event_types=["athlete.created"])
    program = python_example()
    assert "timeout=10" in program
    connections: list[socket.socket] = []

    def connected() -> socket.socket:
        connections.append(socket.create_connection(("127.0.0.1", set_up.cluster.ports(0).client)))
        if len(connections) == 1:
            # Longer than `handshake_first` in nats.conf.
            threading.Timer(0.6, proxy.restore).start()
        return connections[-1]

    proxy = UnreliableProxy(connected)
    proxy.hold()
    printed = emit(set_up, account, program.replace("timeout=10", "timeout=2"), f"tls://localhost:{proxy.port}")
    proxy.close()
    assert "Not stored yet: TimeoutError()" in printed
    assert len(connections) > 1
    receiver.wait("/late", 1)


def test_an_invalid_event_is_listed(set_up: SetUp, server: Server) -> None:
    account, api = server.account()

    async def publish() -> None:
        client = await connect(set_up, "capture")
        await client.jetstream().publish(f"uplift.events.{account}", b'{"type": "unknown.type", "data": {}}')
        await client.close()

    asyncio.run(publish())
    [rejected] = wait_for(lambda: api.ok("GET", "/v1/rejected-events")["data"], "the rejected event is listed")
    assert rejected["type"] == "unknown.type"
    assert rejected["problem"]["code"] == "validation_failed"


async def connect(set_up: SetUp, user: str, **options: Any) -> Any:
    """Connect as a user of the guide. Errors of the server are in the list `errors` of the connection."""
    errors: list[str] = []

    async def note(error: Exception) -> None:
        errors.append(str(error))

    client = await nats.connect(
        set_up.url(user).split(","),
        tls=ssl.create_default_context(cafile=str(set_up.ca)),
        inbox_prefix=f"_INBOX_{user}",
        allow_reconnect=False,
        error_cb=note,
        **options,
    )
    client.errors = errors
    return client


async def wait_for_violation(client: Any) -> None:
    """Wait for the error of a missing permission, which can arrive after the response to a flush."""
    async with asyncio.timeout(10):
        while not any("permissions violation" in error for error in client.errors):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "subject",
    ["uplift.events.$accepted.events", "uplift.rejected.acc_1", "$JS.API.STREAM.DELETE.UPLIFT_EVENTS", "$JS.ACK.x"],
)
async def test_an_emitter_publishes_only_events(set_up: SetUp, subject: str) -> None:
    client = await connect(set_up, "capture")
    with pytest.raises(nats.errors.TimeoutError):
        await client.request(subject, b"{}", timeout=0.5)
    await wait_for_violation(client)
    await client.close()


@pytest.mark.parametrize("subject", ["_INBOX.>", "uplift.events.>", "$JS.>"])
async def test_an_emitter_reads_nothing(set_up: SetUp, subject: str) -> None:
    client = await connect(set_up, "capture")
    await client.subscribe(subject)
    await client.flush()
    await wait_for_violation(client)
    await client.close()


async def test_a_client_without_a_password_is_rejected(set_up: SetUp) -> None:
    with pytest.raises(nats.errors.Error, match="Authorization Violation"):
        await nats.connect(
            set_up.url().split(","),
            tls=ssl.create_default_context(cafile=str(set_up.ca)),
            allow_reconnect=False,
            max_reconnect_attempts=1,
        )


def certificate(set_up: SetUp, node: int) -> bytes:
    """Return the certificate that a node presents to a new client."""
    context = ssl.create_default_context(cafile=str(set_up.ca))
    with socket.create_connection(("localhost", set_up.cluster.ports(node).client), 5) as plain:
        while not plain.recv(4096).endswith(b"\r\n"):  # the node sends a line before TLS
            pass
        with context.wrap_socket(plain, server_hostname="localhost") as encrypted:
            found = encrypted.getpeercert(binary_form=True)
    assert found is not None
    return found


async def test_new_certificates_apply_without_an_interruption(set_up: SetUp) -> None:
    nodes = set_up.cluster.nodes
    earlier = [certificate(set_up, node) for node in nodes]
    client = await connect(set_up, "capture")
    shell("scp $node.pem", set_up.ca.parent, **{"    scp $node.pem $node.example.com:\n": ""})
    for node in nodes:
        os.kill(set_up.cluster.pid(node), signal.SIGHUP)  # as `systemctl reload` does
    wait_for(
        lambda: all(certificate(set_up, node) != earlier[node] for node in nodes), "all nodes use the new certificates"
    )
    assert all("tls_cert_not_after" in set_up.cluster.monitoring(node, "/varz") for node in nodes)
    await client.flush()
    assert client.is_connected
    assert not client.errors
    await client.close()
