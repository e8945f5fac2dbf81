"""If this process changes an object during a read of cache sync, the change stays, and the next sync reads it again."""

from collections.abc import Callable

import pytest
from tests.engines import Place

from uplift_server.delivery.cluster import cache_sync
from uplift_server.store import endpoints, event_types, keys
from uplift_server.store.contract import Transaction
from uplift_server.store.records import ApiKey, EventType

from .fleet import Fleet
from .world import SECOND


@pytest.mark.parametrize("is_known", [True, False], ids=["cached", "created by another process"])
async def test_a_deletion_during_a_read_persists(place: Place, is_known: bool) -> None:
    """The caller already got a response, so the object stays deleted."""
    async with Fleet(place) as fleet:
        peer = await fleet.start()
        await fleet.run_for(10 * SECOND)
        cache = peer.cache
        account = await fleet.new_account()
        key, event_type = await fleet.database.write(lambda c: (new_key(c, account.seq), new_event_type(c)))
        endpoint = await fleet.endpoint("a.test", account=account)
        if is_known:
            cache.put_key(key)
            cache.put_event_type(event_type)
        else:
            cache.drop_endpoint(endpoint.seq)
        read = fleet.database.read_with_priority
        deleted: list[int] = []

        async def interrupted(body: Callable[..., object]) -> object:
            found = await read(body)
            if isinstance(found, cache_sync._Read) and found.endpoints and not deleted:
                assert (len(found.keys), len(found.event_types)) == (1, 1)
                deleted.append(endpoint.seq)
                await fleet.database.write(lambda c: keys.revoke(c, account.seq, key.id, now=1))
                cache.drop_key(key.digest)
                await fleet.database.write(lambda c: event_types.delete(c, event_type.name, now=1))
                cache.drop_event_type(event_type.name)
                await fleet.database.write(lambda c: endpoints.delete(c, account.seq, endpoint.record.id, now=1))
                cache.drop_endpoint(endpoint.seq)
            return found

        fleet.database.read_with_priority = interrupted
        # Name the objects to read, because cache sync may already have read some of the changes.
        subjects = [("api_keys", key.seq), ("event_types", event_type.seq), ("endpoints", endpoint.seq)]
        await peer.cache_sync._read(subjects)
        for _ in range(2):
            assert deleted == [endpoint.seq]
            assert key.digest not in cache.keys
            assert event_type.name not in cache.event_types
            assert endpoint.seq not in cache.endpoints
            await peer.cache_sync.sync()


async def test_a_change_during_a_read_is_read_again_by_the_next_sync(place: Place) -> None:
    """During a read, this process recreates an event type, and another process deletes it. The next sync drops it."""
    async with Fleet(place) as fleet:
        peer = await fleet.start()
        await fleet.run_for(10 * SECOND)
        cache = peer.cache
        event_type = await fleet.database.write(new_event_type)
        cache.put_event_type(event_type)
        await fleet.database.write(lambda c: event_types.delete(c, event_type.name, now=1))
        read = fleet.database.read_with_priority
        created: list[EventType] = []

        async def interrupted(body: Callable[..., object]) -> object:
            found = await read(body)
            if isinstance(found, cache_sync._Read) and found.deleted_event_types and not created:
                created.append(await fleet.database.write(new_event_type))
                cache.put_event_type(created[0])
                await fleet.database.write(lambda c: event_types.delete(c, event_type.name, now=2))
            return found

        fleet.database.read_with_priority = interrupted
        await peer.cache_sync._read([("event_types", event_type.seq)])
        assert created
        assert event_type.name in cache.event_types
        await peer.cache_sync.sync()
        assert event_type.name not in cache.event_types


def new_key(connection: Transaction, account_seq: int) -> ApiKey:
    return keys.create(
        connection, key_id=b"k" * 16, account_seq=account_seq, name="", digest=b"d" * 32, ends_with="", now=0,
        scopes=frozenset(),
    )  # fmt: skip


def new_event_type(connection: Transaction) -> EventType:
    event_type, _ = event_types.put(
        connection, name="new.type", group="new", description="", schema=None, example=None, api_version="",
        archived=False, now=0,
    )  # fmt: skip
    return event_type
