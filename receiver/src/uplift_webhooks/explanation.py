"""Diagnosis of requests that fail verification.

This module tests for common mistakes one by one. The diagnosis does not change the result of the verification. For some
mistakes, a signature in the request confirms the cause. For others, the cause is a guess from the request's format.
"""

import hmac
import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

from uplift_webhooks import headers as names
from uplift_webhooks.earlier_forms import earlier_forms
from uplift_webhooks.errors import Reason, WebhookVerificationError
from uplift_webhooks.secret import PREFIX, Secret, parse_secret
from uplift_webhooks.signature import standard_signature, uplift_signature

Cause = (
    Reason
    | Literal[
        "clock_off",
        "body_empty",
        "body_truncated",
        "body_changed",
        "body_reserialised",
        "body_recoded",
        "headers_of_another_request",
        "headers_changed",
        "headers_swapped",
        "header_duplicated",
        "header_truncated",
        "scheme_mixed_up",
        "secret_decorated",
        "secret_without_prefix",
        "key_not_decoded",
        "secret_wrong",
    ]
)
"""A stable code: the error's `reason`, or a more precise code."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The result of `explain`: whether a request is verified and, if not, the likely cause."""

    verified: bool
    cause: Cause | Literal["verified"]
    text: str
    """One sentence that states the problem."""
    hint: str
    """One sentence that says how to fix the problem."""

    def __str__(self) -> str:
        """Return the text, the hint and the code in one line."""
        return f"{self.text} {self.hint} [{self.cause}]"


VERIFIED: Final = Explanation(True, "verified", "The request is verified.", "No action is required.")

_CONTENT_LENGTH: Final = "content-length"
_NAMES: Final = {**names.spellings((*names.WANTED, _CONTENT_LENGTH)), "content_length": _CONTENT_LENGTH}
_TOKEN: Final = re.compile(r"v1,[A-Za-z0-9+/]{43}=")
_VALUE_CHARACTERS_MAX: Final = 4096
_CANDIDATES_MAX: Final = 16
"""Maximum number of signatures that the module reads from one header. It ignores additional signatures."""
_ENVELOPE_START: Final = re.compile(rb'\{"id":"[^"]*","object":"event","type":"')
_RAW: Final = (
    "Pass the raw bytes of the body before you parse it: Flask request.get_data(), Django request.body, FastAPI "
    "await request.body()."
)
_COPY_AGAIN: Final = "Copy the complete secret of the endpoint again, without other characters. The dashboard shows it."
_PROXY: Final = (
    "Check for a proxy or gateway that removes, merges or rewrites headers, and pass all headers of the request."
)


_READ_ALL: Final = "Read the complete body, and check the size limits of your server and proxies."


@dataclass(frozen=True, slots=True)
class _Request:
    """The readable parts of a request."""

    body: bytes
    message_id: str
    timestamp: str
    standard: tuple[bytes, ...]
    """The decoded signatures that follow `v1,` in `webhook-signature`."""
    uplift: tuple[bytes, ...]
    headers: dict[str, list[str]]

    def matches(self, secret: Secret, *, body: bytes | None = None, swapped: bool = False) -> bool:
        """Return whether a signature in the request, of either scheme, matches a body and a secret."""
        content = self.body if body is None else body
        return self.matches_standard(secret.standard_key, body=content, swapped=swapped) or (
            not swapped and _matches(uplift_signature(secret.uplift_key, content), self.uplift)
        )

    def matches_standard(self, key: bytes, *, body: bytes | None = None, swapped: bool = False) -> bool:
        """Return whether a Standard Webhooks signature in the request matches a body and a key."""
        content = self.body if body is None else body
        signed = (self.timestamp, self.message_id) if swapped else (self.message_id, self.timestamp)
        message_id, timestamp = (each.encode("utf-8", "surrogatepass") for each in signed)
        return _matches(standard_signature(key, message_id, timestamp, content), self.standard)


def explain(error: WebhookVerificationError, secrets: Sequence[Secret], body: object, headers: object) -> Explanation:
    """Return the likely cause of a verification error. Never raises."""
    request = _read(body, headers)
    if request is not None:
        for found in _suspicions(error, secrets, request):
            return found
    return Explanation(False, error.reason, error.cause, error.hint)


