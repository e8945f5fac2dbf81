"""The next start completes an interrupted first start."""

import pytest
from tests.caches import endpoint_cache
from tests.engines import Place

from uplift_server.core.cursors import Cursors
from uplift_server.core.events.catalog import EVENT_TYPES
from uplift_server.core.events.operational import OPERATIONAL_TYPES
from uplift_server.delivery.clock import SystemClock
from uplift_server.delivery.listening.audience import Audience, NoAnnouncer
from uplift_server.delivery.listening.relay import Relay
from uplift_server.service.authentication import Authenticator
from uplift_server.service.context import ServiceContext
from uplift_server.service.startup import prepare
from uplift_server.store import event_types, keys
from uplift_server.store.encryption import Cipher

from .conftest import PROCESS_KEY, RecordingEngine


class Killed(Exception):
    """Simulates the end of the process by `kill -9`."""


async def start_server(place: Place, generated_keys: list[str]) -> ServiceContext:
    """Prepare the services as a new process does, and return their context."""
    place.prepare()
    database = place.database()
    await database.open()
    try:
        cache, clock = endpoint_cache(Cipher(bytes(32))), SystemClock()
        context = ServiceContext(
            database,
            cache,
            clock,
            RecordingEngine([], [], Relay(database, cache, Audience(), NoAnnouncer(), clock)).link(),
            Cursors(bytes(32)),
        )
        await prepare(context, PROCESS_KEY, None, generated_keys.append)
    finally:
        await database.close()
    return context


@pytest.mark.parametrize("killed_at_call", [1, 2, 5, len(EVENT_TYPES)])
async def test_the_next_start_completes_the_catalog(
    place: Place, monkeypatch: pytest.MonkeyPatch, killed_at_call: int
) -> None:
    calls = 0
    put = event_types.put

    def kill(*arguments: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == killed_at_call:
            raise Killed
        return put(*arguments, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(event_types, "put", kill)
        with pytest.raises(Killed):
            await start_server(place, [])
    context = await start_server(place, [])
    assert set(context.cache.event_types) == {each.name for each in EVENT_TYPES}


async def test_a_catalog_of_an_earlier_release_gets_the_operational_types(place: Place) -> None:
    """An existing type with the name of an operational type stays as it is. No other built-in types are added."""
    place.prepare()
    database = place.database()
    await database.open()
    for name, archived in (("stadium.opened", False), ("delivery.failed", True)):
        await database.write(
            lambda c, name=name, archived=archived: event_types.put(
                c, name=name, group="own", description="Own.", schema=None, example=None, api_version="1",
                archived=archived, now=1,
            )
        )  # fmt: skip
    await database.close()
    for _ in range(2):
        found = (await start_server(place, [])).cache.event_types
        assert set(found) == {"stadium.opened", *OPERATIONAL_TYPES}
        assert found["delivery.failed"].record.group == "own"
        assert found["delivery.failed"].archived
        assert found["endpoint.warned"].record.group == "operational"


async def test_a_deleted_operational_type_is_not_added_again(place: Place) -> None:
    await start_server(place, [])
    database = place.database()
    await database.open()
    assert await database.write(lambda c: event_types.delete(c, "endpoint.warned", now=1))
    await database.close()
    found = (await start_server(place, [])).cache.event_types
    assert set(found) == {each.name for each in EVENT_TYPES} - {"endpoint.warned"}


async def test_the_next_start_creates_an_operator_key_that_is_kept(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    generated_keys: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(keys, "create", _kill)
        with pytest.raises(Killed):
            await start_server(place, generated_keys)
    assert len(generated_keys) == 1, "the key is kept before the database stores it"
    context = await start_server(place, generated_keys)
    assert len(generated_keys) == 2
    authenticator = Authenticator(context.cache, context.clock)
    assert authenticator.principal(b"Bearer " + generated_keys[-1].encode()).is_operator
    await start_server(place, generated_keys)
    assert len(generated_keys) == 2, "later starts generate no key"


def _kill(*_: object, **__: object) -> None:
    raise Killed
