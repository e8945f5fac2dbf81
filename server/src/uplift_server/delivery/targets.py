"""Targets of requests, and the ASCII form of their host names for DNS."""

from dataclasses import dataclass, field
from typing import NamedTuple

import idna


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """The certificate chain and the private key that the client presents during a TLS handshake, as PEM."""

    certificate: str = field(repr=False)
    private_key: str = field(repr=False)


class Target(NamedTuple):
    """The host, port, TLS settings and account of a request.

    The connection pool uses the target as the key of idle connections. The class is a named tuple, because hashing a
    frozen dataclass takes four times as long.
    """

    host: str
    """The host as a lowercase ASCII name or as an IP address. An IPv6 address has no brackets."""
    port: int
    encrypted: bool
    account: int = 0
    """The sequence number of the account.

    Accounts do not share connections, because unexpected bytes after a response could become the response of another
    account.
    """
    identity: ClientIdentity | None = None
    """The client certificate for mutual TLS, or None."""


def to_ascii(host: str) -> str:
    """Return the ASCII form of an international host name (UTS 46, as in browsers).

    Raises ValueError if the name is not valid.
    """
    try:
        return idna.encode(host, uts46=True, transitional=False).decode("ascii")
    except idna.IDNAError as error:
        raise ValueError(str(error)) from error
