"""Connections to a NATS server that hangs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from uplift_server.delivery.streams.link import Link, NatsServer, StreamUnavailable

MESSAGE = bytes(1024 * 1024)
ENDS_WITHIN_S = 20
INFO = (
    b'INFO {"server_id":"a","version":"2.12.0","max_payload":2097152,"headers":true,"jetstream":true,'
    b'"auth_required":true,"nonce":"a"}\r\n'
)
JWT, SEED = "-----BEGIN NATS USER JWT-----\n", "-----BEGIN USER NKEY SEED-----\n"


@pytest.fixture
async def hanging_server() -> AsyncIterator[NatsServer]:
    """A server that accepts a connection like NATS. Then it neither reads nor responds."""
    async with contextlib.AsyncExitStack() as stack:

        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            stack.callback(writer.transport.abort)
            writer.write(INFO)
            await reader.readuntil(b"PING\r\n")
            writer.write(b"PONG\r\n")

        server = await stack.enter_async_context(await asyncio.start_server(greet, "127.0.0.1", 0))
        host, port = server.sockets[0].getsockname()
        yield NatsServer.parse(f"nats://{host}:{port}")
        server.close()


async def test_a_server_that_hangs_does_not_block_messages_for_ever(hanging_server: NatsServer) -> None:
    """The last message waits for a free buffer until the connection ends."""
    link = await Link.connect(hanging_server, None)

    async def publish() -> None:
        while True:
            await link.publish("uplift.events.a", MESSAGE)

    publishing = asyncio.create_task(publish())
    done, _ = await asyncio.wait([publishing], timeout=ENDS_WITHIN_S)

    assert done, "the message still waits"
    with pytest.raises(StreamUnavailable):
        await publishing
    with pytest.raises(StreamUnavailable):
        await link.call("STREAM.INFO.a")
    await link.close()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "must contain a user JWT and a seed"),
        (f"{SEED}SU\n", "must contain a user JWT and a seed"),
        (f"{JWT}a.b.c\n{SEED}", "127.0.0.1"),
        (f"{JWT}a.b.c\n{SEED}SUAD\n", "127.0.0.1"),
        (None, "is not readable"),
    ],
)
async def test_unusable_credentials_only_prevent_the_connection(
    hanging_server: NatsServer, tmp_path: Path, content: str | None, words: str
) -> None:
    path = tmp_path / "user.creds"
    if content is not None:
        path.write_text(content)
    async with asyncio.timeout(ENDS_WITHIN_S):
        with pytest.raises(StreamUnavailable, match=words):
            await Link.connect(hanging_server, str(path))
