"""Fixtures of the sender tests. Every test runs on both supported event loops."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop

from uplift_server.core.http.addresses import AddressPolicy
from uplift_server.delivery.sending.http import Resolver, Sender, SenderSettings

from .scripted import Client, Clock, Connect, Listen, NameServer, Receiver, Script

AUTHORITY = str(Path(__file__).parent.with_name("authority.pem"))


def pytest_asyncio_loop_factories(config: Any, item: Any) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every test on both supported event loops."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def listen() -> AsyncIterator[Listen]:
    """Return a function that starts a receiver: `await listen(script)`."""
    receivers = []

    async def start(
        script: Script, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None, port: int = 0
    ) -> Receiver:
        receiver = Receiver(script)
        receiver.server = await asyncio.start_server(receiver, host, port, ssl=tls)
        receiver.host = host
        receiver.port = receiver.server.sockets[0].getsockname()[1]
        receivers.append(receiver)
        return receiver

    yield start
    for receiver in receivers:
        await receiver.close()


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Return a function that starts a sender: `await connect(attempt_timeout_ms=50)`.

    Private networks are allowed unless `private=False`. Without `ca_file`, no certificate is trusted.
    """
    clients = []

    async def start(
        *,
        private: bool = True,
        policy: AddressPolicy | None = None,
        nameservers: list[str] | None = None,
        monotonic: Callable[[], float] | None = None,
        **settings: Any,
    ) -> Client:
        settings = {"attempt_timeout_ms": 5000, "ca_file": AUTHORITY, **settings}
        chosen = SenderSettings(**settings)
        clock = {} if monotonic is None else {"monotonic": monotonic}
        resolver = Resolver(chosen, nameservers=nameservers, **clock)
        sender = Sender(chosen, policy or AddressPolicy(private), resolver, clock_ms=lambda: 1764000000123, **clock)
        await sender.start()
        client = Client(sender, resolver)
        clients.append(client)
        return client

    yield start
    for client in clients:
        await client.close()


@pytest.fixture
async def client(connect: Connect) -> Client:
    return await connect()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def names() -> AsyncIterator[NameServer]:
    """Start a name server on loopback. Senders use it with `nameservers=[names.address]`."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(NameServer, local_addr=("127.0.0.1", 0))
    yield server
    transport.close()
    await asyncio.sleep(0)
