"""The built-in event types."""

import json

import jsonschema_rs
import pytest

from uplift_server.core.events.catalog import (
    EVENT_TYPES,
    EXTENSION_NOTE,
    MOVEMENT_ANALYTICS_CREATED,
    WEBHOOK_CREATED,
    EventType,
)
from uplift_server.core.events.event_types import check_name
from uplift_server.core.events.operational import OPERATIONAL_TYPES

NAMES = [event_type.name for event_type in EVENT_TYPES]
DOCUMENTED = [event_type for event_type in EVENT_TYPES if event_type.documented]

every_type = pytest.mark.parametrize("event_type", EVENT_TYPES, ids=NAMES)


def validator(event_type: EventType) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(json.loads(json.dumps(event_type.schema)))


def test_uplift_documents_two() -> None:
    assert [event_type.name for event_type in DOCUMENTED] == [MOVEMENT_ANALYTICS_CREATED, WEBHOOK_CREATED]
    assert len(set(NAMES)) == len(NAMES)


@every_type
def test_extensions_are_marked(event_type: EventType) -> None:
    assert (EXTENSION_NOTE in event_type.description) != event_type.documented


@every_type
def test_an_entry_is_complete_and_its_example_matches_its_schema(event_type: EventType) -> None:
    assert check_name(event_type.name) is None
    is_operational = event_type.name in OPERATIONAL_TYPES
    assert event_type.group == ("operational" if is_operational else event_type.name.split(".")[0])
    assert event_type.api_version == "01/01/2022"
    assert event_type.schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema_rs.meta.validate(json.loads(json.dumps(event_type.schema)))
    validator(event_type).validate(json.loads(json.dumps(event_type.example)))


@every_type
def test_data_is_an_object_with_an_object(event_type: EventType) -> None:
    candidates: list[object] = [{}, [], None, "x", {"object": None}, {"object": []}, {"object": {}}]
    for data in candidates:
        assert not validator(event_type).is_valid(data)


@pytest.mark.parametrize("event_type", DOCUMENTED, ids=[event_type.name for event_type in DOCUMENTED])
def test_types_documented_by_example_require_no_properties(event_type: EventType) -> None:
    assert validator(event_type).is_valid({"object": {"unknown": 1}})
    assert validator(event_type).is_valid({"object": {"unknown": 1}, "unknown": 2})


def test_extensions_require_their_key_properties() -> None:
    for event_type in EVENT_TYPES:
        assert event_type.documented or not validator(event_type).is_valid({"object": {"unknown": 1}})


def test_the_documented_example_has_the_published_shape() -> None:
    example = json.loads(json.dumps(EVENT_TYPES[0].example))

    def shape(value: object) -> object:
        if isinstance(value, dict):
            return {key: shape(inner) for key, inner in value.items()}
        return type(value).__name__

    # Source: upliftlabs/uplift-sample-webhooks-python-app, examples/payloads.
    assert shape(example) == {
        "object": {
            "id": "str",
            "activity": "str",
            "movement": "str",
            "data": {"url": "str", "expires": "int"},
            "organization": {"id": {"organizationId": "str", "userId": "str", "roleName": "str"}, "user": "str"},
            "athlete": {"id": "str", "name": "str", "ebis_id": "NoneType", "mlbam_id": "NoneType"},
        }
    }
    resource = example["object"]
    assert resource["organization"]["id"]["userId"] == resource["organization"]["user"]
