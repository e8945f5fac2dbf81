"""Parsing of a verified body."""

import dataclasses
import pickle
from typing import Any

import pytest

from uplift_webhooks.errors import WebhookVerificationError
from uplift_webhooks.event import Data, parse_object
from uplift_webhooks.events import read_event

ENVELOPE: dict[str, Any] = {
    "id": "0197f0c2-0000-7000-8000-000000000001",
    "object": "event",
    "type": "movement.analytics.created",
    "api_version": "01/01/2022",
    "created": 1764000000000,
    "data": {"object": {"id": "s_1", "athlete": {"name": "Ada"}}},
    "later": [1],
}


def test_an_envelope_becomes_an_event_with_unknown_members() -> None:
    event = read_event(ENVELOPE, None)

    assert (event.id, event.type) == (ENVELOPE["id"], "movement.analytics.created")
    assert (event.api_version, event.created) == ("01/01/2022", 1764000000000)
    assert event.data == ENVELOPE["data"]
    assert event.data.object["id"] == event.data["object"]["id"] == "s_1"
    assert event.raw["later"] == [1]


def test_an_event_is_immutable_hashable_and_picklable() -> None:
    event = read_event(ENVELOPE, None)

    with pytest.raises(dataclasses.FrozenInstanceError):
        event.id = "x"  # type: ignore[misc]
    assert len({event, read_event(ENVELOPE, None)}) == 1
    assert pickle.loads(pickle.dumps(event)) == event


def test_the_repr_of_an_event_hides_the_athlete() -> None:
    assert "Ada" not in repr(read_event(ENVELOPE, None))


@pytest.mark.parametrize("data", [None, [], "text", 5, True])
def test_data_that_is_not_an_object_is_unchanged(data: Any) -> None:
    assert read_event({**ENVELOPE, "data": data}, None).data == data


def test_data_without_an_object_raises_key_error() -> None:
    with pytest.raises(KeyError):
        assert Data().object


@pytest.mark.parametrize("others", [{}, {"id": None, "api_version": None, "created": None}])
def test_absent_members_have_defaults_and_the_message_id_is_used(others: dict[str, Any]) -> None:
    """Other senders of Standard Webhooks put the ID in a header."""
    event = read_event({"type": "t.u", "data": {}, **others}, "msg_1")

    assert (event.id, event.type, event.api_version, event.created, event.data) == ("msg_1", "t.u", "", 0, {})


@pytest.mark.parametrize(
    ("envelope", "name"),
    [
        ({}, "type"),
        ({"a": 1}, "type"),
        ({"id": "x", "type": None, "data": {}}, "type"),
        ({"id": "x", "type": "", "data": {}}, "type"),
        ({"id": "x", "type": "t.u"}, "data"),
    ],
)
def test_a_body_without_type_or_data_is_rejected(envelope: dict[str, Any], name: str) -> None:
    with pytest.raises(WebhookVerificationError) as caught:
        read_event(envelope, "msg_1")
    assert (caught.value.reason, f"{name!r} is missing" in caught.value.cause) == ("body_not_event", True)


@pytest.mark.parametrize(
    "changes",
    [{"id": 5}, {"id": ["x"]}, {"type": 5}, {"api_version": 2022}, {"created": "now"}, {"created": True}, {"id": None}],
)
def test_invalid_members_and_a_missing_id_are_rejected(changes: dict[str, Any]) -> None:
    with pytest.raises(WebhookVerificationError) as caught:
        read_event({**ENVELOPE, **changes}, None)
    assert caught.value.reason == "body_not_event"
    assert repr(next(iter(changes))) in caught.value.cause


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'"text"',
        b"null",
        b"5",
        b"{",
        b"{}{}",
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b"\xff\xfe{\x00}\x00",
        b"\xef\xbb\xbf{}",
        b'{"a":"\xff"}',
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"a":' + b"9" * 100_000 + b"}",
    ],
)
def test_a_body_that_is_not_an_object_is_rejected_and_not_shown(body: bytes) -> None:
    with pytest.raises(WebhookVerificationError) as caught:
        parse_object(body)
    assert caught.value.reason == "body_not_json_object"
    assert caught.value.__cause__ is None


def test_non_ascii_text_is_unchanged() -> None:
    assert parse_object('{"a":"Zoë \\u00e9 🏀"}'.encode()) == {"a": "Zoë é 🏀"}
