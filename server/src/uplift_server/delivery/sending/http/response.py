"""Reads the status line and some headers of a response from its raw bytes, without the HTTP parser."""

import re
from typing import Final

from uplift_server.core.limits import RESPONSE_BODY_BYTES_READ_MAX

# The size limit for a body as received, including chunk extensions and trailers. Other limits apply to the decoded
# body.
RESPONSE_WIRE_BYTES_MAX: Final = 8 * RESPONSE_BODY_BYTES_READ_MAX
HEADER_VALUE_BYTES_MAX: Final = 2048

_END: Final = b"\r\n\r\n"
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9][0-9])(?: [^\r\n]*)?\r\n")
_RETRY_AFTER = re.compile(rb"\r\nretry-after:[ \t]*([^\r\n]*)", re.IGNORECASE)
_LOCATION = re.compile(rb"\r\nlocation:[ \t]*([^\r\n]*)", re.IGNORECASE)
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[^\r\n]*chunked[ \t]*\r\n", re.IGNORECASE)


def final_head(raw: bytes, interim: int) -> bytes:
    """Return the status line and headers of the final response in `raw`.

    `interim` is the number of 1xx responses before the final response. If `raw` is incomplete, so is the result.
    """
    start = 0
    while interim:
        start = raw.find(_END, start) + 4
        interim -= 1
    end = raw.find(_END, start)
    return raw[start:] if end < 0 else raw[start : end + 4]


def status_of(head: bytes) -> int | None:
    """Return the final status code in `head`, which may be incomplete. Return None if there is no final status code."""
    match = _STATUS_LINE.match(head)
    if match is None:
        return None
    status = int(match[1])
    return status if status >= 200 else None


def ends_with_connection(head: bytes) -> bool:
    """Return whether the end of the connection marks the end of the body. `head` contains the complete headers."""
    return _CONTENT_LENGTH.search(head) is None and _CHUNKED.search(head) is None


def retry_after(head: bytes) -> str | None:
    """Return the value of the Retry-After header, or None."""
    return _value(_RETRY_AFTER, head)


def location(head: bytes) -> str | None:
    """Return the value of the Location header, or None.

    NUL characters are replaced, because PostgreSQL rejects them.
    """
    found = _value(_LOCATION, head)
    return None if found is None else found.replace("\0", "\ufffd")


def _value(header: re.Pattern[bytes], head: bytes) -> str | None:
    match = header.search(head)
    if match is None:
        return None
    return match[1][:HEADER_VALUE_BYTES_MAX].decode("latin-1").rstrip() or None
