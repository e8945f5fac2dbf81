"""The settings with their names, formats, defaults and help texts, and the configuration of one process."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from uplift_server.config import branding, parsers
from uplift_server.core.limits import ENDPOINT_IN_FLIGHT_MAX
from uplift_server.core.operations.branding import NAME, Branding, parse_colors

PREFIX: Final = "UPLIFT_"
OTHER_TOOLS: Final = frozenset({"UPLIFT_API_URL", "UPLIFT_API_KEY", "UPLIFT_PROFILE", "UPLIFT_WEBHOOK_SECRET"})
"""Variables of the `uplift` command and the library. The server ignores these variables in its environment."""

OTLP_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""OpenTelemetry's own variables for the destination of traces. The OpenTelemetry SDK reads them."""

Value = str | int | tuple[int, ...] | tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Setting:
    """The definition of a setting.

    `default` is the text that an operator would enter, or None if there is no default.
    """

    name: str
    attribute: str
    kind: str
    """The format of the value, in words, for the documentation."""
    parse: Callable[[str], Value]
    default: str | None
    help: str
    secret: bool = False
    derived: str | None = None
    """A description of the default, if the default depends on other settings or on the terminal."""

    @property
    def can_be_file(self) -> bool:
        """Whether a `_FILE` variable can name a file that contains the value.

        True for secrets, and for URLs that can contain a password.
        """
        return self.secret or self.is_url_with_password

    @property
    def is_url_with_password(self) -> bool:
        """Whether the value is a URL that can contain a password. All output masks this password."""
        return self.attribute in ("database_url", "database_direct_url", "nats_url")

    @property
    def key(self) -> str:
        """The name of the setting in `uplift.toml`."""
        return self.name.removeprefix(PREFIX).lower()


