"""Base class of events, and parsing of a verified body."""

import json
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from uplift_webhooks.errors import WebhookVerificationError


class Data(dict[str, Any]):
    """An event's `data`: a dictionary with the attribute `object`."""

    @property
    def object(self) -> Any:
        """The event's object. Raises KeyError if there is none."""
        return self["object"]


@dataclass(frozen=True, slots=True)
class Event:
    """An event with the fields of its envelope.

    An event can arrive more than once with the same `id`: store the IDs of handled events. `repr` omits the data,
    because it contains personal data.
    """

    id: str
    """A UUID. Every attempt and resend of the event has the same ID."""
    type: str
    """Event type, such as `movement.analytics.created`."""
    api_version: str
    """API version, such as `01/01/2022`. Empty if the body has no version."""
    created: int
    """The time when the event was created, in Unix milliseconds. 0 if the body has no time."""
    data: Any = field(hash=False, repr=False)
    """The event's data: a `Data` if it is a JSON object, otherwise the JSON value itself."""
    raw: dict[str, Any] = field(hash=False, repr=False)
    """The complete envelope, including fields that this version of the library does not know."""

    @property
    def test(self) -> bool:
        """Whether this is a test event, with example data.

        The value comes from the signed body. The library ignores the header `x-uplift-test`, because this header is not
        signed.
        """
        return self.raw.get("test") is True


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER: Final = json.JSONDecoder(parse_constant=_reject_constant)


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse a body that is a JSON object (RFC 8259: UTF-8, no NaN or Infinity).

    Raises:
        WebhookVerificationError: the body is not a JSON object (reason `body_not_json_object`).
    """
    try:
        value = _DECODER.decode(body.decode("utf-8"))
    # RecursionError: the nesting is too deep. The original error is dropped because it contains the body.
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise WebhookVerificationError(
            "body_not_json_object",
            "The body is signed, but it is not a JSON object in UTF-8.",
            "Uplift sends only JSON objects: check whether another sender uses the same secret.",
        )
    return value
