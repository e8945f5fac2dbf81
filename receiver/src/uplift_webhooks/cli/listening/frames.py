"""The frames of a listen session's stream: events from the Uplift server, and the local server's responses."""

import json
from dataclasses import dataclass
from typing import Any, Final

RESPONSE_BODY_BYTES_MAX: Final = 1024
"""Maximum number of bytes of a response body that the listener sends to the Uplift server."""


class NotAFrame(ValueError):
    """A frame is not valid. The message states the cause."""


@dataclass(frozen=True)
class EventFrame:
    """An event that the server sent in a frame."""

    place: str
    """The event's position in the stream. Only the server can interpret it."""
    event: str
    """Event ID, the same for all endpoints and sessions."""
    type: str
    created_at: str
    delivery: str
    """Delivery ID. It stays the same if this session receives the event again."""
    test: bool
    """Whether the event is a test event for this session only. Its position is never used to continue a stream."""
    body: bytes
    """The unchanged bytes of the envelope."""


@dataclass(frozen=True)
class LocalResponse:
    """The local server's response to an event."""

    status_code: int | None
    """The status code, or None if there was no response."""
    duration_ms: int
    error: str | None = None
    """The reason why there was no response."""
    body: str = ""
    """The start of the response body."""

    @property
    def delivered(self) -> bool:
        """Whether Uplift counts the response as a success."""
        return self.status_code is not None and 200 <= self.status_code <= 299


def read_event(frame: bytes) -> EventFrame:
    """Parse an event's frame: one line of JSON, followed by the envelope. Raises NotAFrame."""
    line, separator, body = frame.partition(b"\n")
    header = _object(line)
    texts = [header.get(name) for name in ("place", "event", "type", "created_at", "delivery")]
    if not separator or header.get("kind") != "event" or not all(isinstance(each, str) for each in texts):
        raise NotAFrame("a binary frame that is not an event")
    place, event, type_name, created_at, delivery = map(str, texts)
    if not all(each.isascii() and each.isprintable() for each in (event, type_name, delivery)):
        # The listener sends these values in request headers.
        raise NotAFrame("an event with an ID or type that is not valid in a header")
    return EventFrame(place, event, type_name, created_at, delivery, header.get("test") is True, body)


def is_ready(frame: str | bytes) -> bool:
    """Return whether a frame marks the start of the stream. Raises NotAFrame if the frame is not valid."""
    return isinstance(frame, str) and _object(frame).get("kind") == "ready"


def answer_frame(place: str, answer: LocalResponse, *, redelivered: bool) -> str:
    """Return a frame that reports the local server's response to an event."""
    return json.dumps(
        {
            "kind": "answer",
            "place": place,
            "status_code": answer.status_code,
            "duration_ms": answer.duration_ms,
            "error": answer.error,
            "body": answer.body,
            "redelivered": redelivered,
        }
    )


def _object(text: str | bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise NotAFrame("a frame that does not start with a JSON object")
    return value
