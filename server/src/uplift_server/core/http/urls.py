"""Endpoint URLs: read strictly once, so that every later step works on parts that can only mean one thing.

The rules and codes are those of the contract, section 2, *Registration*. What browsers repair (backslashes, tabs,
spaces, missing slashes) is refused, because a URL that two readers understand differently hides where it leads; hosts
are read as liberally as `inet_aton` and browsers do, so that no notation of an address passes for a name.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from string import ascii_lowercase, ascii_uppercase
from typing import Final
from urllib.parse import quote

from uplift_server.core.http.addresses import (
    ADDRESS_NOT_ALLOWED,
    HTTPS_REQUIRED,
    AddressPolicy,
    describe,
    describe_resolved,
    parse_literal,
)
from uplift_server.core.limits import URL_CHARACTERS_MAX
from uplift_server.core.problems import Problem

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_OWN_MACHINE: Final = (
    "To receive on your own machine during development, register the https address of a tunnel to it, or start a "
    "server of your own with UPLIFT_ALLOW_PRIVATE_NETWORKS=true."
)
LOOPBACK_ADDRESSES: Final = ("127.0.0.1", "::1")
"""What `localhost` and names below it mean, without asking anybody (RFC 6761, section 6.3)."""

_HOST_CHARACTERS_MAX: Final = 253
# Controls, white space of any script, backslashes, and halves of surrogate pairs, which no encoding can carry.
_NEVER = re.compile(r"[\x00-\x1f\x7f-\x9f\s\\\ud800-\udfff]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_PARTS = re.compile(r"//(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?P<query>[^#]*)(?P<fragment>.*)")
_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>[^:]*))?")
# Only ASCII letters: UTS 46 does not map every other letter to its lower case.
_TO_LOWER_CASE: Final = str.maketrans(ascii_uppercase, ascii_lowercase)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
# What stays as written (WHATWG URL, path and special-query percent-encode sets).
_PATH_SAFE: Final = "!$%&'()*+,/:;=@[]|~"
_QUERY_SAFE: Final = "!$%&()*+,/:;=?@[]^`{|}~"


@dataclass(frozen=True, slots=True)
class EndpointUrl:
    """A URL that may be an endpoint's, in parts as the sender needs them."""

    text: str
    """As the owner registered it, for showing."""
    scheme: str
    """`http` or `https`."""
    host: str
    """Lowercase ASCII without a trailing dot; an address in canonical text, IPv6 without brackets."""
    port: int
    path: str
    """Path and query for the request line: printable ASCII without spaces, beginning with a slash."""
    host_header: str
    """The host as the Host header has it: IPv6 in brackets, the port unless it is the scheme's own."""
    is_literal: bool
    """Whether the host is an address."""

    @property
    def encrypted(self) -> bool:
        """Whether the exchange runs over TLS."""
        return self.scheme == "https"

    @property
    def known_addresses(self) -> tuple[str, ...]:
        """The addresses that need no resolving: the host itself, or those of loopback; empty for any other name."""
        if self.is_literal:
            return (self.host,)
        return LOOPBACK_ADDRESSES if _is_localhost(self.host) else ()


def parse_endpoint_url(
    text: str, policy: AddressPolicy | None, *, to_ascii: Callable[[str], str]
) -> EndpointUrl | Problem:
    """Parse a URL, and check it without DNS; `check_resolved` does the rest. Without a policy, only parse it.

    `to_ascii` gives the ASCII form of an international host name (UTS 46) and raises ValueError if there is none; it is
    asked only about names that are not ASCII. Problems stand at the field `url`; the first one found is given.
    """
    try:
        url = _parse(text, to_ascii)
    except _RejectedError as refused:
        return refused.problem
    return url if policy is None else _check(url, policy) or url


def check_resolved(url: EndpointUrl, addresses: Iterable[str], policy: AddressPolicy) -> Problem | None:
    """Whether a parsed URL may be registered, given what its name resolves to now (nothing, if it does not resolve).

    One allowed address is enough, since only allowed ones are used at each connect. A name that does not resolve may
    be registered with https; with http only where it can but be private, a single label or below `localhost`.
    """
    found = url.known_addresses or tuple(addresses)
    if not found:
        if url.encrypted or "." not in url.host:
            return None
        return _https_required(f"{url.host} does not resolve now, so nobody can tell whether it is private.")
    codes = [policy.check(address, encrypted=url.encrypted) for address in found]
    if None in codes:
        return None
    if url.is_literal:
        reason = f"{url.host} is no address we send to: {describe(url.host)}."
    else:
        kinds = dict.fromkeys(describe_resolved(address) for address in found)
        reason = f"{url.host} resolves to {' and '.join(kinds)}."
    return _https_required(reason) if HTTPS_REQUIRED in codes else _address_not_allowed(reason, policy)


def with_lower_case_host(text: str) -> str:
    """A URL with its scheme and host in lower case; text that is not a full URL stays unchanged."""
    scheme = _SCHEME.match(text)
    parts = scheme and _PARTS.fullmatch(text, scheme.end())
    if not parts:
        return text
    end = parts.end("authority")
    return text[:end].translate(_TO_LOWER_CASE) + text[end:]


