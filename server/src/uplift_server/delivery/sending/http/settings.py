"""Settings of the sender."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SenderSettings:
    """Settings of the sender and its resolver."""

    attempt_timeout_ms: int = 15_000
    """Timeout of the whole attempt: DNS lookup, connection, TLS handshake, request and response.

    A request can override it.
    """
    connect_timeout_ms: int = 5_000
    """Timeout of TCP, the egress proxy and the TLS handshake together, over all addresses."""

    keep_alive_ms: int = 55_000
    """Time for which an idle connection stays open."""
    connection_age_ms_max: int = 5 * 60_000
    """An older connection gets no further requests, so that DNS changes take effect."""
    idle_connections_per_target_max: int = 256
    idle_connections_max: int = 1_000
    connections_max: int = 100_000
    """Limit of connections, at least the limit of attempts in flight. Above it, the sender closes idle connections."""

    egress_addresses: tuple[str, ...] = ()
    """Local addresses to send from, at most one per family. If empty, the kernel chooses."""
    egress_proxy: str | None = None
    """`http://[user:password@]host[:port]`. All connections are CONNECT tunnels, even for plain http."""
    ca_file: str | None = None
    """PEM file of certificate authorities to trust instead of the system's."""

    dns_timeout_ms: int = 5_000
    dns_ttl_ms_min: int = 1_000
    dns_ttl_ms_max: int = 30_000
    dns_negative_ttl_ms: int = 2_000
    """Time for which a failed lookup stays in the cache."""
    dns_entries_max: int = 10_000
