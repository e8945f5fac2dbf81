"""Address blocks: all special-purpose blocks, and the public address space around them.

Sources: the IANA IPv4 and IPv6 Special-Purpose Address Registries, the multicast and reserved blocks in the RFCs on
address architecture, deprecated blocks that routers may still forward, and the addresses of cloud metadata services.
The blocks are listed here because `ipaddress.is_global` differs between Python versions. The most specific block that
contains an address applies.
"""

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final


class Reach(Enum):
    """The rule for connections from the server to receivers in a block of addresses."""

    PUBLIC = "public"
    PRIVATE = "private"
    """The operator's own machine or network. The server may connect only if the operator allows private networks."""
    FORBIDDEN = "forbidden"
    """The server must never connect to these addresses."""
    EMBEDDED = "embedded"
    """The rule depends on the IPv4 addresses inside the IPv6 address."""


@dataclass(frozen=True, slots=True)
class Block:
    """A block of addresses, its purpose, and the document that defines it."""

    network: IPv4Network | IPv6Network
    name: str
    source: str
    reach: Reach


def _blocks(reach: Reach, *rows: tuple[str, str, str]) -> tuple[Block, ...]:
    return tuple(Block(ip_network(network), name, source, reach) for network, name, source in rows)


_PUBLIC: Final = _blocks(
    Reach.PUBLIC,
    ("0.0.0.0/0", "public address", "RFC 791"),
    ("2000::/3", "public address", "RFC 4291"),
)

_PRIVATE: Final = _blocks(
    Reach.PRIVATE,
    ("127.0.0.0/8", "loopback", "RFC 1122"),
    ("::1/128", "loopback", "RFC 4291"),
    ("10.0.0.0/8", "private network", "RFC 1918"),
    ("172.16.0.0/12", "private network", "RFC 1918"),
    ("192.168.0.0/16", "private network", "RFC 1918"),
    ("fc00::/7", "unique local", "RFC 4193"),
)

_FORBIDDEN: Final = _blocks(
    Reach.FORBIDDEN,
    ("0.0.0.0/8", "this network", "RFC 791"),
    ("0.0.0.0/32", "unspecified", "RFC 1122"),
    ("100.64.0.0/10", "shared address space (carrier-grade NAT)", "RFC 6598"),
    ("169.254.0.0/16", "link-local", "RFC 3927"),
    ("169.254.169.254/32", "cloud metadata service", "RFC 3927"),
    ("192.0.0.0/24", "IETF protocol assignments", "RFC 6890"),
    ("192.0.2.0/24", "documentation", "RFC 5737"),
    ("192.31.196.0/24", "AS112 name servers", "RFC 7535"),
    ("192.52.193.0/24", "automatic multicast tunneling", "RFC 7450"),
    ("192.88.99.0/24", "6to4 relay, deprecated", "RFC 7526"),
    ("192.175.48.0/24", "AS112 name servers", "RFC 7534"),
    ("198.18.0.0/15", "benchmarking", "RFC 2544"),
    ("198.51.100.0/24", "documentation", "RFC 5737"),
    ("203.0.113.0/24", "documentation", "RFC 5737"),
    ("224.0.0.0/4", "multicast", "RFC 5771"),
    ("233.252.0.0/24", "documentation", "RFC 6676"),
    ("240.0.0.0/4", "reserved", "RFC 1112"),
    ("255.255.255.255/32", "broadcast", "RFC 919"),
    # Inside Azure, this public address belongs to a service of the platform.
    ("168.63.129.16/32", "cloud platform service", "Azure: What is IP address 168.63.129.16"),
    # No address outside 2000::/3 is a public IPv6 unicast address today.
    ("::/0", "reserved", "RFC 4291"),
    ("::/128", "unspecified", "RFC 4291"),
    # Each local network chooses where it embeds an IPv4 address in this block.
    ("64:ff9b:1::/48", "local-use NAT64", "RFC 8215"),
    ("100::/64", "discard only", "RFC 6666"),
    ("100:0:0:1::/64", "dummy prefix", "RFC 9780"),
    ("2001::/23", "IETF protocol assignments", "RFC 2928"),
    ("2001:1::1/128", "port control protocol anycast", "RFC 7723"),
    ("2001:1::2/128", "TURN anycast", "RFC 8155"),
    ("2001:1::3/128", "DNS-SD service registration anycast", "RFC 9665"),
    ("2001:2::/48", "benchmarking", "RFC 5180"),
    ("2001:3::/32", "automatic multicast tunneling", "RFC 7450"),
    ("2001:4:112::/48", "AS112 name servers", "RFC 7535"),
    ("2001:10::/28", "ORCHID, deprecated", "RFC 4843"),
    ("2001:20::/28", "ORCHIDv2", "RFC 7343"),
    ("2001:30::/28", "drone remote identification", "RFC 9374"),
    ("2001:db8::/32", "documentation", "RFC 3849"),
    ("2002::/16", "6to4, deprecated", "RFC 7526"),
    ("2620:4f:8000::/48", "AS112 name servers", "RFC 7534"),
    ("3ffe::/16", "6bone, returned", "RFC 3701"),
    ("3fff::/20", "documentation", "RFC 9637"),
    ("5f00::/16", "segment routing identifiers", "RFC 9602"),
    ("fe80::/10", "link-local", "RFC 4291"),
    ("fec0::/10", "site-local, deprecated", "RFC 3879"),
    ("ff00::/8", "multicast", "RFC 4291"),
    # Cloud metadata services in unique local space are not allowed, even if private networks are allowed.
    ("fd00:ec2::/32", "cloud metadata service", "AWS: Instance metadata service"),
    ("fd20:ce::/32", "cloud metadata service", "Google Cloud: View and query VM metadata"),
    ("fd00:42::42/128", "cloud metadata service", "Scaleway: Instance metadata"),
    ("fd00:c1::a9fe:a9fe/128", "cloud metadata service", "Oracle Cloud: Getting instance metadata"),
    ("fd00:a9fe:a9fe::1/128", "cloud metadata service", "Akamai: Metadata service API"),
    ("fd00:100::100:200/128", "cloud metadata service", "Alibaba Cloud: Instance metadata"),
)

_EMBEDDED: Final = _blocks(
    Reach.EMBEDDED,
    ("::/96", "IPv4-compatible", "RFC 4291"),
    ("::ffff:0:0/96", "IPv4-mapped", "RFC 4291"),
    ("::ffff:0:0:0/96", "IPv4-translated", "RFC 2765"),
    ("64:ff9b::/96", "NAT64", "RFC 6052"),
    ("2001::/32", "Teredo", "RFC 4380"),
)

BLOCKS: Final = tuple(
    sorted(_PUBLIC + _PRIVATE + _FORBIDDEN + _EMBEDDED, key=lambda block: block.network.prefixlen, reverse=True)
)
"""The table of blocks, longest prefixes first. Every IPv4 and IPv6 address is in at least one block."""
