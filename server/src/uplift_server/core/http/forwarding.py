"""Determines the client address of a request that arrives through trusted proxies."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

HOPS_MAX: Final = 20
"""Maximum number of `X-Forwarded-For` entries to evaluate, starting with the last one."""

Network = IPv4Network | IPv6Network


def parse_networks(text: str) -> tuple[Network, ...]:
    """Parse addresses and networks (`10.0.0.0/8`), separated by commas. Raises ValueError."""
    return tuple(ip_network(part.strip()) for part in text.split(","))


def client_address(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """Determine the client address from the peer of the connection and the values of `X-Forwarded-For`.

    Each proxy appends the address of its client. Clients can forge earlier entries. Therefore, the function starts
    with the peer. While the current address is a trusted proxy, the function continues with the next entry, from the
    last entry to the first.
    """
    address = peer
    hops = [hop for value in forwarded for hop in value.split(",")]
    for hop in reversed(hops[-HOPS_MAX:]):
        if not _is_among(address, trusted):
            break
        parsed = _address(hop.strip())
        if parsed is None:
            break
        address = str(parsed)
    return address


def _is_among(address: str, networks: Sequence[Network]) -> bool:
    parsed = _address(address)
    return parsed is not None and any(parsed in network for network in networks)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Parse an IP address, and ignore a port after it. Return None if the address is not valid."""
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
