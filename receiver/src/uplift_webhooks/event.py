"""The event a verified request carries."""

import json
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from uplift_webhooks.errors import WebhookVerificationError


class Data(dict[str, Any]):
    """An event's `data`: a dictionary whose one usual member can be read as `data.object`."""

    @property
    def object(self) -> Any:
        """What the event is about. KeyError where the event has no `object`."""
        return self["object"]


@dataclass(frozen=True, slots=True)
class Event:
    """One event, as its envelope says.

    An event may arrive more than once, with the same `id`: remember the ids you have handled. `repr` leaves the data
    out, because it names athletes.
    """

    id: str
    """A UUID, the same on every attempt and resend."""
    type: str
    """A dotted name such as `movement.analytics.created`; empty where the body has none."""
    api_version: str
    created: int
    """Unix time in ms; 0 where the body has none."""
    data: Any = field(hash=False, repr=False)
    """A `Data` for every JSON object, else the value as it came."""
    raw: dict[str, Any] = field(hash=False, repr=False)
    """The whole envelope, with the members this version of the library does not know."""


_MEMBERS: Final[tuple[tuple[str, type], ...]] = (("id", str), ("type", str), ("api_version", str), ("created", int))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant)


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object a body holds (RFC 8259: UTF-8, no NaN or Infinity).

    Raises:
        WebhookVerificationError: `body_not_json_object`.
    """
    try:
        value = _DECODER.decode(body.decode("utf-8"))
    # RecursionError: nesting beyond Python's stack. The original error is dropped because it holds the body.
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise WebhookVerificationError(
            "body_not_json_object",
            "The body is signed, but it is no JSON object in UTF-8.",
            "Look for another sender that uses the same secret; Uplift sends JSON objects only.",
        )
    return value


def read_event(envelope: dict[str, Any], message_id: str | None) -> Event:
    """The event in an envelope.

    Tolerant, since a receiver that refuses what it does not know ends up disabled: members that are absent or null get
    neutral values, and `message_id`, the signed `webhook-id`, stands in for an absent `id`.

    Raises:
        WebhookVerificationError: `body_not_event` for a member of the wrong type, or no id at all: an empty one would
            make all such events look like repeats of one.
    """
    values = {name: kind() if envelope.get(name) is None else envelope[name] for name, kind in _MEMBERS}
    values["id"] = values["id"] or message_id
    for name, kind in _MEMBERS:
        # Python counts booleans among the integers, JSON does not.
        if not isinstance(values[name], kind) or isinstance(values[name], bool) or not values["id"]:
            raise WebhookVerificationError(
                "body_not_event",
                f"The body is signed, but its member {name!r} is missing or of the wrong type.",
                "Look for another sender that uses the same secret; use verify() for bodies that are no Uplift events.",
            )
    data = envelope.get("data", {})
    return Event(**values, data=Data(data) if isinstance(data, dict) else data, raw=envelope)
