"""What an operator may decide about sending."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SenderSettings:
    """Bounds of the sender and its resolver; every duration in milliseconds."""

    attempt_timeout_ms: int = 15_000
    """One deadline over resolving, connecting, TLS, sending and the whole response."""
    connect_timeout_ms: int = 5_000
    """TCP, the proxy's answer and the TLS handshake together, over all addresses tried."""

    keep_alive_ms: int = 55_000
    """How long an open connection waits for its next request."""
    connection_age_ms_max: int = 5 * 60_000
    """An older connection takes no further request, so that changes in DNS are followed."""
    idle_connections_per_target_max: int = 256
    idle_connections_max: int = 1_000
    connections_max: int = 100_000
    """Limit of connections. Beyond it, idle ones are closed. At least the limit of attempts in flight."""

    egress_addresses: tuple[str, ...] = ()
    """Local addresses to send from, at most one per family; empty = the kernel chooses."""
    egress_proxy: str | None = None
    """`http://[user:password@]host[:port]`; every connection is then a CONNECT tunnel, plain http included."""
    ca_file: str | None = None
    """PEM file of the authorities to trust instead of the system's."""

    dns_timeout_ms: int = 5_000
    dns_ttl_ms_min: int = 1_000
    dns_ttl_ms_max: int = 30_000
    dns_negative_ttl_ms: int = 2_000
    """How long a name that could not be resolved is not asked for again."""
    dns_entries_max: int = 10_000
