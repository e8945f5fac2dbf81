"""The settings: name, unit, default and meaning of each, and their values in a process."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from uplift_server.config import parsers
from uplift_server.core.limits import ENDPOINT_IN_FLIGHT_MAX

PREFIX: Final = "UPLIFT_"
OTHER_TOOLS: Final = frozenset({"UPLIFT_API_URL", "UPLIFT_API_KEY", "UPLIFT_PROFILE", "UPLIFT_WEBHOOK_SECRET"})
"""Variables of the integrators' command and library, which may be in the same environment."""

OTLP_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""OpenTelemetry's own variables for the destination of traces. Its SDK reads them."""

Value = str | int | tuple[int, ...] | tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting. `default` has the operator's notation; None: no default."""

    name: str
    attribute: str
    kind: str
    """The form of the values, for the documentation."""
    parse: Callable[[str], Value]
    default: str | None
    help: str
    secret: bool = False
    derived: str | None = None
    """In words, the default that depends on other settings or on the terminal."""

    @property
    def key(self) -> str:
        """The name in `uplift.toml`."""
        return self.name.removeprefix(PREFIX).lower()


SETTINGS: Final[tuple[Setting, ...]] = (
    Setting("UPLIFT_DATABASE_URL", "database_url", "SQLite or PostgreSQL URL", parsers.database_url,
            "sqlite:///uplift-data/uplift.db",
            "where everything is stored: a file, whose directory is made, or `postgresql://user:password@host/database`"
            " (`?pooler=transaction`: through a pooler)"),
    Setting("UPLIFT_DATABASE_DIRECT_URL", "database_direct_url", "PostgreSQL URL", parsers.direct_database_url, None,
            "the same PostgreSQL database without the pooler, for one connection of each process: heartbeats and"
            " notifications", derived="`UPLIFT_DATABASE_URL`"),
    Setting("UPLIFT_HOST", "host", "address or name", parsers.host, "127.0.0.1", "the address to listen on"),
    Setting("UPLIFT_PORT", "port", "0 to 65535", parsers.integer(0, 65535), "8420", "the port; 0 takes a free one"),
    Setting("UPLIFT_PUBLIC_URL", "public_url", "URL", parsers.url("http", "https", path=True), None,
            "how others reach this server", derived="from host and port"),
    Setting("UPLIFT_OPERATOR_KEY", "operator_key", "op_…", parsers.operator_key, None,
            "the key that may do everything; while one is set, one that a start has made is worthless",
            secret=True, derived="made and printed once by the first `serve`"),
    Setting("UPLIFT_SECRET_KEY", "secret_key", "base64 of 32 bytes", parsers.secret_key, None,
            "seals the endpoints' secrets at rest", secret=True,
            derived="made once and stored as `secret.key` beside a SQLite file; with PostgreSQL it must be set"),
    Setting("UPLIFT_ALLOW_PRIVATE_NETWORKS", "allow_private_networks", "true or false", parsers.boolean, "false",
            "whether endpoints may be on loopback and private networks, over plain HTTP too"),
    Setting("UPLIFT_RETRY_SCHEDULE", "retry_schedule_ms", "durations", parsers.schedule,
            "5s,5m,30m,2h,5h,10h,14h,20h,24h",
            "the waits after attempts 1, 2, 3 …, each ±10 %: n waits allow n + 1 attempts; empty allows one"),
    Setting("UPLIFT_ATTEMPT_TIMEOUT", "attempt_timeout_ms", "100ms to 10m", parsers.duration("100ms", "10m"), "15s",
            "the deadline of a whole attempt: look-up, connection, request and response"),
    Setting("UPLIFT_CONNECT_TIMEOUT", "connect_timeout_ms", "10ms to 10m", parsers.duration("10ms", "10m"), None,
            "the deadline of the connection within it", derived="5s, or the attempt timeout if that is shorter"),
    Setting("UPLIFT_LEASE", "lease_ms", "1s to 1d", parsers.duration("1s", "1d"), None,
            "after which the deliveries of a process that died are attempted again; 5s or more above the attempt"
            " timeout", derived="attempt timeout + 15s"),
    Setting("UPLIFT_MAX_IN_FLIGHT", "max_in_flight", "1 to 100000", parsers.integer(1, 100_000), "1000",
            "attempts in flight. If several accounts use the server, one account takes at most half"),
    Setting("UPLIFT_MAX_IN_FLIGHT_PER_ENDPOINT", "max_in_flight_per_endpoint", f"1 to {ENDPOINT_IN_FLIGHT_MAX}",
            parsers.integer(1, ENDPOINT_IN_FLIGHT_MAX), "16", "the same for each endpoint that does not set its own"),
    Setting("UPLIFT_BREAKER_FAILURES", "breaker_failures", "0 to 10000", parsers.integer(0, 10_000), "10",
            "failed attempts in a row after which an endpoint is only probed; 0 never"),
    Setting("UPLIFT_BREAKER_PROBE_MAX", "breaker_probe_max_ms", "10ms to 1d", parsers.duration("10ms", "1d"), "5m",
            "the longest wait between two probes, and the longest that a Retry-After holds up an endpoint"),
    Setting("UPLIFT_WARN_AFTER", "warn_after_ms", "1s to 365d", parsers.duration("1s", "365d"), "3d",
            "for how long an endpoint fails before its account's contacts are warned"),
    Setting("UPLIFT_DISABLE_AFTER", "disable_after_ms", "2s to 730d", parsers.duration("2s", "730d"), "5d",
            "for how long it fails before it is disabled; longer than UPLIFT_WARN_AFTER"),
    Setting("UPLIFT_GONE_DISABLES_ENDPOINT", "gone_disables_endpoint", "true or false", parsers.boolean, "false",
            "whether an endpoint that answers 410 (Gone) is disabled at once"),
    Setting("UPLIFT_RELEASE_RATE_PER_SECOND", "release_rate_per_second", "1 to 1000", parsers.integer(1, 1000), "50",
            "how many a second of its held deliveries go to an endpoint that was enabled"),
    Setting("UPLIFT_SMTP_URL", "smtp_url", "smtp:// or smtps:// URL", parsers.mail_server, None,
            "the mail server that notices to people are handed to; without one none are sent", secret=True),
    Setting("UPLIFT_MAIL_FROM", "mail_from", "address, or name and address", parsers.mailbox, None,
            "whom they are from"),
    Setting("UPLIFT_OPERATOR_EMAIL", "operator_email", "address", parsers.email, None,
            "who is told when endpoints fail in masses"),
    Setting("UPLIFT_SOURCE_IPS", "source_ips", "addresses", parsers.published_addresses, "54.245.28.22",
            "the addresses requests come from, as published to integrators; one that is only announced has its instant:"
            " `192.0.2.11@2026-12-01T00:00:00Z`"),
    Setting("UPLIFT_EGRESS_ADDRESS", "egress_address", "address, or two", parsers.source_addresses, None,
            "the local address outgoing connections are bound to; with one of each version between commas, both"),
    Setting("UPLIFT_EGRESS_PROXY", "egress_proxy", "URL", parsers.url("http", userinfo=True), None,
            "the HTTP proxy (CONNECT) outgoing connections go through", secret=True),
    Setting("UPLIFT_EGRESS_CA_FILE", "egress_ca_file", "path", parsers.file, None,
            "the certificates of authorities to trust", derived="the system's"),
    Setting("UPLIFT_RETENTION", "retention_ms", "1m to 3650d, or 0", parsers.retention, "30d",
            "how long data is kept; 0 for ever"),
    Setting("UPLIFT_DASHBOARD_FRAME_ANCESTORS", "dashboard_frame_ancestors", "origins", parsers.frame_ancestors, None,
            "the sites that may show the dashboard in a frame, such as `https://app.example.com`, with spaces between;"
            " without any none may"),
    Setting("UPLIFT_TRUSTED_PROXIES", "trusted_proxies", "addresses and networks", parsers.networks, None,
            "the proxies in front of this server, whose X-Forwarded-For tells where a request comes from"),
    Setting("UPLIFT_METRICS_TOKEN", "metrics_token", "16 to 256 characters", parsers.token, None,
            "what lets monitoring read /metrics, and do nothing else; operators' keys may read it anyway", secret=True),
    Setting("UPLIFT_OTLP_ENDPOINT", "otlp_endpoint", "URL",
            parsers.url("http", "https", userinfo=True, path=True), None,
            "where traces are sent to, over OTLP/HTTP: a collector's base URL; without one none are made", secret=True,
            derived="as OTEL_EXPORTER_OTLP_ENDPOINT says"),
    Setting("UPLIFT_LOG_FORMAT", "log_format", "console, json or none", parsers.log_format, None,
            "the form of the log lines on standard error; none leaves warnings only",
            derived="console on a terminal, else json"),
)  # fmt: skip

