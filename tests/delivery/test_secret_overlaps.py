"""Secret overlaps: the old secret signs exactly until the end, even after restarts, and is then erased."""

import math
from dataclasses import replace
from typing import Any

import pytest
from tests.engines import Place

from uplift_server.delivery.endpoint_cache import LiveEndpoint
from uplift_server.delivery.maintenance.secret_expiry import BATCH_ENDPOINTS, UNAVAILABLE_WAIT_MS
from uplift_server.delivery.sending.http.request import Request
from uplift_server.store import endpoints
from uplift_server.store.encryption import Cipher
from uplift_server.store.errors import Unavailable
from uplift_server.store.records import Endpoint
from uplift_webhooks import Webhook, WebhookVerificationError

from .world import DAY, HOUR, SECOND, SECRET, World

NEW = "the-new-secret-of-this-endpoint"
NEWER = "and-another-one-after-that"


async def rotate(
    world: World, live: LiveEndpoint, secret: str = NEW, overlap_ms: int = DAY, *, header_new: bool = False
) -> None:
    """Rotate a secret as the service does."""
    cipher, endpoint_id = Cipher(b"k" * 32), live.record.id
    encrypted = cipher.encrypt(secret, endpoint_id, "secret")
    now = world.clock.now

    def write(connection: Any) -> Endpoint:
        stored = endpoints.get(connection, None, live.record.id)
        assert stored is not None
        pair = stored.secrets.at(now).rotated(encrypted, now, overlap_ms, header_new=header_new)
        if pair.previous is not None:
            before = cipher.decrypt(pair.previous, endpoint_id, "secret")
            pair = replace(pair, previous=cipher.encrypt(before, endpoint_id, "previous_secret"))
        return endpoints.set_secrets(connection, stored, pair, now=now)

    world.cache.put_endpoint(await world.database.write(write))


async def sent(world: World) -> Request:
    """Accept an event. Return the request that delivers it."""
    before = len(world.sender.sent)
    await world.accept()
    [(_, _, request)] = world.sender.sent[before:]
    return request


def headers(request: Request) -> dict[str, str]:
    """Return the headers of a request, with names in lower case."""
    lines = request.head.decode().split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines) if name}


def verified_by(request: Request, secret: str) -> tuple[bool, bool]:
    """Return whether a secret verifies a request: by Standard Webhooks, and by the Uplift header alone."""
    found = headers(request)
    alone = {"x-uplift-signature-256": found["x-uplift-signature-256"]}
    webhook = Webhook(secret, tolerance_seconds=math.inf, allow_uplift_signature=True)
    return _verifies(webhook, request, found), _verifies(webhook, request, alone)


def _verifies(webhook: Webhook, request: Request, found: dict[str, str]) -> bool:
    try:
        webhook.verify(request.body, found)
    except WebhookVerificationError:
        return False
    return True


async def stored(world: World, live: LiveEndpoint) -> Endpoint:
    """Return the stored endpoint."""
    found = await world.database.read(lambda c: endpoints.get(c, None, live.record.id))
    assert found is not None
    return found


async def test_both_secrets_sign_until_the_overlap_ends(place: Place) -> None:
    async with World(place, scan_every_ms=DAY) as world:
        live = await world.endpoint("one.test")
        await rotate(world, live)
        await world.run_for(DAY - 1)
        last = await sent(world)
        assert (verified_by(last, SECRET), verified_by(last, NEW)) == ((True, True), (True, False))
        assert len(headers(last)["webhook-signature"].split()) == 2
        world.clock.now += 1
        first = await sent(world)
        assert (verified_by(first, SECRET), verified_by(first, NEW)) == ((False, False), (True, True))
        assert len(headers(first)["webhook-signature"].split()) == 1


async def test_the_uplift_header_can_use_the_new_secret_immediately(place: Place) -> None:
    async with World(place, scan_every_ms=DAY) as world:
        live = await world.endpoint("one.test")
        await rotate(world, live, header_new=True)
        request = await sent(world)
        assert (verified_by(request, SECRET), verified_by(request, NEW)) == ((True, False), (True, True))


async def test_a_retry_is_signed_with_the_current_secrets(place: Place) -> None:
    async with World(place, delays_ms=[2 * HOUR], scan_every_ms=HOUR) as world:
        live = await world.endpoint("one.test", lambda _: None)
        first = await sent(world)
        await rotate(world, live, overlap_ms=HOUR)
        await world.run_for(3 * HOUR)
        _, _, second = world.sender.sent[1]
        assert second.body == first.body
        assert (verified_by(first, SECRET), verified_by(first, NEW)) == ((True, True), (False, False))
        assert (verified_by(second, SECRET), verified_by(second, NEW)) == ((False, False), (True, True))


