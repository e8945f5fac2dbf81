"""An interrupted first start leaves only a state that the next start completes."""

import pytest
from tests.caches import endpoint_cache
from tests.engines import Place

from uplift_server.core.cursors import Cursors
from uplift_server.core.events.catalog import EVENT_TYPES
from uplift_server.delivery.clock import SystemClock
from uplift_server.delivery.listening.audience import Audience, NoAnnouncer
from uplift_server.delivery.listening.relay import Relay
from uplift_server.service.authentication import Authenticator
from uplift_server.service.context import ServiceContext
from uplift_server.service.startup import prepare
from uplift_server.store import event_types, keys
from uplift_server.store.encryption import Cipher

from .conftest import PROCESS_KEY, RecordingEngine


class CutOff(Exception):
    """Simulates `kill -9`."""


async def started(place: Place, kept: list[str]) -> ServiceContext:
    """Start a server like a new process."""
    place.prepare()
    database = place.database()
    await database.open()
    try:
        directory, clock = endpoint_cache(Cipher(bytes(32))), SystemClock()
        means = ServiceContext(
            database,
            directory,
            clock,
            RecordingEngine([], [], Relay(database, directory, Audience(), NoAnnouncer(), clock)).link(),
            Cursors(bytes(32)),
        )
        await prepare(means, PROCESS_KEY, None, kept.append)
    finally:
        await database.close()
    return means


@pytest.mark.parametrize("cut_at", [1, 2, 5, len(EVENT_TYPES)])
async def test_the_catalog_is_complete_or_absent(place: Place, monkeypatch: pytest.MonkeyPatch, cut_at: int) -> None:
    calls = 0
    put = event_types.put

    def cut_off(*arguments: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == cut_at:
            raise CutOff
        return put(*arguments, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(event_types, "put", cut_off)
        with pytest.raises(CutOff):
            await started(place, [])
    means = await started(place, [])
    assert set(means.cache.event_types) == {each.name for each in EVENT_TYPES}


async def test_no_unknown_operator_key_is_active(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(keys, "create", _cut_off)
        with pytest.raises(CutOff):
            await started(place, kept)
    assert len(kept) == 1, "the key is kept before it is stored"
    means = await started(place, kept)
    assert len(kept) == 2
    assert Authenticator(means.cache).principal(b"Bearer " + kept[-1].encode()).is_operator
    await started(place, kept)
    assert len(kept) == 2, "later starts generate no key"


def _cut_off(*_: object, **__: object) -> None:
    raise CutOff
