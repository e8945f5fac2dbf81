"""The envelope around an event's data: the bytes of a request body.

The server builds the envelope once, when it accepts the event. The server stores these bytes, and signs and sends them
on every attempt. It never parses or serializes the data again.
"""

import json
from functools import lru_cache
from typing import Final

API_VERSION_DEFAULT: Final = "01/01/2022"
"""The API version of Uplift's documented event types."""

_VERSION_KEY: Final = b',"api_version":'
_CREATED_KEY: Final = b',"created":'
_DATA_KEY: Final = b',"data":'
_MIDDLES_CACHED_MAX: Final = 1024
_EVENT_ID: Final = slice(len(b'{"id":"'), len(b'{"id":"') + len("00000000-0000-0000-0000-000000000000"))


def build(event_id_text: str, event_type: str, api_version: str, created_ms: int, data: bytes) -> bytes:
    """Return the envelope of an event. `created_ms` is Unix ms, and `data` is JSON."""
    return b'{"id":"%b"%b%d,"data":%b}' % (event_id_text.encode(), _middle(event_type, api_version), created_ms, data)


def build_test(event_id_text: str, event_type: str, api_version: str, created_ms: int, data: bytes) -> bytes:
    """Return the envelope of a test event.

    The envelope contains the field `test`, because the signatures do not cover the header `x-uplift-test`.
    """
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
    """Return the bytes of the data in an envelope, unchanged. Raises ValueError if the body is not an envelope."""
    # Quotes in the strings before the key are escaped, so the first match is the key.
    start = body.index(_DATA_KEY) + len(_DATA_KEY)
    return body[start:-1]


def without_data(body: bytes) -> bytes:
    """Return the envelope of an erased event, in which the data is null.

    Raises ValueError if the body is not an envelope.
    """
    return body[: body.index(_DATA_KEY) + len(_DATA_KEY)] + b"null}"


def api_version_of(body: bytes) -> str:
    """Return the API version that an envelope contains. Raises ValueError if the body is not an envelope."""
    start = body.index(_VERSION_KEY) + len(_VERSION_KEY)
    version: str = json.loads(body[start : body.index(_CREATED_KEY, start)])
    return version


@lru_cache(_MIDDLES_CACHED_MAX)
def _middle(event_type: str, api_version: str) -> bytes:
    """Return the part of the envelope between the ID and the timestamp, which is the same for all events of a type."""
    return (
        f',"object":"event","type":{json.dumps(event_type, ensure_ascii=False)},'
        f'"api_version":{json.dumps(api_version, ensure_ascii=False)},"created":'
    ).encode()
