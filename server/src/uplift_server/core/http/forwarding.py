"""Where a request comes from that a proxy has passed on: what proxies say is believed of those one trusts only."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

HOPS_MAX: Final = 20
"""So many entries of `X-Forwarded-For` are looked at, from the last one."""

Network = IPv4Network | IPv6Network


def parse_networks(text: str) -> tuple[Network, ...]:
    """Addresses and networks (`10.0.0.0/8`) between commas. ValueError for any other text."""
    return tuple(ip_network(part.strip()) for part in text.split(","))


def client_address(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """The address a request comes from, given who is connected and the values of `X-Forwarded-For` in their order.

    Each proxy adds the address it got the request from at the end, and whatever stands before may be anybody's word: so
    it is gone through from the end, as far as the proxies are trusted ones.
    """
    found = peer
    hops = [hop for value in forwarded for hop in value.split(",")]
    for hop in reversed(hops[-HOPS_MAX:]):
        if not _is_among(found, trusted):
            return found
        address = _address(hop.strip())
        if address is None:
            return found
        found = str(address)
    return found


def _is_among(address: str, networks: Sequence[Network]) -> bool:
    parsed = _address(address)
    return parsed is not None and any(parsed in network for network in networks)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """The address of an entry, which some proxies write with a port."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        parsed = ip_address(text)
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return mapped or parsed
