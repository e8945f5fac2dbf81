"""Settings of the sender."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SenderSettings:
    """The settings of the sender and its resolver."""

    attempt_timeout_ms: int = 15_000
    """The timeout of the whole attempt in ms: DNS lookup, connection, TLS handshake, request and response.

    A request can override it.
    """
    connect_timeout_ms: int = 5_000
    """The total timeout for TCP, the egress proxy and the TLS handshake, over all addresses, in ms."""

    keep_alive_ms: int = 55_000
    """How long an idle connection stays open, in ms."""
    connection_age_ms_max: int = 5 * 60_000
    """The maximum age of a connection that the sender reuses, in ms. The limit ensures that DNS changes take effect."""
    idle_connections_per_target_max: int = 256
    idle_connections_max: int = 1_000
    connections_max: int = 100_000
    """The maximum number of connections, which must be at least the limit of attempts in flight.

    Above this number, the sender closes idle connections.
    """

    egress_addresses: tuple[str, ...] = ()
    """The local addresses from which the server sends, at most one per address family. If empty, the kernel chooses."""
    egress_proxy: str | None = None
    """The URL of the egress proxy, as `http://[user:password@]host[:port]`.

    All connections are CONNECT tunnels, even for plain HTTP.
    """
    ca_file: str | None = None
    """A PEM file of certificate authorities. The server trusts them instead of the system's authorities."""

    dns_timeout_ms: int = 5_000
    dns_ttl_ms_min: int = 1_000
    dns_ttl_ms_max: int = 30_000
    dns_negative_ttl_ms: int = 2_000
    """How long a failed lookup stays in the cache, in ms."""
    dns_entries_max: int = 10_000
