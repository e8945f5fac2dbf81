"""What goes over the stream of a listen session: events one way, answers the other."""

import json
from dataclasses import dataclass
from typing import Any, Final

ANSWER_BODY_BYTES_MAX: Final = 1024
"""So much of what the local server answered is told."""


class NotAFrame(ValueError):
    """What came is nothing the server sends; the text says why."""


@dataclass(frozen=True)
class EventFrame:
    """An event as it came."""

    place: str
    """Where it stands in the stream; opaque."""
    event: str
    """Its id, the same for everybody who gets it."""
    type: str
    created_at: str
    delivery: str
    """The same however often this session gets the event."""
    test: bool
    """Whether somebody asked for it, for this session alone; such an event has no place to go on from."""
    body: bytes
    """The envelope, byte for byte."""


@dataclass(frozen=True)
class Answer:
    """What came of handing an event over."""

    status_code: int | None
    """None where no answer came."""
    duration_ms: int
    error: str | None = None
    """Why none came, in words."""
    body: str = ""
    """The beginning of it."""

    @property
    def delivered(self) -> bool:
        """Whether a server of Uplift's would take this for success."""
        return self.status_code is not None and 200 <= self.status_code <= 299


def read_event(frame: bytes) -> EventFrame:
    """An event's frame: a line of JSON, and the envelope. Raises NotAFrame."""
    line, separator, body = frame.partition(b"\n")
    header = _object(line)
    texts = [header.get(name) for name in ("place", "event", "type", "created_at", "delivery")]
    if not separator or header.get("kind") != "event" or not all(isinstance(each, str) for each in texts):
        raise NotAFrame("a binary frame that is no event")
    place, event, type_name, created_at, delivery = map(str, texts)
    if not all(each.isascii() and each.isprintable() for each in (event, type_name, delivery)):
        # They become headers of a request.
        raise NotAFrame("an event whose id or type cannot be a header")
    return EventFrame(place, event, type_name, created_at, delivery, header.get("test") is True, body)


def is_ready(frame: str | bytes) -> bool:
    """Whether a frame says that the stream has begun. Raises NotAFrame."""
    return isinstance(frame, str) and _object(frame).get("kind") == "ready"


def answer_frame(place: str, answer: Answer, *, redelivered: bool) -> str:
    """What the server is told of an event."""
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
        raise NotAFrame("a frame that begins with no JSON object")
    return value
