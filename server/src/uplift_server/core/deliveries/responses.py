"""The first line of a response to a failed attempt, and the reason that the response names."""

import re
from html import unescape
from typing import Final, NamedTuple

from uplift_server.core.http.headers import MASKED
from uplift_server.core.http.response_headers import mask_urls
from uplift_server.core.texts import printable

LINE_CHARACTERS_MAX: Final = 200
"""Maximum length of a first line, in characters, excluding the appended reason code."""
_BODY_BYTES_READ_MAX: Final = 1024


class Reason(NamedTuple):
    """The reason why a receiver rejected a request: a title, the cause, and how to fix it."""

    title: str
    cause: str
    how_to_fix: str


_HEADERS_FIX: Final = (
    "Pass the unchanged request headers to the verification code, and check for a proxy that removes or rewrites "
    "webhook-id, webhook-timestamp or webhook-signature."
)
_RAW_BODY: Final = "verify the body exactly as your server received it."
_OTHER_SENDER: Final = "Update the library, or check whether another sender uses the same secret."
REASONS: Final = {
    "timestamp_too_old": Reason(
        "Timestamp too old",
        "Your server rejected the timestamp because it is too old.",
        "Correct the clock of your server, or verify each request as soon as it arrives.",
    ),
    "timestamp_too_new": Reason(
        "Timestamp in the future",
        "Your server rejected the timestamp because it is in the future.",
        "Correct the clock of your server.",
    ),
    "no_matching_signature": Reason(
        "No matching signature",
        "Your server found no signature that matches the body and the secret on your server.",
        f"Use this endpoint's secret, and {_RAW_BODY}",
    ),
    "missing_header": Reason(
        "Signature header missing", "Your server found no signature header in the request.", _HEADERS_FIX
    ),
    "malformed_header": Reason(
        "Signature header not valid", "Your server received a modified signature header.", _HEADERS_FIX
    ),
    "headers_unreadable": Reason(
        "Headers not readable",
        "Your server could not read the request headers.",
        "Pass the headers of the request as a mapping or a list of pairs.",
    ),
    "body_not_bytes": Reason(
        "Body parsed before verification",
        "Your server parsed the body before it verified the signature.",
        f"Do not parse the body first: {_RAW_BODY}",
    ),
    "body_not_json_object": Reason(
        "Body is not a JSON object", "The library on your server did not find a JSON object in the body.", _OTHER_SENDER
    ),
    "body_not_event": Reason(
        "Body is not an event", "The library on your server did not recognize the event.", _OTHER_SENDER
    ),
    "secret_missing": Reason(
        "Secret missing on the receiver",
        "Your server has no secret to verify requests with.",
        "Set UPLIFT_WEBHOOK_SECRET on your server to this endpoint's secret.",
    ),
    "secret_invalid": Reason(
        "Secret not valid on the receiver",
        "The secret on your server is not valid.",
        "Copy this endpoint's secret again, without spaces and line breaks.",
    ),
}
"""The reasons that a receiver can state in its response for rejecting a request. The keys are reason codes.

The receiver library's responses end with one of these codes in brackets.
"""
# The messages that other Standard Webhooks libraries send for some of these reasons.
_IN_WORDS: Final = {
    "timestamp_too_old": "timestamp too old",
    "timestamp_too_new": "timestamp too new",
    "no_matching_signature": "no matching signature found",
    "missing_header": "missing required headers",
    "malformed_header": "invalid signature headers",
}
_PHRASES: Final = (*((f"[{code}]", code) for code in REASONS), *((text, code) for code, text in _IN_WORDS.items()))

_HIDDEN: Final = re.compile(r"<!--.*?(?:-->|\Z)|<(script|style)\b.*?(?:</\1>|\Z)", re.IGNORECASE | re.DOTALL)
_TAG: Final = re.compile(r"<[^>]*>?")
# Python limits the number of digits that `int`, and therefore `unescape`, converts. No character has such a number.
_LONG_REFERENCE: Final = re.compile(r"&#[0-9]{8,};?")
_URL: Final = re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s<>\"']+", re.IGNORECASE)
_SECRET_WORDS: Final = (
    "auth", "cookie", "credential", "csrf", "jwt", "key", "password", "secret", "session", "signature", "token", "xsrf"
)  # fmt: skip
_VALUE: Final = r"[^\s\"',;&<>]"
# Do not match a short value without a digit, which is more likely a word than a secret.
_SECRET: Final = re.compile(
    rf"(?P<name>(?:{'|'.join(_SECRET_WORDS)})[\w-]{{0,40}}[\"']?\s?[:=]\s?[\"']?|\b(?:basic|bearer)\s)"
    rf"(?:(?={_VALUE}*\d){_VALUE}{{8,}}|{_VALUE}{{20,}})"
    r"|\b(?:whsec|sk|op|svc)_[\w+/=-]{8,}|\beyJ[\w-]{8,}\.[\w.-]+",
    re.IGNORECASE,
)
_MAY_BE_SECRET: Final = (*_SECRET_WORDS, "basic", "bearer", "whsec_", "sk_", "op_", "svc_", "eyj")


def reason_in(line: str | None) -> str | None:
    """Return the code of the known reason that a response line states, or None if there is no such reason."""
    if line is None:
        return None
    lower = line.lower()
    return next((code for phrase, code in _PHRASES if phrase in lower), None)


def first_line(body: bytes) -> str | None:
    """Return the first line of a response as readable text, or None if the response has no text.

    A JSON or HTML document counts as one line. The function truncates the line and masks secrets in it. If the response
    names a known reason after the first line, the function appends the reason's code as `[code]`.
    """
    # Do not cache the result: a cache would keep the text of erased responses in memory.
    text = body[:_BODY_BYTES_READ_MAX].decode("utf-8", "replace").strip()
    if text.startswith("<"):
        text = _LONG_REFERENCE.sub("\ufffd", _TAG.sub(" ", _HIDDEN.sub(" ", text)))
        text = line = unescape(text)
    else:
        line = text if text.startswith(("{", "[")) else text.partition("\n")[0]
    line = _without_secrets(" ".join(line.split())[: 2 * LINE_CHARACTERS_MAX])
    if len(line) > LINE_CHARACTERS_MAX:
        line = f"{line[: LINE_CHARACTERS_MAX - 1]}…"
    reason = reason_in(text)
    if reason is not None and reason_in(line) is None:
        line = f"{line} [{reason}]"
    return printable(line) or None


def _without_secrets(line: str) -> str:
    """Mask the parts of a line that look like secrets.

    Quick checks first exclude most lines from the slow pattern searches.
    """
    if "://" in line:
        line = _URL.sub(lambda url: mask_urls(url[0]), line)
    lower = line.lower()
    return _SECRET.sub(_masked, line) if any(word in lower for word in _MAY_BE_SECRET) else line


def _masked(found: re.Match[str]) -> str:
    return f"{found['name'] or ''}{MASKED}"
