"""Strict parsing of endpoint URLs, so that all later steps use unambiguous parts.

`docs/addresses.md` lists the rules and codes. Mistakes that browsers silently correct (backslashes, tabs, spaces,
missing slashes) are not allowed, because two parsers could disagree about the host. The parser recognizes an IP address
in every notation that `inet_aton` or browsers accept, so that it never treats an address as a name.
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
_DEVELOPMENT: Final = "To receive events on your computer, run `uplift listen`."
LOOPBACK_ADDRESSES: Final = ("127.0.0.1", "::1")
"""The addresses of `localhost` and of names in `.localhost`. These names do not need DNS (RFC 6761, section 6.3)."""

_HOST_CHARACTERS_MAX: Final = 253
# Not allowed in URLs: control characters, all Unicode white space, backslashes, and lone surrogates.
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\s\\\ud800-\udfff]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_PARTS = re.compile(r"//(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?P<query>[^#]*)(?P<fragment>.*)")
_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>[^:]*))?")
# Convert only ASCII letters, because UTS 46 does not always map a non-ASCII letter to its lowercase form.
_TO_LOWER_CASE: Final = str.maketrans(ascii_uppercase, ascii_lowercase)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
# Paths that need no quotes in a shell.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]*")
# Characters that are not percent-encoded (WHATWG URL, path and special-query percent-encode sets).
_PATH_SAFE: Final = "!$%&'()*+,/:;=@[]|~"
_QUERY_SAFE: Final = "!$%&()*+,/:;=?@[]^`{|}~"


@dataclass(frozen=True, slots=True)
class EndpointUrl:
    """A parsed endpoint URL."""

    text: str
    """The URL as the owner entered it, for display."""
    scheme: str
    """The scheme: `http` or `https`."""
    host: str
    """The host.

    A name is lowercase ASCII without a trailing dot. An IP address is in canonical form, IPv6 without brackets.
    """
    port: int
    path: str
    """The path and query for the request line: printable ASCII without spaces, with a slash at the start."""
    host_header: str
    """The value of the Host header. IPv6 is in brackets.

    The value contains the port unless it is the scheme's default.
    """
    is_literal: bool

    @property
    def encrypted(self) -> bool:
        """Whether the connection uses TLS."""
        return self.scheme == "https"

    @property
    def known_addresses(self) -> tuple[str, ...]:
        """The addresses of the host, if the host is an IP address or a `localhost` name.

        Empty for other hosts, whose addresses come from DNS.
        """
        if self.is_literal:
            return (self.host,)
        return LOOPBACK_ADDRESSES if _is_localhost(self.host) else ()


def parse_endpoint_url(
    text: str, policy: AddressPolicy | None, *, to_ascii: Callable[[str], str]
) -> EndpointUrl | Problem:
    """Parse a URL and check it without DNS. Return the parsed URL, or the first problem, whose field is `url`.

    `check_resolved` checks the DNS result. If `policy` is None, the function only parses the URL. `to_ascii` returns
    the ASCII form of an international host name (UTS 46), or raises ValueError. The function calls `to_ascii` only for
    names that are not ASCII.
    """
    try:
        url = _parse(text, to_ascii)
    except _RejectedError as error:
        return error.problem
    return url if policy is None else _check(url, policy) or url


def check_resolved(url: EndpointUrl, addresses: Iterable[str], policy: AddressPolicy) -> Problem | None:
    """Return the problem with a URL whose host name resolves to `addresses`, if any.

    One allowed address is enough, because each connection uses only allowed addresses. `addresses` is empty if the name
    does not resolve. In this case, https is allowed, but http is allowed only for a name with a single label, because
    such a name is private.
    """
    found = url.known_addresses or tuple(addresses)
    if not found:
        if url.encrypted or "." not in url.host:
            return None
        return _https_required(f"{url.host} does not resolve, so the server cannot check that it is private.")
    codes = [policy.check(address, encrypted=url.encrypted) for address in found]
    if None in codes:
        return None
    if url.is_literal:
        reason = _rejected_literal(url)
    else:
        kinds = dict.fromkeys(describe_resolved(address) for address in found)
        reason = f"{url.host} resolves to {' and '.join(kinds)}."
    return _https_required(reason) if HTTPS_REQUIRED in codes else _address_not_allowed(reason, policy)


def with_lower_case_host(text: str) -> str:
    """Return a URL with its scheme and host in lower case. Return any other string unchanged."""
    scheme = _SCHEME.match(text)
    parts = scheme and _PARTS.fullmatch(text, scheme.end())
    if not parts:
        return text
    end = parts.end("authority")
    return text[:end].translate(_TO_LOWER_CASE) + text[end:]


class _RejectedError(Exception):
    """Ends the parsing of a URL at the first problem."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.problem = Problem("url", code, message)


