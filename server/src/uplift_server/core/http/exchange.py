"""The result of an HTTP exchange with a receiver."""

from enum import IntEnum
from typing import NamedTuple


class Failure(IntEnum):
    """The reason why an exchange ended without a complete response."""

    TIMEOUT = 1
    DNS = 2
    CONNECT = 3
    TLS = 4
    PROTOCOL = 5
    BLOCKED = 6
    """The address policy, the IP versions of our egress IPs or the egress proxy's rules do not allow the connection.

    The receiver did not cause this failure. The failure is probably permanent.
    """
    EGRESS = 7
    """The egress proxy or the egress IP failed. The receiver did not cause this failure. The failure is temporary."""


class Exchange(NamedTuple):
    """A complete or failed exchange of a request and a response.

    `status_code` is set if a status line was received, even if the exchange failed later. `failure` is None if and only
    if the whole response arrived in time. The duration of a phase is None if the phase did not happen, for example on a
    reused connection. Durations are whole milliseconds except for `duration_us`.
    """

    started_at: int
    """When the exchange began, before the DNS lookup and the connection (Unix ms)."""
    duration_us: int
    status_code: int | None = None
    failure: Failure | None = None
    error: str | None = None
    """One line for users: the failure, and the operating system's message. At most ERROR_CHARACTERS_MAX characters."""
    remote_address: str | None = None
    """The peer of the connection as `address:port`. IPv6 addresses are in brackets."""
    dns_ms: int | None = None
    connect_ms: int | None = None
    tls_ms: int | None = None
    first_byte_ms: int | None = None
    response_head: bytes = b""
    """The status line and headers as received, truncated to RESPONSE_HEADERS_BYTES_STORED_MAX."""
    response_body: bytes = b""
    """The response body, truncated to the request's limit, by default RESPONSE_BODY_BYTES_STORED_MAX."""
    body_truncated: bool = False
    retry_after: str | None = None
    """Value of the Retry-After header, if any."""
    location: str | None = None
    """Value of the Location header, if any."""
    bytes_sent: bool = True
    """Whether the client sent at least one byte of the request. If so, the receiver may have received the request."""
    reused: bool = False
    repeated: bool = False
    """Whether the client sent the request twice, because a reused connection ended without a response.

    The receiver may have received both requests. `error` reports the repeated request, even if the exchange succeeded.
    """