class _RejectedError(Exception):
    """Ends the reading of a URL at the first problem."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.problem = Problem("url", code, message)


def _parse(text: str, to_ascii: Callable[[str], str]) -> EndpointUrl:
    if len(text) > URL_CHARACTERS_MAX:
        raise _RejectedError(
            "url_invalid",
            f"A URL has at most {URL_CHARACTERS_MAX} characters, this one {len(text)}. Use a shorter one.",
        )
    forbidden = _NEVER.search(text)
    if forbidden:
        raise _RejectedError(
            "url_invalid",
            f"The character {forbidden[0]!a} at position {forbidden.start() + 1} cannot stand in a URL. "
            "Remove it, or percent-encode it.",
        )
    scheme_match = _SCHEME.match(text)
    if scheme_match is None:
        raise _RejectedError("url_invalid", "This is not a full URL. Write it like https://example.com/webhook.")
    scheme = scheme_match[1].lower()
    if scheme not in DEFAULT_PORTS:
        raise _RejectedError(
            "url_scheme", f"The scheme {scheme} is not supported. Use a URL that begins with https://."
        )
    parts = _PARTS.fullmatch(text, scheme_match.end())
    if parts is None:
        raise _RejectedError(
            "url_invalid", f"Two slashes must follow {scheme}:. Write it like {scheme}://example.com/webhook."
        )
    if "@" in parts["authority"]:
        raise _RejectedError(
            "url_userinfo",
            "A user name or password cannot stand in the URL. Remove everything up to the @; "
            "to authenticate us use the signature, or a custom header.",
        )
    if parts["fragment"]:
        raise _RejectedError("url_fragment", "A fragment is never sent to a server. Remove the # and what follows it.")
    authority = _AUTHORITY.fullmatch(parts["authority"])
    if authority is None:
        raise _host_error(
            parts["authority"], "colons may only precede the port or stand in an IPv6 address in brackets"
        )
    host, is_literal = _host(authority["host"], to_ascii)
    port = _port(authority["port"], scheme)
    shown_host = f"[{host}]" if ":" in host else host
    return EndpointUrl(
        text=text,
        scheme=scheme,
        host=host,
        port=port,
        path=(quote(parts["path"], _PATH_SAFE) or "/") + quote(parts["query"], _QUERY_SAFE),
        host_header=shown_host if port == DEFAULT_PORTS[scheme] else f"{shown_host}:{port}",
        is_literal=is_literal,
    )


def _host(text: str, to_ascii: Callable[[str], str]) -> tuple[str, bool]:
    """The host in the form to use, and whether it is an address."""
    try:
        host = (text if text.isascii() else to_ascii(text)).lower()
        literal = parse_literal(host)
    except ValueError as error:
        raise _host_error(text, str(error)) from None
    if literal is not None:
        return literal, True
    name = host.removesuffix(".")
    if len(name) > _HOST_CHARACTERS_MAX:
        raise _host_error(text, f"a name has at most {_HOST_CHARACTERS_MAX} characters")
    if not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise _host_error(
            text, "a name is labels of 1 to 63 letters, digits, inner hyphens and underscores between dots"
        )
    return name, False


def _host_error(host: str, reason: str) -> _RejectedError:
    if not host:
        return _RejectedError("url_host", "The URL has no host. Write it like https://example.com/webhook.")
    return _RejectedError("url_host", f"{host!r} is no host: {reason}. Check how it is written.")


def _port(text: str | None, scheme: str) -> int:
    if not text:
        # `https://host:/` is the default port too (RFC 3986, section 3.2.3).
        return DEFAULT_PORTS[scheme]
    digits = text.lstrip("0")
    if not (text.isascii() and text.isdigit()) or not 1 <= len(digits) <= 5 or int(digits) > 65535:
        raise _RejectedError("url_port", f"{text!r} is no port. Use a number from 1 to 65535, or none.")
    return int(digits)


def _check(url: EndpointUrl, policy: AddressPolicy) -> Problem | None:
    """What can be said without resolving."""
    if not policy.allow_private_networks:
        if not url.encrypted:
            return _https_required("Requests over http can be read and changed on their way.")
        if not url.is_literal and ("." not in url.host or _is_localhost(url.host)):
            return _address_not_allowed(f"{url.host} is a name of a private network.", policy)
    return check_resolved(url, (), policy) if url.known_addresses else None


def _is_localhost(host: str) -> bool:
    return host == "localhost" or host.endswith(".localhost")


def _https_required(reason: str) -> Problem:
    return Problem(
        "url",
        HTTPS_REQUIRED,
        f"{reason} Use https://. {_OWN_MACHINE}",
    )


def _address_not_allowed(reason: str, policy: AddressPolicy) -> Problem:
    remedy = (
        "Only public, loopback, RFC 1918 and unique local addresses can receive."
        if policy.allow_private_networks
        else f"Use an address that can be reached from the internet. {_OWN_MACHINE}"
    )
    return Problem("url", ADDRESS_NOT_ALLOWED, f"{reason} {remedy}")
