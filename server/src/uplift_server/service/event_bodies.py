"""Decodes the JSON bodies of single events, of batches of events, and of messages in the event stream."""

from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from uplift_server.core.ids import uuid_text
from uplift_server.core.limits import BATCH_EVENTS_MAX, PROBLEMS_LISTED_MAX
from uplift_server.core.problems import Problem
from uplift_server.core.suggestions import unknown_fields
from uplift_server.service.errors import Invalid
from uplift_server.service.ingest import Incoming
from uplift_server.service.rejections import malformed_json
from uplift_server.store.hot_records import IdempotencyConflict

T = TypeVar("T")


class Event(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a single event."""

    type: str
    data: msgspec.Raw
    id: str | None = None
    idempotency_key: str | None = None
    expires_at: str | None = None
    ordering_key: str | None = None


class BatchEvent(Event, forbid_unknown_fields=True):
    """An event in a batch. The event can name its account."""

    account: str | None = None


class _Batch(msgspec.Struct, forbid_unknown_fields=True):
    events: list[BatchEvent]


_single = msgspec.json.Decoder(Event)
_batch = msgspec.json.Decoder(_Batch)
# Decoders for bodies that the decoders above reject. They do not decode the fields, so a large body costs little.
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_list = msgspec.json.Decoder(list[msgspec.Raw])
_text = msgspec.json.Decoder(str)
_TEXT_FIELDS: Final = ("id", "idempotency_key", "expires_at", "ordering_key", "account")
_FIELDS: Final = frozenset({"type", "data", "id", "idempotency_key", "expires_at", "ordering_key"})
_BATCH_FIELDS: Final = _FIELDS | {"account"}
_BATCH_BODY_FIELDS: Final = frozenset({"events"})
NO_TEXTS: Final[Mapping[str, str]] = {}


def _decode(decoder: "msgspec.json.Decoder[T]", body: bytes) -> T | None:
    """Return the decoded body, or None if it does not match the decoder's type.

    Raises Malformed if the body is not JSON.
    """
    try:
        # Only this check finds bytes in `data` that are not UTF-8, because the decoder does not read `data`.
        body.decode()
        return decoder.decode(body)
    except msgspec.ValidationError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise malformed_json(error) from error


def decode_event(body: bytes, account_texts: Mapping[str, str]) -> tuple[Event | Incoming, list[Problem]]:
    """Return a single event. If it has invalid fields, return the readable fields and the problems.

    `account_texts` contains an error message for each field that names an account, because a single event must not have
    such fields. Raises Malformed if the body is not JSON, or Invalid if it is not an object.
    """
    event = _decode(_single, body)
    return (event, []) if event is not None else _readable_one(body, account_texts)


def decode_batch(body: bytes) -> tuple[Sequence[BatchEvent | Incoming], list[Problem]]:
    """Return the events of a batch. If fields are invalid, return the readable fields of each event and the problems.

    Raises Malformed if the body is not JSON, or Invalid if it has no list of events.
    """
    batch = _decode(_batch, body)
    return (batch.events, []) if batch is not None else _readable_batch(body)


def _fields_of(body: bytes) -> dict[str, msgspec.Raw] | None:
    """Return the undecoded fields of a JSON object, or None if the body is another JSON value.

    Call this function after the typed decoder has rejected a field. The typed decoder stops at that field, but this
    function reads the whole body. Raises Malformed if the body is not JSON.
    """
    try:
        return _fields.decode(body)
    except msgspec.ValidationError:
        return None
    except (msgspec.DecodeError, RecursionError) as error:
        raise malformed_json(error) from error


def _readable_one(body: bytes, account_texts: Mapping[str, str]) -> tuple[Incoming, list[Problem]]:
    """Return the readable fields of an event that has invalid fields, and the problems with the invalid fields."""
    problems: list[Problem] = []
    event = _readable(body, "", _FIELDS, problems, account_texts)
    if event is None:
        raise Invalid(problems)
    return event, problems


def _readable_batch(body: bytes) -> tuple[list[Incoming], list[Problem]]:
    """Return the readable fields of the events in a batch, and the problems with the invalid fields."""
    fields = _fields_of(body)
    try:
        events = None if fields is None else _list.decode(fields["events"])
    except (KeyError, msgspec.ValidationError):
        events = None
    if fields is None or events is None:
        unknown = unknown_fields(fields or {}, _BATCH_BODY_FIELDS)
        text = 'The body must be an object with a list of events. Send {"events": […]}.'
        raise Invalid([*unknown, Problem("events", "required", text)])
    problems = unknown_fields(fields, _BATCH_BODY_FIELDS)
    if not 1 <= len(events) <= BATCH_EVENTS_MAX:
        raise Invalid([*problems, wrong_count(len(events))])
    found = []
    for index, raw in enumerate(events):
        if len(problems) > PROBLEMS_LISTED_MAX:
            raise Invalid(problems)
        event = _readable(bytes(raw), f"events.{index}.", _BATCH_FIELDS, problems)
        found.append(Incoming(None, None) if event is None else event)
    return found, problems


def _readable(
    body: bytes,
    prefix: str,
    known: frozenset[str],
    problems: list[Problem],
    texts_of_unknown: Mapping[str, str] = NO_TEXTS,
) -> Incoming | None:
    """Return the readable fields of one event, and add the problems with the other fields to `problems`.

    Return None if the event is not a JSON object. `texts_of_unknown` contains error messages for some unknown fields.
    """
    fields = _fields_of(body)
    if fields is None:
        text = "The event must be a JSON object with `type` and `data`."
        problems.append(Problem(prefix.rstrip("."), "type_object", text))
        return None
    problems += unknown_fields(fields, known, prefix, texts_of_unknown)
    texts: dict[str, str] = {}
    for name in ("type", *(each for each in _TEXT_FIELDS if each in known)):
        raw = fields.get(name)
        if raw is None or (name != "type" and bytes(raw) == b"null"):
            continue
        try:
            texts[name] = _text.decode(raw)
        except msgspec.ValidationError:
            text = (
                "The event type must be a string."
                if name == "type"
                else "The field must be a string. Correct or omit it."
            )
            problems.append(Problem(prefix + name, "type_text", text))
    if "type" not in fields:
        problems.append(
            Problem(
                f"{prefix}type",
                "required",
                "The event type is missing. Set type to an event type from GET /v1/event-types.",
            )
        )
    data = fields.get("data")
    if data is None:
        problems.append(Problem(f"{prefix}data", "required", "The event's data is missing. Send a JSON object."))
    return Incoming(texts.pop("type", None), None if data is None else bytes(data), **texts)


def wrong_count(count: int) -> Problem:
    """Return the problem with a batch that has too few or too many events."""
    return Problem("events", "events_count", f"The batch has {count} events. Send 1 to {BATCH_EVENTS_MAX} events.")


def conflict_text(conflict: IdempotencyConflict, idempotency_key: str | None, event_id: str | None) -> str:
    """Return the error text for an idempotency key or event ID that belongs to another event."""
    what, used = "idempotency key", idempotency_key
    if conflict.field == "id":
        what, used = "event ID", event_id
    return (
        f"The {what} {used} was already used for event {uuid_text(conflict.event_id)} with different content. Use a new"
        f" {what} for a new event."
    )
