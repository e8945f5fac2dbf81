"""Messages of the event stream: repeats of an event have the same ID, and different events have different IDs."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from uplift_server.core.ids import parse_uuid, uuid_text
from uplift_server.core.timestamps import TIMESTAMP_MAX
from uplift_server.delivery.endpoint_cache import LiveEventType
from uplift_server.delivery.ingest import Draft
from uplift_server.delivery.streams.messages import (
    AcceptedEvent,
    encode_event,
    identify,
    join_events,
    message_id,
    parse_accepted,
)
from uplift_server.store.records import EventType

TYPE = LiveEventType(
    EventType(
        seq=7,
        name="t.numbered",
        group="t",
        description="",
        schema=None,
        example=None,
        api_version="1",
        archived_at=None,
        documented=False,
        created_at=0,
        updated_at=0,
    )
)
A, B = bytes(16), bytes([1]) * 16
ACCOUNT, OTHER = "acc_" + "1" * 32, "acc_" + "2" * 32
KEYED = Draft(TYPE, b'{"n": 1}', (), idempotency_key="k")


def test_an_accepted_event_keeps_its_content_byte_for_byte() -> None:
    draft = Draft(TYPE, b'{"n" :1.0,  "\xc3\xa9": "\\u00e9"}', (), A, "key", 5, "order")
    other = encode_event(OTHER, KEYED, B, 5, None)
    events = parse_accepted(join_events([other, encode_event(ACCOUNT, draft, A, 1234, "00-trace")]))
    assert events is not None
    other_event, event = events
    assert isinstance(other_event, AcceptedEvent)
    assert isinstance(event, AcceptedEvent)
    assert bytes(event.data) == draft.data
    assert (parse_uuid(event.id), event.account, event.type, event.type_number) == (A, ACCOUNT, "t.numbered", 7)
    assert (event.idempotency_key, event.expires_at, event.ordering_key) == ("key", 5, "order")
    assert (event.created_at, event.chose_id, event.traceparent) == (1234, True, "00-trace")
    assert (parse_uuid(other_event.id), other_event.account) == (B, OTHER)


@given(st.binary(max_size=200))
def test_other_bytes_are_not_an_accepted_event(payload: bytes) -> None:
    assert parse_accepted(payload) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"account": "acc_1"},
        {"account": ACCOUNT + "\n"},
        {"account": "$accepted"},
        {"account": "a" * 5000},
        {"created_at": -1},
        {"created_at": TIMESTAMP_MAX + 1},
        {"expires_at": 2**70},
    ],
)
def test_an_event_with_an_impossible_account_or_time_is_not_valid(wrong: dict[str, object]) -> None:
    fields = json.loads(encode_event(ACCOUNT, replace(KEYED, expires_at=5), A, 5, None))
    valid, invalid = (json.dumps(each).encode() for each in (fields, fields | wrong))
    before, at, after = parse_accepted(join_events([valid, invalid, valid])) or ()
    assert isinstance(before, AcceptedEvent)
    assert isinstance(after, AcceptedEvent)
    assert not isinstance(at, AcceptedEvent)
    assert bytes(at) == invalid


def test_a_message_without_events_is_not_valid() -> None:
    assert parse_accepted(join_events([])) is None


def test_a_repeat_has_the_same_identity() -> None:
    assert identify(1, KEYED, A) == identify(1, KEYED, B)
    chosen = replace(KEYED, idempotency_key=None, id=A)
    assert identify(1, chosen, A) == identify(1, chosen, A)


def test_different_events_have_different_identities() -> None:
    different = [
        KEYED,
        replace(KEYED, idempotency_key="l"),
        replace(KEYED, data=b'{"n":1}'),
        replace(KEYED, ordering_key="o"),
        replace(KEYED, expires_at=1),
        replace(KEYED, id=A),
        replace(KEYED, id=A, idempotency_key=None),
    ]
    identities = {identify(1, draft, A) for draft in different}
    identities.add(identify(2, KEYED, A))
    assert len(identities) == len(different) + 1


def test_an_event_without_a_name_is_never_a_repeat() -> None:
    draft = replace(KEYED, idempotency_key=None)
    assert identify(1, draft, A) == uuid_text(A)
    assert identify(1, draft, B) == uuid_text(B)


def test_messages_with_the_same_events_in_the_same_order_have_the_same_id() -> None:
    assert message_id(["a"]) == "a"
    ids = {message_id(each) for each in (["a", "b"], ["b", "a"], ["a", "b", "c"], ["ab"], ["a"])}
    assert len(ids) == 5
    assert message_id(["a", "b"]) == message_id(["a", "b"])
