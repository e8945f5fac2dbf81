"""Closing the sender ends all requests and reports their failure."""

import asyncio

import pytest

from uplift_server.core.http.exchange import Failure

from .scripted import Connect, Listen, Peer, serve_ok, until


async def test_close_fails_requests_in_flight(listen: Listen, connect: Connect) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(60)

    receiver = await listen(script)
    client = await connect()
    waiting = [client.send(receiver.target()) for _ in range(3)]
    await until(lambda: receiver.accepted == 3)
    opening = client.send(receiver.target())
    await client.sender.close()
    exchanges = await asyncio.gather(*waiting, opening)
    assert {exchange.failure for exchange in exchanges} == {Failure.EGRESS}
    assert {exchange.error for exchange in exchanges} == {"the sender was closed"}
    assert [exchange.bytes_sent for exchange in exchanges] == [True, True, True, False]
    assert client.sender.in_flight == 0
    for peer in receiver.peers:
        await peer.wait_closed()


async def test_a_closed_sender_rejects_requests(listen: Listen, connect: Connect) -> None:
    receiver = await listen(serve_ok)
    client = await connect()
    await client.post(receiver.target())
    await client.sender.close()
    assert client.sender.idle_connections == 0
    with pytest.raises(RuntimeError, match="not running"):
        client.send(receiver.target())
    client.calls.pop()
    await client.sender.close()