def _parse(text: str, to_ascii: Callable[[str], str]) -> EndpointUrl:
    if len(text) > URL_CHARACTERS_MAX:
        raise _RejectedError(
            "url_invalid",
            f"The URL has {len(text)} characters. Use at most {URL_CHARACTERS_MAX}.",
        )
    forbidden = _FORBIDDEN.search(text)
    if forbidden:
        raise _RejectedError(
            "url_invalid",
            f"The character {forbidden[0]!a} at position {forbidden.start() + 1} is not allowed in a URL. "
            "Remove it, or percent-encode it.",
        )
    scheme_match = _SCHEME.match(text)
    if scheme_match is None:
        raise _RejectedError("url_invalid", "The URL is not complete. Use the form https://example.com/webhook.")
    scheme = scheme_match[1].lower()
    if scheme not in DEFAULT_PORTS:
        raise _RejectedError("url_scheme", f"The scheme {scheme} is not supported. Start the URL with https://.")
    parts = _PARTS.fullmatch(text, scheme_match.end())
    if parts is None:
        raise _RejectedError(
            "url_invalid", f"The URL must start with {scheme}://. Use the form {scheme}://example.com/webhook."
        )
    if "@" in parts["authority"]:
        raise _RejectedError(
            "url_userinfo",
            "The URL must not contain a user name or password. Remove the user name, the password and the @; to "
            "authenticate requests, verify their signatures or use a custom header.",
        )
    if parts["fragment"]:
        raise _RejectedError("url_fragment", "The URL must not have a fragment. Remove the # and everything after it.")
    authority = _AUTHORITY.fullmatch(parts["authority"])
    if authority is None:
        raise _host_error(
            parts["authority"], "a colon is only allowed before the port and in an IPv6 address in brackets"
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
    """Return the normalized host of a URL, and whether the host is an IP address."""
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
            text, "each label has 1 to 63 letters, digits, underscores or hyphens, without a hyphen at either end"
        )
    return name, False


def _host_error(host: str, reason: str) -> _RejectedError:
    if not host:
        return _RejectedError("url_host", "The URL has no host. Use the form https://example.com/webhook.")
    return _RejectedError("url_host", f"{host!r} is not a valid host: {reason}. Correct the host name or address.")


def _port(text: str | None, scheme: str) -> int:
    if not text:
        # `https://host:/` means the default port (RFC 3986, section 3.2.3).
        return DEFAULT_PORTS[scheme]
    digits = text.lstrip("0")
    if not (text.isascii() and text.isdigit()) or not 1 <= len(digits) <= 5 or int(digits) > 65535:
        raise _RejectedError(
            "url_port", f"{text!r} is not a valid port. Use a number from 1 to 65535, or omit the port."
        )
    return int(digits)


def _check(url: EndpointUrl, policy: AddressPolicy) -> Problem | None:
    """Return a problem if the policy does not allow the URL. The check uses no DNS lookup."""
    if not policy.allow_private_networks:
        if _is_private(url):
            code = ADDRESS_NOT_ALLOWED if url.encrypted else HTTPS_REQUIRED
            reason = (
                _rejected_literal(url) if url.is_literal else f"{url.host} is on your computer or on a private network."
            )
            command = f"uplift listen --forward-to {_without_query(url)}"
            return Problem("url", code, f"{reason} To receive events there, run `{command}`.")
        if not url.encrypted:
            return Problem("url", HTTPS_REQUIRED, f"{_DEVELOPMENT} For a public server, use https://.")
    return check_resolved(url, (), policy) if url.known_addresses else None


def _is_localhost(host: str) -> bool:
    return host == "localhost" or host.endswith(".localhost")


def _is_private(url: EndpointUrl) -> bool:
    """Return whether the host is private, without a DNS lookup.

    Private hosts are names with a single label, names that end in `.localhost`, and private addresses.
    """
    if url.is_literal:
        return AddressPolicy(allow_private_networks=True).check(url.host, encrypted=False) is None
    return "." not in url.host or _is_localhost(url.host)


def _rejected_literal(url: EndpointUrl) -> str:
    return f"The address {url.host} is not allowed: {describe(url.host)}."


def _without_query(url: EndpointUrl) -> str:
    path = url.path.partition("?")[0]
    return f"{url.scheme}://{url.host_header}{path if _PLAIN_PATH.fullmatch(path) else '/'}"


def _https_required(reason: str) -> Problem:
    return Problem("url", HTTPS_REQUIRED, f"{reason} Use https://.")


def _address_not_allowed(reason: str, policy: AddressPolicy) -> Problem:
    remedy = (
        "Use a public, loopback, RFC 1918 or unique local address."
        if policy.allow_private_networks
        else f"{_DEVELOPMENT} For a public server, use a host with a public address."
    )
    return Problem("url", ADDRESS_NOT_ALLOWED, f"{reason} {remedy}")
