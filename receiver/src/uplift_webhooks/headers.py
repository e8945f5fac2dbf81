"""Reads request headers in the forms that different frameworks use."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol, cast

from uplift_webhooks.errors import WebhookVerificationError

ID: Final = "webhook-id"
TIMESTAMP: Final = "webhook-timestamp"
SIGNATURE: Final = "webhook-signature"
UPLIFT_SIGNATURE: Final = "x-uplift-signature-256"
TEST: Final = "x-uplift-test"


class Items(Protocol):
    """A framework's header object that is not a mapping, such as the header objects of Werkzeug and `http.client`."""

    def items(self) -> Iterable[tuple[Any, Any]]:
        """Return the name and the value of every header."""
        ...  # pragma: no cover


Headers = Mapping[Any, Any] | Items | Iterable[tuple[Any, Any]]
"""Request headers: a mapping, a framework's header object, pairs of strings or bytes (ASGI), or a WSGI environ."""

WANTED: Final = (ID, TIMESTAMP, SIGNATURE, UPLIFT_SIGNATURE)


def spellings(names: Iterable[str]) -> dict[str | bytes, str]:
    """Return a dictionary that maps every form of the given header names to the names.

    The forms are strings, bytes and WSGI variables, all in lowercase. Source: PEP 3333, "environ Variables".
    """
    wanted = list(names)
    return {
        **{name: name for name in wanted},
        **{name.encode(): name for name in wanted},
        **{f"http_{name.replace('-', '_')}": name for name in wanted},
    }


_NAMES: Final = spellings(WANTED)


def read_headers(headers: object) -> dict[str, str]:
    """Return the headers that verification needs. The keys are lowercase names. Omit missing headers.

    Raises:
        WebhookVerificationError: `headers_unreadable` if the argument does not consist of headers, `malformed_header`
            if a value is not printable ASCII or a header has two different values.
    """
    try:
        found = collect(headers, _NAMES)
    # The caller's headers object may raise any error.
    except Exception as error:
        raise WebhookVerificationError(
            "headers_unreadable",
            f"The library cannot read headers from an object of type {type(headers).__name__}.",
            "Pass the headers of the request: a mapping, a list of pairs, or the WSGI environ.",
        ) from error
    result = {}
    for name, values in found.items():
        value = values[0]
        if (len(values) > 1 and any(other != value for other in values)) or not (
            value.isascii() and value.isprintable()
        ):
            raise WebhookVerificationError(
                "malformed_header",
                f"The request has several different {name} headers, or the header's value is not printable ASCII.",
                "Pass the unchanged headers, and check for a proxy that rewrites or merges them.",
            )
        result[name] = value
    return result


def collect(headers: object, names: Mapping[str | bytes, str]) -> dict[str, list[str]]:
    """Return every value of the headers in `names`.

    If a header is repeated, the headers object can contain a list of its values, for example on AWS API Gateway.

    `names` maps the lowercase spellings of a header to its name in the result. This function does not catch errors that
    the header object raises.
    """
    items = getattr(headers, "items", None)
    pairs = cast("Iterable[tuple[Any, Any]]", headers if items is None else items())
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        if not isinstance(name, str | bytes):
            raise TypeError(f"a header's name is of type {type(name).__name__}, not str or bytes")
        known = names.get(name.lower())
        if known is not None and value is not None:
            values = value if isinstance(value, list | tuple) else (value,)
            if values:
                found.setdefault(known, []).extend(map(_text, values))
    return found


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("latin-1")
    raise TypeError(f"a header's value is of type {type(value).__name__}, not str or bytes")
