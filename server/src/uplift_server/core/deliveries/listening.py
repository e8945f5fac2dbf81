"""Listen sessions: a developer's own stream of an account's events, instead of a public URL.

A session has no deliveries. It reads the account's events in the order of acceptance from a place of its own on, so it
disturbs nobody, and a stream that breaks goes on from where it was.
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
"""A session nobody was connected to for so long is removed."""
UNACKNOWLEDGED_EVENTS_MAX: Final = 64
"""So many events may be on their way to a developer's machine, which answers each."""
UNACKNOWLEDGED_BYTES_MAX: Final = 1024 * 1024
"""So many bytes of them, but for the last."""
TESTS_AWAITED_MAX: Final = 10
"""So many tests of one stream may be waited for."""
TESTS_REMEMBERED_MAX: Final = 64
"""Of so many tests an answer is taken that comes when nobody waits for it any more."""
DESCRIPTION_CHARACTERS_MAX: Final = 200
LOCAL_RESPONSE_BODY_BYTES_MAX: Final = 1024
"""So much of what a local server answered is kept, as UTF-8."""
LOCAL_RESPONSE_ERROR_CHARACTERS_MAX: Final = 300
LOCAL_RESPONSES_KEPT_MAX: Final = 1000
"""Of each session the newest answers."""


def session_secret(key: bytes, key_id: bytes) -> str:
    """The secret of all sessions made with one API key: the same after every start, and stored nowhere.

    `key` is derived from the server's own secret key.
    """
    return PREFIX + b64encode(hmac.digest(key, key_id, "sha256")).decode("ascii")


def check_description(text: str) -> Problem | None:
    """What is wrong with a description, if anything."""
    if len(text) <= DESCRIPTION_CHARACTERS_MAX and text.isprintable():
        return None
    return Problem(
        "description", "description_invalid",
        f"This has more than {DESCRIPTION_CHARACTERS_MAX} characters, or some that cannot be printed. Shorten it.",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class LocalResponse:
    """What came of handing an event to a developer's local server."""

    place: str
    """Which event it answers, in the words of the stream."""
    status_code: int | None
    """None where no answer came."""
    duration_ms: int
    error: str | None
    body: str
    """The beginning of the local server's answer."""
    redelivered: bool
    """Whether the event had been handed over before."""


def event_frame(header: Mapping[str, object], body: bytes) -> bytes:
    """A frame that carries an event: a line of JSON that describes it, and the envelope's very bytes."""
    return json.dumps({"kind": "event", **header}, separators=(",", ":")).encode() + b"\n" + body


def parse_local_response(text: str) -> LocalResponse | None:
    """A developer's answer to an event; None for what is not one."""
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
    """As much of a text as fits into so many bytes of UTF-8, which cannot carry halves of surrogate pairs: each is `?`.

    JSON can (`"\\ud800"`), and no database takes them; nor does PostgreSQL take NUL, which is `?`, too.
    """
    return text.replace("\0", "?").encode("utf-8", "replace")[:bytes_max].decode("utf-8", "ignore")
