"""Object IDs: the ID of the object to which an event belongs, such as an athlete or a session."""

from typing import Final

import msgspec

from uplift_server.core.limits import OBJECT_ID_CHARACTERS_MAX


class _Object(msgspec.Struct):
    id: str | int | None = None


class _Data(msgspec.Struct):
    object: _Object | None = None


_decoder: Final = msgspec.json.Decoder(_Data)


def object_id_of(data: bytes) -> str | None:
    """Return `object.id` in an event's data as text, or None if it is not valid.

    A valid ID is an integer or a string. Its text has 1 to OBJECT_ID_CHARACTERS_MAX characters, and no NUL characters.
    """
    try:
        found = _decoder.decode(data).object
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if found is None or found.id is None:
        return None
    text = found.id if isinstance(found.id, str) else _digits(found.id)
    return text if 0 < len(text) <= OBJECT_ID_CHARACTERS_MAX and "\0" not in text else None


def _digits(number: int) -> str:
    try:
        return str(number)
    except ValueError:  # Python does not convert integers with thousands of digits to text.
        return ""
