"""The envelope of an event, byte by byte."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.events.envelope import (
    API_VERSION_DEFAULT,
    api_version_of,
    build,
    build_test,
    data_of,
    event_id_of,
    without_data,
)

EVENT_ID = "0197f0c2-0000-7000-8000-000000000000"
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(), values, max_size=3),
    max_leaves=8,
)


def test_the_exact_bytes() -> None:
    body = build(EVENT_ID, "movement.analytics.created", API_VERSION_DEFAULT, 1_764_000_000_000, b'{"object":{"a": 1}}')

    assert body == (
        b'{"id":"0197f0c2-0000-7000-8000-000000000000","object":"event","type":"movement.analytics.created",'
        b'"api_version":"01/01/2022","created":1764000000000,"data":{"object":{"a": 1}}}'
    )


@given(st.text(max_size=20), st.text(max_size=20), st.integers(0, 10**14), JSON_VALUES)
def test_an_envelope_is_json_with_the_same_data(
    event_type: str, api_version: str, created_ms: int, value: object
) -> None:
    data = json.dumps(value, ensure_ascii=False, indent=1).encode()
    body = build(EVENT_ID, event_type, api_version, created_ms, data)

    assert json.loads(body) == {
        "id": EVENT_ID,
        "object": "event",
        "type": event_type,
        "api_version": api_version,
        "created": created_ms,
        "data": value,
    }
    assert event_id_of(body) == EVENT_ID.encode()
    assert data_of(body) == data
    assert api_version_of(body) == api_version


def test_a_test_event_has_a_mark() -> None:
    live = build(EVENT_ID, "a.b", API_VERSION_DEFAULT, 5, b'{"object":{}}')
    test = build_test(EVENT_ID, "a.b", API_VERSION_DEFAULT, 5, b'{"object":{}}')

    assert json.loads(test) == {**json.loads(live), "test": True}
    assert (event_id_of(test), api_version_of(test)) == (EVENT_ID.encode(), API_VERSION_DEFAULT)
    assert data_of(test) == b'{"object":{}}'


@pytest.mark.parametrize("build_any", [build, build_test])
def test_an_erased_event_keeps_all_but_its_data(build_any: Callable[..., bytes]) -> None:
    body = build_any(EVENT_ID, ',"data":1', API_VERSION_DEFAULT, 5, b'{"object":{"data":2}}')
    erased = without_data(body)

    assert json.loads(erased) == {**json.loads(body), "data": None}
    assert data_of(erased) == b"null"
    assert without_data(erased) == erased


def test_text_is_never_parsed_as_a_key() -> None:
    body = build(EVENT_ID, ',"api_version":"x","data":1', ',"created":1,"data":2', 3, b'{"data":4,"api_version":5}')

    assert data_of(body) == b'{"data":4,"api_version":5}'
    assert api_version_of(body) == ',"created":1,"data":2'


@pytest.mark.parametrize("body", [b"", b"{}", b'{"id":"1"}'])
def test_other_bodies_are_rejected(body: bytes) -> None:
    with pytest.raises(ValueError, match="not found"):
        data_of(body)
    with pytest.raises(ValueError, match="not found"):
        without_data(body)
    with pytest.raises(ValueError, match="not found"):
        api_version_of(body)
