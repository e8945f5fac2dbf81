"""Connections are reused within limits of number, idle time and age."""

import asyncio

from .scripted import OK, Client, Clock, Connect, Listen, Peer, serve_ok, until


async def test_requests_share_connections(listen: Listen, client: Client) -> None:
    receiver = await listen(serve_ok)
    for _ in range(3):
        exchanges = await asyncio.gather(*(client.send(receiver.target()) for _ in range(5)))
        assert {exchange.failure for exchange in exchanges} == {None}
    assert receiver.accepted == 5
    assert client.sender.idle_connections == 5


async def test_idle_connections_per_target_are_bounded(listen: Listen, connect: Connect) -> None:
    receiver = await listen(serve_ok)
    client = await connect(idle_connections_per_target_max=2)
    await asyncio.gather(*(client.send(receiver.target()) for _ in range(5)))
    assert client.sender.idle_connections == 2


async def test_idle_connections_in_total_are_bounded(listen: Listen, connect: Connect) -> None:
    receivers = [await listen(serve_ok) for _ in range(3)]
    client = await connect(idle_connections_max=2)
    for receiver in receivers:
        await client.post(receiver.target())
    assert client.sender.idle_connections == 2
    await until(lambda: receivers[0].peers[0].is_closed)
    for receiver in receivers[1:]:
        assert (await client.post(receiver.target())).reused


async def test_no_connection_is_kept_with_a_limit_of_zero(listen: Listen, connect: Connect) -> None:
    receiver = await listen(serve_ok)
    client = await connect(idle_connections_max=0)
    for _ in range(2):
        assert not (await client.post(receiver.target())).reused


async def test_idle_connections_expire(listen: Listen, connect: Connect, clock: Clock) -> None:
    receiver = await listen(serve_ok)
    client = await connect(keep_alive_ms=50, monotonic=clock)
    await client.post(receiver.target())
    await asyncio.sleep(0.02)
    assert client.sender.idle_connections == 1
    clock.now += 0.051
    await until(lambda: receiver.peers[0].is_closed)
    assert client.sender.idle_connections == 0


async def test_an_old_connection_is_not_reused(listen: Listen, connect: Connect, clock: Clock) -> None:
    receiver = await listen(serve_ok)
    client = await connect(connection_age_ms_max=60_000, monotonic=clock)
    for step, reused in [(0, False), (30, True), (31, False), (59, True)]:
        clock.now += step
        # The steps would also exceed the keep-alive time. Lengthen it, because this test checks only the age.
        client.sender._pool._keep_alive = 1e9
        assert (await client.post(receiver.target())).reused is reused
    assert receiver.accepted == 2


async def test_names_and_encryption_do_not_share_connections(listen: Listen, client: Client) -> None:
    receiver = await listen(serve_ok)
    await client.post(receiver.target())
    assert not (await client.post(receiver.target("localhost"))).reused
    assert (await client.post(receiver.target("localhost"))).reused


async def test_a_connection_that_expires_in_use_is_closed(listen: Listen, connect: Connect, clock: Clock) -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            clock.now += 2
            await peer.send(OK)

    receiver = await listen(script)
    client = await connect(connection_age_ms_max=1000, monotonic=clock)
    assert (await client.post(receiver.target())).failure is None
    assert client.sender.idle_connections == 0
