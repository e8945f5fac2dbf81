"""Connections to a NATS server that hangs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from uplift_server.delivery.streams.link import Link, NatsServer, StreamUnavailable

MESSAGE = bytes(1024 * 1024)
ENDS_WITHIN_S = 20
INFO = b'INFO {"server_id":"a","version":"2.12.0","max_payload":2097152,"headers":true,"jetstream":true}\r\n'


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