def _read(body: object, headers: object) -> _Request | None:
    """Return the readable parts of a request, or None if nothing is readable."""
    if not isinstance(body, bytes | bytearray):
        return None
    try:
        found = names.collect(headers, _NAMES)
    # The caller's headers object may raise any error.
    except Exception:
        return None
    found = {name: [value[:_VALUE_CHARACTERS_MAX] for value in values] for name, values in found.items()}
    signatures = " ".join(found.get(names.SIGNATURE, []))
    alone = found.get(names.UPLIFT_SIGNATURE, [])
    return _Request(
        body=bytes(body),
        message_id=found.get(names.ID, [""])[0],
        timestamp=found.get(names.TIMESTAMP, [""])[0],
        standard=tuple(token[3:].encode() for token in _TOKEN.findall(signatures)[:_CANDIDATES_MAX]),
        uplift=tuple(value.strip().encode("utf-8", "surrogatepass") for value in alone[:_CANDIDATES_MAX]),
        headers=found,
    )


def _suspicions(error: WebhookVerificationError, secrets: Sequence[Secret], request: _Request) -> Iterator[Explanation]:
    """Yield likely causes, the most certain first.

    If a signature is valid, omit causes that concern the signature.
    """
    genuine = any(request.matches_standard(secret.standard_key) for secret in secrets)
    if error.reason in {"timestamp_too_old", "timestamp_too_new"} and genuine:
        yield _clock(request)
    if error.reason in {"body_not_json_object", "body_not_event"}:
        return
    if not genuine:
        yield from _about_places(secrets, request)
    yield from _about_forms(request)
    if genuine:
        return
    yield from _about_what_is_missing(secrets, request)
    if request.standard or request.uplift:
        yield from _about_secrets(secrets, request)
        yield from _about_body(secrets, request)
        yield _found(
            "secret_wrong",
            "The signature does not match the body. The secret probably belongs to another endpoint or was rotated, or "
            "the body was changed.",
            f"{_COPY_AGAIN} During a rotation, pass both secrets. If the secret is correct, compare the bytes of the "
            "body with the bytes that were sent.",
        )


def _about_places(secrets: Sequence[Secret], request: _Request) -> Iterator[Explanation]:
    """Find values that were passed under the wrong header name."""
    if any(request.matches_standard(secret.standard_key, swapped=True) for secret in secrets):
        yield _found(
            "headers_swapped",
            f"The values of {names.ID} and {names.TIMESTAMP} are swapped.",
            "Pass each value under its own header name.",
        )
    joined = " ".join(request.headers.get(names.SIGNATURE, []))
    merged = _Request(request.body, "", "", (), (joined.strip().encode("utf-8", "surrogatepass"),), {})
    crossed = [
        token[3:] for value in request.headers.get(names.UPLIFT_SIGNATURE, []) for token in _TOKEN.findall(value)
    ]
    if any(merged.matches(secret) for secret in secrets) or crossed:
        yield _found(
            "scheme_mixed_up",
            f"The values of {names.SIGNATURE} and {names.UPLIFT_SIGNATURE} are swapped.",
            "Pass each value under its own header name: the first starts with 'v1,', the second with 'sha256='.",
        )


def _about_forms(request: _Request) -> Iterator[Explanation]:
    """Find headers that a proxy or the application merged or truncated."""
    for name in names.WANTED:
        values = request.headers.get(name, [])
        if len({*values}) > 1 or (name in {names.ID, names.TIMESTAMP} and "," in "".join(values)):
            yield _found("header_duplicated", f"The request has more than one {name} header.", _PROXY)
    tokens = [each for value in request.headers.get(names.SIGNATURE, []) for each in value.split() if each[:3] == "v1,"]
    if tokens and not all(_TOKEN.fullmatch(each) for each in tokens):
        merged = any(each.endswith(",") for each in tokens)
        yield _found(
            "header_duplicated" if merged else "header_truncated",
            f"The header {names.SIGNATURE} was {'merged with another header' if merged else 'truncated or changed'}: "
            "each signature has 44 characters after 'v1,', and spaces separate signatures.",
            _PROXY,
        )


def _about_what_is_missing(secrets: Sequence[Secret], request: _Request) -> Iterator[Explanation]:
    """Find missing or changed Standard Webhooks headers in a request with a valid Uplift signature."""
    alone = any(_matches(uplift_signature(secret.uplift_key, request.body), request.uplift) for secret in secrets)
    if alone and not request.headers.keys() & {names.ID, names.TIMESTAMP, names.SIGNATURE}:
        yield _found(
            "missing_header",
            f"{names.UPLIFT_SIGNATURE} is valid, but the Standard Webhooks headers are missing.",
            f"{_PROXY} If that is not possible, use Webhook(…, allow_uplift_signature=True).",
        )
    elif alone:
        yield _found(
            "headers_changed",
            f"{names.UPLIFT_SIGNATURE} is valid, but {names.ID}, {names.TIMESTAMP} or {names.SIGNATURE} is missing or "
            "was changed.",
            _PROXY,
        )


