"""Changes of the catalog by several processes with stale caches."""

import json
from collections.abc import Callable

import pytest

from uplift_server.service.errors import Invalid, NotFound
from uplift_server.service.event_types import EventTypeDraft
from uplift_server.service.startup import prepare
from uplift_server.store import event_types
from uplift_server.store.contract import Transaction
from uplift_server.store.records import EventType

from .world import PROCESS_KEY, World

NAME = "pitch.tracked"
SCHEMA = {"type": "object", "required": ["speed"]}


@pytest.fixture
async def other(world: World) -> World:
    """Return the services of another process, whose cache has the catalog from its start."""
    await world.services.event_types.put(world.operator, NAME, EventTypeDraft(description="A pitch."))
    other = World(world.database, world.place)
    await prepare(other.context, PROCESS_KEY, None)
    other.operator_key = world.operator_key
    return other


async def stored(world: World, name: str = NAME) -> EventType:
    found = await world.database.read(lambda c: event_types.get(c, name))
    assert found is not None
    return found


async def test_archiving_uses_the_stored_type_not_the_cached_one(world: World, other: World) -> None:
    await world.services.event_types.put(world.operator, NAME, EventTypeDraft(description="Two.", schema=SCHEMA))
    archived = await other.services.event_types.update(other.operator, NAME, EventTypeDraft(archived=True))
    assert archived == await stored(world)
    assert (archived.description, json.loads(archived.schema or "")) == ("Two.", SCHEMA)
    assert archived.archived_at is not None
    assert other.cache.event_types[NAME].record == archived
    published = await other.services.event_types.update(other.operator, NAME, EventTypeDraft(archived=False))
    assert (published.archived_at, published.schema) == (None, archived.schema)
    entries = [
        entry.details.get("changed") for entry in await world.audited() if entry.action == "event_type.published"
    ][-2:]
    assert entries == [["archived"], ["archived"]]


async def test_archiving_an_archived_type_is_not_audited_again(world: World, other: World) -> None:
    await world.services.event_types.update(world.operator, NAME, EventTypeDraft(archived=True))
    before = await stored(world), await world.audited()
    world.clock.now += 1
    assert await other.services.event_types.update(other.operator, NAME, EventTypeDraft(archived=True)) == before[0]
    assert (await stored(world), await world.audited()) == before


async def test_a_name_published_by_another_process_is_taken(world: World, other: World) -> None:
    name = "pitch.called"
    await world.services.event_types.put(world.operator, name, EventTypeDraft(description="A call."))
    assert not other.services.event_types.exists(name)
    with pytest.raises(Invalid) as rejected:
        await other.services.event_types.put(
            other.operator, name, EventTypeDraft(description="Mine."), must_be_new=True
        )
    assert [(problem.field, problem.code) for problem in rejected.value.problems] == [("name", "taken")]
    assert (await stored(world, name)).description == "A call."


async def test_an_update_keeps_a_type_archived_by_another_process(world: World, other: World) -> None:
    await world.services.event_types.update(world.operator, NAME, EventTypeDraft(archived=True))
    changed = await other.services.event_types.update(other.operator, NAME, EventTypeDraft(description="Two."))
    assert (changed.description, changed.archived_at is not None) == ("Two.", True)
    assert await stored(world) == changed


async def test_an_update_does_not_recreate_a_type_deleted_by_another_process(world: World, other: World) -> None:
    await world.services.event_types.delete(world.operator, NAME)
    with pytest.raises(NotFound):
        await other.services.event_types.update(other.operator, NAME, EventTypeDraft(archived=True))
    assert await world.database.read(lambda c: event_types.get(c, NAME)) is None


async def test_an_update_starts_again_if_another_process_was_faster(
    world: World, other: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slower update uses the schema of the faster one to check its example, and keeps the other new fields."""
    read = other.database.read

    async def read_before_the_other(body: Callable[[Transaction], object]) -> object:
        found = await read(body)
        monkeypatch.undo()
        await world.services.event_types.update(world.operator, NAME, EventTypeDraft(description="Two.", schema=SCHEMA))
        return found

    monkeypatch.setattr(other.database, "read", read_before_the_other)
    with pytest.raises(Invalid) as rejected:
        await other.services.event_types.update(other.operator, NAME, EventTypeDraft(example={}))
    assert [problem.code for problem in rejected.value.problems] == ["schema_mismatch"]
    changed = await other.services.event_types.update(other.operator, NAME, EventTypeDraft(example={"speed": 1}))
    assert (changed.description, json.loads(changed.schema or "")) == ("Two.", SCHEMA)
