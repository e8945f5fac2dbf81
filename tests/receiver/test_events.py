"""Typed events: classes match the catalog and accept any data."""

import dataclasses
import json
import pickle
import types
import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import uplift_webhooks
from uplift_server.core.events.catalog import EVENT_TYPES
from uplift_webhooks import (
    AnyEvent,
    AthleteUpdated,
    Event,
    ExportCompleted,
    MovementAnalyticsCreated,
    UnknownEvent,
    Webhook,
    resources,
)
from uplift_webhooks.events import KINDS, read_event
from uplift_webhooks.resources import Resource, json_names
from uplift_webhooks.testing import sign

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
CATALOG = {each.name: each for each in EVENT_TYPES}
RESOURCES = [each for each in vars(resources).values() if isinstance(each, type) and issubclass(each, Resource)]
PERSONAL = {
    *("name", "first_name", "last_name", "date_of_birth", "email", "height", "weight", "custom_attributes"),
    *("url", "hook_url", "raw"),
}


def _event(type_name: str, data: Any) -> AnyEvent:
    return read_event({"id": "e_1", "type": type_name, "created": 5, "data": data}, None)


def _class_of(type_name: str) -> type[Resource]:
    found = typing.get_type_hints(KINDS[type_name].object.fget)["return"]  # type: ignore[attr-defined]
    assert issubclass(found, Resource)
    return found


def _described(schema: Any) -> Any:
    """Return the type of a property in a schema, as the classes declare it."""
    if "enum" in schema or "const" in schema:
        return str | None
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if "array" in kinds:
        return tuple[str, ...]
    if "object" in kinds:
        return schema
    python = {"string": str, "integer": int, "number": float, "null": type(None)}
    return typing.Union[tuple(python[kind] for kind in [*kinds, "null"])]  # noqa: UP007 - built from values


def _differences(kind: type[Resource], schema: Any, path: str) -> list[str]:
    hints = typing.get_type_hints(kind)
    names = {json_name: name for name, json_name in json_names(kind).items()}
    wrong = [f"{path}.{name}" for name in names.keys() ^ schema["properties"].keys()]
    for json_name, property_schema in schema["properties"].items():
        hint, described = hints[names[json_name]], _described(property_schema)
        nested = [each for each in typing.get_args(hint) if isinstance(each, type) and issubclass(each, Resource)]
        if nested:
            wrong += _differences(nested[0], described, f"{path}.{json_name}")
        elif isinstance(described, dict):
            assert described["additionalProperties"] == {"type": "string"}
            assert hint == typing.get_type_hints(resources.AthleteProfile)["custom_attributes"]
        elif set(typing.get_args(hint)) != set(typing.get_args(described)):
            wrong.append(f"{path}.{json_name}: {hint}")
    return wrong


@pytest.mark.parametrize("name", CATALOG)
def test_the_classes_match_the_catalog(name: str) -> None:
    schema: Any = CATALOG[name].schema
    only_in_updates = [f"{name}.changed"] if name == "athlete.created" else []
    assert _differences(_class_of(name), schema["properties"]["object"], name) == only_in_updates


def test_every_catalog_type_has_an_importable_class() -> None:
    assert KINDS.keys() == CATALOG.keys()
    assert isinstance(AnyEvent, types.UnionType)
    assert set(typing.get_args(AnyEvent)) == {*KINDS.values(), UnknownEvent}
    assert {kind.__name__ for kind in KINDS.values()} <= set(uplift_webhooks.__all__)


def _read_back(resource: Resource) -> dict[str, Any]:
    found = {}
    for name, json_name in json_names(type(resource)).items():
        value = getattr(resource, name)
        value = _read_back(value) if isinstance(value, Resource) else value
        found[json_name] = list(value) if isinstance(value, tuple) else value
    return found


@pytest.mark.parametrize("name", CATALOG)
def test_every_property_of_an_example_is_parsed(name: str) -> None:
    example: Any = json.loads(json.dumps(CATALOG[name].example))
    event = _event(name, example)

    assert type(event) is KINDS[name]
    read = event.object  # type: ignore[union-attr]
    assert read.raw == example["object"] == event.data.object
    assert {name: value for name, value in _read_back(read).items() if name in read.raw} == read.raw
    assert not [value for name, value in _read_back(read).items() if name not in read.raw and value]
    assert pickle.loads(pickle.dumps(event)) == event
    assert pickle.loads(pickle.dumps(read)) == read