def _about_secrets(secrets: Sequence[Secret], request: _Request) -> Iterator[Explanation]:
    """Find mistakes in copied secrets: a missing prefix, or extra characters."""
    for secret in secrets:
        text = secret.uplift_key.decode("ascii")
        if any(request.matches(variant) for variant in _secrets([f"{PREFIX}{text}"])):
            yield _found("secret_without_prefix", f"The prefix {PREFIX!r} of the secret is missing.", _COPY_AGAIN)
        found = re.search(rf"{PREFIX}[A-Za-z0-9+/]+=*", text)
        undecorated = [text.strip("\"'`<>,;"), text.partition("=")[2].strip("\"'`<>,;"), found[0] if found else ""]
        if any(request.matches(variant) for variant in _secrets(each for each in undecorated if each != text)):
            yield _found(
                "secret_decorated",
                "The secret has additional characters around it, such as quotes, a name or punctuation.",
                _COPY_AGAIN,
            )
        if any(request.matches_standard(key) for key in (text.encode(), text.removeprefix(PREFIX).encode())):
            yield _found(
                "key_not_decoded",
                f"The sender computed {names.SIGNATURE} with the text of the secret as the key. The correct key is the "
                f"base64-decoded part after {PREFIX!r}. Uplift did not send this request.",
                "In your tests, create the headers with uplift_webhooks.testing.sign.",
            )


def _about_body(secrets: Sequence[Secret], request: _Request) -> Iterator[Explanation]:
    """Find out how a body was changed after it was signed."""
    body = request.body
    if not body:
        yield _found(
            "body_empty",
            "The body is empty.",
            f"Check for middleware that reads the body first, such as a JSON parser. {_RAW}",
        )
    for text, cause, variant in earlier_forms(body):
        if any(request.matches(secret, body=variant) for secret in secrets):
            yield _found(cause, f"The secret is correct, but {text}.", _RAW)
    value: object = None
    complete = True
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        complete = False
    if not complete and _starts_with_json(body):
        yield _found(
            "body_changed", "The body has extra bytes after its JSON: the body was changed after it arrived.", _RAW
        )
    elif not complete and body.startswith(b"{"):
        yield _found("body_truncated", "The body is incomplete: its JSON ends too early.", _READ_ALL)
    event_id = value.get("id") if isinstance(value, dict) else None
    if isinstance(event_id, str) and request.message_id and event_id != request.message_id:
        yield _found(
            "headers_of_another_request",
            f"The event ID in the body differs from {names.ID}.",
            "Pass the body and the headers of the same request.",
        )
    if isinstance(event_id, str) and not _ENVELOPE_START.match(body):
        yield _found(
            "body_reserialised",
            "The body was probably parsed and serialized again: its spacing or the order of its fields differs from "
            "Uplift's format.",
            _RAW,
        )
    yield from _about_length(request)


def _starts_with_json(body: bytes) -> bool:
    """Return whether a body starts with a whole JSON value."""
    try:
        json.JSONDecoder().raw_decode(body.decode())
    except (ValueError, RecursionError):
        return False
    return True


def _about_length(request: _Request) -> Iterator[Explanation]:
    """Find a body whose length differs from Content-Length. A shorter body is incomplete. A longer body was changed."""
    announced = request.headers.get(_CONTENT_LENGTH, [""])[0]
    length = str(len(request.body))
    if not (announced.isascii() and announced.isdigit()) or announced == length:
        return
    text = f"The body has {length} bytes, but {_CONTENT_LENGTH} is {announced}"
    # Compare the lengths as text, because a header may have too many digits for `int`.
    if (len(length), length) < (len(announced), announced):
        yield _found("body_truncated", f"{text}.", _READ_ALL)
    else:
        yield _found("body_changed", f"{text}: the body was changed after it arrived.", _RAW)


def _clock(request: _Request) -> Explanation:
    """Explain the wrong timestamp in a request whose signature is valid."""
    age_s = int(time.time()) - int(request.timestamp)
    return _found(
        "clock_off",
        f"The signature is valid, but its timestamp is {abs(age_s)} seconds "
        f"{'old' if age_s > 0 else 'in the future'} according to this machine's clock.",
        "Synchronize the clock (NTP). If the clock is correct, reject the request: it was delayed or replayed.",
    )


def _secrets(texts: Iterable[str]) -> Iterator[Secret]:
    for text in texts:
        with suppress(WebhookVerificationError):
            yield parse_secret(text)


def _matches(expected: bytes, received: Iterable[bytes]) -> bool:
    """Return whether any received signature equals the expected signature. Compare each one in constant time."""
    return sum([hmac.compare_digest(expected, each) for each in received]) > 0


def _found(cause: Cause, text: str, hint: str) -> Explanation:
    return Explanation(False, cause, text, hint)
