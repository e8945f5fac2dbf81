"""Address policy: which addresses the server may connect to (SSRF protection).

The server applies the policy when an endpoint is created or updated, and again, for each connection, to every address
of the host.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from uplift_server.core.http.address_ranges import BLOCKS, Block, Reach

ADDRESS_NOT_ALLOWED: Final = "address_not_allowed"
HTTPS_REQUIRED: Final = "https_required"

_DIGITS = re.compile(r"[0-9]+")
_HEXADECIMAL = re.compile(r"0[xX][0-9a-fA-F]*")
_NUMBER_CHARACTERS_MAX: Final = 64
_IPV4_MASK: Final = 0xFFFF_FFFF
# ISATAP (RFC 5214) puts an IPv4 address after one of these prefixes of the interface identifier, in any /64.
_ISATAP: Final = (0x0000_5EFE, 0x0200_5EFE)
_MAPPED: Final = 0xFFFF


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """The operator's address policy.

    If `allow_private_networks` is true, the policy also allows loopback addresses, RFC 1918 addresses and unique local
    addresses. It never allows other non-public addresses.
    """

    allow_private_networks: bool

    def check(self, address: str, *, encrypted: bool) -> str | None:
        """Return an error code, or None if the policy allows a connection to an address.

        `address` is IPv4 or IPv6 text without brackets. The code is `https_required` if the policy allows only
        encrypted connections to the address. Otherwise, the code is `address_not_allowed`, including for invalid
        addresses and addresses with a zone, such as `fe80::1%eth0`.
        """
        parsed = _parse(address)
        if parsed is None or "%" in address:
            return ADDRESS_NOT_ALLOWED
        reach = _reach(parsed)
        if reach is Reach.PRIVATE:
            return None if self.allow_private_networks else ADDRESS_NOT_ALLOWED
        if reach is Reach.FORBIDDEN:
            return ADDRESS_NOT_ALLOWED
        return None if encrypted else HTTPS_REQUIRED


def describe(address: str) -> str:
    """Describe the kind of an address for error messages, such as `loopback (127.0.0.0/8, RFC 1122)`.

    If the address embeds an IPv4 address, the result contains the IPv4 address. Therefore, call this function only for
    addresses that the user entered.
    """
    parsed = _parse(address)
    return "not an IP address" if parsed is None else _description(parsed, show_inner=True)


def describe_resolved(address: str) -> str:
    """Describe the kind of an address to which a name resolved: only its block, and not the address itself.

    The address would reveal internal DNS results to users who can create endpoints.
    """
    parsed = _parse(address)
    return "not an IP address" if parsed is None else _description(parsed, show_inner=False)


def parse_literal(host: str) -> str | None:
    r"""Return the canonical text of the address in a URL's host, or None if the host is a name.

    The function accepts every notation that browsers (WHATWG URL, *host parsing*) and `inet_aton` accept, so that no
    notation can hide an address: decimal, octal and hexadecimal numbers, one to four parts, a trailing dot, and IPv6
    with or without brackets. Raises ValueError for an invalid address: an IPv6 zone, a host that is not IPv4 but has a
    number as its last label, or brackets around anything but IPv6.
    """
    if host.startswith("[") or ":" in host:
        return _canonical_ipv6(host)
    labels = host.split(".")
    if len(labels) > 1 and not labels[-1]:
        labels.pop()
    last = labels[-1]
    if not (_DIGITS.fullmatch(last) or _HEXADECIMAL.fullmatch(last)):
        return None
    return str(_ipv4(labels))


def _canonical_ipv6(host: str) -> str:
    text = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if "%" in text:
        raise ValueError("an IPv6 address with a zone (%) is valid only on one machine")
    value = int(IPv6Address(text))
    if value >> 32 == _MAPPED:
        # Python 3.13 changed how `str` formats these addresses.
        return f"::ffff:{(value >> 16) & 0xFFFF:x}:{value & 0xFFFF:x}"
    return str(IPv6Address(value))


def _ipv4(labels: list[str]) -> IPv4Address:
    if len(labels) > 4:
        raise ValueError("an IPv4 address has at most four numbers")
    numbers = [_number(label) for label in labels]
    limit = 256 ** (5 - len(numbers))
    if any(number > 255 for number in numbers[:-1]) or numbers[-1] >= limit:
        raise ValueError("a number in the IPv4 address is too large")
    value = numbers[-1]
    for position, number in enumerate(numbers[:-1]):
        value += number << (8 * (3 - position))
    return IPv4Address(value)


def _number(label: str) -> int:
    try:
        # Reject longer numbers, which are too large in any base, and slow to parse.
        if len(label) > _NUMBER_CHARACTERS_MAX:
            raise ValueError
        if _HEXADECIMAL.fullmatch(label):
            return int(label[2:] or "0", 16)
        if not _DIGITS.fullmatch(label):
            raise ValueError
        return int(label, 8 if label[0] == "0" else 10)
    except ValueError:
        raise ValueError(f"{label!r} is not a valid part of an IPv4 address") from None


_SEVERITY: Final = {Reach.FORBIDDEN: 0, Reach.PRIVATE: 1, Reach.PUBLIC: 2}


def _parse(address: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(address.partition("%")[0])
    except ValueError:
        return None


def _description(address: IPv4Address | IPv6Address, *, show_inner: bool) -> str:
    block = _block(address)
    inner: IPv4Address | None
    if block.reach is Reach.EMBEDDED:
        text = f"{block.name} ({block.network}, {block.source})"
        inner = min(_embedded(address, block), key=lambda address: _SEVERITY[_reach(address)])
    elif block.reach is Reach.PUBLIC:
        text, inner = "ISATAP (RFC 5214)", _isatap(address)
        if inner is None:
            return block.name
    else:
        return f"{block.name} ({block.network}, {block.source})"
    description = _description(inner, show_inner=show_inner)
    return f"{text} of {inner}, {description}" if show_inner else f"{text} of {description}"


def _block(address: IPv4Address | IPv6Address) -> Block:
    return next(block for block in BLOCKS if address in block.network)


def _reach(address: IPv4Address | IPv6Address) -> Reach:
    block = _block(address)
    if block.reach is Reach.EMBEDDED:
        return min((_reach(inner) for inner in _embedded(address, block)), key=_SEVERITY.__getitem__)
    if block.reach is Reach.PUBLIC:
        isatap = _isatap(address)
        return block.reach if isatap is None else _reach(isatap)
    return block.reach


def _isatap(address: IPv4Address | IPv6Address) -> IPv4Address | None:
    value = int(address)
    return IPv4Address(value & _IPV4_MASK) if (value >> 32) & _IPV4_MASK in _ISATAP else None


def _embedded(address: IPv4Address | IPv6Address, block: Block) -> list[IPv4Address]:
    """Return the IPv4 addresses inside an address.

    The policy must allow all of them, because each of these addresses can receive the packets.
    """
    value = int(address)
    if block.name == "Teredo":
        # The addresses of the Teredo server and of the client, whose bits are inverted (RFC 4380, section 4).
        return [IPv4Address((value >> 64) & _IPV4_MASK), IPv4Address(~value & _IPV4_MASK)]
    return [IPv4Address(value & _IPV4_MASK)]