BY_NAME: Final = {setting.name: setting for setting in SETTINGS}
BY_KEY: Final = {setting.key: setting for setting in SETTINGS}


@dataclass(frozen=True)
class Config:
    """The validated settings. Durations are milliseconds. Secrets are not in its `repr`."""

    database_url: str = field(repr=False)
    database_direct_url: str | None = field(repr=False)
    host: str
    port: int
    public_url: str
    operator_key: str | None = field(repr=False)
    secret_key: str | None = field(repr=False)
    allow_private_networks: bool
    retry_schedule_ms: tuple[int, ...]
    attempt_timeout_ms: int
    connect_timeout_ms: int
    lease_ms: int
    max_in_flight: int
    max_in_flight_per_endpoint: int
    breaker_failures: int
    breaker_probe_max_ms: int
    warn_after_ms: int
    disable_after_ms: int
    gone_disables_endpoint: bool
    release_rate_per_second: int
    smtp_url: str | None = field(repr=False)
    mail_from: str | None
    operator_email: str | None
    source_ips: tuple[str, ...]
    egress_address: tuple[str, ...] | None
    """One, or one of each version."""
    egress_proxy: str | None = field(repr=False)
    egress_ca_file: str | None
    retention_ms: int
    """0: forever."""
    dashboard_frame_ancestors: str | None
    """Origins in the syntax of Content-Security-Policy."""
    trusted_proxies: tuple[str, ...] | None
    metrics_token: str | None = field(repr=False)
    otlp_endpoint: str | None = field(repr=False)
    log_format: Literal["console", "json", "none"]
    given: Mapping[str, tuple[str, str]] = field(default_factory=dict, repr=False, compare=False)
    """By name, the source and the text of values that are no defaults, including OpenTelemetry's variables."""

    @property
    def traces_by(self) -> str | None:
        """The variable that enables traces; None if they are disabled."""
        names = [] if self.otlp_endpoint is None else ["UPLIFT_OTLP_ENDPOINT"]
        return next(iter([*names, *(name for name in OTLP_VARIABLES if name in self.given)]), None)

    @property
    def on_postgresql(self) -> bool:
        """Whether the database is PostgreSQL, not SQLite."""
        return self.database_url.startswith(parsers.POSTGRESQL)

    @property
    def shown_database(self) -> str:
        """The database for display, without password."""
        return parsers.without_password(self.database_url) if self.on_postgresql else str(self.database_path.absolute())

    @property
    def database_path(self) -> Path:
        """The SQLite file."""
        assert not self.on_postgresql, "PostgreSQL has no file"
        return Path(self.database_url.removeprefix(parsers.SQLITE))

    @property
    def sends_mail(self) -> bool:
        """Whether the server sends emails."""
        return self.smtp_url is not None

    @property
    def secret_key_path(self) -> Path:
        """The file of the encryption key, unless the operator sets it."""
        return self.database_path.with_name("secret.key")

    @property
    def next_secret_key_path(self) -> Path:
        """The file of the new key during a rotation."""
        return self.database_path.with_name("secret.key.new")
