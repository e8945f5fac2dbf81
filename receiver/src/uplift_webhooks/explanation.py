"""Diagnosis of requests that do not verify: common mistakes, tried one by one.

Nothing here accepts a request. A guess is proven if a signature of the request matches the guessed input. Otherwise,
the form of the request decides.
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
"""A stable code: the error's reason, or a more precise one."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Whether a request verifies and, if not, the likely cause."""

    verified: bool
    cause: Cause | Literal["verified"]
    text: str
    """One sentence: the problem."""
    hint: str
    """One sentence: how to fix it."""

    def __str__(self) -> str:
        """Text, hint and code in one line."""
        return f"{self.text} {self.hint} [{self.cause}]"


VERIFIED: Final = Explanation(True, "verified", "The request verifies.", "There is nothing to do.")

_CONTENT_LENGTH: Final = "content-length"
_NAMES: Final = {**names.spellings((*names.WANTED, _CONTENT_LENGTH)), "content_length": _CONTENT_LENGTH}
_TOKEN: Final = re.compile(r"v1,[A-Za-z0-9+/]{43}=")
_VALUE_CHARACTERS_MAX: Final = 4096
_CANDIDATES_MAX: Final = 16
"""Requests with more signatures are not diagnosed."""
_OUR_BEGINNING: Final = re.compile(rb'\{"id":"[^"]*","object":"event","type":"')
_RAW: Final = (
    "Pass the body's bytes as they arrived, before anything parses them: Flask request.get_data(), Django "
    "request.body, FastAPI await request.body()."
)
_COPY_AGAIN: Final = (
    "Copy the endpoint's secret again, all of it and nothing else: GET /v1/endpoints/{endpoint}/secret shows it to a "
    "key with the scope secrets:read."
)
_PROXY: Final = (
    "Look for a proxy or gateway that drops, merges or rewrites headers, and pass all of them as they arrived."
)


@dataclass(frozen=True, slots=True)
class _Request:
    """The readable parts of a request."""

    body: bytes
    message_id: str
    timestamp: str
    standard: tuple[bytes, ...]
    """The signatures after `v1,`."""
    uplift: tuple[bytes, ...]
    headers: dict[str, list[str]]

    def fits(self, secret: Secret, *, body: bytes | None = None, swapped: bool = False) -> bool:
        """Whether a signature of the request, by either scheme, matches a body and a secret."""
        content = self.body if body is None else body
        return self.fits_standard(secret.standard_key, body=content, swapped=swapped) or (
            not swapped and _matches(uplift_signature(secret.uplift_key, content), self.uplift)
        )

    def fits_standard(self, key: bytes, *, body: bytes | None = None, swapped: bool = False) -> bool:
        """Whether a Standard Webhooks signature matches."""
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
    """Return the readable parts of a request; None if there are none."""
    if not isinstance(body, bytes | bytearray):
        return None
    try:
        found = names.collect(headers, _NAMES)
    # The caller's object may raise any error.
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
    """Yield causes, the most certain first. With a valid signature, only those without relation to it."""
    genuine = any(request.fits_standard(secret.standard_key) for secret in secrets)
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
            "The signature fits neither the body nor anything the body is likely to have been: the secret is probably "
            "another endpoint's, or one that was replaced; or the body was changed on the way.",
            f"{_COPY_AGAIN} While a secret is being replaced, pass both. If it is the right one, compare the body's "
            "bytes with those that were sent: one letter is enough.",
        )


def _about_places(secrets: Sequence[Secret], request: _Request) -> Iterator[Explanation]:
    """Headers in the wrong place."""
    if any(request.fits_standard(secret.standard_key, swapped=True) for secret in secrets):
        yield _found(
            "headers_swapped",
            f"The values of {names.ID} and {names.TIMESTAMP} are mixed up.",
            "Pass each under its own name.",
        )
    joined = " ".join(request.headers.get(names.SIGNATURE, []))
    fitting = _Request(request.body, "", "", (), (joined.strip().encode("utf-8", "surrogatepass"),), {})
    crossed = [
        token[3:] for value in request.headers.get(names.UPLIFT_SIGNATURE, []) for token in _TOKEN.findall(value)
    ]
    if any(fitting.fits(secret) for secret in secrets) or crossed:
        yield _found(
            "scheme_mixed_up",
            f"The values of {names.SIGNATURE} and {names.UPLIFT_SIGNATURE} are mixed up.",
            "Pass each under its own name: the former begins with 'v1,', the latter with 'sha256='.",
        )


def _about_forms(request: _Request) -> Iterator[Explanation]:
    """Headers that were merged or truncated."""
    for name in names.WANTED:
        values = request.headers.get(name, [])
        if len({*values}) > 1 or (name in {names.ID, names.TIMESTAMP} and "," in "".join(values)):
            yield _found("header_duplicated", f"The header {name} comes more than once.", _PROXY)
    tokens = [each for value in request.headers.get(names.SIGNATURE, []) for each in value.split() if each[:3] == "v1,"]
    if tokens and not all(_TOKEN.fullmatch(each) for each in tokens):
        merged = any(each.endswith(",") for each in tokens)
        yield _found(
            "header_duplicated" if merged else "header_truncated",
            f"The header {names.SIGNATURE} was {'merged with another one' if merged else 'cut or changed'}: a "
            "signature after 'v1,' has 44 characters, and signatures are separated by spaces.",
            _PROXY,
        )


