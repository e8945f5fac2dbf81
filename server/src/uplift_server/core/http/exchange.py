"""What one HTTP exchange with a receiver gave: a value, whatever happened."""

from enum import IntEnum
from typing import NamedTuple


class Failure(IntEnum):
    """Why an exchange ended without a complete response inside its deadline."""

    TIMEOUT = 1
    DNS = 2
    CONNECT = 3
    TLS = 4
    PROTOCOL = 5
    BLOCKED = 6
    """The address policy, the versions of our egress addresses or the proxy's rules forbid it: not the receiver's
    fault, but likely to stay so."""
    EGRESS = 7
    """Our own way out failed: the egress proxy or the source address. Never the receiver's fault, and soon over."""


class Exchange(NamedTuple):
    """One exchange, complete or not.

    `status_code` is set when a status line was read, even if the exchange failed later; `failure` is None exactly when
    the whole response arrived in time. Phases that did not happen (a connection was reused, the exchange failed before)
    are None. Durations are whole milliseconds but for `duration_us`.
    """

    started_at: int
    """Unix time in ms at which the attempt began, resolving and connecting included."""
    duration_us: int
    status_code: int | None = None
    failure: Failure | None = None
    error: str | None = None
    """One line for people: what failed, with the detail the system gave. At most ERROR_CHARACTERS_MAX characters."""
    remote_address: str | None = None
    """`address:port` the bytes went to; IPv6 in brackets."""
    dns_ms: int | None = None
    connect_ms: int | None = None
    tls_ms: int | None = None
    first_byte_ms: int | None = None
    response_head: bytes = b""
    """Status line and headers as received, cut to RESPONSE_HEADERS_BYTES_STORED_MAX."""
    response_body: bytes = b""
    """Cut to RESPONSE_BODY_BYTES_STORED_MAX."""
    body_truncated: bool = False
    retry_after: str | None = None
    """The Retry-After header's value."""
    location: str | None = None
    """The Location header's value."""
    bytes_sent: bool = True
    """Whether any byte of the request may have reached the receiver."""
    reused: bool = False
    """Whether an open connection was used again."""
    repeated: bool = False
    """Whether the request was sent twice, because a reused connection ended without a response.

    The receiver may have read both. `error` says so, even if the exchange succeeded.
    """
