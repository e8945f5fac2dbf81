"""Messages of the event stream: repeats of an event have the same ID, and different events have different IDs."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from uplift_server.core.ids import parse_uuid, uuid_text
from uplift_server.delivery.endpoint_cache import LiveEventType
from uplift_server.delivery.ingest import Draft
from uplift_server.delivery.streams.messages import accepted_message, message_id, parse_accepted
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
KEYED = Draft(TYPE, b'{"n": 1}', (), idempotency_key="k")


def test_an_accepted_event_keeps_its_content_byte_for_byte() -> None:
    draft = Draft(TYPE, b'{"n" :1.0,  "\xc3\xa9": "\\u00e9"}', (), A, "key", 5, "order")
    message = parse_accepted(accepted_message(draft, A, 1234, "00-trace"))
    assert message is not None
    assert bytes(message.data) == draft.data
    assert (parse_uuid(message.id), message.type, message.type_number) == (A, "t.numbered", 7)
    assert (message.idempotency_key, message.expires_at, message.ordering_key) == ("key", 5, "order")
    assert (message.created_at, message.chose_id, message.traceparent) == (1234, True, "00-trace")


@given(st.binary(max_size=200))
def test_other_bytes_are_not_an_accepted_event(payload: bytes) -> None:
    assert parse_accepted(payload) is None


def test_a_repeat_has_the_same_message_id() -> None:
    assert message_id(1, KEYED, A) == message_id(1, KEYED, B)
    chosen = replace(KEYED, idempotency_key=None, id=A)
    assert message_id(1, chosen, A) == message_id(1, chosen, A)


def test_different_events_have_different_message_ids() -> None:
    different = [
        KEYED,
        replace(KEYED, idempotency_key="l"),
        replace(KEYED, data=b'{"n":1}'),
        replace(KEYED, ordering_key="o"),
        replace(KEYED, expires_at=1),
        replace(KEYED, id=A),
        replace(KEYED, id=A, idempotency_key=None),
    ]
    ids = {message_id(1, draft, A) for draft in different}
    ids.add(message_id(2, KEYED, A))
    assert len(ids) == len(different) + 1


def test_an_event_without_a_name_is_never_a_repeat() -> None:
    draft = replace(KEYED, idempotency_key=None)
    assert message_id(1, draft, A) == uuid_text(A)
    assert message_id(1, draft, B) == uuid_text(B)