def _about_what_is_missing(secrets: Sequence[Secret], request: _Request) -> Iterator[Explanation]:
    """Missing or changed Standard Webhooks headers beside a valid Uplift signature."""
    alone = any(_matches(uplift_signature(secret.uplift_key, request.body), request.uplift) for secret in secrets)
    if alone and not request.headers.keys() & {names.ID, names.TIMESTAMP, names.SIGNATURE}:
        yield _found(
            "missing_header",
            f"{names.UPLIFT_SIGNATURE} is right, so secret and body are; the headers of Standard Webhooks are missing.",
            f"{_PROXY} If they cannot be had, Webhook(…, allow_uplift_signature=True) accepts that one alone.",
        )
    elif alone:
        yield _found(
            "headers_changed",
            f"{names.UPLIFT_SIGNATURE} is right, so secret and body are; {names.ID}, {names.TIMESTAMP} or "
            f"{names.SIGNATURE} is missing or was changed.",
            _PROXY,
        )


def _about_secrets(secrets: Sequence[Secret], request: _Request) -> Iterator[Explanation]:
    """Secrets that are almost right."""
    for secret in secrets:
        text = secret.uplift_key.decode("ascii")
        if any(request.fits(variant) for variant in _secrets([f"{PREFIX}{text}"])):
            yield _found("secret_without_prefix", f"The secret lacks its beginning, {PREFIX!r}.", _COPY_AGAIN)
        found = re.search(rf"{PREFIX}[A-Za-z0-9+/]+=*", text)
        undecorated = [text.strip("\"'`<>,;"), text.partition("=")[2].strip("\"'`<>,;"), found[0] if found else ""]
        if any(request.fits(variant) for variant in _secrets(each for each in undecorated if each != text)):
            yield _found(
                "secret_decorated",
                "The secret was passed with something around it, such as quotes, a name or punctuation.",
                _COPY_AGAIN,
            )
        if any(request.fits_standard(key) for key in (text.encode(), text.removeprefix(PREFIX).encode())):
            yield _found(
                "key_not_decoded",
                f"{names.SIGNATURE} was made with the secret's text, where the key is what follows {PREFIX!r}, decoded "
                "from base64: whoever signed it is not Uplift.",
                "If it is your test, let uplift_webhooks.testing.sign make the headers.",
            )


def _about_body(secrets: Sequence[Secret], request: _Request) -> Iterator[Explanation]:
    """Bodies that were changed."""
    body = request.body
    if not body:
        yield _found(
            "body_empty",
            "The body is empty.",
            f"Something read it before, perhaps a middleware that parses JSON. {_RAW}",
        )
    for text, cause, variant in earlier_forms(body):
        if any(request.fits(secret, body=variant) for secret in secrets):
            yield _found(cause, f"The secret is right, but {text}.", _RAW)
    value: object = None
    complete = True
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        complete = False
    if not complete and body.startswith(b"{"):
        yield _found(
            "body_truncated",
            "The body breaks off: it begins as JSON and does not end so.",
            "Read it to its end; look for a limit of the server or of a proxy.",
        )
    event_id = value.get("id") if isinstance(value, dict) else None
    if isinstance(event_id, str) and request.message_id and event_id != request.message_id:
        yield _found(
            "headers_of_another_request",
            f"The body is that of another event than {names.ID} says.",
            "Pass body and headers of the same request.",
        )
    if isinstance(event_id, str) and not _OUR_BEGINNING.match(body):
        yield _found(
            "body_reserialised",
            "The body does not begin as Uplift's do, so it was probably parsed and written again: the order of its "
            "members or the spaces between them are others.",
            _RAW,
        )
    yield from _about_length(request)


def _about_length(request: _Request) -> Iterator[Explanation]:
    """A body whose length differs from Content-Length. It was certainly changed, but the length does not show how."""
    announced = request.headers.get(_CONTENT_LENGTH, [""])[0]
    length = str(len(request.body))
    if not (announced.isascii() and announced.isdigit()) or announced == length:
        return
    text = f"The body has {length} bytes, where {_CONTENT_LENGTH} says {announced}"
    # Compare texts: a header may have too many digits for `int`.
    if (len(length), length) < (len(announced), announced):
        yield _found("body_truncated", f"{text}.", "Read it to its end; look for a limit of the server or of a proxy.")
    else:
        yield _found("body_changed", f"{text}: it was changed after it arrived.", _RAW)


def _clock(request: _Request) -> Explanation:
    """A valid signature with a wrong time."""
    age_s = int(time.time()) - int(request.timestamp)
    return _found(
        "clock_off",
        f"The signature is right, but was made {abs(age_s)} s {'ago' if age_s > 0 else 'in the future'}, by the clock "
        "of this machine.",
        "Set the clock (NTP). If it is right, the request was held back, or recorded and sent again: do not accept it.",
    )


def _secrets(texts: Iterable[str]) -> Iterator[Secret]:
    for text in texts:
        with suppress(WebhookVerificationError):
            yield parse_secret(text)


def _matches(expected: bytes, received: Iterable[bytes]) -> bool:
    """Whether any candidate matches. Compares all, in constant time."""
    return sum([hmac.compare_digest(expected, each) for each in received]) > 0


def _found(cause: Cause, text: str, hint: str) -> Explanation:
    return Explanation(False, cause, text, hint)
