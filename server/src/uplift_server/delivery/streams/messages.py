"""Messages of the event stream: the accepted events in them, and the message ID by which NATS detects repeats."""

import hashlib
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from uplift_server.core.ids import uuid_text
from uplift_server.core.timestamps import TIMESTAMP_MAX
from uplift_server.delivery.ingest import Draft

MESSAGE_ID: Final = "Nats-Msg-Id"
EVENTS_MAX: Final = 1_000
"""More than the number of events in any message of a server."""
_AccountId = Annotated[str, msgspec.Meta(pattern=r"^acc_[0-9a-f]{32}\Z")]
_Timestamp = Annotated[int, msgspec.Meta(ge=0, le=TIMESTAMP_MAX)]


class AcceptedEvent(msgspec.Struct, omit_defaults=True):
    """An event that the server has accepted, with all fields that the database stores."""

    id: str
    account: _AccountId
    type: str
    data: msgspec.Raw
    created_at: _Timestamp
    """The time when the server accepted the event (Unix ms)."""
    type_number: int
    endpoints: list[int] = []
    """The sequence numbers of the endpoints that receive the event."""
    idempotency_key: str | None = None
    expires_at: _Timestamp | None = None
    """The time when the event expires (Unix ms). None if it does not expire."""
    ordering_key: str | None = None
    chose_id: bool = False
    """Whether the caller chose the event ID."""
    traceparent: str | None = None


class _Identity(msgspec.Struct):
    """The fields that identify an event: they are the same in a message and in its repeats."""

    account_seq: int
    idempotency_key: str | None
    id: str | None
    type_number: int
    data: msgspec.Raw
    ordering_key: str | None
    expires_at: int | None


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(list[AcceptedEvent])
_array_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_event_decoder = msgspec.json.Decoder(AcceptedEvent)
_INVALID: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def encode_event(account: str, draft: Draft, event_id: bytes, created_at: int, traceparent: str | None) -> bytes:
    """Return the content of an accepted event in a message. `account` is the account's ID."""
    return _encode(
        AcceptedEvent(
            uuid_text(event_id),
            account,
            draft.event_type.name,
            msgspec.Raw(draft.data),
            created_at,
            draft.event_type.seq,
            [endpoint.seq for endpoint in draft.endpoints],
            draft.idempotency_key,
            draft.expires_at,
            draft.ordering_key,
            draft.id is not None,
            traceparent,
        )
    )


def join_events(events: Sequence[bytes]) -> bytes:
    """Return the message for one or more accepted events, whose contents are from `encode_event`."""
    return b"[" + b",".join(events) + b"]"


def parse_accepted(payload: bytes) -> Sequence[AcceptedEvent | msgspec.Raw] | None:
    """Return the accepted events in a message, in order. Return an event that is not valid as its JSON.

    Return None if the message is not a JSON array with at least one event. Also return None if it has events that are
    not valid and more than EVENTS_MAX elements, so that a hostile message does not become many rejected events.
    """
    try:
        return _decoder.decode(payload) or None
    except _INVALID:
        pass
    try:
        contents = _array_decoder.decode(payload)
    except _INVALID:
        return None
    return [_parse_event(each) for each in contents] if 0 < len(contents) <= EVENTS_MAX else None


def _parse_event(content: msgspec.Raw) -> AcceptedEvent | msgspec.Raw:
    try:
        return _event_decoder.decode(content)
    except _INVALID:
        return content


def may_repeat(draft: Draft) -> bool:
    """Return whether the caller chose an idempotency key or an ID.

    Only then can an earlier message contain the same event.
    """
    return draft.idempotency_key is not None or draft.id is not None


def identify(account_seq: int, draft: Draft, event_id: bytes) -> str:
    """Return a text that is the same for an event and its repeats.

    Events with different content have different texts. Therefore, NATS keeps both messages of an idempotency conflict,
    and the database detects the conflict.
    """
    if not may_repeat(draft):
        return uuid_text(event_id)
    own_id = None if draft.id is None else uuid_text(draft.id)
    fields = _Identity(
        account_seq,
        draft.idempotency_key,
        own_id,
        draft.event_type.seq,
        msgspec.Raw(draft.data),
        draft.ordering_key,
        draft.expires_at,
    )
    return hashlib.sha256(_encode(fields)).hexdigest()


def message_id(identities: Sequence[str]) -> str:
    """Return the message ID by which NATS detects repeats, from the identities of the events in the message."""
    return identities[0] if len(identities) == 1 else hashlib.sha256(" ".join(identities).encode()).hexdigest()
