"""Attempts that wait for an access token, on a virtual clock."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.engines import Place

from uplift_server.core.http.exchange import Exchange, Failure
from uplift_server.core.lifecycle import Status
from uplift_server.core.security.endpoint_auth import OAuthClient
from uplift_server.delivery.endpoint_cache import LiveEndpoint
from uplift_server.delivery.sending.http.request import Request
from uplift_server.store.records import EndpointState

from .endpoint_auth import set_auth
from .fleet import Fleet, fleet_with_endpoints, owner_and_other
from .owner import Owner
from .world import MINUTE, SECOND, World, respond

TOKENS, HOOKS = "login.test", "hooks.test"
CLIENT = OAuthClient(f"https://{TOKENS}/token", "uplift", "s3cret")


def issue(text: str = "abc", expires_in: int = 3600) -> Exchange:
    body = json.dumps({"access_token": text, "token_type": "Bearer", "expires_in": expires_in}).encode()
    return respond(200)._replace(response_body=body)


async def oauth_endpoint(
    world: World, issuer: Callable[[Request], Exchange | None] = lambda _: issue(), host: str = HOOKS, **settings: Any
) -> LiveEndpoint:
    """Create an endpoint with OAuth client credentials."""
    endpoint = await world.endpoint(host, **settings)
    await set_auth(world, endpoint, CLIENT)
    world.sender.scripts[TOKENS] = issuer
    return endpoint


def headers(world: World, host: str = HOOKS) -> list[bytes]:
    """Return the authorization lines of the requests to a host."""
    return [
        line
        for _, to, request in world.sender.sent
        if to == host
        for line in request.head.split(b"\r\n")
        if line.startswith(b"authorization:")
    ]


async def test_one_request_serves_all_waiting_attempts(place: Place) -> None:
    async with World(place) as world:
        await oauth_endpoint(world)
        world.sender.latency_ms[TOKENS] = 2 * SECOND
        await world.accept(10)
        assert len(world.sender.times(TOKENS)) == 1
        assert world.sender.times(HOOKS) == []
        await world.run_for(2 * SECOND)
        assert headers(world) == [b"authorization: Bearer abc"] * 10
        assert await world.statuses() == {Status.DELIVERED: 10}
        stored = await world.attempts()
        assert {b"Bearer abc" in each.request_head for each in stored} == {False}
        assert all(b"\r\nauthorization: ********\r\n" in each.request_head for each in stored)


async def test_a_token_is_renewed_before_it_expires(place: Place) -> None:
    async with World(place) as world:
        issued = iter("abcdefg")
        await oauth_endpoint(world, lambda _: issue(next(issued), 600))
        for _ in range(3):
            await world.accept()
            await world.run_for(8 * MINUTE)
        assert [line[-1:] for line in headers(world)] == [b"a", b"a", b"b"]


async def test_a_failed_token_request_fails_the_waiting_attempts(place: Place) -> None:
    async with World(place) as world:
        responses = iter([respond(503), issue()])
        endpoint = await oauth_endpoint(world, lambda _: next(responses))
        await world.accept(3)
        assert await world.statuses() == {Status.PENDING: 3}
        assert endpoint.health.consecutive_failures == 3
        assert endpoint.health.last_error == "token request: the server responded with 503"
        assert world.sender.times(HOOKS) == []
        await world.run_for(MINUTE)
        assert await world.statuses() == {Status.DELIVERED: 3}
        assert endpoint.health.failing_since is None


async def test_a_token_url_that_hangs_uses_only_the_slots_of_its_endpoint(place: Place) -> None:
    async with World(place, endpoint_in_flight_max=4) as world:
        await oauth_endpoint(world, lambda _: None)
        await world.endpoint("other.test")
        await world.accept(20)
        assert len(world.sender.times("other.test")) == 20
        assert len(world.sender.times(TOKENS)) == 1
        assert world.parts.lanes.in_flight == 4
        await world.run_for(15 * SECOND)
        assert len(world.sender.times(TOKENS)) >= 2


async def test_a_failure_of_this_server_is_not_the_fault_of_the_endpoint(place: Place) -> None:
    async with World(place) as world:
        failed = Exchange(0, 1000, failure=Failure.EGRESS, error="the egress proxy failed: no")
        endpoint = await oauth_endpoint(world, lambda _: failed)
        await world.accept()
        assert endpoint.health.failing_since is None
        [attempt] = await world.attempts()
        assert attempt.error == "token request: the egress proxy failed: no"


async def test_an_endpoint_that_is_paused_meanwhile_gets_no_request(place: Place) -> None:
    async with World(place) as world:
        endpoint = await oauth_endpoint(world)
        world.sender.latency_ms[TOKENS] = 2 * SECOND
        await world.accept()
        await Owner(world).pause(endpoint.seq)
        await world.run_for(10 * SECOND)
        assert world.sender.times(HOOKS) == []
        assert await world.statuses() == {Status.HELD: 1}
        assert endpoint.record.state is EndpointState.PAUSED


async def test_a_new_authentication_gets_its_own_token(place: Place) -> None:
    async with World(place) as world:
        issued = iter("abcdefg")
        endpoint = await oauth_endpoint(world, lambda _: issue(next(issued)))
        world.sender.latency_ms[TOKENS] = 2 * SECOND
        await world.accept()
        await world.run_for(SECOND)
        await set_auth(world, endpoint, replace(CLIENT, client_secret="rotated"))
        await world.accept()
        await world.run_for(10 * SECOND)
        assert len(world.sender.times(TOKENS)) == 2
        assert headers(world) == [b"authorization: Bearer b"] * 2
        await set_auth(world, endpoint, replace(CLIENT, client_secret="rotated again"))
        await world.accept()
        await world.run_for(10 * SECOND)
        assert headers(world)[-1] == b"authorization: Bearer c"


@pytest.mark.parametrize("is_killed", [True, False])
async def test_a_restart_requests_a_new_token(place: Place, is_killed: bool) -> None:
    async with World(place) as world:
        await oauth_endpoint(world, lambda _: None)
        await world.accept(2)
        await (world.kill() if is_killed else world.restart())
        world.sender.scripts[TOKENS] = lambda _: issue()
        await world.run_for(10 * MINUTE)
        assert await world.statuses() == {Status.DELIVERED: 2}
        assert headers(world) == [b"authorization: Bearer abc"] * 2


async def test_a_401_response_discards_only_the_token_of_the_request(place: Place) -> None:
    async with World(place) as world:
        issued = iter("abcdefg")
        await oauth_endpoint(world, lambda _: issue(next(issued)))
        rejected = [b"authorization: Bearer a"]
        world.sender.scripts[HOOKS] = lambda request: respond(
            401 if any(each in request.head for each in rejected) else 200
        )
        await world.accept(5)
        await world.run_for(MINUTE)
        assert await world.statuses() == {Status.DELIVERED: 5}
        assert len(world.sender.times(TOKENS)) == 2


async def test_an_evicted_process_sends_nothing_when_its_token_arrives(place: Place) -> None:
    async with Fleet(place) as fleet:
        [seq] = await fleet_with_endpoints(fleet, peers=2, hosts=1)
        evicted, other = owner_and_other(fleet, seq)
        fleet.switch_to(evicted)
        await set_auth(fleet, fleet.cache.endpoints[seq], CLIENT)
        await fleet.run_for(2 * SECOND)
        fleet.sender.scripts[TOKENS] = lambda _: issue()
        fleet.sender.latency_ms[TOKENS] = 9 * SECOND
        await fleet.accept(5)
        await fleet.run_for(100)
        evicted.line.cut = True
        fleet.sender.latency_ms[TOKENS] = 0
        await fleet.run_for(8 * SECOND)
        assert other.owns(seq)
        assert len(fleet.sender.times("h0.test")) == 5
        await fleet.run_for(10 * SECOND)
        assert await fleet.statuses() == {Status.DELIVERED: 5}
        assert len(fleet.sender.times("h0.test")) == 5
