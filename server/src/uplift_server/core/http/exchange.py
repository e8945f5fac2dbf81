"""The result of an HTTP exchange with a receiver."""

from enum import IntEnum
from typing import NamedTuple


class Failure(IntEnum):
    """The reason why an exchange ended without a complete response within its timeout."""

    TIMEOUT = 1
    DNS = 2
    CONNECT = 3
    TLS = 4
    PROTOCOL = 5
    BLOCKED = 6
    """The address policy, the IP versions of our egress IPs or the egress proxy's rules do not allow the connection.
    Not the receiver's fault, but probably permanent."""
    EGRESS = 7
    """The egress proxy or the egress IP failed. Not the receiver's fault, and temporary."""


class Exchange(NamedTuple):
    """An exchange, complete or not.

    `status_code` is set if a status line was received, even if the exchange failed later. `failure` is None if and only
    if the whole response arrived in time. Phases that did not happen (reused connection, earlier failure) are None.
    Durations are whole milliseconds except for `duration_us`.
    """

    started_at: int
    """Start in Unix ms, before the DNS lookup and the connection."""
    duration_us: int
    status_code: int | None = None
    failure: Failure | None = None
    error: str | None = None
    """One line for users: the failure with the system's detail. At most ERROR_CHARACTERS_MAX characters."""
    remote_address: str | None = None
    """`address:port` of the connection; IPv6 in brackets."""
    dns_ms: int | None = None
    connect_ms: int | None = None
    tls_ms: int | None = None
    first_byte_ms: int | None = None
    response_head: bytes = b""
    """Status line and headers as received, truncated to RESPONSE_HEADERS_BYTES_STORED_MAX."""
    response_body: bytes = b""
    """Truncated to the limit of the request, by default RESPONSE_BODY_BYTES_STORED_MAX."""
    body_truncated: bool = False
    retry_after: str | None = None
    """Value of the Retry-After header."""
    location: str | None = None
    """Value of the Location header."""
    bytes_sent: bool = True
    """Whether any byte of the request may have reached the receiver."""
    reused: bool = False
    """Whether the connection was reused."""
    repeated: bool = False
    """Whether the request was sent twice, because a reused connection ended without a response.

    The receiver may have received both. `error` says so, even if the exchange succeeded.
    """
