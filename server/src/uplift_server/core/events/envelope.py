"""The envelope around an event's data: the bytes of a request body.

It is built once, when the event is accepted. These bytes are stored, signed and sent on every attempt. The data is
never parsed or serialized again.
"""

import json
from functools import lru_cache
from typing import Final

API_VERSION_DEFAULT: Final = "01/01/2022"
"""The version of Uplift's documented event types."""

_VERSION_KEY: Final = b',"api_version":'
_CREATED_KEY: Final = b',"created":'
_DATA_KEY: Final = b',"data":'
_MIDDLES_CACHED_MAX: Final = 1024
_EVENT_ID: Final = slice(len(b'{"id":"'), len(b'{"id":"') + len("00000000-0000-0000-0000-000000000000"))


def build(event_id_text: str, event_type: str, api_version: str, created_ms: int, data: bytes) -> bytes:
    """Return the envelope of an event: UUID text, type name, version, Unix ms, and the data as JSON bytes."""
    return b'{"id":"%b"%b%d,"data":%b}' % (event_id_text.encode(), _middle(event_type, api_version), created_ms, data)


def build_test(event_id_text: str, event_type: str, api_version: str, created_ms: int, data: bytes) -> bytes:
    """Return the envelope of a test event. The signatures cover its mark, unlike the header of the request."""
    head = b'{"id":"%b"%b%d,"test":true,"data":' % (
        event_id_text.encode(),
        _middle(event_type, api_version),
        created_ms,
    )
    return head + data + b"}"


def event_id_of(body: bytes) -> bytes:
    """Return the text of the event ID in an envelope."""
    return body[_EVENT_ID]


def data_of(body: bytes) -> bytes:
    """Return the unchanged data bytes of an envelope. Raises ValueError if the body is not an envelope."""
    # Quotes in the strings before the key are escaped, so the first match is the key.
    start = body.index(_DATA_KEY) + len(_DATA_KEY)
    return body[start:-1]


def without_data(body: bytes) -> bytes:
    """Return the envelope of an erased event. Raises ValueError if the body is not an envelope."""
    return body[: body.index(_DATA_KEY) + len(_DATA_KEY)] + b"null}"


def api_version_of(body: bytes) -> str:
    """Return the version of an envelope. Raises ValueError if the body is not an envelope."""
    start = body.index(_VERSION_KEY) + len(_VERSION_KEY)
    version: str = json.loads(body[start : body.index(_CREATED_KEY, start)])
    return version


@lru_cache(_MIDDLES_CACHED_MAX)
def _middle(event_type: str, api_version: str) -> bytes:
    """Return the part between the ID and the timestamp, which is the same for all events of a type."""
    return (
        f',"object":"event","type":{json.dumps(event_type, ensure_ascii=False)},'
        f'"api_version":{json.dumps(api_version, ensure_ascii=False)},"created":'
    ).encode()