SETTINGS: Final[tuple[Setting, ...]] = (
    Setting("UPLIFT_DATABASE_URL", "database_url", "SQLite or PostgreSQL URL", parsers.database_url,
            "sqlite:///uplift-data/uplift.db",
            "the database: a SQLite file (the server creates its directory), or"
            " `postgresql://user:password@host/database` (add `?pooler=transaction` for a pooler)"),
    Setting("UPLIFT_DATABASE_DIRECT_URL", "database_direct_url", "PostgreSQL URL", parsers.direct_database_url, None,
            "a URL that connects to the same PostgreSQL database without a pooler; each process uses one direct"
            " connection for heartbeats and notifications", derived="`UPLIFT_DATABASE_URL`"),
    Setting("UPLIFT_NATS_URL", "nats_url", "nats:// or tls:// URLs", parsers.nats_urls, None,
            "the URLs of the NATS servers, separated by commas: `nats://user:password@host:port`, or `tls://`"
            " for TLS; NATS JetStream stores accepted events before PostgreSQL does; without a value, the"
            " server stores accepted events only in the database"),
    Setting("UPLIFT_NATS_REPLICAS", "nats_replicas", "1, 3 or 5", parsers.stream_replicas, "3",
            "the number of NATS servers that store each event, for streams that the server creates"),
    Setting("UPLIFT_NATS_CREDENTIALS_FILE", "nats_credentials_file", "path", parsers.credentials_file, None,
            "a NATS credentials file that contains the JWT and the seed of the server's NATS user"),
    Setting("UPLIFT_HOST", "host", "address or name", parsers.host, "127.0.0.1", "the address to listen on"),
    Setting("UPLIFT_PORT", "port", "0 to 65535", parsers.integer(0, 65535), "8420",
            "the port to listen on; 0 selects a free port"),
    Setting("UPLIFT_PUBLIC_URL", "public_url", "URL", parsers.url("http", "https", path=True), None,
            "the URL at which clients and browsers reach this server", derived="from host and port"),
    Setting("UPLIFT_OPERATOR_KEY", "operator_key", "op_…", parsers.operator_key, None,
            "the operator key, which replaces a generated operator key",
            secret=True, derived="generated and printed once by the first `serve`"),
    Setting("UPLIFT_SECRET_KEY", "secret_key", "base64 of 32 bytes", parsers.secret_key, None,
            "the encryption key for endpoint secrets in the database", secret=True,
            derived="generated and stored as `secret.key` beside the SQLite file; required for PostgreSQL"),
    Setting("UPLIFT_ALLOW_PRIVATE_NETWORKS", "allow_private_networks", "true or false", parsers.boolean, "false",
            "whether endpoint URLs can use loopback and private addresses, with https or http"),
    Setting("UPLIFT_RETRY_SCHEDULE", "retry_schedule_ms", "durations", parsers.schedule,
            "5s,5m,30m,2h,5h,10h,14h,20h,24h",
            "the delays after attempts 1, 2, 3 …, each ±10%: n delays allow n + 1 attempts; an empty value"
            " allows one attempt"),
    Setting("UPLIFT_ATTEMPT_TIMEOUT", "attempt_timeout_ms", "100ms to 10m", parsers.duration("100ms", "10m"), "15s",
            "the timeout for an attempt: DNS lookup, connection, request and response"),
    Setting("UPLIFT_ENDPOINT_TIMEOUT_MAX", "endpoint_timeout_max_ms", "1s to 30s", parsers.duration("1s", "30s"), None,
            "the maximum for the endpoint setting `attempt_timeout`; endpoints with a longer stored timeout use"
            " the maximum",
            derived="the shorter of 30s and `UPLIFT_LEASE` - 5s"),
    Setting("UPLIFT_CONNECT_TIMEOUT", "connect_timeout_ms", "10ms to 10m", parsers.duration("10ms", "10m"), None,
            "the timeout for opening an attempt's connection",
            derived="the shorter of 5s and the attempt timeout"),
    Setting("UPLIFT_LEASE", "lease_ms", "1s to 1d", parsers.duration("1s", "1d"), None,
            "the time after which other processes retry deliveries that a crashed process had leased; at least 5s"
            " longer than the attempt timeouts", derived="longest attempt timeout + 15s"),
    Setting("UPLIFT_MAX_IN_FLIGHT", "max_in_flight", "1 to 100000", parsers.integer(1, 100_000), "1000",
            "the concurrency limit for a process; if several accounts have deliveries, each account uses at most"
            " half of the limit"),
    Setting("UPLIFT_MAX_IN_FLIGHT_PER_ENDPOINT", "max_in_flight_per_endpoint", f"1 to {ENDPOINT_IN_FLIGHT_MAX}",
            parsers.integer(1, ENDPOINT_IN_FLIGHT_MAX), "16",
            "the concurrency limit for an endpoint that does not set `max_in_flight`"),
    Setting("UPLIFT_BREAKER_FAILURES", "breaker_failures", "0 to 10000", parsers.integer(0, 10_000), "10",
            "the number of consecutive failed attempts after which an endpoint's circuit breaker opens; 0: never"),
    Setting("UPLIFT_BREAKER_PROBE_MAX", "breaker_probe_max_ms", "10ms to 1d", parsers.duration("10ms", "1d"), "5m",
            "the longest time between two probes, and the longest time that a Retry-After pauses an endpoint"),
    Setting("UPLIFT_WARN_AFTER", "warn_after_ms", "1s to 365d", parsers.duration("1s", "365d"), "3d",
            "how long an endpoint must be failing before the server warns the account's contacts by email"),
    Setting("UPLIFT_DISABLE_AFTER", "disable_after_ms", "2s to 730d", parsers.duration("2s", "730d"), "5d",
            "how long an endpoint must be failing before the server disables it; must be longer than "
            "UPLIFT_WARN_AFTER"),
    Setting("UPLIFT_GONE_DISABLES_ENDPOINT", "gone_disables_endpoint", "true or false", parsers.boolean, "false",
            "whether a 410 (Gone) response disables the endpoint immediately"),
    Setting("UPLIFT_RELEASE_RATE_PER_SECOND", "release_rate_per_second", "1 to 1000", parsers.integer(1, 1000), "50",
            "the number of held deliveries that the server releases per second after you enable an endpoint"),
    Setting("UPLIFT_SMTP_URL", "smtp_url", "smtp:// or smtps:// URL", parsers.mail_server, None,
            "the URL of the mail server; without a value, Uplift Webhooks sends no email", secret=True),
    Setting("UPLIFT_MAIL_FROM", "mail_from", "address, or name and address", parsers.mailbox, None,
            "the sender of emails"),
    Setting("UPLIFT_OPERATOR_EMAIL", "operator_email", "address", parsers.email, None,
            "the recipient of emails about mass failures"),
    Setting("UPLIFT_OPERATIONS_ACCOUNT", "operations_account", "ID or uid", parsers.account, None,
            "the account whose subscribed endpoints receive the operational events of all accounts; the account"
            " must exist"),
    Setting("UPLIFT_SOURCE_IPS", "source_ips", "addresses", parsers.published_addresses, "54.245.28.22",
            "the egress IPs that `GET /v1/source-ips` publishes; for an upcoming IP, append the timestamp of its first"
            " use: `192.0.2.11@2026-12-01T00:00:00Z`"),
    Setting("UPLIFT_EGRESS_ADDRESS", "egress_address", "one or two addresses", parsers.source_addresses, None,
            "the local address for outbound connections; to use both IP versions, set one IPv4 and one IPv6 address,"
            " separated by a comma"),
    Setting("UPLIFT_EGRESS_PROXY", "egress_proxy", "URL", parsers.url("http", userinfo=True), None,
            "the egress proxy: an HTTP proxy that supports CONNECT, for outbound connections", secret=True),
    Setting("UPLIFT_EGRESS_CA_FILE", "egress_ca_file", "path", parsers.file, None,
            "a PEM file that contains the certificate authorities to trust for outbound connections",
            derived="the system's authorities"),
    Setting("UPLIFT_RETENTION", "retention_ms", "1m to 3650d, or 0", parsers.retention, "30d",
            "the retention period for events, deliveries and attempts; 0: forever"),
    Setting("UPLIFT_DASHBOARD_FRAME_ANCESTORS", "dashboard_frame_ancestors", "origins", parsers.frame_ancestors, None,
            "the sites that can embed the dashboard in a frame, separated by spaces, such as"
            " `https://app.example.com`; without a value, no site can embed it"),
    Setting("UPLIFT_BRAND_NAME", "brand_name", "text", branding.brand_name, None,
            "the name that the dashboard shows on its pages", derived="`Uplift Webhooks`"),
    Setting("UPLIFT_BRAND_LOGO_FILE", "brand_logo_file", "path", branding.brand_logo, None,
            "a logo that the dashboard shows instead of the name: a PNG or SVG file of at most 64 KiB"),
    Setting("UPLIFT_BRAND_COLORS", "brand_colors", "colors", branding.brand_colors, None,
            "the dashboard's accent colors in the light and dark themes, such as"
            " `accent=#0b5cad accent-dark=#6cb2ff`"),
    Setting("UPLIFT_OIDC_ISSUER", "oidc_issuer", "URL", parsers.issuer, None,
            "the identity provider's issuer for single sign-on with OpenID Connect, exactly as in the"
            " provider's metadata; without a value, single sign-on is off"),
    Setting("UPLIFT_OIDC_CLIENT_ID", "oidc_client_id", "text", parsers.text, None,
            "this server's client ID at the identity provider"),
    Setting("UPLIFT_OIDC_CLIENT_SECRET", "oidc_client_secret", "text", parsers.text, None,
            "this server's client secret at the identity provider", secret=True),
    Setting("UPLIFT_OIDC_OPERATOR_GROUP", "oidc_operator_group", "text", parsers.text, None,
            "the identity provider's group whose members are operators"),
    Setting("UPLIFT_OIDC_READ_ONLY_GROUP", "oidc_read_only_group", "text", parsers.text, None,
            "the identity provider's group whose members are read-only operators, unless they are in the"
            " operator group; if neither group is set, only account members can use single sign-on"),
    Setting("UPLIFT_TRUSTED_PROXIES", "trusted_proxies", "addresses and networks", parsers.networks, None,
            "the reverse proxies that the server trusts to send client addresses in `X-Forwarded-For`"),
    Setting("UPLIFT_METRICS_TOKEN", "metrics_token", "16 to 256 characters", parsers.token, None,
            "a token that can only read `/metrics`, which operator keys can also read", secret=True),
    Setting("UPLIFT_OTLP_ENDPOINT", "otlp_endpoint", "URL",
            parsers.url("http", "https", userinfo=True, path=True), None,
            "the base URL of an OTLP/HTTP collector for traces; without a value, tracing is off", secret=True,
            derived="`OTEL_EXPORTER_OTLP_ENDPOINT`"),
    Setting("UPLIFT_LOG_FORMAT", "log_format", "console, json or none", parsers.log_format, None,
            "the format of the log on standard error; `none` logs only warnings and errors",
            derived="`console` on a terminal, otherwise `json`"),
)  # fmt: skip