def test_a_session_has_named_attributes() -> None:
    body = json.dumps(
        {
            "id": "e_1",
            "type": "movement.analytics.created",
            "data": {
                "object": {
                    "id": "s_1",
                    "data": {"url": "https://cdn.example/x.csv", "expires": 7},
                    "athlete": {"name": "Ada", "mlbam_id": 660271},
                    "organization": {"id": {"organizationId": "o", "roleName": "owner"}},
                    "speed": 41.5,
                }
            },
        }
    ).encode()
    event = Webhook(SECRET).unwrap(body, sign(body, SECRET))

    assert isinstance(event, MovementAnalyticsCreated)
    assert isinstance(event, Event)
    session = event.object
    assert session.data is not None
    assert session.athlete is not None
    assert session.organization is not None
    assert session.organization.id is not None
    assert (session.id, session.data.url, session.data.expires) == ("s_1", "https://cdn.example/x.csv", 7)
    assert (session.athlete.name, session.athlete.mlbam_id, session.athlete.ebis_id) == ("Ada", 660271, None)
    assert (session.organization.id.organization_id, session.organization.id.role_name) == ("o", "owner")
    assert session.raw["speed"] == 41.5
    assert "Ada" not in repr(event) + repr(session)
    assert "cdn.example" not in repr(event) + repr(session)
    with pytest.raises(dataclasses.FrozenInstanceError):
        session.id = "other"  # type: ignore[misc]
    assert len({session, event.object}) == 1


def test_a_type_outside_the_catalog_is_an_unknown_event() -> None:
    event = _event("pitch.tracked", {"speed": 41.5})

    assert type(event) is UnknownEvent
    assert (event.type, event.data["speed"]) == ("pitch.tracked", 41.5)


@pytest.mark.parametrize("name", CATALOG)
@pytest.mark.parametrize("data", [None, [], "text", {}, {"object": None}, {"object": []}, {"object": {"data": 5}}])
def test_absent_null_and_invalid_values_are_none(name: str, data: Any) -> None:
    read = _event(name, data).object  # type: ignore[union-attr]

    assert not [value for value in _read_back(read).values() if value]


@pytest.mark.parametrize(("number", "expected"), [("7", 7), ("1763395200.0", 1763395200), ("1e3", 1000), ("1.5", None)])
def test_a_number_without_a_fraction_is_an_integer(number: str, expected: int | None) -> None:
    """In JSON Schema, 1.0 is an integer."""
    read = _event("export.completed", {"object": {"rowCount": json.loads(number)}}).object  # type: ignore[union-attr]

    assert (read.row_count, type(read.row_count)) == (expected, type(expected))


@pytest.mark.parametrize("kind", RESOURCES)
def test_the_repr_of_a_resource_hides_personal_data(kind: type[Resource]) -> None:
    assert not {each.name for each in dataclasses.fields(kind) if each.repr} & PERSONAL


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=3,
)
NAMES = sorted({name for kind in RESOURCES for name in json_names(kind).values()})


@given(st.sampled_from(sorted(CATALOG)), st.dictionaries(st.sampled_from(NAMES), values))
def test_any_data_can_be_parsed(name: str, data: dict[str, Any]) -> None:
    event = _event(name, {"object": data})
    read = event.object  # type: ignore[union-attr]
    assert read.raw == data
    repr(read)
    hash(read)


@pytest.mark.parametrize(("given_height", "height"), [(70, 70), (70.5, 70.5), ("70", None), (True, None), (None, None)])
def test_only_numbers_are_parsed_as_numbers(given_height: Any, height: float | None) -> None:
    event = _event("athlete.updated", {"object": {"height": given_height, "positions": ["P", 5], "changed": "height"}})

    assert isinstance(event, AthleteUpdated)
    assert (event.object.height, event.object.positions, event.object.changed) == (height, ("P",), ())


def test_camel_case_names_are_parsed() -> None:
    event = _event("export.completed", {"object": {"jobId": "j", "rowCount": 3, "row_count": 9}})

    assert isinstance(event, ExportCompleted)
    assert (event.object.job_id, event.object.row_count) == ("j", 3)