@pytest.mark.parametrize("ends_while_down", [False, True])
@pytest.mark.parametrize("way", ["kill", "restart"])
async def test_a_restart_keeps_the_overlap(place: Place, way: str, ends_while_down: bool) -> None:
    async with World(place, scan_every_ms=DAY) as world:
        live = await world.endpoint("one.test")
        await rotate(world, live)
        await world.run_for(DAY - SECOND)
        if ends_while_down:
            world.clock.now += SECOND
        await getattr(world, way)()
        if not ends_while_down:
            request = await sent(world)
            assert (verified_by(request, SECRET), verified_by(request, NEW)) == ((True, True), (True, False))
            world.clock.now += SECOND
        request = await sent(world)
        assert (verified_by(request, SECRET), verified_by(request, NEW)) == ((False, False), (True, True))


async def test_the_previous_secret_is_erased_at_the_end_of_the_overlap(place: Place) -> None:
    async with World(place, scan_every_ms=DAY) as world:
        live, other = await world.endpoint("one.test"), await world.endpoint("two.test")
        await rotate(world, live)
        await rotate(world, other, overlap_ms=2 * DAY)
        await world.run_for(DAY - 1)
        assert (await stored(world, live)).previous_secret is not None
        await world.run_for(1)
        for record in (await stored(world, live), live.record):
            assert (record.previous_secret, record.previous_expires_at, record.uplift_header_new) == (None, None, False)
        assert (await stored(world, other)).previous_secret is not None
        await world.run_for(DAY)
        assert (await stored(world, other)).previous_secret is None
        assert not world.cache.overlaps


async def test_an_overlap_that_ended_during_downtime_is_erased_at_the_start(place: Place) -> None:
    async with World(place, scan_every_ms=DAY) as world:
        live = await world.endpoint("one.test")
        await rotate(world, live)
        world.clock.now += DAY
        await world.kill()
        assert (await stored(world, live)).previous_secret is None


async def test_a_second_rotation_restarts_the_overlap(place: Place) -> None:
    async with World(place, scan_every_ms=DAY) as world:
        live = await world.endpoint("one.test")
        await rotate(world, live, NEW, overlap_ms=HOUR)
        await world.run_for(HOUR // 2)
        await rotate(world, live, NEWER, overlap_ms=HOUR)
        await world.run_for(HOUR // 2)
        request = await sent(world)
        assert verified_by(request, SECRET) == (False, False)
        assert (verified_by(request, NEW), verified_by(request, NEWER)) == ((True, True), (True, False))
        await world.run_for(HOUR // 2)
        request = await sent(world)
        assert (verified_by(request, NEW), verified_by(request, NEWER)) == ((False, False), (True, True))


async def test_a_failing_database_only_delays_the_erasure(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async with World(place, scan_every_ms=DAY) as world:
        live = await world.endpoint("one.test")
        await rotate(world, live)
        await world.run_for(DAY - 1)

        async def unavailable(_: Any) -> None:
            raise Unavailable("the disk is full")

        with monkeypatch.context() as failing:
            failing.setattr(world.database, "write", unavailable)
            await world.run_for(1)
        assert (await stored(world, live)).previous_secret is not None
        request = await sent(world)
        assert (verified_by(request, SECRET), verified_by(request, NEW)) == ((False, False), (True, True))
        await world.run_for(UNAVAILABLE_WAIT_MS)
        assert (await stored(world, live)).previous_secret is None


async def test_many_expired_secrets_are_erased_in_batches(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async with World(place, scan_every_ms=DAY) as world:
        for number in range(BATCH_ENDPOINTS + 1):
            await rotate(world, await world.endpoint(f"host-{number}.test"))
        batches: list[int] = []
        erase = endpoints.erase_previous_secrets

        def recording(connection: Any, seqs: Any, *, now: int) -> Any:
            batches.append(len(seqs))
            return erase(connection, seqs, now=now)

        monkeypatch.setattr("uplift_server.delivery.maintenance.secret_expiry.erase_previous_secrets", recording)
        await world.run_for(DAY)
        assert batches == [BATCH_ENDPOINTS, 1]
        assert not any(live.record.previous_secret for live in world.cache.endpoints.values())


async def test_an_endpoint_deleted_during_the_erasure_stays_deleted(place: Place) -> None:
    async with World(place, scan_every_ms=DAY) as world:
        live = await world.endpoint("one.test")
        await rotate(world, live)
        # The endpoint is deleted in the store, but the cache does not know this yet.
        await world.database.write(lambda c: endpoints.delete(c, None, live.record.id, now=world.clock.now))
        await world.run_for(DAY)
        world.cache.drop_endpoint(live.seq)
        assert not world.cache.overlaps
        assert not world.cache.endpoints
