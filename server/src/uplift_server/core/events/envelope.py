"""The body of a request: the envelope around an event's data, byte by byte (contract, section 1).

It is built once, at acceptance, and these bytes are what is stored, signed and sent on every attempt. The data inside
is never parsed or written again: receivers get exactly what the operator sent.
"""

import json
from functools import lru_cache
from typing import Final

API_VERSION_DEFAULT: Final = "01/01/2022"
"""The version that Uplift's documented event types carry."""

_VERSION_KEY: Final = b',"api_version":'
_CREATED_KEY: Final = b',"created":'
_DATA_KEY: Final = b',"data":'
_MIDDLES_KEPT_MAX: Final = 1024
_EVENT_ID: Final = slice(len(b'{"id":"'), len(b'{"id":"') + len("00000000-0000-0000-0000-000000000000"))


def build(event_id_text: str, event_type: str, api_version: str, created_ms: int, data: bytes) -> bytes:
    """The envelope of an event: canonical UUID text, type name, version, Unix ms, and the data as JSON bytes."""
    return b'{"id":"%b"%b%d,"data":%b}' % (event_id_text.encode(), _middle(event_type, api_version), created_ms, data)


def event_id_of(body: bytes) -> bytes:
    """The UUID text of the event's ID inside an envelope."""
    return body[_EVENT_ID]


def data_of(body: bytes) -> bytes:
    """The data inside an envelope, the very bytes that `build` was given. ValueError if the body is no envelope."""
    # Quotes inside the strings before it are escaped, so the first place this key stands is the key.
    start = body.index(_DATA_KEY) + len(_DATA_KEY)
    return body[start:-1]


def api_version_of(body: bytes) -> str:
    """The version an envelope carries. ValueError if the body is no envelope."""
    start = body.index(_VERSION_KEY) + len(_VERSION_KEY)
    version: str = json.loads(body[start : body.index(_CREATED_KEY, start)])
    return version


@lru_cache(_MIDDLES_KEPT_MAX)
def _middle(event_type: str, api_version: str) -> bytes:
    """What stands between the id and the instant; the same for all events of a type."""
    return (
        f',"object":"event","type":{json.dumps(event_type, ensure_ascii=False)},'
        f'"api_version":{json.dumps(api_version, ensure_ascii=False)},"created":'
    ).encode()