BY_NAME: Final = {setting.name: setting for setting in SETTINGS}
BY_KEY: Final = {setting.key: setting for setting in SETTINGS}


@dataclass(frozen=True)
class Config:
    """The validated settings. Durations are in milliseconds. `repr` omits secrets."""

    database_url: str = field(repr=False)
    database_direct_url: str | None = field(repr=False)
    nats_url: str | None = field(repr=False)
    """One or more NATS URLs, separated by commas."""
    nats_replicas: int
    nats_credentials_file: str | None
    host: str
    port: int
    public_url: str
    operator_key: str | None = field(repr=False)
    secret_key: str | None = field(repr=False)
    allow_private_networks: bool
    retry_schedule_ms: tuple[int, ...]
    attempt_timeout_ms: int
    endpoint_timeout_max_ms: int
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
    operations_account: str | None
    """The ID or uid of the account whose endpoints receive operational events about every account."""
    source_ips: tuple[str, ...]
    egress_address: tuple[str, ...] | None
    """The source IP addresses of the server's outbound connections: one address, or one address per IP version."""
    egress_proxy: str | None = field(repr=False)
    egress_ca_file: str | None
    retention_ms: int
    """The event retention period in milliseconds. 0 means forever."""
    dashboard_frame_ancestors: str | None
    """The origins that may embed the dashboard, in the syntax of Content-Security-Policy."""
    brand_name: str | None
    brand_logo_file: str | None
    brand_colors: str | None
    oidc_issuer: str | None
    oidc_client_id: str | None
    oidc_client_secret: str | None = field(repr=False)
    oidc_operator_group: str | None
    oidc_read_only_group: str | None
    trusted_proxies: tuple[str, ...] | None
    metrics_token: str | None = field(repr=False)
    otlp_endpoint: str | None = field(repr=False)
    log_format: Literal["console", "json", "none"]
    given: Mapping[str, tuple[str, str]] = field(default_factory=dict, repr=False, compare=False)
    """The source and the unparsed text of each setting that was set explicitly.

    The keys are the names of settings and OpenTelemetry variables.
    """

    @property
    def traces_by(self) -> str | None:
        """The name of the variable that enables traces, or None if traces are disabled."""
        names = [] if self.otlp_endpoint is None else ["UPLIFT_OTLP_ENDPOINT"]
        return next(iter([*names, *(name for name in OTLP_VARIABLES if name in self.given)]), None)

    @property
    def on_postgresql(self) -> bool:
        """Whether the database is PostgreSQL. Otherwise, it is SQLite."""
        return self.database_url.startswith(parsers.POSTGRESQL)

    @property
    def shown_database(self) -> str:
        """The URL or path of the database for display, without a password."""
        return parsers.without_password(self.database_url) if self.on_postgresql else str(self.database_path.absolute())

    @property
    def database_path(self) -> Path:
        """The path of the SQLite file."""
        assert not self.on_postgresql, "PostgreSQL has no file"
        return Path(self.database_url.removeprefix(parsers.SQLITE))

    @property
    def branding(self) -> Branding:
        """The name, the logo and the accent colors of the dashboard."""
        colors = {} if self.brand_colors is None else parse_colors(self.brand_colors)
        return Branding(self.brand_name or NAME, self.brand_logo_file, colors)

    @property
    def sends_mail(self) -> bool:
        """Whether an SMTP server is configured."""
        return self.smtp_url is not None

    @property
    def secret_key_path(self) -> Path:
        """The file that contains the encryption key. The server does not use this file if the operator sets the key."""
        return self.database_path.with_name("secret.key")

    @property
    def next_secret_key_path(self) -> Path:
        """The file that contains the new encryption key during a rotation."""
        return self.database_path.with_name("secret.key.new")
