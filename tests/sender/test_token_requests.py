"""Token requests over real sockets: the address policy and the limits of endpoints also apply to token URLs."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from uplift_server.core.http.exchange import Exchange, Failure
from uplift_server.core.security.endpoint_auth import OAuthClient
from uplift_server.delivery.clock import SystemClock
from uplift_server.delivery.sending.access_tokens import AccessTokens
from uplift_server.observe.counters import EngineCounters

from .scripted import Client, Connect, Listen, NameServer, Peer, serve_ok


async def request_token(client: Client, url: str) -> tuple[Exchange | None, Any, EngineCounters]:
    """Request a token. Return the failed exchange, if any, the endpoint's authorization header, and the counters."""
    counters, done = EngineCounters(), asyncio.get_running_loop().create_future()
    endpoint: Any = SimpleNamespace(seq=1, token=None, record=SimpleNamespace(auth=b"auth", account_seq=1))
    tokens = AccessTokens(client.sender, SystemClock(), counters, "Uplift")
    tokens.request(endpoint, OAuthClient(url, "uplift", "s3cret"), done.set_result)
    failed = cast(Exchange | None, await asyncio.wait_for(done, 10))
    return failed, tokens.header_of(endpoint), counters


async def test_a_token_is_received(listen: Listen, connect: Connect) -> None:
    requests = []

    async def script(peer: Peer) -> None:
        body = b'{"access_token":"abc","token_type":"bearer","expires_in":60}'
        requests.append(await peer.respond(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)))

    receiver = await listen(script)
    failed, header, counters = await request_token(await connect(), f"http://127.0.0.1:{receiver.port}/token?a=1")
    assert (failed, header) == (None, b"authorization: Bearer abc\r\n")
    assert (counters.tokens_received, counters.token_requests_failed) == (1, 0)
    assert requests[0].startswith(b"POST /token?a=1 HTTP/1.1\r\nhost: 127.0.0.1:")
    assert requests[0].endswith(b"\r\n\r\ngrant_type=client_credentials")


async def test_a_name_of_a_private_address_is_blocked(listen: Listen, connect: Connect, names: NameServer) -> None:
    """The name may have had a public address when the URL was checked."""
    receiver = await listen(serve_ok)
    names.zone["login.example.com"] = ["127.0.0.1"]
    client = await connect(private=False, nameservers=[names.address])
    failed, header, counters = await request_token(client, f"https://login.example.com:{receiver.port}/token")
    assert failed is not None
    assert (failed.failure, header, counters.token_requests_failed) == (Failure.BLOCKED, None, 1)
    assert (failed.error or "").startswith("token request: connections to login.example.com are not allowed")
    assert receiver.accepted == 0


async def test_a_slow_token_url_times_out(listen: Listen, connect: Connect) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.wait_closed()

    receiver = await listen(script)
    client = await connect(attempt_timeout_ms=800)
    failed, _, _ = await request_token(client, f"http://127.0.0.1:{receiver.port}/")
    assert failed is not None
    assert failed.failure is Failure.TIMEOUT
    assert "waiting for the response" in (failed.error or "")
