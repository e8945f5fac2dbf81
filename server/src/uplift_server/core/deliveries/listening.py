"""Listen sessions: streams of an account's events to developers' machines, which need no public URL.

Instead of deliveries, a session has a position in the account's events. After an interruption, the stream continues
from this position.
"""

import hmac
import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from uplift_server.core.problems import Problem
from uplift_server.core.security.signing import PREFIX

SESSIONS_PER_ACCOUNT_MAX: Final = 50
UNUSED_EXPIRES_AFTER_MS: Final = 24 * 3_600_000
"""How long, in ms, a session can be without a client before the server deletes the session."""
UNACKNOWLEDGED_EVENTS_MAX: Final = 64
"""Maximum number of events per stream that wait for a response from the developer's machine."""
UNACKNOWLEDGED_BYTES_MAX: Final = 1024 * 1024
"""Maximum total size, in bytes, of the events per stream that wait for a response. The last of these events can make
the total exceed the maximum."""
TESTS_AWAITED_MAX: Final = 10
"""Maximum number of callers per stream that wait for responses to test events."""
TESTS_REMEMBERED_MAX: Final = 64
"""Maximum number of test events for which a stream accepts a response, even if the caller no longer waits for it."""
DESCRIPTION_CHARACTERS_MAX: Final = 200
LOCAL_RESPONSE_BODY_BYTES_MAX: Final = 1024
"""Maximum stored size of a local server's response body, in bytes of UTF-8."""
LOCAL_RESPONSE_ERROR_CHARACTERS_MAX: Final = 300
LOCAL_RESPONSES_KEPT_MAX: Final = 1000
"""Maximum number of stored responses per session. The server deletes the oldest response first."""


def session_secret(key: bytes, key_id: bytes) -> str:
    """Return the secret that all listen sessions of an API key share.

    The server derives the secret from its own `key` and the ID of the API key (`key_id`), and never stores it.
    """
    return PREFIX + b64encode(hmac.digest(key, key_id, "sha256")).decode("ascii")


def check_description(text: str) -> Problem | None:
    """Return the problem with the description of a listen session, if any."""
    if len(text) <= DESCRIPTION_CHARACTERS_MAX and text.isprintable():
        return None
    return Problem(
        "description", "description_invalid",
        f"The description is not valid. Use at most {DESCRIPTION_CHARACTERS_MAX} printable characters.",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class LocalResponse:
    """The response of a developer's local server to an event."""

    place: str
    """The event's position in the stream."""
    status_code: int | None
    """The status code, or None if the local server did not respond."""
    duration_ms: int
    error: str | None
    body: str
    """The start of the response body."""
    redelivered: bool
    """Whether an earlier request already sent the event to the local server."""


def event_frame(header: Mapping[str, object], body: bytes) -> bytes:
    """Return a frame with an event: a line of JSON that describes the event, and the bytes of the envelope."""
    return json.dumps({"kind": "event", **header}, separators=(",", ":")).encode() + b"\n" + body


def parse_local_response(text: str) -> LocalResponse | None:
    """Parse a frame that contains a local server's response. Return None if the frame is not valid."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or value.get("kind") != "answer" or not isinstance(value.get("place"), str):
        return None
    status, duration, error = value.get("status_code"), value.get("duration_ms"), value.get("error")
    if not (status is None or (type(status) is int and 100 <= status <= 599)):
        return None
    if type(duration) is not int or not 0 <= duration <= 86_400_000 or not (error is None or isinstance(error, str)):
        return None
    body = value.get("body", "")
    if not isinstance(body, str):
        return None
    return LocalResponse(
        place=value["place"],
        status_code=status,
        duration_ms=duration,
        error=None if error is None else _storable(error[:LOCAL_RESPONSE_ERROR_CHARACTERS_MAX]),
        body=_storable(body[:LOCAL_RESPONSE_BODY_BYTES_MAX], LOCAL_RESPONSE_BODY_BYTES_MAX),
        redelivered=value.get("redelivered") is True,
    )


def _storable(text: str, bytes_max: int | None = None) -> str:
    r"""Truncate a string to `bytes_max` bytes of UTF-8. Replace lone surrogates and NUL with `?`.

    JSON can carry lone surrogates (`"\ud800"`). SQLite and PostgreSQL cannot store lone surrogates, and PostgreSQL
    cannot store NUL.
    """
    return text.replace("\0", "?").encode("utf-8", "replace")[:bytes_max].decode("utf-8", "ignore")
