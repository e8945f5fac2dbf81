"""What all events have, and the way from a verified body to its JSON."""

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
    """A dotted name such as `movement.analytics.created`."""
    api_version: str
    """Such as `01/01/2022`; empty where the body has none."""
    created: int
    """Unix time in ms; 0 where the body has none."""
    data: Any = field(hash=False, repr=False)
    """A `Data` for every JSON object, else the value as it came."""
    raw: dict[str, Any] = field(hash=False, repr=False)
    """The whole envelope, with the members this version of the library does not know."""


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
