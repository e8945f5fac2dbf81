"""Rejected events: the texts that the server stores about messages that are not valid events.

The texts contain no values from event data. Otherwise, an erasure would have to search the texts.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from uplift_server.core.limits import (
    REJECTED_EVENT_ERRORS_MAX,
    REJECTED_EVENT_MESSAGE_CHARACTERS_MAX,
    REJECTED_EVENT_TEXT_CHARACTERS_MAX,
)
from uplift_server.core.texts import printable

VALUE_OMITTED: Final = "The data is not valid. The operator can read the data in the stream UPLIFT_REJECTED."
_MEMBERS: Final = ("type", "title", "status", "detail", "code")
_DATA: Final = "data"
_CODES_WITHOUT_VALUE: Final = frozenset({"required", "type_object"})


def stored_text(text: str, *, characters_max: int = REJECTED_EVENT_TEXT_CHARACTERS_MAX) -> str:
    """Return the beginning of an untrusted string, with printable characters only. A cut text ends with an ellipsis."""
    return printable(text if len(text) <= characters_max else text[: characters_max - 1] + "…")


def stored_problem(problem: Mapping[str, Any], idempotency_key: str | None) -> dict[str, Any]:
    """Return problem details (RFC 9457) with strings of limited length.

    Omit the idempotency key and the values from the event's data. The server stores the key separately, so that an
    erasure can delete the key.
    """
    known = problem
    if idempotency_key is not None:
        known = {**problem, "detail": str(problem.get("detail", "")).replace(f" {idempotency_key} ", " ")}
    stored = {name: _stored(known[name]) for name in _MEMBERS if name in known}
    errors: Sequence[Mapping[str, Any]] = problem.get("errors", ())
    if errors:
        stored["errors"] = [_stored_error(each) for each in errors[:REJECTED_EVENT_ERRORS_MAX]]
    return stored


def _stored_error(error: Mapping[str, Any]) -> dict[str, Any]:
    stored = {name: _stored(value) for name, value in error.items()}
    if str(error.get("field")).partition(".")[0] == _DATA and error.get("code") not in _CODES_WITHOUT_VALUE:
        stored["message"] = VALUE_OMITTED
    return stored


def _stored(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return stored_text(value, characters_max=REJECTED_EVENT_MESSAGE_CHARACTERS_MAX)
