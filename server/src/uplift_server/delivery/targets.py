"""Targets of requests, and the DNS form of their host names."""

from dataclasses import dataclass, field
from typing import NamedTuple

import idna


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """The certificate (chain) and the private key that the client presents in TLS, in PEM."""

    certificate: str = field(repr=False)
    private_key: str = field(repr=False)


class Target(NamedTuple):
    """The target of an endpoint's requests, and the key of its idle connections.

    It is a tuple because the hash of a frozen dataclass takes four times as long.
    """

    host: str
    """Lowercase ASCII name, or address literal (IPv6 without brackets)."""
    port: int
    encrypted: bool
    account: int = 0
    """Accounts do not share connections, so that bytes after a response never become another account's response."""
    identity: ClientIdentity | None = None
    """For mutual TLS."""


def to_ascii(host: str) -> str:
    """Return the ASCII form of an international host name (UTS 46, like browsers). Raises ValueError."""
    try:
        return idna.encode(host, uts46=True, transitional=False).decode("ascii")
    except idna.IDNAError as error:
        raise ValueError(str(error)) from error
