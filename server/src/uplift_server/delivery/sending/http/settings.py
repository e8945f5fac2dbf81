"""The settings of the HTTP client."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SenderSettings:
    """The settings of the sender and its resolver."""

    attempt_timeout_ms: int = 15_000
    """The timeout of a whole attempt, in ms.

    An attempt includes DNS lookup, connection, TLS handshake, request and response. A request can override the timeout.
    """
    connect_timeout_ms: int = 5_000
    """The timeout for opening a connection (TCP, egress proxy, TLS handshake), in total for all addresses, in ms."""

    keep_alive_ms: int = 55_000
    """How long an idle connection stays open, in ms."""
    connection_age_ms_max: int = 5 * 60_000
    """The maximum age of a connection that the sender reuses, in ms. DNS changes take effect within this time."""
    idle_connections_per_target_max: int = 256
    idle_connections_max: int = 1_000
    connections_max: int = 100_000
    """The maximum number of connections.

    It must be at least the limit on attempts in flight. Above this number, the sender closes idle connections.
    """

    egress_addresses: tuple[str, ...] = ()
    """The local IP addresses from which the server sends requests, at most one per address family.

    If empty, the operating system chooses the addresses.
    """
    egress_proxy: str | None = None
    """The URL of the egress proxy, as `http://[user:password@]host[:port]`.

    All connections are CONNECT tunnels, even for plain HTTP.
    """
    ca_file: str | None = None
    """A PEM file of certificate authorities that the server trusts instead of the system's authorities."""

    dns_timeout_ms: int = 5_000
    dns_ttl_ms_min: int = 1_000
    dns_ttl_ms_max: int = 30_000
    dns_negative_ttl_ms: int = 2_000
    """How long the result of a failed lookup stays in the cache, in ms."""
    dns_entries_max: int = 10_000
